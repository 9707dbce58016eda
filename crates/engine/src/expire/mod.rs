//! `expire`: removes what the retention policy no longer needs, in two steps.
//!
//! 1. A lease keeps a second `expire` away ([`exclusive`]). Its object also shows the store's time. The plan uses the
//!    earlier one of the store's clock and this host's clock ([`clock`]).
//! 2. [`gather`] reads the catalog, [`manifests`] counts the packs, and the planner (`holdfast-retention`) decides. New
//!    decisions are written into the ledger. A decision about something that is needed again is taken back
//!    ([`decided`]).
//! 3. If a grace time is over, the archive is read and planned again, after the ledger was written. What both plans
//!    remove is removed ([`carry_out`]). The ledger records what was removed, even after a crash ([`removed`]).
//! 4. Old unfinished uploads are aborted ([`uploads`]).
//!
//! Between the second step and the third, pieces of WAL segments that are whole by now are removed. Where the store
//! locks objects, the locks of what stays are extended before, and what is locked is not removed ([`locks`]).
//!
//! Invariant: nothing is removed that a kept backup needs; in doubt everything stays. After a crash or an error
//! anywhere, the ledger has the decisions, a half-removed backup has no `start.json`, and the next run continues.
//!
//! [`holds`] are for backups that no policy may remove.

mod carry_out;
mod clock;
mod decided;
mod exclusive;
mod gather;
mod holds;
mod incomplete;
mod locks;
mod manifests;
mod options;
mod removed;
mod report;
mod uploads;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use holdfast_contract::report::expire::RepositoryExpire;
use holdfast_repo::name::{BackupId, ClaimNumber};
use holdfast_repo::record::ClaimRecord;
use holdfast_retention as planner;
use tokio_util::sync::CancellationToken;

pub use holdfast_retention::{Keep, Policy};
pub use holds::{HoldOptions, hold, release};
pub use options::ExpireOptions;

use carry_out::{Done, Job};
use decided::{Entry, Writing};
use gather::{Gathered, Viewer};

use crate::archive::tail;
#[cfg(doc)]
use crate::error::Cause;
use crate::error::{Error, ResultExt};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::{Clock, Lease};
use crate::repository::readings::superseded;

/// Plans what [`expire`] would decide. It writes nothing, so it takes no lease and uses only this host's clock.
///
/// # Errors
/// As [`expire`], up to its first change.
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
        let mut report = report::describe(repository, &planned, &claims, &decided, options.grace(), notes);
        report.uploads_going = uploads.len() as u64;
        report.window_start = options.window_start(planned.now);
        if let Some(term) = repository.store().lock() {
            progress.phase("asking for locks", None);
            let going = planned.going();
            let going = locks::Going::of_decision(&going, &planned, &claims);
            let locked = locks::of_all(repository, &options.cluster, &going, term, options.now).await?;
            report::add_locks(&mut report, &locked, term);
        }
        Ok::<_, Error>(report)
    };
    planned.await.doing(|| format!("planning what expires of {} in {}", options.cluster, repository.describe()))
}

/// Decides what to remove, and removes what was decided at least one grace time ago.
///
/// # Errors
/// [`Cause::AnotherRun`] if another `expire` is running and does not end soon. [`Cause::LeaseEnded`] if this host
/// slept. [`Cause::NewerFeature`] if the repository has a feature of a later release that a remover must know.
/// [`Cause::Record`], [`Cause::Format`] or [`Cause::Malformed`] if a hold cannot be read. [`Cause::Store`];
/// [`Cause::Cancelled`]. The phrases of the error say what was removed before it, and the next run continues.
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
    let lease = exclusive::acquire(repository, options, &mut clock, cancel).await?;
    let run = Run { repository, options, lease: &lease, clock, progress, cancel };
    let expired = Box::pin(run.expire()).await;
    lease.release().await;
    expired
}

