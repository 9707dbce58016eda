//! The second step: which decisions are carried out now.
//!
//! After the grace time, the catalog is read again and a new plan is made. Only what the decision *and* the new plan
//! remove is removed. So anything that started after the decision protects what it needs: a backup of another host or
//! of an old release that does not know decisions, a backup that was running, a restore, a hold, a changed policy.
//!
//! A backup whose own grace time is not over stays restorable until then. Everything that it needs waits with it, even
//! if that was decided long before.

use crate::catalog::Catalog;
use crate::decision::{Decision, combine, wal_ranges, wal_set};
use crate::number_ranges::NumberRanges;
use crate::packs::CannotPlan;
use crate::plan::{Manifests, Outline, Plan, plan_with};
use crate::policy::Policy;
use crate::verdict::{BackupKept, BackupVerdict, WalRange};
use chrono::{DateTime, Duration, Utc};
use holdfast_repo::name::{BackupId, PackId};
use std::collections::BTreeSet;

/// What is removed now, in this order. After a crash at any point, the next plan finds the rest and finishes the
/// removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// First the records of these backups: `start.json`, then `backup.json`. The order matters, because an old release
    /// treats a backup with `start.json` and without `backup.json` as dead.
    pub backups: BTreeSet<BackupId>,
    /// Then these packs.
    pub packs: BTreeSet<PackId>,
    /// Then the manifests of these backups. The others of `backups` have a pack that stays, and their manifest tells
    /// the next run that packs may be in use; or another manifest refers to parts of theirs.
    pub manifests: BTreeSet<BackupId>,
    /// Then this WAL, with the partial segments and backup history files of the same numbers.
    pub wal: Vec<WalRange>,
    /// Backups that will be removed later.
    pub waiting: BTreeSet<BackupId>,
}

/// The backups to remove whose grace time is not over, for [`Outline::with_waiting`]. No manifest is read while a
/// backup cannot be read or a restore does not name its backup. Then all backups wait: a kept one may have lost a pack,
/// and one to remove may be the last sound one.
pub fn waiting(decided: &[Decision], outline: &Outline, now: DateTime<Utc>, grace: Duration) -> BTreeSet<BackupId> {
    let is_ripe =
        |id: &BackupId| decided.iter().any(|decision| decision.backups.contains(id) && decision.is_ripe(now, grace));
    let goes = |verdict: &BackupVerdict| matches!(verdict, BackupVerdict::Goes(_));
    let going = outline.backups().iter().filter(|(_, verdict)| goes(verdict));
    let is_blocked = outline.packs.is_blocked();
    going.map(|(id, _)| *id).filter(|id| is_blocked || !is_ripe(id)).collect()
}

impl Removal {
    /// Whether nothing is removed now.
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.packs.is_empty() && self.wal.is_empty()
    }

    /// What is removed now, from a plan that was made with the [`waiting`] backups.
    pub fn of(plan: &Plan, decided: &[Decision], grace: Duration) -> Self {
        let ripe: Vec<&Decision> = decided.iter().filter(|decision| decision.is_ripe(plan.now, grace)).collect();
        let going = plan.going();
        let ripe_wal = wal_set(ripe.iter().flat_map(|decision| &decision.wal));
        let only_waits = BackupVerdict::Kept(vec![BackupKept::Waiting]);
        let waits = |verdict: &BackupVerdict| *verdict == only_waits;
        let waiting: BTreeSet<BackupId> =
            plan.backups.iter().filter(|(_, verdict)| waits(verdict)).map(|(id, _)| *id).collect();
        let backups: BTreeSet<BackupId> =
            going.backups.into_iter().filter(|id| ripe.iter().any(|one| one.backups.contains(id))).collect();
        let packs: BTreeSet<PackId> =
            going.packs.into_iter().filter(|id| ripe.iter().any(|one| one.packs.contains(id))).collect();
        Self {
            manifests: plan.manifests_going(&backups, &packs),
            backups,
            packs,
            wal: wal_ranges(&combine(&wal_set(&going.wal), &ripe_wal, NumberRanges::common)),
            waiting,
        }
    }
}

/// Finds which of the decisions are carried out now.
///
/// # Errors
/// [`CannotPlan::NotRead`] if the manifest of a kept backup is missing.
pub fn carry_out(
    decided: &[Decision],
    catalog: &Catalog,
    manifests: &Manifests,
    policy: &Policy,
    now: DateTime<Utc>,
    grace: Duration,
) -> Result<Removal, CannotPlan> {
    let plan = plan_with(catalog, manifests, &|catalog| {
        let waiting = waiting(decided, &Outline::new(catalog, policy, now), now, grace);
        Outline::with_waiting(catalog, policy, now, &waiting)
    })?;
    Ok(Removal::of(&plan, decided, grace))
}
