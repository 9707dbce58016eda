//! `Cluster.status`: the present state, what the operator waits for, and what could be restored.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What stands. Written by the operator only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the operator is doing, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_reason: Option<String>,
    /// What is waited for; absent when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<BlockedBy>,
    /// Instances that exist.
    #[serde(default)]
    pub instances: i32,
    /// Instances that answer.
    #[serde(default)]
    pub ready_instances: i32,
    /// Their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_names: Vec<String>,
    /// The label selector of their pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The highest number that an instance got so far.
    #[serde(default)]
    pub latest_generated_node: i32,
    /// The instance that takes writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary_timestamp: Option<DateTime<Utc>>,
    /// The instance that shall take writes. An instance promotes itself only when it is named here and holds the Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary_timestamp: Option<DateTime<Utc>>,
    /// PostgreSQL's system identifier. Its presence says that the first instance has its data: `initdb` or a recovery
    /// never runs again for this cluster.
    #[serde(rename = "systemID", skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// The timeline of the primary.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// PostgreSQL's major version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<u16>,
    /// How far the first instance is on the way to its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<BootstrapProgress>,
    /// Each instance in a few words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances_status: BTreeMap<String, InstanceSummary>,
    /// What could be restored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoverability: Option<Recoverability>,
    /// `Ready`, `SpecAccepted`, `ContinuousArchiving`, `LastBackupSucceeded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What is waited for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedBy {
    /// What: an object or a condition, by name.
    pub what: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Until when, where there is a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// What a person can do.
    pub hint: String,
}

/// How far the first instance is on the way to its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapProgress {
    /// `initdb`, `recovery` or `volume snapshot`.
    pub method: String,
    /// The step, such as `preflight`, `restoring files`, `replaying WAL`.
    pub step: String,
    /// Bytes done of this step, where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<i64>,
    /// Bytes of this step in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// Id of the backup that recovery begins with.
    #[serde(rename = "backupID", skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// The error that stops it, with its hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One instance in a few words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSummary {
    /// `primary` or `replica`, as the instance itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether it answers and PostgreSQL accepts connections.
    #[serde(default)]
    pub ready: bool,
    /// Its timeline.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// Up to where it has WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// What it is doing, or the error it stands at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What could be restored now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recoverability {
    /// The oldest moment that can be restored: the end of the first backup, or of the first volume snapshots that are
    /// still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// The newest moment that `recoveryTarget.targetTime` takes: just before the last archived transaction. It stands still
    /// while nothing is written; what is newer is brought by a recovery without a target, see `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// A recovery without a target brings everything that had been committed at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<DateTime<Utc>>,
    /// Parts in between that cannot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<RecoverabilityGap>,
    /// The newest backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Seconds since the last segment was archived while WAL waits; 0 when nothing waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_lag_seconds: Option<i64>,
    /// Bytes of WAL that are not in the archive yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_lag_bytes: Option<i64>,
    /// When this was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<DateTime<Utc>>,
    /// Why it could not be looked up, when it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// WAL that is missing between two backups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverabilityGap {
    /// First segment that is missing.
    pub first_segment: String,
    /// Last segment that is missing.
    pub last_segment: String,
}

/// The newest backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// Its id in the archive.
    pub id: String,
    /// When it was complete.
    pub completed_at: DateTime<Utc>,
    /// Bytes in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
}
