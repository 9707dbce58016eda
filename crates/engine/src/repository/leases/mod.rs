//! Leases: a run that uses objects of other runs says so while it is alive.
//!
//! A run creates its lease and then reads the decisions; `expire` writes its decisions and then reads the leases. So at
//! least one of the two sees the other, on any store that shows a new object in its next listing.
//!
//! A lease is renewed long before its end, by a new object with a later time ([`own`]). A killed run leaves its last
//! lease. It is over when its end has passed by more than clocks can differ, and the next `expire` deletes it. A
//! machine that sleeps does not renew: when its run continues, it finds its lease broken, and stops or checks again.

mod clock;
mod own;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, ClusterName, ObjectPath, RunId};
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use tokio::time::Instant;

pub(crate) use self::clock::{Clock, MonotonicTime};
pub(crate) use self::own::{Holder, Lease, new_run};
use super::machine::Machine;
use super::{Repository, object_name};
use crate::error::{Cause, Error, ResultExt};

/// How long a lease is valid; this is part of the format. A killed run keeps its objects for this long. A store that is
/// unavailable for less does not harm a running command.
const LEASE_SECONDS: i64 = 60 * 60;

/// The same, as a duration.
const LEASE: Duration = Duration::from_secs(LEASE_SECONDS.unsigned_abs());

/// The largest accepted difference between the clocks of two hosts.
pub(crate) const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::hours(1);

/// Stores give times in whole seconds, and no clock is exact. A difference of less than this is ignored.
const UNCERTAIN: TimeDelta = TimeDelta::seconds(5);

/// The interval at which a command that waits for the end of a lease looks at it.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a run that writes waits for an `expire` to end. It stops soon after it has seen the run's lease.
pub(crate) const EXPIRE_ENDS_WITHIN: Duration = Duration::from_mins(10);

/// The lease of a run, by the name of its newest object.
#[derive(Debug, Clone)]
pub(crate) struct NamedLease {
    pub(crate) name: String,
    /// The earlier objects of the same lease.
    older: Vec<String>,
    pub(crate) run: RunId,
    /// When it ends, by the clock of its host.
    pub(crate) expires: DateTime<Utc>,
    /// When it was written, by the store's clock.
    stored: Option<DateTime<Utc>>,
}

impl NamedLease {
    /// When it ends. If the time in its name differs from the store's time by more than clocks may differ, the host's
    /// clock is wrong and the store's time is used. Otherwise the lease would seem over while its run is alive, or stay
    /// for years.
    pub(crate) fn end(&self) -> DateTime<Utc> {
        let by_store = self.stored.and_then(|stored| stored.checked_add_signed(TimeDelta::seconds(LEASE_SECONDS)));
        by_store.filter(|end| (self.expires - *end).abs() > CLOCK_DIFFERENCE).unwrap_or(self.expires)
    }

    /// The names of all objects of the lease.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &str> {
        self.older.iter().chain([&self.name]).map(String::as_str)
    }

    /// Whether it is over, even if the clocks differ.
    pub(crate) fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.end().checked_add_signed(CLOCK_DIFFERENCE).is_some_and(|end| end < now)
    }
}

/// A lease in a listing.
#[derive(Debug)]
pub(crate) struct ListedLease {
    pub(crate) named: NamedLease,
    /// The content of its newest object, or why it cannot be read.
    pub(crate) record: Result<LeaseRecord, Error>,
}

impl ListedLease {
    /// Whether its run is known to be dead, because it ran on this host.
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
        // The order is ascending, and the name begins with the time.
        for object in listed {
            let name = object.name.to_string();
            let Ok(ObjectPath::Lease { expires, run, .. }) = name.parse() else { continue };
            let older = leases.remove(&run).map(|before| before.objects().map(str::to_owned).collect());
            let (older, stored) = (older.unwrap_or_default(), object.modified.map(DateTime::from));
            leases.insert(run.clone(), NamedLease { name, older, run, expires: expires.time(), stored });
        }
        Ok(leases.into_values().collect())
    }

    /// This host's clock, or an earlier one if the store's clock is late. `written` is an object that was written a
    /// moment ago.
    pub(crate) async fn earlier_clock(&self, written: &str, clock: Clock) -> Result<Clock, Error> {
        let at = clock.now();
        let info = self.store().head(&object_name(written)?).await.doing(|| "asking for the time".to_owned())?;
        let late = info.modified.map(|stored| at - DateTime::<Utc>::from(stored));
        Ok(match late.filter(|late| *late > UNCERTAIN) {
            Some(late) => {
                tracing::warn!(
                    seconds = late.num_seconds(),
                    "the store's clock is behind this host's; Holdfast uses the store's clock"
                );
                clock.earlier(late)
            }
            None => clock,
        })
    }

    /// Waits for the end of a running `expire`. It stops when its next check sees the caller's lease or hold, the
    /// object `written`. A lease that cannot be read may be that of an `expire`.
    ///
    /// # Errors
    /// [`Cause::AnotherRun`] if it does not end in time; [`Cause::Store`].
    pub(crate) async fn wait_for_expire(
        &self,
        cluster: &ClusterName,
        host: &str,
        clock: Clock,
        written: &str,
        within: Duration,
    ) -> Result<(), Error> {
        let (until, here) = (Instant::now() + within, Machine::here());
        // With a clock that is ahead, the lease of a running `expire` would seem over.
        let clock = self.earlier_clock(written, clock).await?;
        loop {
            let now = clock.now();
            let mut leases = self.leases(cluster).await?.into_iter();
            let running = leases.find(|lease| {
                let expires = lease.record.as_ref().map_or(true, |record| record.purpose == LeasePurpose::Expire);
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

    /// All leases of a cluster. A lease that is deleted meanwhile is over and left out.
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
