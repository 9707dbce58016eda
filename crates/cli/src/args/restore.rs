//! `holdfast restore`: the directory, the target, the timeline.

use crate::config::reader::absolute;
use chrono::{DateTime, Utc};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetAction, TargetTimeline, moment};
use holdfast_pgtypes::{Lsn, ParseError};
use std::path::PathBuf;

/// `holdfast restore`
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").multiple(false))]
#[command(group = clap::ArgGroup::new("exclusive-target").multiple(true))]
#[command(group = clap::ArgGroup::new("existing").args(["delta", "snapshot", "snapshot_record"]).multiple(true))]
pub struct RestoreArgs {
    /// The directory to restore into, absolute; it must be empty, unless --delta or --snapshot is given
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub pgdata: PathBuf,
    /// Recover up to this moment, such as "2026-11-22 10:15:00+00"; the zone must be given
    #[arg(long, value_name = "TIME", value_parser = moment::parse_with_zone, groups = ["target", "exclusive-target"])]
    pub target_time: Option<DateTime<Utc>>,
    /// Recover up to this place in the WAL, such as 16/B374D848
    #[arg(long, value_name = "LSN", groups = ["target", "exclusive-target"])]
    pub target_lsn: Option<Lsn>,
    /// Recover up to this transaction
    #[arg(long, value_name = "XID", value_parser = parse_xid, groups = ["target", "exclusive-target"])]
    pub target_xid: Option<u64>,
    /// Recover up to this restore point, made with pg_create_restore_point()
    #[arg(long, value_name = "NAME", value_parser = parse_restore_point, group = "target")]
    pub target_name: Option<String>,
    /// Recover only until the backup is consistent
    #[arg(long, group = "target")]
    pub target_immediate: bool,
    /// latest: the newest timeline; current: the backup's; or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest", value_parser = parse_timeline)]
    pub target_timeline: TargetTimeline,
    /// Stop just before the target instead of just after it; for times, LSNs and transactions
    #[arg(long, requires = "exclusive-target")]
    pub target_exclusive: bool,
    /// What the server does at the target [default: pause, as in PostgreSQL]
    #[arg(long, value_name = "ACTION", value_parser = actions(), requires = "target")]
    pub target_action: Option<TargetAction>,
    /// The backup to begin with [default: the newest one before the target]
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Recover a directory that was filled from these volume snapshots, instead of restoring a backup into it
    #[arg(long, value_name = "ID", conflicts_with_all = ["backup", "delta", "snapshot_record"])]
    pub snapshot: Option<String>,
    /// The same, with the snapshots' record in a file, as `snapshot list --output json` shows it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backup", "delta"])]
    pub snapshot_record: Option<PathBuf>,
    /// Restore over an existing data directory: keep what is equal, fetch what differs, remove what is not in the backup
    #[arg(long)]
    pub delta: bool,
    /// Only print what would be done: backup, timelines, WAL, bytes
    #[arg(long)]
    pub plan: bool,
    /// Put a tablespace into another directory; may be given several times
    #[arg(long = "tablespace", value_name = "NAME=DIR", value_parser = parse_tablespace)]
    pub tablespaces: Vec<(String, PathBuf)>,
    /// Use the directory of this tablespace as it is, although its data directory was lost; may be given several times
    #[arg(long = "reuse-tablespace", value_name = "NAME", conflicts_with_all = ["snapshot", "snapshot_record"])]
    pub reuse_tablespaces: Vec<String>,
    /// With --delta or a snapshot: remove WAL of the existing data directory even if it was never archived
    #[arg(long, requires = "existing")]
    pub discard_wal: bool,
    /// Switch archiving off in the restored server (archive_mode = off), for a copy that is only read
    #[arg(long)]
    pub no_archiving: bool,
    /// Restore a standby: it follows the archive instead of ending recovery
    #[arg(long, conflicts_with = "target")]
    pub standby: bool,
    /// Restore from the repository with this number; the first one in the configuration is 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub repo: usize,
    /// Threads that decompress [default: restore.jobs, or the number of cores]
    #[arg(long, short, value_name = "N")]
    pub jobs: Option<u32>,
}

impl RestoreArgs {
    /// The target; clap ensures that there is at most one.
    pub fn target(&self) -> RecoveryTarget {
        match (self.target_time, self.target_lsn, self.target_xid, &self.target_name, self.target_immediate) {
            (Some(time), ..) => RecoveryTarget::Time(time),
            (None, Some(lsn), ..) => RecoveryTarget::Lsn(lsn),
            (None, None, Some(xid), ..) => RecoveryTarget::Xid(xid),
            (None, None, None, Some(name), _) => RecoveryTarget::Name(name.clone()),
            (None, None, None, None, true) => RecoveryTarget::Immediate,
            (None, None, None, None, false) => RecoveryTarget::Latest,
        }
    }
}

/// The values of `--target-action` with their help.
fn actions() -> impl TypedValueParser<Value = TargetAction> {
    let values = TargetAction::ALL.map(|action| {
        PossibleValue::new(action.as_str()).help(match action {
            TargetAction::Pause => "Stay in recovery, open for reading, until pg_wal_replay_resume() is called",
            TargetAction::Promote => "End recovery and open for writing",
            TargetAction::Shutdown => "Stop the server",
        })
    });
    PossibleValuesParser::new(values).try_map(|text| text.parse())
}

/// The message does not repeat the input: clap does.
pub(super) fn parse_timeline(text: &str) -> Result<TargetTimeline, String> {
    text.parse().map_err(|error: ParseError| format!("expected {}", error.what()))
}

/// A transaction that can have committed: 3 is the first ordinary one (`FirstNormalTransactionId`). With epoch, as
/// `pg_current_xact_id()` prints it, it may need more than 32 bits.
pub(super) fn parse_xid(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|xid| *xid >= 3)
        .ok_or_else(|| "expected the number of a transaction, 3 or more".to_owned())
}

/// As `pg_create_restore_point` accepts it: at most `MAXFNAMELEN - 1` bytes.
pub(super) fn parse_restore_point(text: &str) -> Result<String, String> {
    match text {
        "" => Err("the name is empty".to_owned()),
        text if text.len() > 63 => Err("a restore point has a name of at most 63 bytes".to_owned()),
        text if text.chars().any(char::is_control) => Err("the name holds control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// NAME is the tablespace's name or its OID.
fn parse_tablespace(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, directory)) if !name.is_empty() => absolute(directory)
            .map(|directory| (name.to_owned(), directory))
            .map_err(|reason| format!("the directory {reason}")),
        _ => Err("expected NAME=DIR".to_owned()),
    }
}
