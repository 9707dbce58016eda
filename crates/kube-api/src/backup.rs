//! The `Backup` resource: one backup, taken once.

use crate::cluster::{BackupTarget, BarmanObjectStore};
use chrono::{DateTime, Utc};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One backup of a cluster, taken once. `status.phase` is `completed` only when a restore needs nothing more.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "Backup",
    plural = "backups",
    shortname = "hfb",
    category = "holdfast",
    namespaced,
    status = "BackupStatus",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster.name"),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.method"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".status.instance", priority = 1),
    printcolumn(name = "Backup ID", type_ = "string", json_path = ".status.backupId", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Error or reason",
        type_ = "string",
        json_path = ".status.reason",
        description = "Why it failed, what it waits for, or a remark"
    ),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct BackupSpec {
    /// The cluster, in the same namespace.
    pub cluster: ClusterReference,
    /// How the backup is stored: in the object store (the default) or as volume snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<BackupMethod>,
    /// Which instance is backed up; the cluster's setting by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,
    /// For snapshots: whether the server keeps running; the cluster's setting by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
}

impl Backup {
    /// Whether the backup consists of volume snapshots.
    pub fn is_of_snapshots(&self) -> bool {
        let stored = self.status.as_ref().and_then(|status| status.method);
        stored.or(self.spec.method) == Some(BackupMethod::VolumeSnapshot)
    }

    /// The name of the `VolumeSnapshot` of one kind of volume, `PG_DATA` or `PG_WAL`.
    pub fn snapshot_of(&self, kind: &str) -> Option<&str> {
        let elements = &self.status.as_ref()?.snapshot_backup_status.as_ref()?.elements;
        elements.iter().find(|element| element.kind == kind).map(|element| element.name.as_str())
    }
}

/// A cluster in the same namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterReference {
    /// Its `metadata.name`.
    pub name: String,
}

/// How a backup is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackupMethod {
    /// In the object store of `spec.backup.barmanObjectStore`.
    #[default]
    BarmanObjectStore,
    /// As snapshots of the instance's volumes.
    VolumeSnapshot,
}

/// The state of a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackupPhase {
    /// It waits for the cluster, or for the backup before it; `reason` says which.
    #[default]
    Pending,
    /// Data is being stored.
    Running,
    /// Data is stored. The WAL that a restore needs is on its way into the archive.
    Finalizing,
    /// A restore needs nothing more.
    Completed,
    /// It ended without a backup. `error` says why.
    Failed,
}

impl BackupPhase {
    /// Whether this phase is final.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// The state of a backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// How far the backup is. Absent until the operator has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// What the backup waits for and since when, why it failed, or a remark about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How the backup is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<BackupMethod>,
    /// The instance that is backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How many times the backup was begun. It begins again if its pod goes away in the middle.
    #[serde(default)]
    pub attempts: i32,
    /// The progress, such as `42% (1.2 GiB of 2.9 GiB)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Bytes read so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<i64>,
    /// All bytes to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// The backup's id in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// When the backup began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the backup was complete, or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<DateTime<Utc>>,
    /// The first segment that a restore needs.
    #[serde(rename = "beginWal", skip_serializing_if = "Option::is_none")]
    pub begin_wal: Option<String>,
    /// The last segment that a restore needs.
    #[serde(rename = "endWal", skip_serializing_if = "Option::is_none")]
    pub end_wal: Option<String>,
    /// The start LSN of the backup.
    #[serde(rename = "beginLSN", skip_serializing_if = "Option::is_none")]
    pub begin_lsn: Option<String>,
    /// The stop LSN of the backup.
    #[serde(rename = "endLSN", skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<String>,
    /// The backup's timeline.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// Bytes of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<i64>,
    /// Bytes stored in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<i64>,
    /// The cluster's object store at that time, so that the backup can be found after the cluster is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barman_object_store: Option<BarmanObjectStore>,
    /// The volume snapshots that hold the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_backup_status: Option<SnapshotStatus>,
    /// `backup_label` of a hot snapshot, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_label_file: Option<String>,
    /// `tablespace_map` of a hot snapshot, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tablespace_map_file: Option<String>,
    /// Whether the server kept running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Why the backup failed: what happened, what was being done, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The volume snapshots that hold a backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotStatus {
    /// One entry for each volume.
    #[serde(default)]
    pub elements: Vec<SnapshotElement>,
}

/// One volume snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotElement {
    /// Name of the `VolumeSnapshot`.
    pub name: String,
    /// `PG_DATA` or `PG_WAL`.
    #[serde(rename = "type")]
    pub kind: String,
}
