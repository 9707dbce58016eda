//! Leases: a run that uses objects of others says so, as long as it is alive.
//!
//! A run creates its lease, then looks at what was decided; `expire` writes what it decided, then looks at the leases. So
//! of the two at least one sees the other, on any store that shows a new object in its next listing.
//!
//! A lease is prolonged long before its end, by a new object of a later time. A run that is killed leaves its last one: it
//! is over when its time has passed by more than clocks can differ, and the next `expire` deletes it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, ObjectPath, RunId};
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Repository, object_name};
use crate::error::{Cause, Error, ResultExt};

/// How long a lease is in force: a killed run keeps what it used for so long, and a store that is away for less than
/// three quarters of it costs a living run nothing.
pub(crate) const LEASE: Duration = Duration::from_hours(1);

/// How often a lease is prolonged.
const PROLONG: Duration = Duration::from_mins(15);

/// The time, from one reading of a clock that the caller gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    read: DateTime<Utc>,
    at: Instant,
}

impl Clock {
    /// From now on.
    pub(crate) fn starting(now: DateTime<Utc>) -> Self {
        Self { read: now, at: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(self) -> DateTime<Utc> {
        TimeDelta::from_std(self.at.elapsed())
            .ok()
            .and_then(|passed| self.read.checked_add_signed(passed))
            .unwrap_or(self.read)
    }

    /// How long ago that was.
    pub(crate) fn passed(self) -> Duration {
        self.at.elapsed()
    }

    /// The same clock, earlier by so much.
    pub(crate) fn earlier(self, by: TimeDelta) -> Self {
        Self { read: self.read.checked_sub_signed(by).unwrap_or(self.read), at: self.at }
    }
}

/// Whose lease it is.
#[derive(Debug, Clone)]
pub(crate) struct Holder<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) purpose: LeasePurpose,
    /// The backups whose objects are used; empty for all.
    pub(crate) backups: Vec<BackupId>,
    pub(crate) host: &'a str,
}

/// A lease that a listing shows.
#[derive(Debug)]
pub(crate) struct ListedLease {
    pub(crate) name: String,
    pub(crate) run: RunId,
    pub(crate) expires: DateTime<Utc>,
    /// What it says, or why that cannot be read.
    pub(crate) record: Result<LeaseRecord, Error>,
}

impl ListedLease {
    /// Whether its run is known to be dead: it was a process of this very host, and is gone.
    pub(crate) fn is_of_dead_process(&self, host: &str) -> bool {
        let Ok(record) = &self.record else { return false };
        record.host == host
            && record.boot.is_some()
            && record.boot == boot()
            && Path::new("/proc/self").exists()
            && !Path::new(&format!("/proc/{}", record.pid)).exists()
    }
}

impl Repository {
    /// The names of all leases of a cluster, with their runs and ends.
    pub(crate) async fn lease_names(
        &self,
        cluster: &ClusterName,
    ) -> Result<Vec<(String, RunId, DateTime<Utc>)>, Error> {
        let listed = self.store().list(&name::leases_folder(cluster), None).await;
        let listed = listed.doing(|| format!("listing the leases of {cluster} in {}", self.describe()))?;
        let leases = listed.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Lease { expires, run, .. }) => Some((object.name.to_string(), run, expires.time())),
            _ => None,
        });
        Ok(leases.collect())
    }

    /// All leases of a cluster. One that is deleted meanwhile is over.
    pub(crate) async fn leases(&self, cluster: &ClusterName) -> Result<Vec<ListedLease>, Error> {
        let mut leases = Vec::new();
        for (name, run, expires) in self.lease_names(cluster).await? {
            let record = match self.read_record::<LeaseRecord>(&name).await {
                Err(error) if error.is_not_found() => continue,
                Err(error) if !error.is_of_one_object() => return Err(error),
                read => read,
            };
            leases.push(ListedLease { name, run, expires, record });
        }
        Ok(leases)
    }
}

/// A lease of this run.
#[derive(Debug)]
pub(crate) struct Lease {
    run: RunId,
    taken: DateTime<Utc>,
    name: Arc<Mutex<String>>,
    ending: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Lease {
    /// Takes a lease and prolongs it until it is given back.
    ///
    /// # Errors
    /// Those of [`Repository::create_record`].
    pub(crate) async fn take(repository: &Repository, holder: Holder<'_>, clock: Clock) -> Result<Self, Error> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
        let run: RunId = hex::encode(id).parse().map_err(|e| Cause::Internal(format!("run id: {e}")))?;
        let record = LeaseRecord {
            run: run.clone(),
            cluster: holder.cluster.clone(),
            purpose: holder.purpose,
            backups: holder.backups,
            since: clock.now(),
            expires: clock.now(),
            host: holder.host.to_owned(),
            machine: None,
            boot: boot(),
            pid: std::process::id(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let taken = record.since;
        let first = create(repository, &record, clock).await.doing(|| "taking a lease".to_owned())?;
        let (name, ending) = (Arc::new(Mutex::new(first)), CancellationToken::new());
        let task = tokio::spawn(prolong(repository.clone(), record, clock, Arc::clone(&name), ending.clone()));
        Ok(Self { run, taken, name, ending, task: Some(task) })
    }

    /// The run's id.
    pub(crate) fn run(&self) -> &RunId {
        &self.run
    }

    /// When it was taken, by this host's clock.
    pub(crate) fn taken(&self) -> DateTime<Utc> {
        self.taken
    }

    /// The name of the object that is in force now.
    pub(crate) fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives it back.
    pub(crate) async fn release(mut self) {
        self.ending.cancel();
        if let Some(task) = self.task.take() {
            // It does nothing but delete; what fails there was said there.
            let _ = task.await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The task deletes the object, if the program lives that long; if not, its time ends it.
        self.ending.cancel();
    }
}

/// The id that the kernel gave itself at its start.
fn boot() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

async fn create(repository: &Repository, record: &LeaseRecord, clock: Clock) -> Result<String, Error> {
    let until = TimeDelta::from_std(LEASE).ok().and_then(|length| clock.now().checked_add_signed(length));
    let until = until.ok_or_else(|| Cause::Internal("the end of a lease is past all time".to_owned()))?;
    let until = LedgerTime::new(until).map_err(|e| Cause::Internal(e.to_string()))?;
    let record = LeaseRecord { expires: until.time(), ..record.clone() };
    let name = name::lease(&record.cluster, until, &record.run);
    repository.create_record(&name, &record).await?;
    Ok(name)
}

async fn prolong(
    repository: Repository,
    record: LeaseRecord,
    clock: Clock,
    name: Arc<Mutex<String>>,
    ending: CancellationToken,
) {
    let current = || name.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let delete = async |old: String| {
        let deleted = match object_name(&old) {
            Ok(object) => repository.store().delete(&[object]).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::debug!(lease = old, %error, "a lease was not deleted, and ends by its time");
        }
    };
    while tokio::time::timeout(PROLONG, ending.cancelled()).await.is_err() {
        match create(&repository, &record, clock).await {
            Ok(next) => {
                let old = std::mem::replace(&mut *name.lock().unwrap_or_else(PoisonError::into_inner), next);
                delete(old).await;
            }
            Err(error) => tracing::warn!(%error, "the lease of this run could not be prolonged"),
        }
    }
    delete(current()).await;
}
