//! Which backups the window needs.
//!
//! Every backup that ended inside the window is kept. To restore the window's first moments, there must also be a
//! backup that ended before the window: for each timeline that was active inside the window, the newest such backup
//! that leads to it. The *end* of a backup decides, because no moment before its end can be restored from it.

use crate::catalog::Backup;
use crate::lines::Lines;
use crate::setting::Setting;
use crate::verdict::BackupKept;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::name::{BackupId, ClaimNumber};
use std::collections::BTreeSet;

/// The backups that the window needs, chosen from `newest_first`.
pub(crate) fn chosen(setting: &Setting<'_>, newest_first: &[&Backup]) -> Vec<(BackupId, BackupKept)> {
    let Some(start) = setting.window_start() else {
        return newest_first.iter().map(|backup| (backup.id, BackupKept::Window)).collect();
    };
    let inside = newest_first.partition_point(|backup| backup.stop_time > start);
    let (inside, before) = newest_first.split_at(inside);
    let mut found: Vec<_> = inside.iter().map(|backup| (backup.id, BackupKept::Window)).collect();
    found.extend(leading(setting, start, before).into_iter().map(|(id, line)| (id, BackupKept::WindowStart(line))));
    found
}

/// For each timeline that was active since `start`, the newest of these backups that leads to it.
pub(crate) fn leading(
    setting: &Setting<'_>,
    start: DateTime<Utc>,
    newest_first: &[&Backup],
) -> Vec<(BackupId, TimelineId)> {
    let mut found = Vec::new();
    for (claim, lines) in &setting.lines {
        if !was_current_since(setting, *claim, start) {
            continue;
        }
        for timeline in alive_since(setting, *claim, lines, start) {
            let unknown = lines.ancestries.get(&timeline).is_none_or(Option::is_none);
            let leads = |backup: &&&Backup| {
                backup.claim == *claim && (lines.leads(backup, timeline) || unknown && backup.timeline <= timeline)
            };
            if let Some(backup) = newest_first.iter().find(leads) {
                found.push((backup.id, timeline));
            }
        }
    }
    found
}

/// Whether the claim was the current one at some moment since `start`: no later claim was made before `start`.
fn was_current_since(setting: &Setting<'_>, claim: ClaimNumber, start: DateTime<Utc>) -> bool {
    let later = setting.catalog.claims.iter().filter(|(number, _)| **number > claim);
    !later.filter_map(|(_, later)| later.since).any(|since| since <= start)
}

/// The timelines that had WAL or a backup since `start`, or may have had.
fn alive_since(
    setting: &Setting<'_>,
    claim: ClaimNumber,
    lines: &Lines<'_>,
    start: DateTime<Utc>,
) -> BTreeSet<TimelineId> {
    let all = || lines.ancestries.keys().copied();
    if lines.unknown().next().is_some() {
        return all().collect();
    }
    let of_backups = setting.catalog.backups.iter().filter(|backup| backup.claim == claim && backup.stop_time > start);
    let mut alive: BTreeSet<TimelineId> =
        of_backups.flat_map(|backup| [backup.timeline, backup.stop_timeline]).collect();
    alive.extend(all().filter(|timeline| match lines.wal.last_stored.get(timeline) {
        Some(stored) => *stored > start,
        None => !lines.wal.of(*timeline).is_empty() || lines.wal.histories.contains_key(timeline),
    }));
    alive
}
