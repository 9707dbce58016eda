//! What a decision about backups sees of a cluster: plain values, read once by [`read`](super::backup).
//!
//! An instance that does not answer has no `status`, and an instance whose pod is gone is not in the list. The two
//! differ: a run may continue during a network fault but not without its pod.

use holdfast_kube_api::cluster::{BackupTarget, BarmanObjectStore, VolumeSnapshotConfiguration};
use holdfast_kube_api::status_port::{BackupState, InstanceStatus, Role, SnapshotState};

/// A cluster, as decisions about backups see it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterView {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether its first instance has its data (`status.systemID`).
    pub bootstrapped: bool,
    /// `spec.instances`.
    pub desired_instances: i32,
    /// `spec.backup.barmanObjectStore`.
    pub archive: Option<BarmanObjectStore>,
    /// `spec.backup.volumeSnapshot`; the defaults when it is absent.
    pub snapshots: VolumeSnapshotConfiguration,
    /// `spec.backup.target`.
    pub target: BackupTarget,
    /// The instances that have a pod.
    pub instances: Vec<InstanceView>,
}

impl ClusterView {
    /// The instance of this name, if it has a pod.
    pub fn instance(&self, name: &str) -> Option<&InstanceView> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// The instance that reports that it takes writes.
    pub fn primary(&self) -> Option<&InstanceView> {
        self.instances.iter().find(|instance| instance.is_usable(Role::Primary))
    }
}

/// An instance that has a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InstanceView {
    /// The name of the instance and of its pod.
    pub name: String,
    /// The number at the end of its name.
    pub serial: i32,
    /// The pod's IP address, once it has one.
    pub address: Option<String>,
    /// Whether the pod is being deleted.
    pub terminating: bool,
    /// Its status; `None` if it does not answer or was not asked.
    pub status: Option<InstanceStatus>,
    /// The volumes of its data directory and of its WAL.
    pub volumes: Vec<Volume>,
}

impl InstanceView {
    /// Whether it has this role, accepts connections, and is not being deleted.
    pub fn is_usable(&self, role: Role) -> bool {
        !self.terminating
            && self.status.as_ref().is_some_and(|status| status.ready && status.role == Some(role) && !status.diverged)
    }

    /// The run that this instance is busy with.
    pub fn busy_with(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        let backup =
            status.backup.as_ref().filter(|run| matches!(run.state, BackupState::Running | BackupState::WaitingForWal));
        let snapshot =
            status.snapshot.as_ref().filter(|run| !matches!(run.state, SnapshotState::Stopped | SnapshotState::Failed));
        backup.map(|run| run.uid.as_str()).or_else(|| snapshot.map(|run| run.uid.as_str()))
    }
}

/// A volume of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Name of the claim.
    pub claim: String,
    /// `PG_DATA` or `PG_WAL`.
    pub kind: String,
}

/// What is known of a run on an instance.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum InstanceAnswer<T> {
    /// No request was sent.
    #[default]
    NotAsked,
    /// The instance did not answer, or not in a known form; the text says why.
    Silent(String),
    /// The instance answered that it does not know the run: its manager was started after the request.
    Unknown,
    /// The state of the run.
    Known(T),
}
