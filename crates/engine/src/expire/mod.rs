//! `expire`: removes what the retention needs no more, in two steps.
//!
//! 1. A lease keeps a second `expire` away ([`turn`]). Its object also tells the store's time: the plan is made for the earlier one of
//!    both clocks ([`clock`]).
//! 2. [`gather`] reads the catalog, [`manifests`] counts the packs, the planner (`holdfast-retention`) decides. What goes
//!    and is not decided yet is written into the ledger; what is decided and is needed now is taken back ([`decided`]).
//! 3. If the grace time of something is over, the archive is read and planned once more, after the ledger was written, and
//!    what goes in both is removed ([`carry_out`]). The ledger says what went, after a crash as well ([`removed`]).
//! 4. Unfinished uploads that are old are aborted ([`uploads`]).
//!
//! Invariant: nothing is removed that a kept backup needs; in doubt everything stays. After a crash or an error anywhere the
//! ledger says what was decided, the rest of a backup has no `start.json`, and the next run continues.
//!
//! [`holds`] are the backups that no policy removes.

mod carry_out;
mod clock;
mod decided;
mod gather;
mod holds;
mod ids;
mod manifests;
mod removed;
mod report;
mod turn;
mod uploads;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::expire::RepositoryExpire;
use holdfast_repo::name::ClusterName;
use holdfast_retention as planner;
use tokio_util::sync::CancellationToken;

pub use holdfast_retention::{Keep, Policy};
pub use holds::{HoldOptions, hold, release};

use carry_out::{Done, Job};
use decided::{Entry, Writing};
use gather::{Gathered, Viewer};

#[cfg(doc)]
use crate::error::Cause;
use crate::error::{Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, Lease};

/// What is kept.
#[derive(Debug, Clone)]
pub struct ExpireOptions {
    /// The cluster.
    pub cluster: ClusterName,
    /// What the user wants to be able to restore.
    pub policy: Policy,
    /// How long after its decision a removal is carried out.
    pub grace: Duration,
    /// This host.
    pub host: String,
    /// Now.
    pub now: DateTime<Utc>,
}

impl ExpireOptions {
    /// A grace time that is longer than time ends never.
    fn grace(&self) -> TimeDelta {
        TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX)
    }
}

/// Says what [`expire`] would decide. Writes nothing, so it goes by this host's clock alone.
///
/// # Errors
/// Those of [`expire`] up to its first change.
pub async fn plan(
    repository: &Repository,
    options: &ExpireOptions,
    progress: &dyn Progress,
) -> Result<RepositoryExpire, Error> {
    let planned = async {
        progress.phase("reading the archive", None);
        let viewer = Viewer { own: None, host: &options.host, now: options.now };
        let mut found = gather::gather(repository, &options.cluster, viewer).await?;
        let mut notes = std::mem::take(&mut found.notes);
        let uploads = uploads::over(repository, options, &found, options.now, &mut notes).await;
        let Gathered { mut catalog, claims, .. } = found;
        let mut decided = decided::read(repository, &options.cluster, &claims, &mut notes).await?;
        decided::take_future(&mut decided, options.now, &mut notes);
        let outline = |catalog: &planner::Catalog| planner::Outline::new(catalog, &options.policy, options.now);
        let planned = manifests::plan(repository, &options.cluster, &mut catalog, outline).await?;
        let mut report = report::describe(repository, &planned.plan, &claims, &decided, options.grace(), notes)?;
        report.uploads_going = uploads.len() as u64;
        Ok::<_, Error>(report)
    };
    planned.await.doing(|| format!("planning what expires of {} in {}", options.cluster, repository.describe()))
}

