//! The `ScheduledBackup` resource: backups at set times.

use crate::backup::{BackupMethod, ClusterReference};
use crate::cluster::BackupTarget;
use chrono::{DateTime, Utc};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Backups of a cluster at set times.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "ScheduledBackup",
    plural = "scheduledbackups",
    shortname = "hfsb",
    category = "holdfast",
    namespaced,
    status = "ScheduledBackupStatus",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster.name"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Last backup", type_ = "date", json_path = ".status.lastScheduleTime"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTimes[0]"),
    printcolumn(name = "Time zone", type_ = "string", json_path = ".spec.timeZone", priority = 1),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What it waits for, or what was noticed"
    ),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledBackupSpec {
    /// When: 5 fields are standard cron (minute first), 6 have seconds first; `@daily` and the like.
    pub schedule: String,
    /// The zone the schedule is meant in, such as `Europe/Paris`; UTC by default. Holdfast's own field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The cluster, in the same namespace.
    pub cluster: ClusterReference,
    /// Whether no backup is begun for now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether one backup is taken at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immediate: Option<bool>,
    /// What the backups belong to: `none` (the default), `self` or `cluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_owner_reference: Option<BackupOwner>,
    /// Object store (the default) or volume snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<BackupMethod>,
    /// Which instance is backed up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,
    /// For snapshots: whether the server runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// What happens when the backup before is still running: `Forbid` (the default), `Allow` or `Replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// How late a backup may still be begun, in seconds; always when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,
    /// How many completed `Backup` resources are kept; all of them when it is absent. The data in the archive stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub successful_backups_history_limit: Option<i32>,
    /// How many failed `Backup` resources are kept; all of them when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed_backups_history_limit: Option<i32>,
}

/// What the backups of a schedule belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupOwner {
    /// Nothing: they stay.
    #[default]
    None,
    /// The `ScheduledBackup`.
    #[serde(rename = "self")]
    Itself,
    /// The `Cluster`.
    Cluster,
}

/// What happens when the backup before is still running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// The new one is left out.
    #[default]
    Forbid,
    /// The new one is made and waits its turn.
    Allow,
    /// The old one is given up.
    Replace,
}

/// Where a schedule stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledBackupStatus {
    /// The time of the schedule that was last answered with a backup, or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<DateTime<Utc>>,
    /// When the schedule was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<DateTime<Utc>>,
    /// The next three times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_schedule_times: Vec<DateTime<Utc>>,
    /// The newest `Backup` it made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// Whether the backup of `immediate` was made.
    #[serde(default)]
    pub immediate_done: bool,
    /// Times that were left out, in all.
    #[serde(default)]
    pub missed: i64,
    /// What was noticed last: a time left out and why, or what is wrong with the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `SpecAccepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
