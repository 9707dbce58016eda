//! The state of the instance: several tasks write it, all may read it, and the status port reports it.

use crate::identity::Identity;
use crate::logs::Errors;
use crate::postgres::{Facts, Postmaster, StopMode};
use holdfast_kube_api::cluster::{BootstrapProgress, Recoverability};
use holdfast_kube_api::status_port::{
    ArchiveStatus, BackupRun, InstancePhase, InstanceStatus, Role, SnapshotRun, SnapshotStart,
};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub struct StartedServer {
    /// Its process.
    pub postmaster: Postmaster,
    pub started_as: Role,
    /// Whether it belongs to a bootstrap: clients cannot connect.
    pub isolated: bool,
    /// Its last message of level FATAL.
    pub last_fatal: Arc<Mutex<Option<String>>>,
}

#[derive(Debug, Default)]
struct Inner {
    phase: InstancePhase,
    message: String,
    error: Option<String>,
    housekeeping: Option<String>,
    bootstrap: Option<BootstrapProgress>,
    server: Option<StartedServer>,
    facts: Option<(Facts, Instant)>,
    system_id: Option<String>,
    stopped_at: Option<(u32, String)>,
    timeline_history: Option<String>,
    holds_lease: bool,
    wants_lease: bool,
    diverged: bool,
    paused: bool,
    applied_generation: Option<i64>,
    archive: Option<ArchiveStatus>,
    recoverability: Option<Recoverability>,
    snapshot_starts: Vec<SnapshotStart>,
    backup: Option<BackupRun>,
    snapshot: Option<SnapshotRun>,
}

/// The state of the instance.
#[derive(Debug)]
pub struct State {
    identity: Identity,
    postgres_major: u16,
    inner: Mutex<Inner>,
    /// The last errors of programs that the server calls.
    pub errors: Errors,
    wake: Notify,
}

impl State {
    /// A state in which nothing is known yet.
    pub fn new(identity: &Identity, postgres_major: u16) -> Self {
        Self {
            identity: identity.clone(),
            postgres_major,
            inner: Mutex::default(),
            errors: Errors::default(),
            wake: Notify::new(),
        }
    }

    /// PostgreSQL's major version.
    pub fn postgres_major(&self) -> u16 {
        self.postgres_major
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Makes the loop run its next round now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`Self::wake`].
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Sets what the instance is doing. An earlier error is cleared.
    pub fn set_phase(&self, phase: InstancePhase, message: impl Into<String>) {
        let message = message.into();
        let mut inner = self.inner();
        if inner.phase != phase || inner.message != message {
            tracing::info!(?phase, "{message}");
        }
        (inner.phase, inner.message, inner.error) = (phase, message, None);
        if phase != InstancePhase::Running {
            inner.housekeeping = None;
        }
    }

    /// Sets what could not be kept up to date while PostgreSQL runs.
    pub fn set_housekeeping(&self, problem: Option<&crate::error::Error>) {
        let problem = problem.map(ToString::to_string);
        let mut inner = self.inner();
        if let Some(said) = problem.as_ref().filter(|said| inner.housekeeping.as_ref() != Some(*said)) {
            tracing::error!("{said}");
        }
        inner.housekeeping = problem;
    }

    /// What the instance is doing.
    pub fn phase(&self) -> InstancePhase {
        self.inner().phase
    }

    /// Sets the error that stops the instance; `failed` if somebody has to act.
    pub fn set_error(&self, error: &crate::error::Error, failed: bool) {
        let mut inner = self.inner();
        if failed {
            inner.phase = InstancePhase::Failed;
        }
        inner.message.clone_from(&error.what);
        inner.error = Some(error.to_string());
        if let Some(bootstrap) = inner.bootstrap.as_mut() {
            bootstrap.error = Some(error.to_string());
        }
    }

    /// Sets the message about the Lease, while the instance waits for it.
    pub fn lease_message(&self, message: String) {
        let mut inner = self.inner();
        if inner.message != message {
            tracing::info!("{message}");
        }
        inner.message = message;
    }

