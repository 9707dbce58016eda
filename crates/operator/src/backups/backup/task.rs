//! The input and the output of a decision about one `Backup`.

use crate::backups::cluster_view::{ClusterView, InstanceAnswer};
use crate::backups::event::BackupEvent;
use crate::backups::snapshot::{ObservedSnapshot, SnapshotPlan};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase, BackupSpec, BackupStatus};
use holdfast_kube_api::status_port::{BackupRun, BackupState, SnapshotRequest, SnapshotRun};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a `Backup` waits for its `Cluster` to be created.
pub(crate) const CLUSTER_LIMIT: TimeDelta = TimeDelta::minutes(10);
/// How long a `Backup` whose turn it is waits for an instance that can take it. After that it fails, so that the next
/// one can try and people notice. The wait for a cluster that is being bootstrapped or recovered has no limit.
pub(crate) const INSTANCE_LIMIT: TimeDelta = TimeDelta::hours(1);
/// How long an instance with a pod may be silent before its run counts as lost.
pub(crate) const SILENCE_LIMIT: TimeDelta = TimeDelta::minutes(2);
/// How long a run may make no progress with reading data. Longer than a checkpoint that is spread over PostgreSQL's
/// default `checkpoint_timeout` of five minutes: every backup may begin with one.
pub(crate) const STALL_LIMIT: TimeDelta = TimeDelta::minutes(15);
/// How long a run may wait for WAL. The engine's own limit ends it earlier, with a better message; this one is for an
/// engine that is stuck.
pub(crate) const WAL_LIMIT: TimeDelta = TimeDelta::minutes(75);
/// How long ending the run of a deleted `Backup` is tried if the instance does not answer.
pub(crate) const GIVE_UP_LIMIT: TimeDelta = TimeDelta::minutes(1);
/// The maximum number of attempts of a `Backup`.
pub(crate) const ATTEMPTS: i32 = 5;
/// How often the primary is asked to switch WAL while a standby's backup waits. An idle primary switches only when
/// something was written since, so repeating it costs nothing.
pub(crate) const SWITCH_EVERY: TimeDelta = TimeDelta::seconds(10);
/// How often progress alone is written into the status.
pub(crate) const PROGRESS_EVERY: TimeDelta = TimeDelta::seconds(2);
/// How often a state is read again that no watch covers.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The fields of a `Backup` that decisions need.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Task {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: DateTime<Utc>,
    /// `metadata.deletionTimestamp`.
    pub deleted: Option<DateTime<Utc>>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// The spec as it was read.
    pub spec: BackupSpec,
    /// The status as it was read.
    pub status: BackupStatus,
}

impl Task {
    /// The phase in the status; `Pending` without one.
    pub fn phase(&self) -> BackupPhase {
        self.status.phase.unwrap_or_default()
    }

    /// How the backup is stored: the method of a running attempt, otherwise that of the spec.
    pub fn method(&self) -> BackupMethod {
        self.status.method.or(self.spec.method).unwrap_or_default()
    }

    /// The name of the newest attempt, as instances know it. Each attempt is a run of its own, so that the end of one
    /// attempt is never taken for the end of the next.
    pub fn run(&self) -> String {
        run_of(&self.uid, self.status.attempts)
    }

    /// The number of the attempt that instances know by this name, if it belongs to this `Backup`.
    pub fn attempt_of(&self, run: &str) -> Option<i32> {
        run.strip_prefix(&self.uid)?.strip_prefix('.')?.parse().ok()
    }

    /// The `while` line of its errors.
    pub fn doing(&self) -> String {
        match self.method() {
            BackupMethod::BarmanObjectStore => {
                format!("backing up cluster {} for Backup {}", self.spec.cluster.name, self.name)
            }
            BackupMethod::VolumeSnapshot => {
                format!("taking volume snapshots of cluster {} for Backup {}", self.spec.cluster.name, self.name)
            }
        }
    }
}

/// The name by which instances know an attempt of a `Backup`.
pub(crate) fn run_of(uid: &str, attempt: i32) -> String {
    format!("{uid}.{attempt}")
}

/// The uid of the `Backup` that this run belongs to.
pub(crate) fn uid_of(run: &str) -> &str {
    run.rsplit_once('.').map_or(run, |(uid, _)| uid)
}

