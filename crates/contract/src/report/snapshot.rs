//! `holdfast snapshot record` and `snapshot list`.

use super::{PerRepository, UnreadableRecord};
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::record::SnapshotRecord;
use serde::{Deserialize, Serialize};

/// The report of `snapshot record`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordReport {
    /// The record's id, the same in every repository.
    pub snapshot_id: BackupId,
    /// Whether it is new; a request that was recorded before returns the earlier record.
    pub recorded_now: bool,
    /// One record for each repository.
    pub repositories: Vec<RecordedSnapshot>,
}

/// A snapshot's record in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSnapshot {
    /// The redacted URL.
    pub repository: String,
    pub snapshot: SnapshotRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotListReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositorySnapshots>>,
}

/// The recorded snapshots in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySnapshots {
    /// The redacted URL.
    pub repository: String,
    /// Oldest first.
    pub snapshots: Vec<SnapshotRecord>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

impl SnapshotListReport {
    /// The records of all repositories that could be read.
    pub fn records(&self) -> impl Iterator<Item = &SnapshotRecord> {
        self.repositories.iter().filter_map(PerRepository::read).flat_map(|repository| &repository.snapshots)
    }
}
