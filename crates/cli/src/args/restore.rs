//! `holdfast restore`: the directory, the target, the timeline.

use super::target::TargetArgs;
use crate::config::reader::absolute;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use holdfast_pgtypes::recovery_target::TargetAction;
use std::path::PathBuf;

/// `holdfast restore`
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("existing").args(["delta", "snapshot", "snapshot_record"]).multiple(true))]
pub struct RestoreArgs {
    /// The directory to restore into, absolute; it must be empty, unless --delta or --snapshot is given
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub pgdata: PathBuf,
    /// Where recovery stops, and which timeline it follows.
    #[command(flatten)]
    pub to: TargetArgs,
    /// What the server does at the target [default: pause, as in PostgreSQL]
    #[arg(long, value_name = "ACTION", value_parser = actions(), requires = "target")]
    pub target_action: Option<TargetAction>,
    /// The backup to begin with [default: the newest one before the target]
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Recover a directory that was filled from these volume snapshots, instead of restoring a backup into it
    #[arg(long, value_name = "ID", conflicts_with_all = ["backup", "delta", "snapshot_record"])]
    pub snapshot: Option<String>,
    /// Like --snapshot, with the record of the snapshots in a file (as `snapshot list --output json` prints it)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backup", "delta"])]
    pub snapshot_record: Option<PathBuf>,
    /// Restore over an existing data directory: keep what is equal, fetch what differs, remove what is not in the
    /// backup
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

/// NAME is the tablespace's name or its OID.
fn parse_tablespace(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, directory)) if !name.is_empty() => absolute(directory)
            .map(|directory| (name.to_owned(), directory))
            .map_err(|reason| format!("the directory {reason}")),
        _ => Err("expected NAME=DIR".to_owned()),
    }
}
