//! What the user wants: the recovery settings of PostgreSQL as one value.

use crate::name::BackupId;
use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::{Lsn, TimelineId};
use serde::Serialize;
use std::fmt;

/// Where recovery shall stop, as the `recovery_target*` settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryTarget {
    /// At the end of the archived WAL.
    Latest,
    /// As soon as the backup is consistent.
    Immediate,
    /// Before the first commit or abort after this time.
    Time(DateTime<Utc>),
    /// At the first record that starts at this LSN or later.
    Lsn(Lsn),
    /// At the end of this transaction. As written; PostgreSQL compares the lower 32 bits.
    Xid(u64),
    /// At the restore point of this name.
    Name(String),
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => formatter.write_str("the end of the archived WAL"),
            Self::Immediate => formatter.write_str("the end of the backup"),
            Self::Time(time) => write!(formatter, "time {}", time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Lsn(lsn) => write!(formatter, "LSN {lsn}"),
            Self::Xid(xid) => write!(formatter, "transaction {xid}"),
            Self::Name(name) => write!(formatter, "restore point {name:?}"),
        }
    }
}

/// Which timeline to follow, as `recovery_target_timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetTimeline {
    /// The highest one that descends from the backup.
    Latest,
    /// The backup's own; without a named backup, that of the newest backup.
    Current,
    /// This one.
    Number(TimelineId),
}

/// The whole wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryWish {
    /// Where to stop.
    pub target: RecoveryTarget,
    /// Whether the transaction, record or moment of the target is still replayed, as `recovery_target_inclusive`. Means
    /// something for time, LSN and transaction.
    pub inclusive: bool,
    /// Along which timeline.
    pub timeline: TargetTimeline,
    /// From this backup and no other.
    pub backup: Option<BackupId>,
}

impl Default for RecoveryWish {
    /// PostgreSQL's defaults: everything there is, on the latest timeline.
    fn default() -> Self {
        Self { target: RecoveryTarget::Latest, inclusive: true, timeline: TargetTimeline::Latest, backup: None }
    }
}
