//! The lease of this run: takes it, renews it, and deletes it at the end.
//!
//! A lease that was not renewed in time is broken, and stays broken even if it is renewed later: others may have taken
//! this run for dead meanwhile. Its holder calls [`Lease::check`] before each step that would then do harm. The time
//! since the last renewal is measured by a clock that also runs while the machine sleeps ([`super::clock`]).

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, RunId};
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, MonotonicTime};
use super::{LEASE, LEASE_SECONDS};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::machine::Machine;
use crate::repository::{Repository, object_name};

/// How often a lease is renewed. A store that is unavailable for less than three quarters of the lease does no harm.
const PROLONG: Duration = Duration::from_mins(15);

/// The pause after a failed renewal.
const PROLONG_AGAIN: Duration = Duration::from_mins(1);

/// How often to check whether a lease is broken while its holder waits for something else.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The number of objects of a lease that are kept: the one in force and the one before. A listing that runs during a
/// change, as of a directory, then shows at least one of them.
const OBJECTS: usize = 2;

/// The run that holds a lease.
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

/// A lease held by this run. Dropping it releases it in the background.
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
    /// When the last successful renewal was requested.
    prolonged: MonotonicTime,
    broken: bool,
}

impl State {
    fn is_unbroken(&self) -> bool {
        !self.broken && self.prolonged.passed_at_most() < LEASE
    }
}

impl Lease {
    /// Takes a lease for this run and renews it until it is released.
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
        let prolonged = MonotonicTime::now();
        let first = create(repository, &record, clock).await.doing(|| "taking a lease".to_owned())?;
        let state = Mutex::new(State { names: vec![first], prolonged, broken: false });
        let shared = Arc::new(Shared { repository: repository.clone(), record, clock, state });
        let ending = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(&shared), ending.clone()));
        Ok(Self { shared, ending, task: Some(task) })
    }

    pub(crate) fn run(&self) -> &RunId {
        &self.shared.record.run
    }

    /// The time at which it was taken, by this host's clock.
    pub(crate) fn taken(&self) -> DateTime<Utc> {
        self.shared.record.since
    }

    /// The name of the object that is in force now.
    pub(crate) fn name(&self) -> String {
        self.shared.state().names.last().cloned().unwrap_or_default()
    }

    /// Whether it was valid without a break since it was taken, or taken again.
    pub(crate) fn is_unbroken(&self) -> bool {
        self.shared.state().is_unbroken()
    }

    /// Fails if the lease is broken: others may have taken this run for dead.
    ///
    /// # Errors
    /// [`Cause::LeaseEnded`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_unbroken() { Ok(()) } else { Err(self.ended()) }
    }

    /// The error for a broken lease.
    pub(crate) fn ended(&self) -> Error {
        let cluster = self.shared.record.cluster.to_string();
        Cause::LeaseEnded { store: self.shared.repository.describe(), cluster }.into()
    }

    /// Returns when the lease is broken.
    pub(crate) async fn breaks(&self) {
        while self.is_unbroken() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes the lease again after it was broken. The caller must then check what was removed meanwhile.
    ///
    /// # Errors
    /// Those of [`Repository::create_record`].
    pub(crate) async fn take_again(&self) -> Result<(), Error> {
        self.shared.prolong().await.doing(|| "taking a lease once more".to_owned())?;
        self.shared.state().broken = false;
        Ok(())
    }

    /// Releases the lease: deletes its objects.
    pub(crate) async fn release(mut self) {
        self.ending.cancel();
        if let Some(task) = self.task.take() {
            // The task only deletes, and it has already logged its errors.
            let _ = task.await;
        }
    }

    /// Acts as if the machine had slept for `length`.
    #[cfg(test)]
    pub(crate) fn sleep(&self, length: Duration) {
        let mut state = self.shared.state();
        state.prolonged = state.prolonged.slept(length);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The task deletes the object if the program lives long enough; if not, the lease ends by its time.
        self.ending.cancel();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    async fn prolong(&self) -> Result<(), Error> {
        let asked = MonotonicTime::now();
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

/// Renews a lease until it is released, then deletes its objects.
async fn keep(shared: Arc<Shared>, ending: CancellationToken) {
    let mut wait = PROLONG;
    while tokio::time::timeout(wait, ending.cancelled()).await.is_err() {
        wait = match shared.prolong().await {
            Ok(()) => PROLONG,
            Err(error) => {
                tracing::warn!(%error, "the lease of this run could not be renewed");
                PROLONG_AGAIN
            }
        };
    }
    let names = std::mem::take(&mut shared.state().names);
    shared.delete(&names).await;
}
