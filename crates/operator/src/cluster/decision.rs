//! What was decided for a cluster: the words between [`decide`](super::decide), which chooses them, and those who write the
//! status ([`super::controller`]) and act ([`super::apply`]). Data only.

use super::observed::Kind;
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What to do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The status to write, before anything is done.
    pub status: ClusterStatus,
    /// What to do then, in this order.
    pub actions: Vec<Action>,
    /// The Events to publish.
    pub events: Vec<ClusterEvent>,
    /// When to look again, at the latest.
    pub next: Duration,
}

/// One step. All can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Server-side apply of an object that rarely changes.
    Apply(Kind, Value),
    /// Removes one that is not wanted any more.
    Remove(Kind, String),
    /// Makes a Secret, or renews the certificate in it. Keys are made while it is applied.
    Secret(SecretKind),
    /// Makes the Lease of the primary, held by nobody.
    CreateLease,
    /// Takes the Lease from an instance that is proven dead, by compare and swap.
    ReleaseLease {
        /// The instance that held it.
        holder: String,
        /// The version that was read.
        resource_version: String,
    },
    /// Makes a claim; never changes one.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Asks for a larger volume.
    GrowClaim {
        /// The claim.
        name: String,
        /// Its new size.
        size: String,
    },
    /// Deletes a claim, and with it the data.
    DeleteClaim {
        /// The claim.
        name: String,
        /// Only if it is still this one.
        uid: String,
    },
    /// Makes a pod; never changes one.
    CreatePod(Box<Pod>),
    /// Deletes a pod gracefully.
    DeletePod {
        /// The pod.
        name: String,
        /// Only if it is still this one.
        uid: String,
    },
    /// Sets labels on a pod.
    LabelPod {
        /// The pod.
        name: String,
        /// The labels.
        labels: BTreeMap<String, String>,
    },
    /// Has PostgreSQL restarted in its pod.
    Restart {
        /// The instance.
        instance: String,
    },
}

/// An Event to be written about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterEvent {
    /// Whether it needs attention.
    pub warning: bool,
    /// What kind of thing it is.
    pub reason: Reason,
    /// In words.
    pub text: String,
}

/// Reasons of Events: a closed set, also a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// An instance is added.
    CreatingInstance,
    /// An instance is removed.
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
    /// An instance cannot go on by itself.
    InstanceFailed,
    /// PostgreSQL is restarted for changed settings.
    Restarting,
    /// A pod is replaced because its template changed.
    ReplacingPod,
    /// A volume grows.
    GrowingVolume,
    /// A field of the manifest is not followed as it is written.
    SpecWarning,
    /// The manifest cannot be followed.
    SpecRefused,
    /// The API server lacks something; it is left out.
    ApiMissing,
    /// The archive does not take WAL.
    ArchivingFails,
    /// The archive takes WAL again.
    ArchivingWorks,
    /// A certificate is made or renewed.
    CertificateRenewed,
}

impl Reason {
    /// Whether it is about a state that lasts, and would be told at every look; others are about a moment.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::NoCandidate | Self::InstanceFailed | Self::SpecWarning | Self::SpecRefused | Self::ApiMissing
        )
    }

    /// In camel case, as Events have it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// What the operator is doing; texts of `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The manifest cannot be followed.
    SpecRefused,
    /// The first instance comes to its data.
    Bootstrapping,
    /// The primary is lost.
    FailingOver,
    /// The primary hands over.
    SwitchingOver,
    /// The primary does not take writes and nothing replaces it.
    PrimaryDown,
    /// An instance cannot go on by itself.
    InstanceFailed,
    /// Instances are being added.
    CreatingInstances,
    /// Instances are being removed.
    RemovingInstances,
    /// Instances are being restarted.
    Restarting,
    /// Instances are not ready yet.
    WaitingForInstances,
    /// All is as wished.
    Healthy,
}

impl Phase {
    /// For people.
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
    /// The cluster's authority.
    Authority,
    /// Certificate of PostgreSQL and of the status port.
    Server,
    /// Certificate of the standbys.
    Replication,
    /// Certificate that the operator shows.
    Operator,
    /// User, password and URI of the application.
    Application,
    /// Password of `postgres`.
    Superuser,
}

impl SecretKind {
    /// Its name.
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
