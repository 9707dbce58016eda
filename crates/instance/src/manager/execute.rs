//! Carries out one step.

use super::Manager;
use crate::bootstrap::{Bootstrap, initdb, join, recovery};
use crate::error::{Error, Kind, Result};
use crate::logs;
use crate::plan::{Method, Observed, Step, Volume};
use crate::postgres::{Postmaster, StopMode, end_leftover};
use crate::rejoin;
use crate::server_facts;
use crate::settings::floor;
use crate::space;
use crate::state::StartedServer;
use crate::volume::{self, write_durably};
use holdfast_kube_api::status_port::{InstancePhase, Role};
use holdfast_kube_api::{Backup, Cluster};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The time limit of an orderly stop that another instance waits for.
const DEMOTE_WITHIN: Duration = Duration::from_mins(1);
/// Releasing the Lease takes one request.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);
/// The keeper reports within moments whether it has the Lease.
const LEASE_WITHIN: Duration = Duration::from_secs(1);

impl Manager {
    /// Carries out one step.
    ///
    /// # Errors
    /// When it fails; the state is then observed again.
    pub(super) async fn execute(&self, step: Step, observed: &Observed, memory: &mut super::run::Memory) -> Result<()> {
        let Some(cluster) = self.context.cluster() else {
            self.context.state.set_phase(InstancePhase::Starting, "the Cluster has not been read yet");
            return Ok(());
        };
        match step {
            Step::Bootstrap(method) => self.bootstrap(method, observed, cluster).await,
            Step::Join => {
                self.context.state.set_phase(InstancePhase::Joining, "copying the primary");
                self.prepare_places(&cluster).await?;
                join::run(&self.work(cluster)).await
            }
            Step::Rewind(primary) => {
                self.context
                    .state
                    .set_phase(InstancePhase::Rewinding, format!("running pg_rewind to synchronize with {primary}"));
                self.stop_server(DEMOTE_WITHIN).await;
                self.prepare_places(&cluster).await?;
                self.write_server_files(&cluster)?;
                match rejoin::rewind(&self.work(cluster)).await {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind == Kind::Stuck => {
                        tracing::warn!("pg_rewind failed; copying the data directory from the primary again\n{error}");
                        memory.rewind_failed = true;
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Step::CopyAgain => {
                self.context.state.set_phase(InstancePhase::Joining, "copying the primary, because pg_rewind failed");
                self.prepare_places(&cluster).await?;
                join::run(&self.work(cluster)).await?;
                memory.rewind_failed = false;
                Ok(())
            }
            Step::Start(role) => self.start(role, observed, &cluster).await,
            Step::AcquireLease => {
                // The keeper reports what it waits for.
                if self.context.state.phase() != InstancePhase::Waiting {
                    self.context.state.set_phase(InstancePhase::Waiting, "taking the Lease of the primary");
                }
                self.lease.want();
                self.lease_taken().await;
                Ok(())
            }
            Step::ReleaseLease => {
                self.lease.give_back(GIVE_BACK_WITHIN).await;
                Ok(())
            }
            Step::Promote => self.promote().await,
            Step::Demote => {
                self.context
                    .state
                    .set_phase(InstancePhase::Demoting, "stopping PostgreSQL: another instance is the primary now");
                self.stop_primary(Duration::ZERO, DEMOTE_WITHIN).await;
                self.lease.give_back(GIVE_BACK_WITHIN).await;
                Ok(())
            }
            Step::Fence => {
                self.context.state.set_phase(
                    InstancePhase::Demoting,
                    "stopping PostgreSQL immediately: this instance does not hold the Lease",
                );
                if let Some(served) = self.context.state.server() {
                    served.postmaster.stop(StopMode::Immediate);
                    served.postmaster.ended().await;
                }
                self.server_ended().await;
                Ok(())
            }
            Step::Pause => {
                self.context.state.set_phase(InstancePhase::Paused, "stopping PostgreSQL for a cold snapshot");
                self.stop_server(DEMOTE_WITHIN).await;
                Ok(())
            }
            Step::Keep => {
                let doing = match self.context.state.facts().map(|facts| facts.role) {
                    Some(Role::Primary) => "taking writes",
                    _ => "following the primary",
                };
                self.context.state.set_phase(InstancePhase::Running, memory.problems.beside(doing));
                self.keep(&cluster, memory).await;
                Ok(())
            }
            Step::Wait(what) => {
                let phase = if self.context.state.paused() {
                    InstancePhase::Paused
                } else if self.context.state.server().is_some() {
                    InstancePhase::StartingPostgres
                } else {
                    InstancePhase::Waiting
                };
                self.context.state.set_phase(phase, what);
                Ok(())
            }
            Step::Stuck(what, hint) => Err(Error::stuck(what).doing("deciding what to do with the volume").hint(hint)),
        }
    }

    /// What the ways of bootstrap need.
    pub(super) fn work(&self, cluster: Arc<Cluster>) -> Bootstrap<'_> {
        Bootstrap {
            identity: &self.context.identity,
            paths: &self.context.paths,
            programs: &self.programs,
            operating_user: self.operating_user.as_deref(),
            cluster,
            secrets: &self.secrets,
            state: &self.context.state,
            stop: &self.context.stop,
        }
    }

    /// Prepares what a verb and a copy read: folders, certificates, Holdfast's configuration.
    async fn prepare_places(&self, cluster: &Cluster) -> Result<()> {
        self.make_folders()?;
        crate::tls::copy(&self.context.paths)?;
        self.write_archive_config(cluster).await
    }

    async fn bootstrap(&self, method: Method, observed: &Observed, cluster: Arc<Cluster>) -> Result<()> {
        self.context.state.set_phase(InstancePhase::Bootstrapping, "creating the first data directory");
        // From here on this instance has the cluster's data: no other instance may create it at the same time.
        if !self.context.state.holds_lease() {
            self.lease.want();
            self.lease_taken().await;
            if !self.context.state.holds_lease() {
                return Err(Error::retry(self.context.state.status().message).doing("taking the Lease of the primary"));
            }
        }
        self.prepare_places(&cluster).await?;
        let found = match &observed.volume {
            Volume::Unfinished(_, progress) => Some(*progress),
            _ => None,
        };
        let bootstrapped = match method {
            Method::Initdb => initdb::run(&self.work(cluster), found).await,
            Method::Recovery | Method::Snapshot => {
                let backup = self.recovery_backup(&cluster).await?;
                let source = recovery::source(&cluster, backup.as_ref())?;
                if let Some(source) = &source {
                    let path = self.context.paths.source_config();
                    self.write_holdfast_config(&source.store, &source.name, None, &path).await?;
                }
                let backup = backup.as_ref();
                recovery::run(&self.work(cluster), method, found, source.as_ref(), backup).await
            }
        };
        self.server_ended().await;
        bootstrapped?;
        self.context.state.set_bootstrap(None);
        Ok(())
    }

    /// The `Backup` that a recovery names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn recovery_backup(&self, cluster: &Cluster) -> Result<Option<Backup>> {
        let recovery = cluster.spec.bootstrap.as_ref().and_then(|bootstrap| bootstrap.recovery.as_ref());
        let Some(named) = recovery.and_then(|recovery| recovery.backup.as_ref()) else { return Ok(None) };
        let getting = tokio::time::timeout(GIVE_BACK_WITHIN, self.backup_api.get(&named.name));
        let found = getting.await.map_err(|_| Error::retry("the API server does not answer"))?;
        found.map(Some).map_err(|error| {
            Error::retry(format!("Backup {} cannot be read: {error}", named.name))
                .doing("looking for the archive to recover from")
                .hint("bootstrap.recovery.backup names a Backup in the same namespace")
        })
    }

    async fn lease_taken(&self) {
        let held = async {
            while !self.context.state.holds_lease() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        drop(tokio::time::timeout(LEASE_WITHIN, held).await);
    }

    async fn start(&self, role: Role, observed: &Observed, cluster: &Arc<Cluster>) -> Result<()> {
        self.server_ended().await;
        self.context.state.set_phase(InstancePhase::StartingPostgres, "starting PostgreSQL");
        let configured = self.prepare_places(cluster).await;
        if let Err(error) = configured {
            // Without its Secrets a new cluster is not archived; with an older configuration, archiving continues as
            // before.
            if !self.context.paths.archive_config().exists() {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        self.write_server_files(cluster)?;
        self.clean_auto_conf()?;
        // A stop that was killed has left it.
        let gives_up = self.context.paths.archive_gives_up();
        match std::fs::remove_file(&gives_up) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::file("remove", &gives_up, &error));
            }
            _ => {}
        }
        end_leftover(&self.context.paths.pgdata).await?;
        space::release(&self.context.paths);
        let mut settings = Vec::new();
        if role == Role::Replica {
            let standby = self.context.paths.pgdata.join("standby.signal");
            if !standby.exists() {
                write_durably(&standby, b"", 0o600)?;
            }
            drop(std::fs::remove_file(self.context.paths.pgdata.join("recovery.signal")));
            settings = volume::control(&self.context.paths.pgdata)?
                .map(|control| floor::settings(&cluster.spec, &control))
                .unwrap_or_default();
        }
        if role == Role::Primary && !self.context.state.holds_lease() {
            return Err(Error::retry("the Lease was lost before PostgreSQL was started"));
        }
        let (postmaster, stderr) = Postmaster::start(&self.programs, &self.context.paths, &settings)?;
        let served =
            StartedServer { postmaster, started_as: role, isolated: false, last_fatal: Arc::new(Mutex::new(None)) };
        tokio::spawn(logs::follow(stderr, self.context.state.errors.clone(), Arc::clone(&served.last_fatal)));
        // The keeper may have lost the Lease in between: it stops the server that it finds here.
        self.context.state.set_server(Some(served.clone()));
        if role == Role::Primary && !self.context.state.holds_lease() {
            served.postmaster.stop(StopMode::Immediate);
        }
        self.context.state.set_applied(cluster.metadata.generation);
        tracing::info!(?role, target = ?observed.cluster.as_ref().and_then(|view| view.target_primary.as_ref()), "PostgreSQL is started");
        self.wait_started(&served).await
    }

    /// Waits until the server accepts connections or ends, or until the loop has something else to do.
    async fn wait_started(&self, served: &StartedServer) -> Result<()> {
        for _ in 0..20 {
            if let Some(exit) = served.postmaster.exited() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.server_ended().await;
                return Err(Error { kind: Kind::Retry, ..crate::bootstrap::isolated::ended(served, exit.0) }
                    .doing("starting PostgreSQL"));
            }
            server_facts::refresh(&self.context).await;
            if self.context.state.facts().is_some() || self.context.stop.is_cancelled() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn promote(&self) -> Result<()> {
        self.context.state.set_phase(InstancePhase::Promoting, "becoming the primary");
        if !self.context.state.holds_lease() {
            return Err(Error::retry("the Lease was lost before the promotion"));
        }
        self.context
            .sql
            .query("SELECT pg_promote(wait => false)", &[])
            .await
            .map_err(|error| error.doing("promoting PostgreSQL"))?;
        let promoted = async {
            loop {
                server_facts::refresh(&self.context).await;
                let facts = self.context.state.facts();
                if facts.is_none_or(|facts| facts.role == Role::Primary) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Replaying the rest of the WAL takes time; the loop checks again.
        drop(tokio::time::timeout(Duration::from_secs(5), promoted).await);
        Ok(())
    }

    /// Stops the server in order, if it runs.
    pub(super) async fn stop_server(&self, limit: Duration) {
        if let Some(served) = self.context.state.server() {
            self.context.sql.close().await;
            served.postmaster.stop_within(limit).await;
        }
        self.server_ended().await;
    }

    /// Forgets a server that has ended.
    pub(super) async fn server_ended(&self) {
        if self.context.state.server().is_none() {
            self.context.sql.close().await;
            self.context.state.set_server(None);
        }
    }
}
