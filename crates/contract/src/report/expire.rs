//! `holdfast expire`, `backup hold` and `backup release`.

use super::PerRepository;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

/// What goes and what stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpireReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// Whether nothing was done (`--plan`).
    pub plan: bool,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryExpire>>,
}

/// The same in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryExpire {
    /// The redacted URL.
    pub repository: String,
    /// The moment it was planned for: the earlier one of this host's clock and the store's.
    pub now: DateTime<Utc>,
    /// Every backup, oldest first.
    pub backups: Vec<BackupFate>,
    /// Every range of WAL.
    pub wal: Vec<WalFate>,
    /// The packs.
    pub packs: PackFate,
    /// What can be restored now, before anything was removed.
    pub before: Vec<RestorableWindow>,
    /// What can be restored when everything has gone that goes.
    pub after: Vec<RestorableWindow>,
    /// What should be known beside that.
    pub warnings: Vec<String>,
    /// What was decided by this run.
    pub decided: Amount,
    /// What was removed by this run.
    pub removed: Amount,
    /// When the next removal is due, if something is decided that waits.
    pub next_removal: Option<DateTime<Utc>>,
    /// Unfinished uploads that are older than the grace time, and go.
    #[serde(default)]
    pub uploads_going: u64,
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFate {
    /// Its id.
    pub backup_id: BackupId,
    /// Whether it stays.
    pub kept: bool,
    /// Why.
    pub why: Vec<String>,
    /// Where it goes and that is decided: it is not removed before this moment.
    pub not_before: Option<DateTime<Utc>>,
}

/// What becomes of a range of WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFate {
    /// The claim.
    pub claim: ClaimNumber,
    /// The timeline.
    pub timeline: TimelineId,
    /// The first segment.
    pub first: SegmentName,
    /// The last segment.
    pub last: SegmentName,
    /// How many they are.
    pub segments: u64,
    /// Whether they stay.
    pub kept: bool,
    /// Why.
    pub why: String,
}

/// What becomes of the packs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackFate {
    /// How many stay.
    pub kept: u64,
    /// Their size.
    pub kept_bytes: u64,
    /// How many go.
    pub going: u64,
    /// Their size.
    pub going_bytes: u64,
    /// Why packs stay that no backup needs.
    pub why: Vec<String>,
}

/// A window in which any moment can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorableWindow {
    /// The claim.
    pub claim: ClaimNumber,
    /// The timeline that a restore has to name.
    pub timeline: TimelineId,
    /// The first backup.
    pub backup: BackupId,
    /// How many backups are in it.
    pub backups: u64,
    /// The first moment: when that backup ended.
    pub from: DateTime<Utc>,
    /// The stop LSN of that backup.
    pub start_lsn: Lsn,
    /// The end of the WAL without a gap.
    pub end_lsn: Lsn,
}

/// So many objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The backups.
    pub backups: Vec<BackupId>,
    /// Packs.
    pub packs: u64,
    /// WAL files; of what is decided, segments.
    pub wal_files: u64,
    /// The size of packs and, of what was removed, WAL files.
    pub size_bytes: u64,
    /// Unfinished uploads that were aborted.
    #[serde(default)]
    pub uploads: u64,
}

/// `backup hold` and `backup release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup_id: BackupId,
    /// Whether it is held now.
    pub held: bool,
    /// Until when; none until it is released.
    pub until: Option<DateTime<Utc>>,
    /// Why, in the user's words.
    pub reason: Option<String>,
    /// The repositories in which it is.
    pub repositories: Vec<String>,
}
