//! The observed state: the whole input of a decision besides the manifest.
//!
//! Ages are durations that the operator measured itself by its own monotonic clock ([`super::memory`]); the clock of no
//! other machine is used.

use crate::backups::snapshot::ObservedSnapshot;
use holdfast_kube_api::Backup;
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::status_port::InstanceStatus;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The observed state.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The status, as it was last written.
    pub status: ClusterStatus,
    /// Pods of the cluster, by name.
    pub pods: BTreeMap<String, Pod>,
    /// Claims of the cluster, by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// The answer of each instance, by name, or why there is none.
    pub answers: BTreeMap<String, Answer>,
    pub lease: Option<PrimaryLease>,
    /// Secrets of the cluster, by name.
    pub secrets: BTreeMap<String, SecretFacts>,
    /// The kinds of `objects` that were read this time.
    pub kinds_read: BTreeSet<Kind>,
    /// Services and other rarely changed objects of the cluster, by kind and name, without `apiVersion` and `kind`.
    pub objects: BTreeMap<(Kind, String), Value>,
    /// Objects under the names of the cluster's objects that belong to somebody else.
    pub foreign: Vec<Foreign>,
    /// What the API server refused in the last reconciles; `None` if this operator has not acted on the cluster yet.
    pub refused: Option<Vec<RefusedAction>>,
    /// Whether each node is ready, by name.
    pub nodes: BTreeMap<String, bool>,
    /// The nodes that take no new pods, as while they are drained.
    pub cordoned: BTreeSet<String>,
    /// The source of the recovery, if the manifest names a `Backup`.
    pub recovery: RecoverySource,
    /// Volume snapshots of the cluster that a restore can use.
    pub snapshots: KeptSnapshots,
    /// Which optional APIs the API server has.
    pub apis: Apis,
    /// The newest warning about a pod or a claim that makes no progress, by the object's name.
    pub troubles: BTreeMap<String, String>,
    /// For how long the target primary has not been seen healthy.
    pub ill_for: Duration,
    /// For how long each pod has been silent since its last answer.
    pub silent_for: BTreeMap<String, Duration>,
}

/// The status of an instance, or why it did not answer.
pub type Answer = Result<InstanceStatus, String>;

impl Observed {
    /// The status of an instance, if it answered.
    pub fn answer(&self, instance: &str) -> Option<&InstanceStatus> {
        self.answers.get(instance)?.as_ref().ok()
    }
}

/// An object of another owner under a name that the cluster needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// The kind, as manifests spell it.
    pub kind: &'static str,
    pub name: String,
    /// Kind and name of its controller or owner, in words.
    pub owner: String,
}

impl Observed {
    /// Whether an object of another owner has this name.
    pub fn is_foreign(&self, kind: &str, name: &str) -> bool {
        self.foreign.iter().any(|foreign| foreign.kind == kind && foreign.name == name)
    }
}

/// An action that the API server refuses, or does not answer, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedAction {
    /// The title of the action.
    pub action: String,
    /// The words of the API server.
    pub why: String,
    /// What a person can do.
    pub hint: String,
}

/// The Lease of the primary, as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrimaryLease {
    /// The holder; `None` if it was released.
    pub holder: Option<String>,
    /// For how long it has been seen unchanged.
    pub unchanged_for: Duration,
    /// Its resource version, for compare and swap.
    pub resource_version: String,
    /// For how long it has been seen free: released, or not renewed within its time.
    pub free_for: Option<Duration>,
}

/// The source of a recovery from a `Backup`.
#[derive(Debug, Clone, Default)]
pub struct RecoverySource {
    /// The `Backup` that the manifest names; `None` if it does not exist.
    pub backup: Option<Backup>,
    /// Those of its volume snapshots that exist, by name. Read until the cluster has its data.
    pub snapshots: BTreeMap<String, ObservedSnapshot>,
}

/// Volume snapshots that a restore can use: the id of their record, and the kind of the volume.
pub type KeptSnapshots = BTreeSet<(String, String)>;

/// The facts about a Secret that decisions need; never its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretFacts {
    /// Whether the operator created it for this cluster.
    pub owned: bool,
    /// When its certificate ends, if the operator signed it.
    pub ends: Option<chrono::DateTime<chrono::Utc>>,
    /// Fingerprint of the authority that signed its certificate; for the authority's Secret, its own.
    pub authority: Option<String>,
    /// Hash of the names in its certificate.
    pub names: Option<String>,
    /// The keys of its data.
    pub keys: Vec<String>,
}

/// Kinds of rarely changed objects.
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
    /// `policy/v1`, or `policy/v1beta1` on older API servers
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

    /// The kind, as manifests spell it.
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

/// Which optional APIs the API server has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apis {
    /// The version of the disruption budget's API; `None` if it is missing.
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
