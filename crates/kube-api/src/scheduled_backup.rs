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
        description = "What it waits for, or a remark"
    ),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledBackupSpec {
    /// When backups are due, as cron writes it: 5 fields begin with the minute, 6 fields with the second. A word such
    /// as `@daily` is also accepted.
    pub schedule: String,
    /// The time zone of the schedule, such as `Europe/Paris`; UTC by default. Holdfast's own field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The cluster, in the same namespace.
    pub cluster: ClusterReference,
    /// Whether the schedule is suspended. A suspended schedule begins no backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Whether one backup is taken immediately, besides those at the due times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immediate: Option<bool>,
    /// The owner of the backups: `none` (the default), `self` or `cluster`. When the owner is deleted, they are
    /// deleted, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_owner_reference: Option<BackupOwner>,
    /// How backups are stored: in the object store (the default) or as volume snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<BackupMethod>,
    /// Which instance is backed up; the cluster's setting by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,
    /// For snapshots: whether the server keeps running; the cluster's setting by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// What happens if the previous backup is still running: `Forbid` (the default), `Allow` or `Replace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// How many seconds late a backup may still begin; there is no limit by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,
    /// How many completed `Backup` resources are kept: 10 by default, all of them with volume snapshots. The data in
    /// the archive stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub successful_backups_history_limit: Option<i32>,
    /// How many failed `Backup` resources are kept: 5 by default, all of them with volume snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed_backups_history_limit: Option<i32>,
}

/// The owner of the backups of a schedule. When the owner is deleted, they are deleted, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupOwner {
    /// No owner: the backups stay.
    #[default]
    None,
    /// The `ScheduledBackup`.
    #[serde(rename = "self")]
    Itself,
    /// The backups are deleted with their `Cluster`.
    Cluster,
}

/// What happens if the previous backup is still running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// The new backup is skipped.
    #[default]
    Forbid,
    /// The new backup is made and waits for its turn.
    Allow,
    /// The running backup is ended.
    Replace,
}

/// The state of a schedule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledBackupStatus {
    /// The last time of the schedule for which a backup was made or skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<DateTime<Utc>>,
    /// When the schedule was last checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_check_time: Option<DateTime<Utc>>,
    /// The next three due times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_schedule_times: Vec<DateTime<Utc>>,
    /// The newest `Backup` of this schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<String>,
    /// Whether the backup of `immediate` was made.
    #[serde(default)]
    pub immediate_done: bool,
    /// How many due times were skipped.
    #[serde(default)]
    pub missed: i64,
    /// The latest remark: why a time was skipped, or what is wrong with the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The condition `SpecAccepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
