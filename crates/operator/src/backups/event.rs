//! Events about backups: a closed set of reasons, so that they can be counted and used in alerts.

use std::fmt;

/// Why an Event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An attempt begins on an instance.
    BackupStarted,
    /// All data is stored; the WAL that it needs is not archived yet.
    BackupFinalizing,
    /// The backup can be restored.
    BackupCompleted,
    /// The `Backup` ended without a backup.
    BackupFailed,
    /// An attempt ended; another one follows.
    BackupRetried,
    /// A `Backup` was deleted during its run.
    BackupGivenUp,
    /// A run whose `Backup` no longer exists was ended.
    OrphanEnded,
    /// A warning about a backup that continues.
    BackupWarning,
    /// Volume snapshots are being taken.
    SnapshotCreated,
    /// The storage driver could not take a snapshot.
    SnapshotFailed,
    /// A `Backup` was created for a time of the schedule.
    BackupScheduled,
    /// No `Backup` was created for a time of the schedule.
    ScheduleMissed,
    /// The schedule or its time zone cannot be parsed.
    ScheduleInvalid,
    /// A `Backup` beyond the history limit was deleted; its data is kept.
    HistoryPruned,
}

impl Reason {
    /// Whether a person should read it: type `Warning`.
    pub fn is_warning(self) -> bool {
        match self {
            Self::BackupFailed
            | Self::BackupRetried
            | Self::OrphanEnded
            | Self::BackupWarning
            | Self::SnapshotFailed
            | Self::ScheduleMissed
            | Self::ScheduleInvalid => true,
            Self::BackupStarted
            | Self::BackupFinalizing
            | Self::BackupCompleted
            | Self::BackupGivenUp
            | Self::SnapshotCreated
            | Self::BackupScheduled
            | Self::HistoryPruned => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An Event to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupEvent {
    /// The reason, from the closed set.
    pub reason: Reason,
    /// The text for people.
    pub text: String,
}

impl BackupEvent {
    /// An Event with this reason and text.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}
