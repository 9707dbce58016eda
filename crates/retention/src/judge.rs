//! The verdict on each backup, and from which of them on every moment can be restored.

use crate::catalog::{Backup, Hold, Parent, Place, Verified};
use crate::setting::{Setting, is_in_the_future};
use crate::verdict::{BackupGoes, BackupKept, BackupVerdict};
use crate::{slots, window};
use chrono::Duration;
use holdfast_repo::name::BackupId;
use std::collections::{BTreeMap, BTreeSet};

/// A timeline whose newest WAL was stored within this time is in use, or was left a moment ago.
const LINE_IN_USE: Duration = Duration::days(7);

/// The verdicts on the backups.
pub(crate) struct Judged {
    pub(crate) verdicts: BTreeMap<BackupId, BackupVerdict>,
    /// Kept backups that need all WAL from their start on, not only up to their own stop.
    pub(crate) continuous: BTreeSet<BackupId>,
}

impl Judged {
    pub(crate) fn is_kept(&self, backup: BackupId) -> bool {
        matches!(self.verdicts.get(&backup), Some(BackupVerdict::Kept(_)))
    }
}

/// The reasons to keep each backup.
#[derive(Default)]
struct Reasons {
    of: BTreeMap<BackupId, BTreeSet<BackupKept>>,
    continuous: BTreeSet<BackupId>,
}

impl Reasons {
    fn add(&mut self, backup: BackupId, reason: BackupKept) {
        self.of.entry(backup).or_default().insert(reason);
    }

    fn add_continuous(&mut self, backup: BackupId, reason: BackupKept) {
        self.continuous.insert(backup);
        self.add(backup, reason);
    }
}

/// Judges every backup.
pub(crate) fn judge(setting: &Setting<'_>) -> Judged {
    let mut reasons = Reasons::default();
    if setting.policy.is_empty() {
        for id in every_id(setting) {
            reasons.add_continuous(id, BackupKept::NoPolicy);
        }
    }
    by_policy(setting, &mut reasons);
    the_last(setting, &mut reasons);
    by_users(setting, &mut reasons);
    of_doubt(setting, &mut reasons);
    for id in setting.waiting {
        // It waits only if nothing else keeps it. Otherwise its removal is taken back.
        if !reasons.of.contains_key(id) && setting.catalog.backups.iter().any(|backup| backup.id == *id) {
            reasons.add(*id, BackupKept::Waiting);
        }
    }
    let verdict = |id: BackupId| match reasons.of.get(&id) {
        Some(kept) => BackupVerdict::Kept(kept.iter().cloned().collect()),
        None if setting.catalog.remnants.contains(&id) => BackupVerdict::Goes(BackupGoes::Remnant),
        None if setting.catalog.half_removed.contains(&id) => BackupVerdict::Goes(BackupGoes::HalfRemoved),
        None => BackupVerdict::Goes(BackupGoes::OutOfPolicy),
    };
    let verdicts = every_id(setting).into_iter().map(|id| (id, verdict(id))).collect();
    Judged { verdicts, continuous: reasons.continuous }
}

fn every_id(setting: &Setting<'_>) -> BTreeSet<BackupId> {
    let catalog = setting.catalog;
    let complete = catalog.backups.iter().map(|backup| backup.id);
    let unfinished = catalog.unfinished.iter().map(|backup| backup.id);
    let unknown = catalog.unknown.iter().map(|backup| backup.id);
    let removed = catalog.half_removed.iter().chain(&catalog.remnants).copied();
    complete.chain(unfinished).chain(unknown).chain(removed).collect()
}

/// Applies the window and the counts. Only restorable backups fill the counts. Any other backup stays as long as it
/// would if it were restorable.
fn by_policy(setting: &Setting<'_>, reasons: &mut Reasons) {
    for (id, reason) in wanted(setting, &setting.restorable) {
        if is_continuous(setting, &reason) {
            reasons.add_continuous(id, reason);
        } else {
            reasons.add(id, reason);
        }
    }
    let restorable: BTreeSet<BackupId> = setting.restorable.iter().map(|backup| backup.id).collect();
    let snapshot = |id: BackupId| setting.dated.iter().any(|one| one.id == id && one.place == Place::Snapshot);
    for (id, reason) in wanted(setting, &setting.dated) {
        if restorable.contains(&id) {
            continue;
        }
        if is_continuous(setting, &reason) {
            reasons.continuous.insert(id);
        }
        if !snapshot(id) {
            reasons.add(id, BackupKept::Unsound);
        }
    }
}

fn wanted(setting: &Setting<'_>, newest_first: &[&Backup]) -> Vec<(BackupId, BackupKept)> {
    let mut wanted = slots::chosen(&setting.policy.keep, newest_first);
    if setting.policy.window.is_some() {
        wanted.extend(window::chosen(setting, newest_first));
    }
    wanted
}

