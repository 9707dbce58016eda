//! The plan: from catalog, policy and time to one verdict for each backup, each pack and each range of WAL.
//!
//! There are two steps. The [`Outline`] judges backups and WAL; it needs only records and listings. Then the manifests
//! of the kept backups are counted, one at a time, and the [`Plan`] also has the packs. Nothing is removed here: a plan
//! is first written into the ledger, see [`carry_out`](crate::carry_out).

use crate::catalog::{Catalog, Pack, Verified};
use crate::decision::{Decision, combine, wal_ranges, wal_set};
use crate::judge::judge;
use crate::number_ranges::NumberRanges;
use crate::packs::{CannotPlan, ManifestUses, PackTally};
use crate::policy::Policy;
use crate::recoverable::{self, RecoverableWindow};
use crate::setting::Setting;
use crate::verdict::{BackupGoes, BackupVerdict, PackKept, PackVerdict, WalKept, WalRange, WalVerdict, Warning};
use crate::{wal_verdicts, warnings};
use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, PackId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// What each manifest needs, for callers that have all manifests in memory.
pub type Manifests = BTreeMap<BackupId, ManifestUses>;

/// The verdicts on backups and WAL, before the packs are counted.
#[derive(Debug)]
pub struct Outline {
    now: DateTime<Utc>,
    backups: BTreeMap<BackupId, BackupVerdict>,
    wal: Vec<(WalRange, WalVerdict)>,
    before: Vec<RecoverableWindow>,
    after: Vec<RecoverableWindow>,
    warnings: BTreeSet<Warning>,
    /// Counts the manifests. Give it each manifest of [`PackTally::to_read`].
    pub packs: PackTally,
}

impl Outline {
    /// Judges backups and WAL at the time `now`. It must be the earlier one of the host's clock and the store's clock,
    /// because a clock that is ahead makes everything look older.
    pub fn new(catalog: &Catalog, policy: &Policy, now: DateTime<Utc>) -> Self {
        Self::with_waiting(catalog, policy, now, &BTreeSet::new())
    }

    /// As [`Self::new`], but these backups must wait although nothing keeps them: everything that they need stays.
    pub fn with_waiting(catalog: &Catalog, policy: &Policy, now: DateTime<Utc>, waiting: &BTreeSet<BackupId>) -> Self {
        let setting = Setting::new(catalog, policy, now, waiting);
        let judged = judge(&setting);
        let wal = wal_verdicts::of_all(&setting, &judged);
        Self {
            now,
            before: recoverable::before(&setting),
            after: recoverable::after(&setting, |id| judged.is_kept(id), &wal),
            warnings: warnings::of(&setting),
            packs: PackTally::new(&setting, &judged),
            wal,
            backups: judged.verdicts,
        }
    }

    /// The verdict on each backup.
    pub fn backups(&self) -> &BTreeMap<BackupId, BackupVerdict> {
        &self.backups
    }

    /// Adds the verdicts on the packs, after every needed manifest was counted.
    ///
    /// # Errors
    /// [`CannotPlan::NotRead`] if a manifest was not counted: without it, it is not known which packs are needed.
    /// [`CannotPlan::PartsMissing`] if a pack or a manifest is missing: its backup must not count as restorable.
    pub fn finish(self) -> Result<Plan, CannotPlan> {
        let Self { now, backups, wal, before, after, mut warnings, packs } = self;
        let (is_blocked, referred) = (packs.is_blocked(), packs.referred());
        let (packs, missing) = packs.finish()?;
        warnings.extend(missing);
        let mut plan = Plan { now, backups, packs, wal, before, after, warnings, is_blocked, referred };
        // Nothing but its manifest is left of it, and that stays: it is no longer a backup.
        let with_packs = plan.backups_of_packs(|_, verdict| !matches!(verdict, PackVerdict::Goes(_)));
        let half_removed = BackupVerdict::Goes(BackupGoes::HalfRemoved);
        let stays = |id: &BackupId| with_packs.contains(id) || is_referred(plan.referred.as_ref(), *id);
        plan.backups.retain(|id, verdict| *verdict != half_removed || !stays(id));
        Ok(plan)
    }

    fn count_all(&mut self, manifests: &Manifests) {
        let to_read: Vec<BackupId> = self.packs.to_read().collect();
        for backup in to_read {
            if let Some(uses) = manifests.get(&backup) {
                self.packs.manifest(backup, uses.packs.iter().copied(), uses.origins.iter().copied());
            }
        }
    }
}

/// The verdicts on everything in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The time for which it was made.
    pub now: DateTime<Utc>,
    /// The verdict on each backup.
    pub backups: BTreeMap<BackupId, BackupVerdict>,
    /// The verdict on each pack, sorted by id.
    pub packs: Vec<(Pack, PackVerdict)>,
    /// The verdict on each range of WAL, sorted by claim, timeline and number. History files stay for ever.
    pub wal: Vec<(WalRange, WalVerdict)>,
    /// What can be restored now.
    pub before: Vec<RecoverableWindow>,
    /// What can be restored after the removal.
    pub after: Vec<RecoverableWindow>,
    /// Warnings for the user.
    pub warnings: BTreeSet<Warning>,
    /// Whether nothing is removed now, whatever was decided, because no manifest is read.
    pub is_blocked: bool,
    /// The backups to whose manifests those of kept backups refer; `None` if that is not known.
    pub(crate) referred: Option<BTreeSet<BackupId>>,
}

/// Whether a manifest that stays refers to the manifest of this backup, or may do so.
fn is_referred(referred: Option<&BTreeSet<BackupId>>, backup: BackupId) -> bool {
    referred.is_none_or(|referred| referred.contains(&backup))
}