/// Decides what goes, and removes what was decided long enough ago.
///
/// # Errors
/// [`Cause::AnotherRun`] if another `expire` is at work and does not end soon, [`Cause::LeaseEnded`] if this host slept,
/// [`Cause::NewerFeature`] if a later release does something that one must know to remove anything. [`Cause::Record`], [`Cause::Format`] or [`Cause::Malformed`] if a hold cannot be read.
/// [`Cause::Store`]; [`Cause::Cancelled`]. What was removed until then is in the phrases of the error, and the next run
/// continues.
pub async fn expire(
    repository: &Repository,
    options: &ExpireOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RepositoryExpire, Error> {
    let phrase = || format!("removing what expired of {} from {}", options.cluster, repository.describe());
    expire_alone(repository, options, progress, cancel).await.doing(phrase)
}

async fn expire_alone(
    repository: &Repository,
    options: &ExpireOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RepositoryExpire, Error> {
    repository.check_writable()?;
    repository.check_newest_key()?;
    repository.check_removable()?;
    let mut clock = Clock::starting(options.now);
    let lease = turn::take(repository, options, &mut clock, cancel).await?;
    let run = Run { repository, options, lease: &lease, clock, progress, cancel };
    let expired = Box::pin(run.expire()).await;
    lease.release().await;
    expired
}

/// One run, which has its lease.
struct Run<'a> {
    repository: &'a Repository,
    options: &'a ExpireOptions,
    lease: &'a Lease,
    clock: Clock,
    progress: &'a dyn Progress,
    cancel: &'a CancellationToken,
}

impl Run<'_> {
    async fn expire(&self) -> Result<RepositoryExpire, Error> {
        let (repository, options) = (self.repository, self.options);
        let grace = options.grace();
        self.progress.phase("reading the archive", None);
        let mut found = self.gather().await?;
        let now = self.clock.now();
        let mut notes = std::mem::take(&mut found.notes);
        let uploads = uploads::over(repository, options, &found, now, &mut notes).await;
        self.lease.check()?;
        let writing = Writing {
            repository,
            cluster: &options.cluster,
            host: &options.host,
            now,
            grace,
            claims: &found.claims,
            packs: &[],
        };
        removed::settle(writing, &found, &mut notes).await?;
        let Gathered { mut catalog, claims, .. } = found;
        let outline = |catalog: &planner::Catalog| planner::Outline::new(catalog, &options.policy, now);
        let planned = manifests::plan(repository, &options.cluster, &mut catalog, outline).await?;
        let plan = &planned.plan;

        let mut entries = decided::read(repository, &options.cluster, &claims, &mut notes).await?;
        self.lease.check()?;
        repository.delete_ledger(&decided::take_future(&mut entries, now, &mut notes)).await?;
        let writing = Writing {
            repository,
            cluster: &options.cluster,
            host: &options.host,
            now,
            grace,
            claims: &claims,
            packs: &plan.packs,
        };
        let back = plan.taken_back(&decisions(&entries));
        entries = decided::take_back(writing, entries, &back).await?;
        let new = plan.to_decide(&decisions(&entries));
        if !new.is_empty() {
            entries.extend(decided::write(writing, &new).await?);
        }
        let mut report = report::describe(repository, plan, &claims, &entries, grace, notes)?;
        report.decided = report::amount(&new, plan)?;
        report.uploads_going = uploads.len() as u64;

        if entries.iter().any(|entry| entry.decision.is_ripe(self.clock.now(), grace)) {
            let mut done = Done::default();
            let removed = Box::pin(self.carry_out(&mut entries, &mut done)).await;
            removed.doing(|| said(&done))?;
            report.removed = report::removed(&done);
            if done.disturbed {
                report.warnings.push(
                    "a backup, a restore or a hold came meanwhile, so the rest is left for another look by the next \
                     `holdfast expire`"
                        .to_owned(),
                );
            }
            report.next_removal = entries.iter().filter_map(|entry| entry.decision.at.checked_add_signed(grace)).min();
        }
        report.removed.uploads = uploads::abort(repository, self.lease, &uploads, &mut report.warnings).await?;
        Ok(report)
    }

    async fn gather(&self) -> Result<Gathered, Error> {
        let viewer = Viewer { own: Some(self.lease.run()), host: &self.options.host, now: self.clock.now() };
        gather::gather(self.repository, &self.options.cluster, viewer).await
    }

    /// Looks again, now that everybody can read what is decided, and removes what goes still.
    async fn carry_out(&self, entries: &mut Vec<Entry>, done: &mut Done) -> Result<(), Error> {
        let (repository, options) = (self.repository, self.options);
        let (grace, decided) = (options.grace(), decisions(entries));
        let Gathered { mut catalog, claims, users, .. } = self.gather().await?;
        let now = self.clock.now();
        let outline = |catalog: &planner::Catalog| {
            let first = planner::Outline::new(catalog, &options.policy, now);
            let waiting = planner::waiting(&decided, &first, now, grace);
            planner::Outline::with_waiting(catalog, &options.policy, now, &waiting)
        };
        let planned = manifests::plan(repository, &options.cluster, &mut catalog, outline).await?;
        let removal = planner::Removal::of(&planned.plan, &decided, grace);
        let job = Job {
            repository,
            cluster: &options.cluster,
            claims: &claims,
            planned: &planned,
            removal: &removal,
            users: &users,
            host: &options.host,
            lease: self.lease,
            clock: self.clock,
            progress: self.progress,
            cancel: self.cancel,
        };
        if !removal.is_empty() {
            let writing = Writing {
                repository,
                cluster: &options.cluster,
                host: &options.host,
                now,
                grace,
                claims: &claims,
                packs: &planned.plan.packs,
            };
            let began = removed::begin(writing, self.lease.run(), &removal, &users).await?;
            let removed = carry_out::remove(&job, done).await;
            let said = removed::end(writing, self.lease.run(), &began, done).await;
            // What failed first is what is reported.
            removed?;
            said?;
        }
        if !done.disturbed {
            self.forget(entries, &planned.plan, &removal).await?;
        }
        Ok(())
    }

    /// Deletes the entries of which nothing is left.
    async fn forget(
        &self,
        entries: &mut Vec<Entry>,
        plan: &planner::Plan,
        removal: &planner::Removal,
    ) -> Result<(), Error> {
        let wal = |wal: Vec<planner::WalRange>| planner::Decision {
            at: plan.now,
            backups: BTreeSet::new(),
            packs: BTreeSet::new(),
            wal,
        };
        let there = plan.wal.iter().map(|(range, _)| *range).collect();
        let left = planner::Decision {
            backups: plan.backups.keys().filter(|id| !removal.backups.contains(id)).copied().collect(),
            packs: plan.packs.iter().map(|(pack, _)| pack.id).filter(|id| !removal.packs.contains(id)).collect(),
            ..decided::without(&wal(there), &wal(removal.wal.clone()))
        };
        let is_over = |entry: &Entry| decided::without(&entry.decision, &left) == entry.decision;
        let over: Vec<String> = entries.iter().filter(|entry| is_over(entry)).map(|entry| entry.name.clone()).collect();
        if !over.is_empty() {
            self.repository.delete_ledger(&over).await?;
            entries.retain(|entry| !over.contains(&entry.name));
        }
        Ok(())
    }
}

fn decisions(entries: &[Entry]) -> Vec<planner::Decision> {
    entries.iter().map(|entry| entry.decision.clone()).collect()
}

/// What was removed before an error.
fn said(done: &Done) -> String {
    let doubt = if done.in_doubt { ", more of it may be, since a request failed" } else { "" };
    format!(
        "carrying out what was decided: {} backups, {} packs and {} WAL files were removed{doubt}, the rest is left, and \
         `holdfast expire` continues",
        done.backups.len(),
        done.packs,
        done.wal_files
    )
}
