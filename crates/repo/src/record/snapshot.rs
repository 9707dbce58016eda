//! `snapshots/<id>.json`: volume snapshots with a copy of the data directory, whose WAL is in the archive.

use super::{RecordBody, RecordKind};
use crate::name::{BackupId, ClaimNumber, ClusterName};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a recovery from volume snapshots needs to know. The data is in the snapshots, not in the repository.
///
/// Written once all WAL from start to stop LSN is in the repository: if it exists, a directory filled from the
/// snapshots can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Identity of the record, as in its name.
    pub snapshot_id: BackupId,
    /// The name of the snapshots in the place where they were taken.
    pub label: String,
    /// Cluster, as in its name.
    pub cluster: ClusterName,
    /// Claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// PostgreSQL's system identifier.
    pub system_identifier: SystemIdentifier,
    /// PostgreSQL's major version, such as 18.
    pub pg_major: u16,
    /// WAL segment size in bytes.
    #[serde(rename = "wal_segment_size_bytes")]
    pub wal_segment_size: WalSegmentSize,
    /// Timeline of the start LSN.
    pub timeline: TimelineId,
    /// Whether the server ran while the snapshots were taken.
    pub online: bool,
    /// Where recovery begins: the redo LSN of the backup's checkpoint, or of the last checkpoint of a stopped server.
    pub start_lsn: Lsn,
    /// The LSN from which the data is consistent.
    pub stop_lsn: Lsn,
    /// The first WAL segment that the recovery needs.
    pub start_segment: SegmentName,
    /// The last WAL segment that the recovery needs.
    pub stop_segment: SegmentName,
    /// When the server was prepared for the snapshots.
    pub start_time: DateTime<Utc>,
    /// When the server was released: all commits in the snapshots are before this time.
    pub stop_time: DateTime<Utc>,
    /// `backup_label` from the stop call; `None` for a stopped server.
    pub backup_label: Option<String>,
    /// `tablespace_map` from the stop call, if there are tablespaces.
    pub tablespace_map: Option<String>,
    /// The snapshots, under the names that their creator uses.
    pub snapshots: Vec<SnapshotVolume>,
    /// The owner of the archive, as in the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When the record was written.
    pub created: DateTime<Utc>,
    /// Host that wrote the record.
    pub host: String,
    /// The release of Holdfast that wrote it.
    pub software_version: String,
    /// Free text from the user.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The snapshot of one volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotVolume {
    /// The snapshot's name.
    pub name: String,
    /// The content of the volume, such as `PG_DATA` or `PG_WAL`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl RecordBody for SnapshotRecord {
    const KIND: RecordKind = RecordKind::Snapshot;
}
