//! Leases: a run that uses objects of others says so, as long as it is alive.
//!
//! A run creates its lease, then looks at what was decided; `expire` writes what it decided, then looks at the leases. So
//! of the two at least one sees the other, on any store that shows a new object in its next listing.
//!
//! A lease is prolonged long before its end, by a new object of a later time ([`own`]). A run that is killed leaves its last
//! one: it is over when its time has passed by more than clocks can differ, and the next `expire` deletes it. A machine
//! that sleeps does not prolong: its run finds its lease broken when it goes on, and stops or looks again.

mod clock;
mod own;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, ClusterName, ObjectPath, RunId};
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use tokio::time::Instant;

pub(crate) use self::clock::Clock;
pub(crate) use self::own::{Holder, Lease, new_run};
use super::Repository;
use super::machine::Machine;
use crate::error::{Cause, Error, ResultExt};

/// How long a lease is in force, which is part of the format: a killed run keeps what it used for so long, and a store that
/// is away for less costs a living run nothing.
const LEASE_SECONDS: i64 = 60 * 60;

/// The same.
const LEASE: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs());

/// The clocks of two hosts may differ by so much.
pub(crate) const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::hours(1);

/// How often a lease is looked at by who waits for its end.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The lease of a run, as the name of its newest object says it.
#[derive(Debug, Clone)]
pub(crate) struct NamedLease {
    pub(crate) name: String,
    /// The objects that this one prolonged.
    older: Vec<String>,
    pub(crate) run: RunId,
    /// When it ends, by the clock of its host.
    pub(crate) expires: DateTime<Utc>,
    /// When it was written, by the store's clock.
    stored: Option<DateTime<Utc>>,
}

impl NamedLease {
    /// When it ends. Where its name is further from the store's time than clocks may differ, the clock of its host is wrong,
    /// and the store's counts: such a lease would seem over while its run lives, or stay for years.
    pub(crate) fn end(&self) -> DateTime<Utc> {
        let by_store = self.stored.and_then(|stored| stored.checked_add_signed(TimeDelta::seconds(LEASE_SECONDS)));
        by_store.filter(|end| (self.expires - *end).abs() > CLOCK_DIFFERENCE).unwrap_or(self.expires)
    }

    /// The names of all its objects.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &str> {
        self.older.iter().chain([&self.name]).map(String::as_str)
    }

    /// Whether it is over, whichever clocks are right.
    pub(crate) fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.end().checked_add_signed(CLOCK_DIFFERENCE).is_some_and(|end| end < now)
    }
}

/// A lease that a listing shows.
#[derive(Debug)]
pub(crate) struct ListedLease {
    pub(crate) named: NamedLease,
    /// What it says, or why that cannot be read.
    pub(crate) record: Result<LeaseRecord, Error>,
}

impl ListedLease {
    /// Whether its run is known to be dead, seen from this very host.
    pub(crate) fn is_known_dead(&self, here: &Machine, host: &str, now: DateTime<Utc>) -> bool {
        let prolonged = self.named.expires.checked_sub_signed(TimeDelta::seconds(LEASE_SECONDS));
        self.record.as_ref().is_ok_and(|record| here.knows_dead(host, record, prolonged, now))
    }
}

impl Repository {
    /// The leases of a cluster, one for each run, by their names alone.
    pub(crate) async fn lease_names(&self, cluster: &ClusterName) -> Result<Vec<NamedLease>, Error> {
        let listed = self.store().list(&name::leases_folder(cluster), None).await;
        let listed = listed.doing(|| format!("listing the leases of {cluster} in {}", self.describe()))?;
        let mut leases: BTreeMap<RunId, NamedLease> = BTreeMap::new();
        // Ascending, and the time comes first in the name.
        for object in listed {
            let name = object.name.to_string();
            let Ok(ObjectPath::Lease { expires, run, .. }) = name.parse() else { continue };
            let older = leases.remove(&run).map(|before| before.objects().map(str::to_owned).collect());
            let (older, stored) = (older.unwrap_or_default(), object.modified.map(DateTime::from));
            leases.insert(run.clone(), NamedLease { name, older, run, expires: expires.time(), stored });
        }
        Ok(leases.into_values().collect())
    }

    /// Waits for the end of a running `expire`. One that sees the caller's lease or hold stops at its next look.
    ///
    /// # Errors
    /// [`Cause::AnotherRun`] if it does not end in time; [`Cause::Store`].
    pub(crate) async fn wait_for_expire(
        &self,
        cluster: &ClusterName,
        host: &str,
        clock: Clock,
        within: Duration,
    ) -> Result<(), Error> {
        let (until, here) = (Instant::now() + within, Machine::here());
        loop {
            let now = clock.now();
            let mut leases = self.leases(cluster).await?.into_iter();
            let running = leases.find(|lease| {
                let expires = matches!(&lease.record, Ok(record) if record.purpose == LeasePurpose::Expire);
                expires && !lease.named.is_over(now) && !lease.is_known_dead(&here, host, now)
            });
            if running.is_none() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Cause::AnotherRun { verb: "expire", subject: cluster.to_string(), pid: None }.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// All leases of a cluster. One that is deleted meanwhile is over.
    pub(crate) async fn leases(&self, cluster: &ClusterName) -> Result<Vec<ListedLease>, Error> {
        let mut leases = Vec::new();
        for named in self.lease_names(cluster).await? {
            let record = match self.read_record::<LeaseRecord>(&named.name).await {
                Err(error) if error.is_not_found() => continue,
                Err(error) if !error.is_of_one_object() => return Err(error),
                read => read,
            };
            leases.push(ListedLease { named, record });
        }
        Ok(leases)
    }
}
