//! The target of a recovery: the flags that `restore` and `drill` have in common.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline, moment};
use holdfast_pgtypes::{Lsn, ParseError};

/// The target and the timeline. A command adds flags that exclude a target to the group `target`.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").multiple(false))]
#[command(group = clap::ArgGroup::new("exclusive-target").multiple(true))]
pub struct TargetArgs {
    /// Recover up to this moment, such as "2026-11-22 10:15:00+00"; the zone must be given
    #[arg(long = "target-time", value_name = "TIME", value_parser = moment::parse_with_zone,
          groups = ["target", "exclusive-target"])]
    pub time: Option<DateTime<Utc>>,
    /// Recover up to this place in the WAL, such as 16/B374D848
    #[arg(long = "target-lsn", value_name = "LSN", groups = ["target", "exclusive-target"])]
    pub lsn: Option<Lsn>,
    /// Recover up to this transaction
    #[arg(long = "target-xid", value_name = "XID", value_parser = parse_xid, groups = ["target", "exclusive-target"])]
    pub xid: Option<u64>,
    /// Recover up to this restore point, made with pg_create_restore_point()
    #[arg(long = "target-name", value_name = "NAME", value_parser = parse_restore_point, group = "target")]
    pub name: Option<String>,
    /// Recover only until the backup is consistent
    #[arg(long = "target-immediate", group = "target")]
    pub immediate: bool,
    /// latest: the newest timeline; current: the backup's; or a number
    #[arg(long = "target-timeline", value_name = "TIMELINE", default_value = "latest", value_parser = parse_timeline)]
    pub timeline: TargetTimeline,
    /// Stop just before the target instead of just after it; for times, LSNs and transactions
    #[arg(long = "target-exclusive", requires = "exclusive-target")]
    pub exclusive: bool,
}

impl TargetArgs {
    /// The target; clap ensures that there is at most one.
    pub fn target(&self) -> RecoveryTarget {
        match (self.time, self.lsn, self.xid, &self.name, self.immediate) {
            (Some(time), ..) => RecoveryTarget::Time(time),
            (None, Some(lsn), ..) => RecoveryTarget::Lsn(lsn),
            (None, None, Some(xid), ..) => RecoveryTarget::Xid(xid),
            (None, None, None, Some(name), _) => RecoveryTarget::Name(name.clone()),
            (None, None, None, None, true) => RecoveryTarget::Immediate,
            (None, None, None, None, false) => RecoveryTarget::Latest,
        }
    }
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
