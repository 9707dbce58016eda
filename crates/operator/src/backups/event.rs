//! Events about backups: a closed set of reasons, so that they can be counted and alarmed on.

use std::fmt;

/// Why an Event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An attempt begins on an instance.
    BackupStarted,
    /// Data is stored; its WAL is waited for.
    BackupFinalizing,
    /// A restore needs nothing more.
    BackupCompleted,
    /// It ended without a backup.
    BackupFailed,
    /// An attempt ended; another follows.
    BackupRetried,
    /// Its `Backup` was deleted while it ran.
    BackupGivenUp,
    /// A run that no `Backup` asks for any more was ended.
    OrphanEnded,
    /// Something to know about a backup that goes on.
    BackupWarning,
    /// Volume snapshots are being taken.
    SnapshotCreated,
    /// The storage driver could not take a snapshot.
    SnapshotFailed,
    /// A time of the schedule was answered with a `Backup`.
    BackupScheduled,
    /// A time of the schedule was left out.
    ScheduleMissed,
    /// The schedule, or its time zone, cannot be read.
    ScheduleInvalid,
    /// A `Backup` beyond the history limit was deleted; its data stays.
    HistoryPruned,
}

impl Reason {
    /// Whether a person should look.
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
    /// Why.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

impl BackupEvent {
    /// An Event to be written.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}