    /// Sets the progress of the bootstrap; `None` if there is no bootstrap.
    pub fn set_bootstrap(&self, progress: Option<BootstrapProgress>) {
        let mut inner = self.inner();
        if let Some(step) = progress.as_ref().map(|progress| &progress.step)
            && inner.phase == InstancePhase::Bootstrapping
        {
            inner.message = format!("creating the first data directory: {step}");
        }
        inner.bootstrap = progress;
    }

    /// Sets the server; `None` if none runs.
    pub fn set_server(&self, server: Option<StartedServer>) {
        let mut inner = self.inner();
        inner.server = server;
        inner.facts = None;
    }

    /// The server, unless it has ended.
    pub fn server(&self) -> Option<StartedServer> {
        self.inner().server.clone().filter(|server| server.postmaster.exited().is_none())
    }

    /// The server, even if it has ended since the last round.
    pub fn server_or_ended(&self) -> Option<StartedServer> {
        self.inner().server.clone()
    }

    /// Sets what the server reports about itself.
    pub fn set_facts(&self, facts: Option<Facts>) {
        self.inner().facts = facts.map(|facts| (facts, Instant::now()));
    }

    /// What the server last reported about itself.
    pub fn facts(&self) -> Option<Facts> {
        self.inner().facts.as_ref().map(|(facts, _)| facts.clone())
    }

    /// Sets what `pg_control` says: the system identifier of a complete data directory, and the end of a stopped one.
    pub fn set_control(&self, system_id: Option<String>, stopped_at: Option<(u32, String)>) {
        let mut inner = self.inner();
        (inner.system_id, inner.stopped_at) = (system_id, stopped_at);
    }

    /// Sets the history file of the server's timeline.
    pub fn set_timeline_history(&self, history: Option<String>) {
        self.inner().timeline_history = history;
    }

    /// Whether this instance holds the Lease.
    pub fn holds_lease(&self) -> bool {
        self.inner().holds_lease
    }

    /// Sets whether this instance holds the Lease.
    pub fn set_holds_lease(&self, holds: bool) {
        self.inner().holds_lease = holds;
        self.wake();
    }

    /// Whether the keeper may take the Lease.
    pub fn wants_lease(&self) -> bool {
        self.inner().wants_lease
    }

    /// Sets [`Self::wants_lease`]. Only the keeper does: as long as it may still write the Lease, the status says so.
    pub fn set_wants_lease(&self, wants: bool) {
        self.inner().wants_lease = wants;
    }

    /// With the name it identifies the holder of a Lease.
    pub fn pod_uid(&self) -> &str {
        &self.identity.pod_uid
    }

    /// The Lease is lost: PostgreSQL stops immediately if it could take writes. The future ends when it has stopped.
    pub fn fence(&self) -> impl Future<Output = ()> + use<> {
        let server = {
            let mut inner = self.inner();
            inner.holds_lease = false;
            // A server that was told to promote may take writes before it reports so.
            let writes = inner.phase == InstancePhase::Promoting
                || inner.facts.as_ref().is_none_or(|(facts, _)| facts.role == Role::Primary);
            inner.server.clone().filter(|server| server.started_as == Role::Primary || writes)
        };
        if let Some(server) = &server {
            server.postmaster.stop(StopMode::Immediate);
        }
        self.wake();
        async move {
            if let Some(server) = server {
                server.postmaster.ended().await;
            }
        }
    }

    /// Whether PostgreSQL must be stopped for a cold snapshot.
    pub fn paused(&self) -> bool {
        self.inner().paused
    }

    /// Sets [`Self::paused`] and wakes the loop.
    pub fn set_paused(&self, paused: bool) {
        self.inner().paused = paused;
        self.wake();
    }

    /// Sets whether this standby's WAL has diverged from the primary's.
    pub fn set_diverged(&self, diverged: bool) {
        self.inner().diverged = diverged;
    }

    /// Sets the generation of the `Cluster` whose settings are in force.
    pub fn set_applied(&self, generation: Option<i64>) {
        self.inner().applied_generation = generation;
    }

