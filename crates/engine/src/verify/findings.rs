//! The findings: one entry for each object, whichever step found it first.

use std::collections::BTreeMap;

use holdfast_contract::report::verify::{ClaimWindow, Damage, DamageKind, NewerObject, ObjectClass};
use holdfast_repo::name::BackupId;

use super::judge::{Judged, class_of, judge};
use crate::error::Error;

/// Damage and newer objects, by the name of the object.
#[derive(Debug, Default)]
pub(super) struct Findings {
    damage: BTreeMap<String, Damage>,
    newer: BTreeMap<String, NewerObject>,
    /// Further notes for people.
    pub(super) notes: Vec<String>,
}

impl Findings {
    /// Records what an error says about an object, and the backups that cannot be restored because of it.
    ///
    /// # Errors
    /// The error itself if it says nothing about an object.
    pub(super) fn take(&mut self, error: Error, object: &str, backups: &[BackupId]) -> Result<String, Error> {
        self.look(&error, object, backups).ok_or(error)
    }

    /// The same, without taking the error. Returns the affected object; `None` if the error says nothing about an
    /// object.
    pub(super) fn look(&mut self, error: &Error, object: &str, backups: &[BackupId]) -> Option<String> {
        match judge(error, object) {
            Judged::Damaged { kind, object, problem } => {
                self.damage(kind, &object, 1, problem, backups);
                Some(object)
            }
            Judged::Newer { object, reason } => {
                let found = self.newer.entry(object.clone()).or_insert_with(|| NewerObject {
                    object: object.clone(),
                    reason,
                    backups: Vec::new(),
                });
                union(&mut found.backups, backups);
                Some(object)
            }
            Judged::Nothing => None,
        }
    }

    /// Records damage of an object.
    pub(super) fn damage(
        &mut self,
        kind: DamageKind,
        object: &str,
        count: u64,
        problem: String,
        backups: &[BackupId],
    ) -> &mut Damage {
        let found = self.damage.entry(object.to_owned()).or_insert_with(|| Damage {
            kind,
            class: class_of(object),
            object: object.to_owned(),
            count,
            problem,
            backups: Vec::new(),
            windows: Vec::new(),
        });
        union(&mut found.backups, backups);
        found.count = found.count.max(count);
        found
    }

    /// Whether an object was found damaged or newer. If so, records that this backup is affected as well.
    pub(super) fn harms(&mut self, object: &str, backup: BackupId) -> bool {
        let damaged = self.damage.get_mut(object).map(|damage| &mut damage.backups);
        let newer = self.newer.get_mut(object).map(|newer| &mut newer.backups);
        let mut known = false;
        for backups in damaged.into_iter().chain(newer) {
            union(backups, &[backup]);
            known = true;
        }
        known
    }

    /// Whether a pack was found damaged.
    pub(super) fn has_damaged_packs(&self) -> bool {
        self.damage.values().any(|damage| damage.class == ObjectClass::Pack)
    }

    /// Whether this backup cannot be restored.
    pub(super) fn is_damaged(&self, backup: BackupId) -> bool {
        self.damage.values().any(|damage| damage.backups.contains(&backup))
    }

    /// Whether only a newer release can restore this backup.
    pub(super) fn is_newer(&self, backup: BackupId) -> bool {
        self.newer.values().any(|newer| newer.backups.contains(&backup))
    }

    pub(super) fn damage_of(&self, backup: BackupId) -> impl Iterator<Item = &Damage> {
        self.damage.values().filter(move |damage| damage.backups.contains(&backup))
    }

    /// All damage.
    pub(super) fn damages(&mut self) -> impl Iterator<Item = &mut Damage> {
        self.damage.values_mut()
    }

    /// Removes the findings about a backup that was removed meanwhile.
    pub(super) fn forget(&mut self, backup: BackupId) {
        self.damage.retain(|_, damage| {
            let before = damage.backups.len();
            damage.backups.retain(|harmed| *harmed != backup);
            damage.backups.len() == before || !damage.backups.is_empty()
        });
    }

    /// Keeps only the damage that the request asks for.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Damage) -> bool) {
        self.damage.retain(|_, damage| wanted(damage));
    }

    /// All findings, in the order of the names.
    pub(super) fn into_parts(self) -> (Vec<Damage>, Vec<NewerObject>, Vec<String>) {
        (self.damage.into_values().collect(), self.newer.into_values().collect(), self.notes)
    }
}

/// Adds windows that are not listed yet.
pub(super) fn add_windows(damage: &mut Damage, windows: impl IntoIterator<Item = ClaimWindow>) {
    for window in windows {
        if !damage.windows.contains(&window) {
            damage.windows.push(window);
        }
    }
}

fn union(backups: &mut Vec<BackupId>, more: &[BackupId]) {
    for backup in more {
        if let Err(at) = backups.binary_search(backup) {
            backups.insert(at, *backup);
        }
    }
}
