//! The output of a decision about a cluster: [`decide`](super::decide) makes it, [`super::controller`] writes its
//! status, and [`super::apply`] carries out its actions. Data only.

use super::observed::Kind;
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The output of a decision about a cluster.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The status to write, before any action.
    pub status: ClusterStatus,
    /// The actions after that, in this order.
    pub actions: Vec<Action>,
    /// The Events to publish.
    pub events: Vec<ClusterEvent>,
    /// The longest time until the next reconcile.
    pub next: Duration,
}

/// One action. All can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Applies a rarely changed object by server-side apply.
    Apply(Kind, Value),
    /// Removes an object that is no longer wanted.
    Remove(Kind, String),
    /// Creates a Secret, or renews its certificate. Keys are created when the action is carried out.
    Secret(SecretKind),
    /// Creates the Lease of the primary, without a holder.
    CreateLease,
    /// Takes the Lease from an instance that is proven dead, by compare and swap.
    ReleaseLease {
        /// The instance that held it.
        holder: String,
        /// The resource version that was read.
        resource_version: String,
    },
    /// Creates a claim; never changes one.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Requests a larger volume.
    GrowClaim {
        name: String,
        /// The new size, as a Kubernetes quantity.
        size: String,
    },
    /// Deletes a claim and its data.
    DeleteClaim {
        /// The name of the claim.
        name: String,
        /// The uid of the claim: one with another uid is not deleted.
        uid: String,
    },
    /// Creates a pod; never changes one.
    CreatePod(Box<Pod>),
    /// Deletes a pod gracefully.
    DeletePod {
        name: String,
        /// The uid of the pod: one with another uid is not deleted.
        uid: String,
    },
    /// Sets labels on a pod.
    LabelPod {
        /// The name of the pod.
        name: String,
        /// The labels to set.
        labels: BTreeMap<String, String>,
    },
    /// Restarts PostgreSQL in its pod.
    Restart {
        /// The name of the instance.
        instance: String,
    },
}

/// An Event to publish about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterEvent {
    /// Whether a person should read it: type `Warning`.
    pub warning: bool,
    /// The reason, from the closed set.
    pub reason: Reason,
    /// The text for people.
    pub text: String,
}

/// Reasons of Events: a closed set, also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An instance is added.
    CreatingInstance,
    RemovingInstance,
    /// The first instance has its data.
    Bootstrapped,
    /// The primary is lost; another instance is chosen.
    FailingOver,
    /// The primary hands over on purpose.
    SwitchingOver,
    /// An instance takes writes now.
    NewPrimary,
    /// The primary is lost and no instance can replace it.
    NoCandidate,
    /// An instance reports a failure that does not end by itself.
    InstanceFailed,
    /// PostgreSQL is restarted for changed settings.
    Restarting,
    /// A pod is replaced because its template changed.
    ReplacingPod,
    GrowingVolume,
    /// A field of the manifest has another effect than it says.
    SpecWarning,
    /// The manifest is invalid.
    SpecRefused,
    /// The API server lacks an optional API; the objects of it are left out.
    ApiMissing,
    /// WAL cannot be archived.
    ArchivingFails,
    /// WAL is archived again.
    ArchivingWorks,
    /// A certificate is made or renewed.
    CertificateRenewed,
}

impl Reason {
    /// Whether it is about a lasting state, which each reconcile would report again; the others are about one moment.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::NoCandidate | Self::InstanceFailed | Self::SpecWarning | Self::SpecRefused | Self::ApiMissing
        )
    }

    /// The name in camel case, as in Events.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What the operator is doing: the texts of `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest is invalid.
    SpecRefused,
    /// The first instance gets its data.
    Bootstrapping,
    /// The primary is lost; another instance takes over.
    FailingOver,
    /// The primary hands over on purpose.
    SwitchingOver,
    /// The primary does not take writes, and no instance can replace it.
    PrimaryDown,
    /// An instance reports a failure that does not end by itself.
    InstanceFailed,
    /// Instances are being added.
    CreatingInstances,
    /// Instances are being removed.
    RemovingInstances,
    /// Instances are being restarted.
    Restarting,
    /// Instances are not ready yet.
    WaitingForInstances,
    /// The cluster matches its manifest.
    Healthy,
}

impl Phase {
    /// The text for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::SpecRefused => "Manifest refused",
            Self::Bootstrapping => "Bootstrapping the first instance",
            Self::FailingOver => "Failing over",
            Self::SwitchingOver => "Switching over",
            Self::PrimaryDown => "Primary is down",
            Self::InstanceFailed => "An instance has failed",
            Self::CreatingInstances => "Creating instances",
            Self::RemovingInstances => "Removing an instance",
            Self::Restarting => "Restarting instances",
            Self::WaitingForInstances => "Waiting for instances",
            Self::Healthy => "Healthy",
        }
    }
}

/// The Secrets of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// The cluster's certificate authority, with its key.
    Authority,
    /// Certificate of PostgreSQL and of the status port.
    Server,
    /// Certificate of the standbys.
    Replication,
    /// Certificate with which the operator connects to instances.
    Operator,
    /// User, password and URI for the application.
    Application,
    /// Password of the role `postgres`.
    Superuser,
}

impl SecretKind {
    pub fn name(self, cluster: &str) -> String {
        match self {
            Self::Authority => names::ca_secret(cluster),
            Self::Server => names::server_secret(cluster),
            Self::Replication => names::replication_secret(cluster),
            Self::Operator => names::operator_secret(cluster),
            Self::Application => names::application_secret(cluster),
            Self::Superuser => names::superuser_secret(cluster),
        }
    }
}
