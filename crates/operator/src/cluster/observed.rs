//! What stands: everything a decision rests on, as it was read.
//!
//! Ages are durations that the operator measured itself by its own monotonic clock ([`super::memory`]); no other machine's
//! clock is believed.

use crate::backups::snapshot::SnapshotSeen;
use holdfast_kube_api::Backup;
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::status_port::InstanceStatus;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What stands.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The status as it was written last.
    pub status: ClusterStatus,
    /// Pods of the cluster, by name.
    pub pods: BTreeMap<String, Pod>,
    /// Claims of the cluster, by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// What the instances said, by name; why not, for those that did not.
    pub answers: BTreeMap<String, Answer>,
    /// The Lease of the primary.
    pub lease: Option<PrimaryLease>,
    /// Secrets of the cluster, by name.
    pub secrets: BTreeMap<String, SecretFacts>,
    /// Whether `objects` were read this time.
    pub objects_read: bool,
    /// Services and other objects that rarely change, by kind and name, without version and kind.
    pub objects: BTreeMap<(Kind, String), Value>,
    /// Whether each node is ready.
    pub nodes: BTreeMap<String, bool>,
    /// The `Backup` that the cluster is recovered from, where the manifest names one.
    pub recovery: RecoverySource,
    /// Volume snapshots of the cluster that can be restored from.
    pub snapshots: KeptSnapshots,
    /// What the API server knows.
    pub apis: Apis,
    /// The newest warning about a pod or a claim that does not get on, by the object's name.
    pub troubles: BTreeMap<String, String>,
    /// For how long the instance that is to take writes has not been seen healthy.
    pub ill_for: Duration,
    /// For how long each pod has been seen without an answer since its last one.
    pub silent_for: BTreeMap<String, Duration>,
}

/// What an instance said, or why it did not.
pub type Answer = Result<InstanceStatus, String>;

impl Observed {
    /// What an instance said, if it did.
    pub fn answer(&self, instance: &str) -> Option<&InstanceStatus> {
        self.answers.get(instance)?.as_ref().ok()
    }
}

/// The Lease of the primary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrimaryLease {
    /// Who holds it; nobody when it was released.
    pub holder: Option<String>,
    /// For how long it has been seen unchanged.
    pub unchanged_for: Duration,
    /// Its resource version, for compare and swap.
    pub resource_version: String,
    /// For how long it has been seen free: released, or held and not renewed in its time.
    pub free_for: Option<Duration>,
}

/// What a cluster is recovered from.
#[derive(Debug, Clone, Default)]
pub struct RecoverySource {
    /// The `Backup` that the manifest names, where it exists.
    pub backup: Option<Backup>,
    /// The volume snapshots it names, those that exist, by name. Read until the cluster has its data.
    pub snapshots: BTreeMap<String, SnapshotSeen>,
}

/// Volume snapshots that can be restored from: the id of their record and the volume each is of.
pub type KeptSnapshots = BTreeSet<(String, String)>;

/// What a decision needs to know of a Secret; never its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Whether the operator made it for this cluster.
    pub owned: bool,
    /// When its certificate ends, where it holds one of ours.
    pub ends: Option<chrono::DateTime<chrono::Utc>>,
    /// Fingerprint of the authority that its certificate is signed by; of itself for the authority.
    pub authority: Option<String>,
    /// Hash of the names that its certificate is for.
    pub names: Option<String>,
    /// Keys that are there.
    pub keys: Vec<String>,
}

/// Kinds of objects that rarely change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`
    Service,
    /// `v1`
    ServiceAccount,
    /// `rbac.authorization.k8s.io/v1`
    Role,
    /// `rbac.authorization.k8s.io/v1`
    RoleBinding,
    /// `policy/v1`, or `policy/v1beta1` where that is missing
    PodDisruptionBudget,
    /// `monitoring.coreos.com/v1`
    PodMonitor,
}

impl Kind {
    /// Group, version and plural.
    pub fn resource(self, apis: Apis) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("", "v1", "services"),
            Self::ServiceAccount => ("", "v1", "serviceaccounts"),
            Self::Role => ("rbac.authorization.k8s.io", "v1", "roles"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", "v1", "rolebindings"),
            Self::PodDisruptionBudget => {
                let version = if apis.disruption_budget == Some(BudgetApi::V1Beta1) { "v1beta1" } else { "v1" };
                ("policy", version, "poddisruptionbudgets")
            }
            Self::PodMonitor => ("monitoring.coreos.com", "v1", "podmonitors"),
        }
    }

    /// As manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::PodMonitor => "PodMonitor",
        }
    }
}

/// What the API server knows beyond what every version does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apis {
    /// In which version it knows disruption budgets.
    pub disruption_budget: Option<BudgetApi>,
    /// Whether the Prometheus operator's `PodMonitor` is installed.
    pub pod_monitor: bool,
}

/// Versions of the disruption budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetApi {
    /// `policy/v1`, since 1.21.
    V1,
    /// `policy/v1beta1`, until 1.24.
    V1Beta1,
}
