//! `Cluster.status`: the present state, what the operator waits for, and what could be restored.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The observed state. Only the operator writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the operator is doing, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Why the cluster is in this phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_reason: Option<String>,
    /// What the operator waits for; absent if it waits for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<BlockedBy>,
    /// Instances that exist.
    #[serde(default)]
    pub instances: i32,
    /// Instances that answer.
    #[serde(default)]
    pub ready_instances: i32,
    /// Names of the instances.
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
    /// Since when that instance takes writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_primary_timestamp: Option<DateTime<Utc>>,
    /// The instance that should take writes. An instance promotes itself only if it is named here and holds the Lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary: Option<String>,
    /// Since when that instance should take writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_primary_timestamp: Option<DateTime<Utc>>,
    /// PostgreSQL's system identifier. If it is present, the first instance has its data: `initdb` or a recovery never
    /// runs again for this cluster.
    #[serde(rename = "systemID", skip_serializing_if = "Option::is_none")]
    pub system_id: Option<String>,
    /// The timeline of the primary.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// PostgreSQL's major version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres_major: Option<u16>,
    /// Progress of the bootstrap, which gives the first instance its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<BootstrapProgress>,
    /// A short summary of each instance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub instances_status: BTreeMap<String, InstanceSummary>,
    /// The volumes, by the name of their claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, VolumeSummary>,
    /// The operator that is in charge of this cluster. An operator of another namespace does nothing about it as long
    /// as this one is alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorIdentity>,
    /// What can be restored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recoverability: Option<Recoverability>,
    /// The conditions `Ready`, `SpecAccepted`, `Reconciled`, `ContinuousArchiving`, `LastBackupSucceeded`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What the operator waits for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedBy {
    /// The name of the object or the condition.
    pub what: String,
    /// Since when the operator waits.
    pub since: DateTime<Utc>,
    /// When the wait ends, if it has a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// What a person can do.
    pub hint: String,
}

/// Progress of the bootstrap, which gives the first instance its data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapProgress {
    /// `initdb`, `recovery` or `volume snapshot`.
    pub method: String,
    /// The step, such as `preflight`, `restoring files`, `replaying WAL`.
    pub step: String,
    /// Bytes of this step that are done, if they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<i64>,
    /// All bytes of this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<i64>,
    /// Id of the backup that recovery begins with.
    #[serde(rename = "backupID", skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// The error that stops the bootstrap, with its hint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A short summary of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceSummary {
    /// `primary` or `replica`, as the instance itself says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether the instance answers and PostgreSQL accepts connections.
    #[serde(default)]
    pub ready: bool,
    /// The instance's timeline.
    #[serde(rename = "timelineID", skip_serializing_if = "Option::is_none")]
    pub timeline_id: Option<u32>,
    /// The end of the instance's WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// What the instance is doing, or the error that stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The version of the instance manager. It is older than the operator's until the pod is created again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_version: Option<String>,
}

/// A volume of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSummary {
    /// The size that its claim requests, as a quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// The size that it has, as a quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<String>,
    /// Whether its claim is gone, though its instance still exists.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
    /// When its claim is deleted, because its instance was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted_after: Option<DateTime<Utc>>,
}

/// An installation of the operator. Whether it is alive can be seen from the Lease in its namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperatorIdentity {
    /// Its namespace, which has its Lease.
    pub namespace: String,
    /// Such as `0.1.0`. It may be older or newer than that of the reader.
    pub version: String,
}

/// What can be restored now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recoverability {
    /// The oldest moment that can be restored: the end of the first backup, or of the first volume snapshots that are
    /// still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// The newest moment that `recoveryTarget.targetTime` accepts: just before the last archived transaction. It does
    /// not change while nothing is written. A recovery without a target restores newer data, see `latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// A recovery without a target restores everything that was committed by this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<DateTime<Utc>>,
    /// Gaps in the archive: a moment within one of them cannot be restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<RecoverabilityGap>,
    /// The newest backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Seconds since the last segment was archived, if WAL waits; 0 if nothing waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_lag_seconds: Option<i64>,
    /// Bytes of WAL that are not in the archive yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_lag_bytes: Option<i64>,
    /// When this was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<DateTime<Utc>>,
    /// Why the check failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// WAL that is missing between two backups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoverabilityGap {
    /// The first missing segment.
    pub first_segment: String,
    /// The last missing segment.
    pub last_segment: String,
}

/// The newest backup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// The backup's id in the archive.
    pub id: String,
    /// When the backup was complete.
    pub completed_at: DateTime<Utc>,
    /// Bytes stored in the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<i64>,
}