/// The input of a decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The cluster; `None` if it does not exist.
    pub cluster: Option<ClusterView>,
    /// The name of the `Backup` that has to run before this one.
    pub ahead: Option<String>,
    /// Uids of all `Backup`s of the cluster that have not ended.
    pub known: BTreeSet<String>,
    /// The instance's answer about the run, for the object store.
    pub run: InstanceAnswer<BackupRun>,
    /// The instance's answer about its volumes, for snapshots.
    pub snapshot: InstanceAnswer<SnapshotRun>,
    /// The snapshots that exist for this `Backup`.
    pub snapshots: Vec<ObservedSnapshot>,
    /// Whether the API server knows `snapshot.storage.k8s.io/v1`.
    pub snapshots_known: bool,
}

/// What this operator remembers of a `Backup` between two reconciles. If it is lost, as by a restart, a wait is
/// repeated or a limit becomes longer, nothing worse.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Since when it has been its turn without an instance that could take it.
    pub waiting_since: Option<DateTime<Utc>>,
    /// The earliest time of the next attempt.
    pub retry_at: Option<DateTime<Utc>>,
    /// The last progress: the state, the bytes, and since when they are unchanged.
    pub progress: Option<(BackupState, u64, DateTime<Utc>)>,
    /// When a change of progress alone was last written into the status.
    pub progress_written: Option<DateTime<Utc>>,
    /// Since when the instance has not answered.
    pub silent_since: Option<DateTime<Utc>>,
    /// When the primary was last asked to switch WAL.
    pub switched_at: Option<DateTime<Utc>>,
    /// Why the instance refused the last request; set when an action is carried out.
    pub refused: Option<String>,
}

/// An action, carried out in this order before the status is written. Each can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep the `Backup` from being deleted before its run has ended.
    Hold,
    /// Begin a backup.
    Start {
        /// The name of the instance.
        instance: String,
        /// The name of the run.
        run: String,
    },
    /// End a run without a result.
    GiveUp {
        /// The name of the instance.
        instance: String,
        /// The name of the run.
        run: String,
    },
    /// Ask the primary to switch to a new segment.
    SwitchWal {
        /// The name of the primary.
        instance: String,
    },
    /// Make the volumes of an instance ready for a snapshot.
    Prepare {
        /// The name of the instance.
        instance: String,
        /// The name of the run.
        run: String,
        /// The request to the instance.
        request: SnapshotRequest,
    },
    /// End the backup mode, or start the server again, with a result.
    StopSnapshot {
        /// The name of the instance.
        instance: String,
        /// The name of the run.
        run: String,
    },
    /// The same without a result.
    Release {
        /// The name of the instance.
        instance: String,
        /// The name of the run.
        run: String,
    },
    /// Create a `VolumeSnapshot`.
    CreateSnapshot(Box<SnapshotPlan>),
    /// Write what a restore needs into the annotations of a `VolumeSnapshot`.
    Annotate {
        /// The name of the snapshot.
        snapshot: String,
        /// Annotations by name.
        annotations: Vec<(String, String)>,
    },
    /// Delete a `VolumeSnapshot`.
    DeleteSnapshot {
        /// The name of the snapshot.
        snapshot: String,
    },
}

/// When the next reconcile of the `Backup` happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// When something that is watched changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

/// The output of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Carried out first, in order. If one fails, the status is not written, and the next reconcile decides again.
    pub actions: Vec<Action>,
    /// The status to write.
    pub status: BackupStatus,
    /// What to remember until the next reconcile.
    pub memory: Memory,
    /// The Events to publish.
    pub events: Vec<BackupEvent>,
    /// When the next reconcile happens.
    pub next: Requeue,
    /// Whether the finalizer can be removed.
    pub let_go: bool,
}

impl Decision {
    /// The status and memory unchanged, and no action.
    pub(crate) fn keep(task: &Task, memory: &Memory, next: Requeue) -> Self {
        Self {
            actions: Vec::new(),
            status: BackupStatus { observed_generation: task.generation, ..task.status.clone() },
            memory: memory.clone(),
            events: Vec::new(),
            next,
            let_go: false,
        }
    }

    /// With one more action.
    pub(crate) fn act(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }
}