/// A run that holds its lease.
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
        let plan = &manifests::plan(repository, &options.cluster, &mut catalog, outline).await?;

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
        let mut report = report::describe(repository, plan, &claims, &entries, grace, notes);
        report.decided = report::amount(&new, plan);
        report.uploads_going = uploads.len() as u64;
        report.window_start = options.window_start(plan.now);

        self.lease.check()?;
        self.keep_locked(plan, &claims, &mut report).await?;
        for claim in claims.values() {
            // Nothing needs them, because the segments are there in whole. After WAL was removed, nobody could tell.
            if let Err(error) = tail::remove_leftovers(repository, claim).await {
                report.warnings.push(format!("pieces of whole WAL segments cannot be removed: {error}"));
            }
        }
        // What they say is also in a later entry.
        match superseded(repository, &options.cluster, now).await {
            Ok(names) => repository.delete_ledger(&names).await?,
            Err(error) => report.warnings.push(format!("old entries `reading` of the ledger are kept: {error}")),
        }
        if entries.iter().any(|entry| entry.decision.is_ripe(self.clock.now(), grace)) {
            let mut done = Done::default();
            let removed = Box::pin(self.carry_out(&mut entries, &mut done)).await;
            removed.doing(|| removed_so_far(&done))?;
            report.removed = report::removed(&done);
            if done.disturbed {
                report.warnings.push(
                    "a backup, restore or hold started during the removal; the next `holdfast expire` will check and \
                     remove the rest"
                        .to_owned(),
                );
            }
            report.next_removal = report::next_removal(plan, &entries, grace);
        }
        report.removed.uploads = uploads::abort(repository, self.lease, &uploads, &mut report.warnings).await?;
        self.lease.check()?;
        Ok(report)
    }

    /// Extends the locks of what stays, and reports what is locked and goes.
    async fn keep_locked(
        &self,
        plan: &planner::Plan,
        claims: &BTreeMap<ClaimNumber, ClaimRecord>,
        report: &mut RepositoryExpire,
    ) -> Result<(), Error> {
        let Some(term) = self.repository.store().lock() else { return Ok(()) };
        self.progress.phase("extending locks", None);
        let going = plan.going();
        let going = locks::Going::of_decision(&going, plan, claims);
        let now = self.clock.now();
        let found = locks::of_all(self.repository, &self.options.cluster, &going, term, now).await?;
        self.lease.check()?;
        report::add_locks(report, &found, term);
        let extended = locks::extend(self.repository, self.lease, &found, term, now).await?;
        if let Some(fate) = &mut report.locks {
            fate.extended = extended;
        }
        Ok(())
    }

    async fn gather(&self) -> Result<Gathered, Error> {
        let viewer = Viewer { own: Some(self.lease.run()), host: &self.options.host, now: self.clock.now() };
        gather::gather(self.repository, &self.options.cluster, viewer).await
    }

    /// Plans again, now that every other run can read the decisions, and removes what is still due.
    async fn carry_out(&self, entries: &mut Vec<Entry>, done: &mut Done) -> Result<(), Error> {
        let (repository, options) = (self.repository, self.options);
        let (grace, decided) = (options.grace(), decisions(entries));
        let Gathered { mut catalog, claims, users, .. } = self.gather().await?;
        let now = self.clock.now();
        let (plan, removal) = self.due(&mut catalog, &claims, &decided, now).await?;
        let job = Job {
            repository,
            cluster: &options.cluster,
            claims: &claims,
            plan: &plan,
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
                packs: &plan.packs,
            };
            let began = removed::begin(writing, self.lease.run(), &removal, &users).await?;
            let removed = carry_out::remove(&job, done).await;
            let recorded = removed::end(writing, self.lease.run(), &began, done).await;
            // The first failure is reported.
            removed?;
            recorded?;
        }
        if !done.disturbed {
            self.forget(entries, &plan, &removal).await?;
        }
        Ok(())
    }

    /// The plan for now, and what is removed: nothing that is locked.
    async fn due(
        &self,
        catalog: &mut planner::Catalog,
        claims: &BTreeMap<ClaimNumber, ClaimRecord>,
        decided: &[planner::Decision],
        now: DateTime<Utc>,
    ) -> Result<(planner::Plan, planner::Removal), Error> {
        let (repository, options) = (self.repository, self.options);
        let (policy, grace, cluster) = (&options.policy, options.grace(), &options.cluster);
        let outline = |catalog: &planner::Catalog, locked: &BTreeSet<BackupId>| {
            let first = planner::Outline::new(catalog, policy, now);
            let mut waiting = planner::waiting(decided, &first, now, grace);
            waiting.extend(locked);
            planner::Outline::with_waiting(catalog, policy, now, &waiting)
        };
        let nothing = BTreeSet::new();
        let mut planned = manifests::plan(repository, cluster, catalog, |catalog| outline(catalog, &nothing)).await?;
        let mut removal = planner::Removal::of(&planned, decided, grace);
        if let Some(term) = repository.store().lock().filter(|_| !removal.is_empty()) {
            let going = locks::Going::of_removal(&removal, claims);
            let found = locks::of_going(repository, cluster, &going, term, now).await?;
            let locked: BTreeSet<BackupId> = found.backups.keys().copied().collect();
            if !locked.is_empty() {
                planned = manifests::plan(repository, cluster, catalog, |catalog| outline(catalog, &locked)).await?;
                removal = planner::Removal::of(&planned, decided, grace);
            }
            found.leave(&mut removal, |backups, packs| planned.manifests_going(backups, packs));
        }
        Ok((planned, removal))
    }

    /// Deletes the entries of which everything is removed.
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
fn removed_so_far(done: &Done) -> String {
    let doubt = if done.in_doubt { " (a request failed, so more objects may already be gone)" } else { "" };
    format!(
        "removing what was decided: {} backups, {} packs and {} WAL files were removed{doubt}; the next \
         `holdfast expire` continues",
        done.backups.len(),
        done.packs,
        done.wal_files
    )
}