/// Beyond a window, only the backups themselves can be restored. Without a window, every moment since the oldest backup
/// of `keep.last` can be restored.
fn is_continuous(setting: &Setting<'_>, reason: &BackupKept) -> bool {
    match reason {
        BackupKept::Window | BackupKept::WindowStart(_) => true,
        BackupKept::Last => setting.policy.window.is_none(),
        _ => false,
    }
}

/// Keeps the last restorable backups of the newest claim that has one: the newest backup, and the newest one that leads
/// to the timeline with the latest activity. After `pg_upgrade`, these are of the old claim until the new claim has a
/// backup.
fn the_last(setting: &Setting<'_>, reasons: &mut Reasons) {
    let of_claim = |claim| setting.catalog.backups.iter().filter(move |backup| backup.claim == claim);
    let Some(claim) = setting.restorable.iter().map(|backup| backup.claim).max() else {
        for backup in &setting.catalog.backups {
            reasons.add_continuous(backup.id, BackupKept::NothingRestorable);
        }
        // Remnants stay, too: if nothing is restorable, it is more likely that the archive is seen wrongly.
        for id in &setting.catalog.remnants {
            reasons.add(*id, BackupKept::NothingRestorable);
        }
        return;
    };
    if let Some(current) = setting.current_claim().filter(|current| *current != claim) {
        for backup in of_claim(current) {
            reasons.add_continuous(backup.id, BackupKept::NothingRestorableInClaim);
        }
    }
    let candidates = || setting.restorable.iter().filter(|backup| backup.claim == claim);
    let newest = candidates().next();
    let on_the_line = setting.lines.get(&claim).and_then(|lines| {
        let last_activity = |timeline: &holdfast_pgtypes::TimelineId| {
            let backups = candidates().filter(|backup| backup.stop_timeline == *timeline);
            let stored = lines.wal.last_stored.get(timeline).copied();
            (backups.map(|backup| backup.stop_time).chain(stored).max(), *timeline)
        };
        let line = lines.ancestries.keys().max_by_key(|timeline| last_activity(timeline))?;
        candidates().find(|backup| lines.leads(backup, *line))
    });
    for backup in newest.into_iter().chain(on_the_line) {
        reasons.add_continuous(backup.id, BackupKept::LastRestorable);
    }
    // Counts know nothing of timelines: many backups of one branch would push out the only backup of another. A window
    // prevents that.
    let start = setting.now.checked_sub_signed(LINE_IN_USE).filter(|_| setting.policy.window.is_none());
    for (id, timeline) in start.map(|start| window::leading(setting, start, &setting.restorable)).unwrap_or_default() {
        if !reasons.continuous.contains(&id) {
            reasons.add_continuous(id, BackupKept::Line(timeline));
        }
    }
}

/// Applies holds, restores and running backups.
fn by_users(setting: &Setting<'_>, reasons: &mut Reasons) {
    for backup in &setting.catalog.backups {
        let is_held = |hold: Option<Hold>| hold.is_some_and(|hold| hold.is_in_force(setting.now));
        if is_held(backup.hold) {
            reasons.add(backup.id, BackupKept::Held);
        }
        if is_held(backup.hold_with_wal) {
            reasons.add_continuous(backup.id, BackupKept::HeldWithWal);
        }
    }
    let exists = |id: &BackupId| setting.catalog.backups.iter().any(|backup| backup.id == *id);
    for id in setting.restores().filter_map(|restore| restore.backup).filter(exists) {
        reasons.add_continuous(id, BackupKept::Restoring);
    }
    if setting.has_unknown_restore() {
        // The restore may read any backup. All WAL also stays.
        for backup in &setting.catalog.backups {
            reasons.add(backup.id, BackupKept::Restoring);
        }
    }
    for unfinished in setting.may_run() {
        match unfinished.parent {
            Parent::Backup(parent) if exists(&parent) => reasons.add(parent, BackupKept::ParentOf(unfinished.id)),
            _ => {}
        }
    }
}

/// Keeps every backup that cannot be judged.
fn of_doubt(setting: &Setting<'_>, reasons: &mut Reasons) {
    for backup in &setting.catalog.backups {
        if is_in_the_future(backup, setting.now) {
            reasons.add_continuous(backup.id, BackupKept::InTheFuture);
        }
        if backup.place == Place::Snapshot {
            reasons.add(backup.id, BackupKept::Snapshot);
        }
        if setting.catalog.claims.get(&backup.claim).is_none_or(|claim| claim.since.is_none()) {
            reasons.add_continuous(backup.id, BackupKept::UnknownClaim);
        }
        if let Verified::ManifestUnreadable(why) = &backup.verified {
            reasons.add(backup.id, BackupKept::ManifestUnreadable(why.clone()));
        }
    }
    for unknown in &setting.catalog.unknown {
        reasons.add(unknown.id, BackupKept::Unknown(unknown.reason.clone()));
    }
    for unfinished in &setting.catalog.unfinished {
        reasons.add(unfinished.id, BackupKept::Unfinished);
    }
}
