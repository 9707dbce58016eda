//! The warnings for the user, besides the verdicts.

use crate::catalog::{Place, Verified};
use crate::packs::names_a_lost_parent;
use crate::setting::{Setting, is_in_the_future};
use crate::verdict::Warning;
use holdfast_repo::name::ClaimNumber;
use std::collections::BTreeSet;

/// All warnings, each once.
pub(crate) fn of(setting: &Setting<'_>) -> BTreeSet<Warning> {
    let catalog = setting.catalog;
    let mut found = BTreeSet::new();
    if setting.policy.is_empty() {
        return found;
    }
    let has_one = |claim: &ClaimNumber| setting.restorable.iter().any(|backup| backup.claim == *claim);
    if setting.restorable.is_empty() {
        found.insert(Warning::NothingRestorable);
    } else if let Some(current) = setting.current_claim().filter(|claim| !has_one(claim)) {
        found.insert(Warning::CurrentClaimHasNone(current));
    }
    for backup in &catalog.backups {
        if is_in_the_future(backup, setting.now) {
            found.insert(Warning::InTheFuture(backup.id));
        }
        if matches!(backup.verified, Verified::ManifestUnreadable(_)) {
            found.insert(Warning::BlockedBy(backup.id));
        }
        let lines = setting.lines.get(&backup.claim);
        if backup.place == Place::Packs && lines.is_some_and(|lines| !lines.has_own_wal(backup)) {
            found.insert(Warning::WalMissing(backup.id));
        }
    }
    found.extend(catalog.unknown.iter().map(|unknown| Warning::BlockedBy(unknown.id)));
    found.extend(catalog.remnants.iter().copied().map(Warning::Remnant));
    for running in setting.may_run() {
        found.insert(Warning::MayRun(running.id));
        if names_a_lost_parent(setting, running.parent) {
            found.insert(Warning::ParentIsGone(running.id));
        }
    }
    for (claim, lines) in &setting.lines {
        found.extend(lines.unknown().map(|timeline| Warning::UnknownHistory { claim: *claim, timeline }));
    }
    if let Some(start) = setting.window_start() {
        let from = setting.restorable.last().map(|oldest| oldest.stop_time);
        if from.is_none_or(|from| from > start) {
            found.insert(Warning::WindowNotReached { from });
        }
    }
    let verified = setting.restorable.iter().filter(|backup| backup.verified == Verified::Sound).count();
    let verified = u32::try_from(verified).unwrap_or(u32::MAX);
    if verified < setting.policy.keep.verified {
        found.insert(Warning::FewVerified { found: verified });
    }
    found
}
