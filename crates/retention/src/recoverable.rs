//! The recoverable windows: ranges of LSNs on a timeline in which any moment can be restored.
//!
//! A window begins at the stop LSN of a backup and ends at the first gap in the WAL, along the path to its timeline.
//! Overlapping windows of several backups are one window. A timeline has only windows that reach it: a window that ends
//! on a parent timeline belongs to that one.

use crate::catalog::Backup;
use crate::lines::{Lines, number_containing};
use crate::number_ranges::NumberRanges;
use crate::setting::Setting;
use crate::verdict::{WalRange, WalVerdict};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Ancestry, Lsn, TimelineId};
use holdfast_repo::name::{BackupId, ClaimNumber};
use std::collections::BTreeMap;

/// A window in which any moment can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverableWindow {
    /// The claim of its backups and WAL.
    pub claim: ClaimNumber,
    /// The timeline that a restore must name as its target timeline.
    pub timeline: TimelineId,
    /// The first backup from which a moment in it can be restored.
    pub backup: BackupId,
    /// The number of backups in it.
    pub backup_count: usize,
    /// The first LSN: the stop LSN of that backup.
    pub start: Lsn,
    /// The time at which that backup ended.
    pub start_time: DateTime<Utc>,
    /// The end of the last segment before the first gap in the WAL.
    pub end: Lsn,
}

/// The whole segments of each timeline of each claim.
type Segments = BTreeMap<(ClaimNumber, TimelineId), NumberRanges>;

/// The windows now.
pub(crate) fn before(setting: &Setting<'_>) -> Vec<RecoverableWindow> {
    let of = |claim, timeline| setting.lines.get(&claim).map(|lines: &Lines<'_>| lines.wal.of(timeline));
    windows(setting, |_| true, &of)
}

/// The windows after the removal.
pub(crate) fn after(
    setting: &Setting<'_>,
    is_kept: impl Fn(BackupId) -> bool,
    wal: &[(WalRange, WalVerdict)],
) -> Vec<RecoverableWindow> {
    let mut kept: Segments = BTreeMap::new();
    let same_timeline = |a: &(WalRange, _), b: &(WalRange, _)| (a.0.claim, a.0.timeline) == (b.0.claim, b.0.timeline);
    for ranges in wal.chunk_by(same_timeline) {
        let Some((range, _)) = ranges.first() else { continue };
        let left = ranges.iter().filter(|(_, verdict)| matches!(verdict, WalVerdict::Kept(_)));
        let mut left: NumberRanges = left.map(|(range, _)| (range.first, range.last)).collect();
        if setting.lines.get(&range.claim).is_some_and(|lines| !lines.wal.partials.is_empty()) {
            // Only whole segments count.
            left =
                setting.lines.get(&range.claim).map_or(left.clone(), |lines| left.common(lines.wal.of(range.timeline)));
        }
        kept.insert((range.claim, range.timeline), left);
    }
    windows(setting, is_kept, &|claim, timeline| kept.get(&(claim, timeline)))
}

fn windows<'s>(
    setting: &Setting<'_>,
    is_kept: impl Fn(BackupId) -> bool,
    segments: &dyn Fn(ClaimNumber, TimelineId) -> Option<&'s NumberRanges>,
) -> Vec<RecoverableWindow> {
    let mut found: Vec<RecoverableWindow> = Vec::new();
    for (claim, lines) in &setting.lines {
        let size = lines.wal.segment_size;
        let of_claim = setting.restorable.iter().filter(|backup| backup.claim == *claim && is_kept(backup.id));
        let mut backups: Vec<&Backup> = of_claim.copied().collect();
        backups.sort_by_key(|backup| (backup.start_lsn, backup.id));
        for (timeline, ancestry) in &lines.ancestries {
            let alone = Ancestry::alone(*timeline);
            let path = ancestry.as_ref().unwrap_or(&alone);
            let own_begin = path.span(*timeline).map_or(Lsn::INVALID, |span| span.start);
            let first = found.len();
            for backup in backups.iter().filter(|backup| lines.leads(backup, *timeline)) {
                let end = reach(path, number_containing(backup.start_lsn, size), size.as_u64(), &|timeline| {
                    segments(*claim, timeline)
                });
                let end = Lsn::new(end.saturating_mul(size.as_u64()));
                if end < backup.stop_lsn || end <= own_begin {
                    continue;
                }
                match found.get_mut(first..).and_then(<[RecoverableWindow]>::last_mut) {
                    Some(window) if backup.stop_lsn <= window.end => {
                        window.backup_count += 1;
                        window.end = window.end.max(end);
                    }
                    _ => found.push(RecoverableWindow {
                        claim: *claim,
                        timeline: *timeline,
                        backup: backup.id,
                        backup_count: 1,
                        start: backup.stop_lsn,
                        start_time: backup.stop_time,
                        end,
                    }),
                }
            }
        }
    }
    found
}

/// The number after the last segment that recovery finds from `start` on. Each segment is read on the newest timeline
/// of the path that has begun by then.
fn reach<'s>(path: &Ancestry, start: u64, size: u64, segments: &dyn Fn(TimelineId) -> Option<&'s NumberRanges>) -> u64 {
    let spans = path.path();
    let mut next = start;
    for (index, span) in spans.iter().enumerate() {
        let until = spans.get(index + 1).map_or(u64::MAX, |after| after.start.as_u64() / size);
        if next >= until {
            continue;
        }
        match segments(span.timeline).and_then(|ranges| ranges.holding(next)) {
            Some((_, last)) if last >= until - 1 => next = until,
            Some((_, last)) => return last + 1,
            None => return next,
        }
    }
    next
}