/// Decides what stays and what is removed, with all manifests in memory.
///
/// # Errors
/// [`CannotPlan::NotRead`] if the manifest of a kept backup is missing.
pub fn decide(
    catalog: &Catalog,
    manifests: &Manifests,
    policy: &Policy,
    now: DateTime<Utc>,
) -> Result<Plan, CannotPlan> {
    plan_with(catalog, manifests, &|catalog| Outline::new(catalog, policy, now))
}

/// Makes a plan from an outline. Backups whose packs or manifests are missing become damaged, and the outline is made
/// again.
pub(crate) fn plan_with(
    catalog: &Catalog,
    manifests: &Manifests,
    outline: &dyn Fn(&Catalog) -> Outline,
) -> Result<Plan, CannotPlan> {
    let mut catalog = Cow::Borrowed(catalog);
    loop {
        let mut outline = outline(&catalog);
        outline.count_all(manifests);
        match outline.finish() {
            // The loop ends: each round makes at least one more backup damaged.
            Err(CannotPlan::PartsMissing(damaged)) => {
                let backups = catalog.to_mut().backups.iter_mut();
                backups
                    .filter(|backup| damaged.contains(&backup.id))
                    .for_each(|backup| backup.verified = Verified::Damaged);
            }
            done => return done,
        }
    }
}

impl Plan {
    /// Everything that is to be removed.
    pub fn going(&self) -> Decision {
        let backups = self.backups.iter().filter(|(_, verdict)| matches!(verdict, BackupVerdict::Goes(_)));
        let wal = self.wal.iter().filter(|(_, verdict)| matches!(verdict, WalVerdict::Goes(_)));
        Decision {
            at: self.now,
            backups: backups.map(|(id, _)| *id).collect(),
            packs: self.packs_with(|verdict| matches!(verdict, PackVerdict::Goes(_))).collect(),
            wal: wal.map(|(range, _)| *range).collect(),
        }
    }

    /// Everything to remove that is not in these decisions yet: the new entry for the ledger.
    pub fn to_decide(&self, decided: &[Decision]) -> Decision {
        let mut new = self.going();
        for decision in decided {
            new.backups.retain(|id| !decision.backups.contains(id));
            new.packs.retain(|id| !decision.packs.contains(id));
        }
        let known = wal_set(decided.iter().flat_map(|decision| &decision.wal));
        new.wal = wal_ranges(&combine(&wal_set(&new.wal), &known, NumberRanges::without));
        new
    }

    /// Everything in these decisions that is kept now. It must be taken back in the ledger, so that its grace time
    /// begins again if it is decided later.
    pub fn taken_back(&self, decided: &[Decision]) -> Decision {
        let is_kept = |id: &BackupId| matches!(self.backups.get(id), Some(BackupVerdict::Kept(_)));
        // Data that stays only while a backup or restore runs, or while something cannot be read, keeps its decision.
        // Otherwise a daily backup could restart the grace time for ever.
        let needed = |verdict: &PackVerdict| match verdict {
            PackVerdict::Goes(_) | PackVerdict::Kept(PackKept::MayBeNamedBy(_) | PackKept::UnknownRestore) => false,
            PackVerdict::Kept(_) | PackVerdict::Rewrite { .. } => true,
        };
        let kept_packs: BTreeSet<PackId> = self.packs_with(needed).collect();
        let needed = |verdict: &WalVerdict| match verdict {
            WalVerdict::Goes(_) => false,
            WalVerdict::Kept(kept) => {
                !matches!(kept, WalKept::RunningBackup(_) | WalKept::MayBeNeededBy(_) | WalKept::UnknownRestore)
            }
        };
        let kept_wal = self.wal.iter().filter(|(_, verdict)| needed(verdict));
        let kept_wal = wal_set(kept_wal.map(|(range, _)| range));
        let decided_wal = wal_set(decided.iter().flat_map(|decision| &decision.wal));
        Decision {
            at: self.now,
            backups: decided.iter().flat_map(|decision| &decision.backups).copied().filter(is_kept).collect(),
            packs: decided
                .iter()
                .flat_map(|decision| &decision.packs)
                .filter(|id| kept_packs.contains(id))
                .copied()
                .collect(),
            wal: wal_ranges(&combine(&decided_wal, &kept_wal, NumberRanges::common)),
        }
    }

    /// Those of these backups whose manifest is removed after these packs. A manifest stays while one of its packs
    /// does, because it tells the next run that packs may be in use, and while another manifest refers to it.
    pub fn manifests_going(&self, backups: &BTreeSet<BackupId>, packs: &BTreeSet<PackId>) -> BTreeSet<BackupId> {
        let with_packs = self.backups_of_packs(|pack, _| !packs.contains(&pack.id));
        let stays = |id: &BackupId| with_packs.contains(id) || is_referred(self.referred.as_ref(), *id);
        backups.iter().copied().filter(|id| !stays(id)).collect()
    }

    fn backups_of_packs(&self, filter: impl Fn(&Pack, &PackVerdict) -> bool) -> BTreeSet<BackupId> {
        self.packs.iter().filter(|(pack, verdict)| filter(pack, verdict)).map(|(pack, _)| pack.id.backup).collect()
    }

    fn packs_with(&self, filter: impl Fn(&PackVerdict) -> bool) -> impl Iterator<Item = PackId> {
        self.packs.iter().filter(move |(_, verdict)| filter(verdict)).map(|(pack, _)| pack.id)
    }
}