    /// Sets the state of archiving.
    pub fn set_archive(&self, archive: Option<ArchiveStatus>) {
        self.inner().archive = archive;
    }

    /// Sets what could be restored, from the archive alone and from volume snapshots.
    pub fn set_recoverability(&self, recoverability: Option<Recoverability>, snapshot_starts: Vec<SnapshotStart>) {
        let mut inner = self.inner();
        inner.recoverability = recoverability;
        inner.snapshot_starts = snapshot_starts;
    }

    /// What could be restored from volume snapshots, at the last look-up.
    pub fn snapshot_starts(&self) -> Vec<SnapshotStart> {
        self.inner().snapshot_starts.clone()
    }

    /// What could be restored, at the last look-up.
    pub fn recoverability(&self) -> Option<Recoverability> {
        self.inner().recoverability.clone()
    }

    /// Changes the backup in place, under the lock.
    pub fn change_backup<T>(&self, change: impl FnOnce(&mut Option<BackupRun>) -> T) -> T {
        change(&mut self.inner().backup)
    }

    /// Changes the snapshot in place, under the lock.
    pub fn change_snapshot<T>(&self, change: impl FnOnce(&mut Option<SnapshotRun>) -> T) -> T {
        change(&mut self.inner().snapshot)
    }

    /// Whether PostgreSQL accepts connections in its role.
    pub fn ready(&self) -> bool {
        let inner = self.inner();
        is_ready(&inner)
    }

    /// The answer of the status port.
    pub fn status(&self) -> InstanceStatus {
        let inner = self.inner();
        let facts = inner.facts.as_ref().map(|(facts, _)| facts);
        let stopped = inner.stopped_at.as_ref().filter(|_| facts.is_none());
        InstanceStatus {
            instance: self.identity.instance.clone(),
            pod_uid: self.identity.pod_uid.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: inner.phase,
            message: inner.message.clone(),
            error: inner.error.clone(),
            housekeeping: inner.housekeeping.clone(),
            bootstrap: inner.bootstrap.clone(),
            system_id: inner.system_id.clone(),
            postgres_major: Some(self.postgres_major),
            role: facts.filter(|_| !is_isolated(&inner)).map(|facts| facts.role),
            ready: is_ready(&inner),
            holds_lease: inner.holds_lease,
            wants_lease: inner.wants_lease,
            // From the `Cluster` and the disk, which `Context::status` knows.
            target_primary: None,
            instance_names: Vec::new(),
            volumes: Vec::new(),
            timeline_id: facts
                .and_then(|facts| facts.timeline)
                .map(holdfast_pgtypes::TimelineId::get)
                .or_else(|| stopped.map(|(timeline, _)| *timeline)),
            lsn: facts
                .and_then(|facts| facts.lsn)
                .map(|lsn| lsn.to_string())
                .or_else(|| stopped.map(|(_, lsn)| lsn.clone())),
            replayed_lsn: facts.and_then(|facts| facts.replayed).map(|lsn| lsn.to_string()),
            receiving: facts.is_some_and(|facts| facts.receiving),
            diverged: inner.diverged,
            applied_generation: inner.applied_generation,
            pending_restart: facts.is_some_and(|facts| facts.pending_restart),
            timeline_history: inner.timeline_history.clone(),
            archive: inner.archive.clone(),
            recoverability: inner.recoverability.clone(),
            snapshot_starts: inner.snapshot_starts.clone(),
            backup: inner.backup.clone(),
            snapshot: inner.snapshot.clone(),
        }
    }
}

fn is_isolated(inner: &Inner) -> bool {
    inner.server.as_ref().is_some_and(|server| server.isolated)
}

fn is_ready(inner: &Inner) -> bool {
    let Some((facts, _)) = &inner.facts else { return false };
    let running = inner.server.as_ref().is_some_and(|server| !server.isolated && server.postmaster.exited().is_none());
    running
        && match facts.role {
            Role::Primary => inner.holds_lease,
            Role::Replica => !inner.diverged,
        }
}
