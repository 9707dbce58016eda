//! Turns a plan into its report.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::report::expire::{Amount, BackupFate, PackFate, RepositoryExpire, RestorableWindow, WalFate};
use holdfast_repo::name::{BackupId, ClaimNumber};
use holdfast_repo::record::ClaimRecord;
use holdfast_retention as planner;
use holdfast_store::LockTerm;

use super::carry_out::Done;
use super::decided::Entry;
use super::locks;
use crate::repository::Repository;

pub(super) fn describe(
    repository: &Repository,
    plan: &planner::Plan,
    claims: &BTreeMap<ClaimNumber, ClaimRecord>,
    decided: &[Entry],
    grace: TimeDelta,
    mut notes: Vec<String>,
) -> RepositoryExpire {
    let due = |id: &BackupId| {
        let of = decided.iter().filter(|entry| entry.decision.backups.contains(id));
        of.filter_map(|entry| entry.decision.at.checked_add_signed(grace)).min()
    };
    let mut backups = Vec::new();
    for (id, verdict) in &plan.backups {
        let (kept, why) = match verdict {
            planner::BackupVerdict::Kept(reasons) => (true, reasons.iter().map(ToString::to_string).collect()),
            planner::BackupVerdict::Goes(reason) => (false, vec![reason.to_string()]),
        };
        let not_before = if kept || plan.is_blocked { None } else { due(id) };
        backups.push(BackupFate { backup_id: *id, kept, why, not_before, locked_until: None });
    }
    let mut wal = Vec::new();
    for (range, verdict) in &plan.wal {
        let Some((first, last)) = claims.get(&range.claim).and_then(|claim| range.names(claim.wal_segment_size)) else {
            continue;
        };
        let (kept, why) = match verdict {
            planner::WalVerdict::Kept(reason) => (true, reason.to_string()),
            planner::WalVerdict::Goes(reason) => (false, reason.to_string()),
        };
        wal.push(WalFate {
            claim: range.claim,
            timeline: range.timeline,
            first,
            last,
            segments: range.count(),
            kept,
            why,
        });
    }
    notes.extend(plan.warnings.iter().map(ToString::to_string));
    let next = next_removal(plan, decided, grace);
    RepositoryExpire {
        repository: repository.describe(),
        now: plan.now,
        backups,
        wal,
        packs: packs(plan),
        before: windows(&plan.before),
        after: windows(&plan.after),
        warnings: notes,
        decided: Amount::default(),
        removed: Amount::default(),
        next_removal: next,
        uploads_going: 0,
        window_start: None,
        locks: None,
    }
}

/// Adds what the store says about locks.
pub(super) fn add_locks(report: &mut RepositoryExpire, found: &locks::Found, term: LockTerm) {
    for backup in &mut report.backups {
        backup.locked_until = found.backups.get(&backup.backup_id).copied();
    }
    report.locks = Some(found.report(term));
}

/// When the next removal is due; nobody knows while nothing goes.
pub(super) fn next_removal(plan: &planner::Plan, decided: &[Entry], grace: TimeDelta) -> Option<DateTime<Utc>> {
    let due = decided.iter().filter_map(|entry| entry.decision.at.checked_add_signed(grace));
    due.min().filter(|_| !plan.is_blocked)
}

fn packs(plan: &planner::Plan) -> PackFate {
    let mut fate = PackFate::default();
    for (pack, verdict) in &plan.packs {
        match verdict {
            planner::PackVerdict::Goes(_) => {
                fate.going += 1;
                fate.going_bytes += pack.size_bytes;
            }
            planner::PackVerdict::Kept(_) | planner::PackVerdict::Rewrite { .. } => {
                fate.kept += 1;
                fate.kept_bytes += pack.size_bytes;
            }
        }
        if let planner::PackVerdict::Kept(reason) = verdict
            && !matches!(reason, planner::PackKept::Named { .. })
        {
            let reason = reason.to_string();
            if !fate.why.contains(&reason) {
                fate.why.push(reason);
            }
        }
    }
    fate
}

fn windows(windows: &[planner::RecoverableWindow]) -> Vec<RestorableWindow> {
    let window = |window: &planner::RecoverableWindow| RestorableWindow {
        claim: window.claim,
        timeline: window.timeline,
        backup: window.backup,
        backups: window.backup_count as u64,
        from: window.start_time,
        start_lsn: window.start,
        end_lsn: window.end,
    };
    windows.iter().map(window).collect()
}

/// The amount that a decision names.
pub(super) fn amount(decision: &planner::Decision, plan: &planner::Plan) -> Amount {
    let named = plan.packs.iter().filter(|(pack, _)| decision.packs.contains(&pack.id));
    Amount {
        backups: decision.backups.iter().copied().collect(),
        packs: decision.packs.len() as u64,
        wal_files: decision.wal.iter().map(planner::WalRange::count).fold(0, u64::saturating_add),
        size_bytes: named.map(|(pack, _)| pack.size_bytes).sum(),
        uploads: 0,
    }
}

pub(super) fn removed(done: &Done) -> Amount {
    Amount {
        backups: done.backups.clone(),
        packs: done.packs,
        wal_files: done.wal_files,
        size_bytes: done.size_bytes,
        uploads: 0,
    }
}
