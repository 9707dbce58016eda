//! The lease of this run: taken, prolonged, given back.
//!
//! A lease that was not prolonged in time is broken, and stays so: others may have taken this run for dead meanwhile,
//! whatever was prolonged later. Its holder asks before each step that they could not bear ([`Lease::check`]), and how
//! long ago it was prolonged is known from a clock that goes on while the machine sleeps ([`super::clock`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, RunId};
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, Moment};
use super::{LEASE, LEASE_SECONDS};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::machine::Machine;
use crate::repository::{Repository, object_name};

/// How often a lease is prolonged: a store that is away for less than three quarters of its length costs nothing.
const PROLONG: Duration = Duration::from_mins(15);

/// How soon after an attempt that failed.
const PROLONG_AGAIN: Duration = Duration::from_mins(1);

/// How often it is looked whether a lease is broken while its holder waits for something else.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Objects of a lease that stay: the one in force, and the one before. Where a listing shows what changes under it, as that
/// of a directory may, it shows one of them.
const OBJECTS: usize = 2;

/// Whose lease it is.
#[derive(Debug, Clone)]
pub(crate) struct Holder<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) purpose: LeasePurpose,
    /// The backups whose objects are used, as in [`LeaseRecord::backups`].
    pub(crate) backups: Vec<BackupId>,
    pub(crate) host: &'a str,
}

/// A random id for a run.
pub(crate) fn new_run() -> Result<RunId, Error> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
    hex::encode(id).parse().map_err(|e| Cause::Internal(format!("run id: {e}")).into())
}

/// A lease of this run.
#[derive(Debug)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    ending: CancellationToken,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    repository: Repository,
    record: LeaseRecord,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The names of its objects, the one in force last.
    names: Vec<String>,
    /// When the last prolongation that succeeded was asked for.
    prolonged: Moment,
    broken: bool,
}

impl State {
    fn is_unbroken(&self) -> bool {
        !self.broken && self.prolonged.passed_at_most() < LEASE
    }
}

impl Lease {
    /// Takes a lease for this run and prolongs it until it is given back.
    ///
    /// # Errors
    /// Those of [`Repository::create_record`].
    pub(crate) async fn take(
        repository: &Repository,
        run: RunId,
        holder: Holder<'_>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let here = Machine::here();
        let record = LeaseRecord {
            run,
            cluster: holder.cluster.clone(),
            purpose: holder.purpose,
            backups: holder.backups,
            since: clock.now(),
            expires: clock.now(),
            host: holder.host.to_owned(),
            machine: here.id,
            boot: here.boot,
            pid_namespace: here.pid_namespace,
            pid: std::process::id(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let prolonged = Moment::now();
        let first = create(repository, &record, clock).await.doing(|| "taking a lease".to_owned())?;
        let state = Mutex::new(State { names: vec![first], prolonged, broken: false });
        let shared = Arc::new(Shared { repository: repository.clone(), record, clock, state });
        let ending = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(&shared), ending.clone()));
        Ok(Self { shared, ending, task: Some(task) })
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &RunId {
        &self.shared.record.run
    }

    /// When it was taken, by this host's clock.
    pub(crate) fn taken(&self) -> DateTime<Utc> {
        self.shared.record.since
    }

    /// The name of the object that is in force now.
    pub(crate) fn name(&self) -> String {
        self.shared.state().names.last().cloned().unwrap_or_default()
    }

    /// Whether it was in force without a break since it was taken, or begun anew.
    pub(crate) fn is_unbroken(&self) -> bool {
        self.shared.state().is_unbroken()
    }

    /// Fails if it is broken: others may have taken this run for dead.
    ///
    /// # Errors
    /// [`Cause::LeaseEnded`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_unbroken() { Ok(()) } else { Err(self.ended()) }
    }

    /// The error of one that is broken.
    pub(crate) fn ended(&self) -> Error {
        let cluster = self.shared.record.cluster.to_string();
        Cause::LeaseEnded { store: self.shared.repository.describe(), cluster }.into()
    }

    /// Ends when it is broken.
    pub(crate) async fn breaks(&self) {
        while self.is_unbroken() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes it once more after it was broken. Whatever may have gone meanwhile has to be looked for after that.
    ///
    /// # Errors
    /// Those of [`Repository::create_record`].
    pub(crate) async fn begin_anew(&self) -> Result<(), Error> {
        self.shared.prolong().await.doing(|| "taking a lease once more".to_owned())?;
        self.shared.state().broken = false;
        Ok(())
    }

    /// Gives it back.
    pub(crate) async fn release(mut self) {
        self.ending.cancel();
        if let Some(task) = self.task.take() {
            // It does nothing but delete; what fails there was said there.
            let _ = task.await;
        }
    }

    /// As if the machine had slept for so long.
    #[cfg(test)]
    pub(crate) fn sleep(&self, length: Duration) {
        let mut state = self.shared.state();
        state.prolonged = state.prolonged.slept(length);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The task deletes the object, if the program lives that long; if not, its time ends it.
        self.ending.cancel();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prolong(&self) -> Result<(), Error> {
        let asked = Moment::now();
        let name = create(&self.repository, &self.record, self.clock).await?;
        let old = {
            let mut state = self.state();
            state.broken = !state.is_unbroken();
            state.prolonged = asked;
            state.names.push(name);
            let over = state.names.len().saturating_sub(OBJECTS);
            state.names.drain(..over).collect::<Vec<String>>()
        };
        self.delete(&old).await;
        Ok(())
    }

    async fn delete(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let deleted = async {
            let objects: Vec<_> = names.iter().map(|name| object_name(name)).collect::<Result<_, Error>>()?;
            Ok::<_, Error>(self.repository.store().delete(&objects).await?)
        };
        if let Err(error) = deleted.await {
            tracing::debug!(leases = ?names, %error, "leases were not deleted, and end by their time");
        }
    }
}

async fn create(repository: &Repository, record: &LeaseRecord, clock: Clock) -> Result<String, Error> {
    let until = clock.now().checked_add_signed(TimeDelta::seconds(LEASE_SECONDS));
    let until = until.ok_or_else(|| Cause::Internal("the end of a lease is past all time".to_owned()))?;
    let until = LedgerTime::new(until).map_err(|e| Cause::Internal(e.to_string()))?;
    let record = LeaseRecord { expires: until.time(), ..record.clone() };
    let name = name::lease(&record.cluster, until, &record.run);
    repository.create_record(&name, &record).await?;
    Ok(name)
}

/// Prolongs a lease until it is given back, then deletes its objects.
async fn keep(shared: Arc<Shared>, ending: CancellationToken) {
    let mut wait = PROLONG;
    while tokio::time::timeout(wait, ending.cancelled()).await.is_err() {
        wait = match shared.prolong().await {
            Ok(()) => PROLONG,
            Err(error) => {
                tracing::warn!(%error, "the lease of this run could not be prolonged");
                PROLONG_AGAIN
            }
        };
    }
    let names = std::mem::take(&mut shared.state().names);
    shared.delete(&names).await;
}
