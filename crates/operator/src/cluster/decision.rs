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
    /// Whether something is changing, besides these actions.
    pub busy: bool,
    /// The longest time until the next reconcile, if all actions are carried out.
    pub next: Duration,
}

/// One action. All can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Applies a rarely changed object by server-side apply.
    Apply { kind: Kind, name: String, object: Value },
    /// Removes an object of the cluster that is no longer wanted.
    Remove {
        kind: Kind,
        name: String,
        /// The uid of the object: one with another uid is not removed.
        uid: String,
    },
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
    /// Records on a claim when its instance was removed.
    RetireClaim {
        name: String,
        /// The time, as RFC 3339.
        at: String,
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

impl Action {
    /// What it does, in words. It identifies the action from one reconcile to the next.
    pub fn title(&self, cluster: &str) -> String {
        match self {
            Self::Apply { kind, name, .. } => format!("apply {} {name}", kind.name()),
            Self::Remove { kind, name, .. } => format!("delete {} {name}", kind.name()),
            Self::Secret(kind) => format!("write Secret {}", kind.name(cluster)),
            Self::CreateLease => format!("create Lease {}", names::primary_lease(cluster)),
            Self::ReleaseLease { .. } => format!("release Lease {}", names::primary_lease(cluster)),
            Self::CreateClaim(claim) => {
                format!("create PersistentVolumeClaim {}", claim.metadata.name.as_deref().unwrap_or_default())
            }
            Self::GrowClaim { name, size } => format!("expand PersistentVolumeClaim {name} to {size}"),
            Self::RetireClaim { name, .. } => format!("mark PersistentVolumeClaim {name} as removed"),
            Self::DeleteClaim { name, .. } => format!("delete PersistentVolumeClaim {name}"),
            Self::CreatePod(pod) => format!("create Pod {}", pod.metadata.name.as_deref().unwrap_or_default()),
            Self::DeletePod { name, .. } => format!("delete Pod {name}"),
            Self::LabelPod { name, .. } => format!("label Pod {name}"),
            Self::Restart { instance } => format!("restart PostgreSQL of {instance}"),
        }
    }

    /// What a person can do if the API server refuses it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::GrowClaim { .. } => {
                "the storage class or a quota may not allow it: write the size back as it was, or let the class grow \
                 volumes (allowVolumeExpansion)"
            }
            Self::Restart { .. } => "see the log of the pod",
            _ => {
                "check quotas, admission policies and webhooks of the namespace, and that the operator has the \
                 permissions of its own version's deploy/operator.yaml; the operator tries again by itself"
            }
        }
    }
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
    /// The API server refuses a request of the operator.
    RequestRefused,
    /// An object of another owner has the name of an object of the cluster.
    ForeignObject,
    /// An instance serves, but reports an error of what it does besides.
    HousekeepingFails,
    /// An operator of another namespace is in charge of the cluster.
    AnotherOperator,
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
            Self::NoCandidate
                | Self::InstanceFailed
                | Self::HousekeepingFails
                | Self::SpecWarning
                | Self::SpecRefused
                | Self::RequestRefused
                | Self::ForeignObject
                | Self::AnotherOperator
                | Self::GrowingVolume
                | Self::ApiMissing
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
    /// The API server refuses a request, or an object of another owner is in the way.
    RequestRefused,
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
            Self::RequestRefused => "A request is refused",
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
