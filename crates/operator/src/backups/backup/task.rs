//! What a decision about one `Backup` is made from, and what it is made of.

use crate::backups::cluster_view::{ClusterView, InstanceAnswer};
use crate::backups::event::BackupEvent;
use crate::backups::snapshot::{SnapshotPlan, SnapshotSeen};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase, BackupSpec, BackupStatus};
use holdfast_kube_api::status_port::{BackupRun, BackupState, SnapshotRequest, SnapshotRun};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a `Backup` waits for its `Cluster` to be created.
pub(crate) const CLUSTER_LIMIT: TimeDelta = TimeDelta::minutes(10);
/// How long it waits, at its turn, for an instance that can take it. Failing then lets the next one try, and tells
/// people; a cluster that is still being bootstrapped or recovered is waited for without limit.
pub(crate) const INSTANCE_LIMIT: TimeDelta = TimeDelta::hours(1);
/// How long an instance whose pod is there may not answer before its run counts as lost.
pub(crate) const SILENCE_LIMIT: TimeDelta = TimeDelta::minutes(2);
/// How long a run may read data without reading a byte. Longer than a checkpoint that is spread over PostgreSQL's
/// default `checkpoint_timeout` of five minutes, which every backup may begin with.
pub(crate) const STALL_LIMIT: TimeDelta = TimeDelta::minutes(15);
/// How long a run may wait for WAL. The engine's own limit ends it earlier, with a better message; this one is for an
/// engine that is stuck.
pub(crate) const WAL_LIMIT: TimeDelta = TimeDelta::minutes(75);
/// How long giving up a run is tried against an instance that does not answer, once the `Backup` is deleted.
pub(crate) const GIVE_UP_LIMIT: TimeDelta = TimeDelta::minutes(1);
/// How many times a backup is begun.
pub(crate) const ATTEMPTS: i32 = 5;
/// How often the primary is asked to switch WAL while a standby's backup waits. An idle primary switches only when
/// something was written since, so repeating it costs nothing.
pub(crate) const SWITCH_EVERY: TimeDelta = TimeDelta::seconds(10);
/// How often progress alone is written into the status.
pub(crate) const PROGRESS_EVERY: TimeDelta = TimeDelta::seconds(2);
/// How often something that is waited for and not watched is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A `Backup`, as far as decisions need it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// When its deletion was asked for.
    pub deleted: Option<DateTime<Utc>>,
    /// Its generation.
    pub generation: Option<i64>,
    /// What is asked.
    pub spec: BackupSpec,
    /// Where it stood when it was read.
    pub status: BackupStatus,
}

impl Task {
    /// Where it stands.
    pub fn phase(&self) -> BackupPhase {
        self.status.phase.unwrap_or_default()
    }

    /// How it is stored: what an attempt that runs was begun with, else what the spec says.
    pub fn method(&self) -> BackupMethod {
        self.status.method.or(self.spec.method).unwrap_or_default()
    }

    /// What instances know the attempt that was begun last by. Each attempt is a run of its own, so that what one says
    /// of its end is never taken for the end of the next.
    pub fn run(&self) -> String {
        run_of(&self.uid, self.status.attempts)
    }

    /// The number of the attempt that an instance knows by this name, if it is one of this `Backup`.
    pub fn attempt_of(&self, run: &str) -> Option<i32> {
        run.strip_prefix(&self.uid)?.strip_prefix('.')?.parse().ok()
    }

    /// What it is doing, for the middle part of errors.
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

/// What instances know an attempt of a `Backup` by.
pub(crate) fn run_of(uid: &str, attempt: i32) -> String {
    format!("{uid}.{attempt}")
}

/// The uid of the `Backup` whose attempt instances know by this name.
pub(crate) fn uid_of(run: &str) -> &str {
    run.rsplit_once('.').map_or(run, |(uid, _)| uid)
}

/// What was read for a decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The cluster; `None` when the API server says that there is none.
    pub cluster: Option<ClusterView>,
    /// The `Backup` whose turn it is before this one.
    pub ahead: Option<String>,
    /// Uids of all `Backup`s of the cluster that are not over.
    pub known: BTreeSet<String>,
    /// What the instance says of the run, for the object store.
    pub run: InstanceAnswer<BackupRun>,
    /// What the instance says of its volumes, for snapshots.
    pub snapshot: InstanceAnswer<SnapshotRun>,
    /// The snapshots that exist for this `Backup`.
    pub snapshots: Vec<SnapshotSeen>,
    /// Whether the API server knows `snapshot.storage.k8s.io/v1`.
    pub snapshots_known: bool,
}

/// What this operator remembers of a `Backup` from one look to the next. Losing it, as a restart does, costs a wait or
/// makes a limit longer, never more.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Since when it was its turn and no instance could take it.
    pub waiting_since: Option<DateTime<Utc>>,
    /// When the next attempt may begin.
    pub retry_at: Option<DateTime<Utc>>,
    /// The last progress: the state, the bytes, and since when they are so.
    pub progress: Option<(BackupState, u64, DateTime<Utc>)>,
    /// When progress alone was written into the status.
    pub progress_written: Option<DateTime<Utc>>,
    /// Since when the instance does not answer.
    pub silent_since: Option<DateTime<Utc>>,
    /// When the primary was asked to switch WAL.
    pub switched_at: Option<DateTime<Utc>>,
    /// Why the instance did not take the request that was made last; written when an action is carried out.
    pub refused: Option<String>,
}

/// Something to be done, in this order, before the status is written. Each can be repeated.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Keep the `Backup` from being deleted before its run is given up.
    Hold,
    /// Begin a backup.
    Start {
        /// On this instance.
        instance: String,
        /// The run.
        run: String,
    },
    /// End a run without a result.
    GiveUp {
        /// On this instance.
        instance: String,
        /// The run.
        run: String,
    },
    /// Ask the primary to switch to a new segment.
    SwitchWal {
        /// The primary.
        instance: String,
    },
    /// Make the volumes of an instance ready for a snapshot.
    Prepare {
        /// The instance.
        instance: String,
        /// The run.
        run: String,
        /// How.
        request: SnapshotRequest,
    },
    /// End the backup mode, or start the server again, with a result.
    StopSnapshot {
        /// The instance.
        instance: String,
        /// The run.
        run: String,
    },
    /// The same without a result.
    Release {
        /// The instance.
        instance: String,
        /// The run.
        run: String,
    },
    /// Create a `VolumeSnapshot`.
    CreateSnapshot(Box<SnapshotPlan>),
    /// Keep what a restore needs on a `VolumeSnapshot`.
    Annotate {
        /// The snapshot.
        snapshot: String,
        /// Annotations by name.
        annotations: Vec<(String, String)>,
    },
    /// Delete a `VolumeSnapshot`.
    DeleteSnapshot {
        /// The snapshot.
        snapshot: String,
    },
}

/// When the `Backup` is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// When something that is watched changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Done first, in order. When one fails the status is not written, and the decision is made again.
    pub actions: Vec<Action>,
    /// The new status.
    pub status: BackupStatus,
    /// What is remembered.
    pub memory: Memory,
    /// Events.
    pub events: Vec<BackupEvent>,
    /// When to look again.
    pub next: Requeue,
    /// Whether nothing holds the `Backup` from being deleted any more.
    pub let_go: bool,
}

impl Decision {
    /// The status and memory as they are, and nothing to be done.
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
