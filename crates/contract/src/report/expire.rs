//! `holdfast expire`, `backup hold` and `backup release`.

use super::PerRepository;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use holdfast_repo::record::LockMode;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpireReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// Whether nothing was done (`--plan`).
    pub plan: bool,
    /// The repositories, in the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryExpire>>,
}

/// The verdicts and changes in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryExpire {
    /// The redacted URL.
    pub repository: String,
    /// The time of the plan: the earlier of this host's clock and the store's.
    pub now: DateTime<Utc>,
    /// Every backup, oldest first.
    pub backups: Vec<BackupFate>,
    /// Every range of WAL, by timeline.
    pub wal: Vec<WalFate>,
    /// How many packs stay, and how many go.
    pub packs: PackFate,
    /// What can be restored now, before anything was removed.
    pub before: Vec<RestorableWindow>,
    /// What can be restored after the whole removal.
    pub after: Vec<RestorableWindow>,
    /// Warnings, as text for people.
    pub warnings: Vec<String>,
    /// What this run decided to remove.
    pub decided: Amount,
    /// What this run removed.
    pub removed: Amount,
    /// When the next removal is due, if decisions are waiting.
    pub next_removal: Option<DateTime<Utc>>,
    /// Unfinished uploads older than the grace time, which will be aborted.
    #[serde(default)]
    pub uploads_going: u64,
    /// The first moment of the window, if there is one.
    #[serde(default)]
    pub window_start: Option<DateTime<Utc>>,
    /// What the store's locks keep; `None` if the repository has no locks.
    #[serde(default)]
    pub locks: Option<LockFate>,
}

/// The verdict about a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFate {
    pub backup_id: BackupId,
    /// Whether it is kept.
    pub kept: bool,
    /// The reasons, as text for people.
    pub why: Vec<String>,
    /// If its removal is decided, the time before which it is not removed.
    pub not_before: Option<DateTime<Utc>>,
    /// If nothing keeps it and the store has locked it, the time until which it cannot be removed.
    #[serde(default)]
    pub locked_until: Option<DateTime<Utc>>,
}

/// The verdict about a range of WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFate {
    pub claim: ClaimNumber,
    /// The timeline of the range.
    pub timeline: TimelineId,
    pub first: SegmentName,
    pub last: SegmentName,
    /// The number of segments.
    pub segments: u64,
    /// Whether they are kept.
    pub kept: bool,
    /// The reason, as text for people.
    pub why: String,
}

/// The verdict about the packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackFate {
    /// The number of packs that are kept.
    pub kept: u64,
    /// Their size in bytes.
    pub kept_bytes: u64,
    /// The number of packs to remove.
    pub going: u64,
    /// Their size in bytes.
    pub going_bytes: u64,
    /// Why packs are kept that no backup needs.
    pub why: Vec<String>,
}

/// What the locks of the objects keep (Object Lock).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFate {
    /// How strict the locks are.
    pub mode: LockMode,
    /// The term of a lock in days.
    pub days: u32,
    /// What nothing needs any more and is still locked. A run after the end of its lock removes it.
    pub waiting: Amount,
    /// When the first lock of these ends.
    pub free_from: Option<DateTime<Utc>>,
    /// Locks of kept objects with less than half of their term left.
    pub due: u64,
    /// The number of these that this run extended.
    pub extended: u64,
}

/// A window in which any moment can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorableWindow {
    pub claim: ClaimNumber,
    /// The timeline that a restore has to name.
    pub timeline: TimelineId,
    /// The backup at its beginning.
    pub backup: BackupId,
    /// The number of backups in it.
    pub backups: u64,
    /// Its first moment: the stop time of that backup.
    pub from: DateTime<Utc>,
    /// The stop LSN of that backup.
    pub start_lsn: Lsn,
    /// The end of the WAL without a gap.
    pub end_lsn: Lsn,
}

/// The amount of what was decided or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The ids of the backups.
    pub backups: Vec<BackupId>,
    /// The number of packs.
    pub packs: u64,
    /// The number of WAL files; for decisions, of segments.
    pub wal_files: u64,
    /// The size in bytes: of packs and, for removals, of WAL files.
    pub size_bytes: u64,
    /// The number of unfinished uploads that were aborted.
    #[serde(default)]
    pub uploads: u64,
}

/// The report of `backup hold` and `backup release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    pub backup_id: BackupId,
    /// Whether it is held now.
    pub held: bool,
    /// The end of the hold; `None` until it is released.
    pub until: Option<DateTime<Utc>>,
    /// Whether all WAL after it is held as well.
    #[serde(default)]
    pub with_wal: bool,
    /// The user's reason.
    pub reason: Option<String>,
    /// The redacted URLs of the repositories that have it.
    pub repositories: Vec<String>,
    /// What else the user should know.
    #[serde(default)]
    pub notes: Vec<String>,
}
