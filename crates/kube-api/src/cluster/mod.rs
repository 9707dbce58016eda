//! The `Cluster` resource: one PostgreSQL primary and its standbys.

mod bootstrap;
mod external;
mod object_store;
mod postgresql;
mod scheduling;
mod status;
mod storage;

pub use bootstrap::{
    Bootstrap, InitDb, Recovery, RecoveryBackup, RecoveryTarget, SqlReferences, VolumeSnapshotSource, VolumeSnapshots,
};
pub use external::ExternalCluster;
pub use object_store::{
    BackupConfiguration, BackupTarget, BarmanObjectStore, DataOptions, EncryptionOptions, S3Credentials, SnapshotOwner,
    VolumeSnapshotConfiguration, WalOptions,
};
pub use postgresql::{PostgresConfiguration, Synchronous};
pub use scheduling::{AffinityConfiguration, AntiAffinityType};
pub use status::{
    BlockedBy, BootstrapProgress, ClusterStatus, InstanceSummary, LastBackup, OperatorIdentity, Recoverability,
    RecoverabilityGap, VolumeSummary,
};
pub use storage::StorageConfiguration;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A PostgreSQL cluster: one primary, streaming standbys, an archive of its WAL and backups.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "holdfast.dev",
    version = "v1",
    kind = "Cluster",
    plural = "clusters",
    shortname = "hfc",
    category = "holdfast",
    namespaced,
    status = "ClusterStatus",
    scale(
        spec_replicas_path = ".spec.instances",
        status_replicas_path = ".status.instances",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Instances",
        type_ = "integer",
        json_path = ".status.instances",
        description = "Instances that exist"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyInstances",
        description = "Instances that answer"
    ),
    printcolumn(
        name = "Primary",
        type_ = "string",
        json_path = ".status.currentPrimary",
        description = "The instance that takes writes"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "What the operator is doing"
    ),
    printcolumn(
        name = "Recoverable to",
        type_ = "date",
        json_path = ".status.recoverability.latest",
        description = "Age of the newest moment that can be restored"
    ),
    printcolumn(
        name = "PostgreSQL",
        type_ = "integer",
        json_path = ".status.postgresMajor",
        priority = 1,
        description = "Its major version"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Why",
        type_ = "string",
        json_path = ".status.phaseReason",
        priority = 1,
        description = "Why it is doing that"
    ),
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// A description for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The image of PostgreSQL; its tag begins with the major version. The operator has a default for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// When the image is pulled: `Always`, `IfNotPresent` (the default) or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<String>,
    /// Secrets with the credentials of the registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// User id of PostgreSQL in the image, 26 by default.
    #[serde(rename = "postgresUID", skip_serializing_if = "Option::is_none")]
    pub postgres_uid: Option<i64>,
    /// Group id of PostgreSQL in the image, 26 by default.
    #[serde(rename = "postgresGID", skip_serializing_if = "Option::is_none")]
    pub postgres_gid: Option<i64>,
    /// Number of instances, the primary included.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 99))]
    pub instances: i32,
    /// Settings of PostgreSQL.
    #[serde(default, skip_serializing_if = "is_default")]
    pub postgresql: PostgresConfiguration,
    /// How the first instance gets its data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// Other clusters, which a recovery can name as its source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_clusters: Vec<ExternalCluster>,
    /// Secret (`kubernetes.io/basic-auth`) with the password of the superuser `postgres`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superuser_secret: Option<LocalObjectReference>,
    /// Whether `postgres` may connect over the network with the password in its Secret.
    #[serde(default)]
    pub enable_superuser_access: bool,
    /// The volume of the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageConfiguration>,
    /// A separate volume for `pg_wal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_storage: Option<StorageConfiguration>,
    /// Where WAL is archived and backups go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupConfiguration>,
    /// Requests and limits of the PostgreSQL container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// On which nodes instances may run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub affinity: AffinityConfiguration,
    /// Read as `affinity.tolerations`, which is the right place for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How instances are spread over zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Scheduler of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Metadata of the service account that the operator makes for the instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_template: Option<ServiceAccountTemplate>,
    /// Labels and annotations for every object that belongs to the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inherited_metadata: Option<Metadata>,
    /// Variables for the PostgreSQL container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose keys become variables of the PostgreSQL container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// Monitoring by Prometheus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<Monitoring>,
    /// Seconds that an instance has for its start, 3600 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub start_delay: Option<i32>,
    /// Seconds that an instance has for its shutdown, 1800 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub stop_delay: Option<i32>,
    /// Seconds of `stopDelay` in which sessions of a primary can end by themselves, 0 by default. After that they are
    /// ended. Meanwhile nobody can connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub smart_shutdown_timeout: Option<i32>,
    /// Seconds that a primary may be unhealthy before another instance replaces it, 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failover_delay: Option<i32>,
    /// Seconds for which the volumes of a removed instance are kept, 86400 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub removal_delay: Option<i32>,
}

/// Metadata of the service account of the instances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceAccountTemplate {
    /// Labels and annotations of the service account, such as its role in the cloud of the object store.
    #[serde(default)]
    pub metadata: Metadata,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// Labels, in addition to those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, in addition to those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Monitoring by Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// Whether the operator makes a `PodMonitor`, where the Prometheus operator is installed.
    #[serde(default)]
    pub enable_pod_monitor: bool,
}

fn one() -> i32 {
    1
}

/// Whether a value is its type's default and can be left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
