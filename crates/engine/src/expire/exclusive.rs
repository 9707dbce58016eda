//! One `expire` at a time, across all hosts.
//!
//! A run takes its lease and then lists the leases. It begins when the listing shows no lease of another `expire`. So
//! if two runs start together, at least one of them waits, and they never remove at the same time. The run with the
//! later lease gives way; both know this from the times in the leases. It releases its lease and waits for its turn, so
//! that two hosts with the same timer both finish.

use std::time::Duration;

use holdfast_repo::name::RunId;
use holdfast_repo::record::{LeasePurpose, LeaseRecord};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ExpireOptions, clock};
use crate::error::{Cause, Error};
use crate::repository::leases::{Clock, Holder, LOOK_EVERY, Lease, new_run};
use crate::repository::machine::Machine;
use crate::repository::{Repository, object_name};

/// The time that a run waits for another one to end. Most runs take seconds.
const WAIT: Duration = Duration::from_secs(30);

/// Takes the lease of this run when its turn comes. Sets the clock to the earlier one of this host's and the store's.
pub(super) async fn acquire(
    repository: &Repository,
    options: &ExpireOptions,
    clock: &mut Clock,
    cancel: &CancellationToken,
) -> Result<Lease, Error> {
    let until = Instant::now() + WAIT;
    loop {
        let holder = Holder {
            cluster: &options.cluster,
            purpose: LeasePurpose::Expire,
            backups: Vec::new(),
            host: &options.host,
        };
        let lease = Lease::take(repository, new_run()?, holder, *clock).await?;
        match is_first(repository, options, &lease, clock, until, cancel).await {
            Ok(true) => return Ok(lease),
            Ok(false) => lease.release().await,
            Err(error) => {
                lease.release().await;
                return Err(error);
            }
        }
        // Wait without a lease, so that earlier runs can begin.
        while let Some(other) = others(repository, options, None, *clock).await?.first() {
            wait(other, options, until, cancel).await?;
        }
    }
}

/// Whether this run may begin; `false` if it must give way. Waits for the runs that give way to it.
async fn is_first(
    repository: &Repository,
    options: &ExpireOptions,
    own: &Lease,
    clock: &mut Clock,
    until: Instant,
    cancel: &CancellationToken,
) -> Result<bool, Error> {
    // First of all: a clock that is ahead would treat live leases as expired.
    *clock = clock::earlier(repository, own, *clock).await?;
    loop {
        let others = others(repository, options, Some(own.run()), *clock).await?;
        let Some(first) = others.iter().min_by_key(|other| (other.since, &other.run)) else { return Ok(true) };
        if (first.since, &first.run) < (own.taken(), own.run()) {
            return Ok(false);
        }
        wait(first, options, until, cancel).await?;
    }
}

/// Waits a moment for another run; fails when the time is over.
async fn wait(
    other: &LeaseRecord,
    options: &ExpireOptions,
    until: Instant,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    if Instant::now() >= until {
        let is_here = other.host == options.host;
        return Err(Cause::AnotherRun {
            verb: "expire",
            subject: format!("{} on {}", options.cluster, other.host),
            pid: i32::try_from(other.pid).ok().filter(|_| is_here),
        }
        .into());
    }
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Cause::Cancelled.into()),
        () = tokio::time::sleep(LOOK_EVERY) => Ok(()),
    }
}

/// The leases of other `expire` runs. Deletes every lease that has expired or whose run is known to be dead.
async fn others(
    repository: &Repository,
    options: &ExpireOptions,
    own: Option<&RunId>,
    clock: Clock,
) -> Result<Vec<LeaseRecord>, Error> {
    let (here, now) = (Machine::here(), clock.now());
    let (mut over, mut others) = (Vec::new(), Vec::new());
    for lease in repository.leases(&options.cluster).await? {
        if Some(&lease.named.run) == own {
            continue;
        }
        if lease.named.is_over(now) || lease.is_known_dead(&here, &options.host, now) {
            for object in lease.named.objects() {
                over.push(object_name(object)?);
            }
            continue;
        }
        others.extend(lease.record.ok().filter(|record| record.purpose == LeasePurpose::Expire));
    }
    if !over.is_empty() {
        repository.store().delete(&over).await?;
    }
    Ok(others)
}
