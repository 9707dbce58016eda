//! The input of every rule: the catalog, the policy and the time, with what follows directly from them.

use crate::catalog::{Backup, Catalog, Parent, Place, RunningRestore, UnfinishedBackup, Verified};
use crate::lines::Lines;
use crate::policy::Policy;
use chrono::{DateTime, Duration, Utc};
use holdfast_repo::name::{BackupId, ClaimNumber};
use std::collections::{BTreeMap, BTreeSet};

/// The catalog with a policy at a time.
pub(crate) struct Setting<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) policy: &'a Policy,
    pub(crate) now: DateTime<Utc>,
    /// Backups whose removal is decided but must wait: everything that they need stays.
    pub(crate) waiting: &'a BTreeSet<BackupId>,
    pub(crate) lines: BTreeMap<ClaimNumber, Lines<'a>>,
    /// Complete backups that are known to be restorable, newest first.
    pub(crate) restorable: Vec<&'a Backup>,
    /// Complete backups and snapshots with a known time, restorable or not, newest first.
    pub(crate) dated: Vec<&'a Backup>,
}

impl<'a> Setting<'a> {
    pub(crate) fn new(
        catalog: &'a Catalog,
        policy: &'a Policy,
        now: DateTime<Utc>,
        waiting: &'a BTreeSet<BackupId>,
    ) -> Self {
        let lines: BTreeMap<ClaimNumber, Lines<'a>> = catalog
            .claims
            .iter()
            .map(|(number, claim)| {
                let backups = catalog.backups.iter().filter(|backup| backup.claim == *number);
                (*number, Lines::new(&claim.wal, backups))
            })
            .collect();
        let mut dated: Vec<&Backup> = catalog.backups.iter().filter(|backup| !is_in_the_future(backup, now)).collect();
        dated.sort_by_key(|backup| std::cmp::Reverse((backup.stop_time, backup.id)));
        let restorable = dated.iter().copied().filter(|backup| is_restorable(backup, catalog, &lines)).collect();
        Self { catalog, policy, now, waiting, lines, restorable, dated }
    }

    /// The first moment of the window. `None` without a window, or if it begins before the earliest possible time.
    pub(crate) fn window_start(&self) -> Option<DateTime<Utc>> {
        self.now.checked_sub_signed(self.policy.window?)
    }

    /// The newest claim.
    pub(crate) fn current_claim(&self) -> Option<ClaimNumber> {
        let of_backups = self.catalog.backups.iter().map(|backup| backup.claim);
        self.catalog.claims.keys().copied().chain(of_backups).max()
    }

    /// Unfinished backups that are running or may be running.
    pub(crate) fn may_run(&self) -> impl Iterator<Item = &'a UnfinishedBackup> {
        self.catalog.may_run(self.policy, self.now)
    }

    /// Restores whose lease is not over.
    pub(crate) fn restores(&self) -> impl Iterator<Item = &'a RunningRestore> {
        self.catalog.restores.iter().filter(|restore| {
            let end = restore.lease_until.checked_add_signed(self.policy.clock_difference);
            end.is_none_or(|end| self.now <= end)
        })
    }

    /// Whether there is a running restore that may read any backup: it does not name one, or its backup is gone.
    pub(crate) fn has_unknown_restore(&self) -> bool {
        let exists = |id: BackupId| self.catalog.backups.iter().any(|backup| backup.id == id);
        self.restores().any(|restore| !restore.backup.is_some_and(exists))
    }

    /// Whether the parent of an unfinished backup is there, or it is a full backup.
    pub(crate) fn parent_is_there(&self, unfinished: &UnfinishedBackup) -> bool {
        match unfinished.parent {
            Parent::Unknown => false,
            Parent::Nothing => true,
            Parent::Backup(id) => self.catalog.backups.iter().any(|backup| backup.id == id),
        }
    }
}

/// Whether the age of the backup is not known, because one of its times is in the future.
pub(crate) fn is_in_the_future(backup: &Backup, now: DateTime<Utc>) -> bool {
    backup.start_time.max(backup.stop_time) > now || is_named_for_the_future(backup.id, now)
}

/// Whether the id of a backup is in the future by more than [`NAMED_AHEAD`]. If two backups begin in the same second,
/// the second one gets the next free second as its id.
pub(crate) fn is_named_for_the_future(id: BackupId, now: DateTime<Utc>) -> bool {
    id.time().checked_sub_signed(NAMED_AHEAD).is_none_or(|time| time > now)
}

/// The id of a backup may be later than its start by at most this time.
const NAMED_AHEAD: Duration = Duration::minutes(1);

fn is_restorable(backup: &Backup, catalog: &Catalog, lines: &BTreeMap<ClaimNumber, Lines<'_>>) -> bool {
    let undamaged = matches!(backup.verified, Verified::Never | Verified::Sound);
    let known_claim = catalog.claims.get(&backup.claim).is_some_and(|claim| claim.since.is_some());
    backup.place == Place::Packs
        && undamaged
        && known_claim
        && lines.get(&backup.claim).is_some_and(|lines| lines.has_own_wal(backup))
}
