//! What cannot be restored because of a gap, or because of a segment that recovery cannot pass.
//!
//! Everything from there on is lost until the end of the next backup that begins after it. Pure: facts about times are
//! looked up later.

use holdfast_contract::report::wal_verify::{LostMoments, LostUntil};
use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::BackupId;
use holdfast_repo::recovery::{Beginning, BeginningKind};

use crate::restore::{Line, LineHole, Stretch};

/// A place that recovery along a line cannot pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    /// This segment cannot be read.
    In(SegmentName),
    /// The end of the segment before it: it is of another history.
    Before(SegmentName),
    /// This segment ends early: the WAL after it is not reached.
    After(SegmentName),
}

/// What a barrier costs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Backups that do not become consistent.
    pub(super) backups: Vec<BackupId>,
    /// The lost moments; times before the barrier are not known yet.
    pub(super) lost: Vec<LostMoments>,
    /// For each of these, the line and the stretch in which the time can be looked up.
    pub(super) places: Vec<(usize, usize)>,
}

/// The segments with these numbers, under the names that recovery along the path asks for.
pub(super) fn under_their_names(ancestry: &Ancestry, first: u64, last: u64, size: WalSegmentSize) -> Vec<SegmentRange> {
    let begins: Vec<u64> = ancestry.path().iter().map(|span| span.start.as_u64() / size.as_u64()).collect();
    let (mut found, mut next) = (Vec::new(), first);
    while next <= last {
        let name = ancestry.segment_containing(Lsn::new(next.saturating_mul(size.as_u64())), size);
        let begins = begins.iter().copied().filter(|begins| *begins > next).min();
        let end = begins.map_or(last, |begins| last.min(begins - 1));
        let Some(range) = SegmentRange::new(name.timeline(), next, end, size) else { break };
        found.push(range);
        next = end + 1;
    }
    found
}

/// The moments that a gap of a line costs.
pub(super) fn of_hole(line: &Line, hole: &LineHole, beginnings: &[Beginning]) -> Option<LostMoments> {
    let before = line.stretches.get(hole.before)?;
    let until = hole.after.and_then(|after| line.stretches.get(after)?.backups.first());
    Some(LostMoments {
        timeline: line.ancestry.timeline(),
        from_lsn: before.window.to_lsn,
        from_time: before.window.to_time,
        until: until.and_then(|backup| end_of(*backup, beginnings)),
    })
}

/// What a barrier costs along all lines.
pub(super) fn of_barrier(barrier: Barrier, lines: &[Line], beginnings: &[Beginning], size: WalSegmentSize) -> Cost {
    let mut cost = Cost::default();
    let (Barrier::In(segment) | Barrier::Before(segment) | Barrier::After(segment)) = barrier;
    let number = segment.number(size);
    // The first number that recovery from an earlier backup does not pass, and the first with which a recovery can
    // begin without the barrier.
    let (stops_at, free_from, from_lsn) = match barrier {
        Barrier::In(_) => (number, number + 1, segment.start_lsn(size)),
        Barrier::Before(_) => (number, number, segment.start_lsn(size)),
        Barrier::After(_) => (number + 1, number + 1, segment.end_lsn(size)),
    };
    for (at, line) in lines.iter().enumerate() {
        for (place, stretch) in line.stretches.iter().enumerate().filter(|(_, stretch)| holds(stretch, segment, size)) {
            let of_stretch = || stretch.backups.iter().filter_map(|backup| beginning(*backup, beginnings));
            let start = |begins: &&Beginning| begins.start_segment.number(size);
            if !of_stretch().any(|begins| start(&begins) < free_from) {
                continue;
            }
            let harmed = of_stretch().filter(|begins| start(begins) < free_from);
            cost.backups.extend(
                harmed.filter(|begins| begins.stop_segment.number(size) >= stops_at).map(|begins| begins.backup_id),
            );
            let later = of_stretch().filter(|begins| start(begins) >= free_from).min_by_key(start);
            let next = || line.stretches.get(place + 1)?.backups.first().copied();
            let until = later.map(|begins| begins.backup_id).or_else(next);
            let until = until.and_then(|backup| end_of(backup, beginnings));
            cost.lost.push(LostMoments { timeline: line.ancestry.timeline(), from_lsn, from_time: None, until });
            cost.places.push((at, place));
        }
    }
    cost.backups.sort_unstable();
    cost.backups.dedup();
    cost
}

fn holds(stretch: &Stretch, segment: SegmentName, size: WalSegmentSize) -> bool {
    let number = segment.number(size);
    stretch.segments.iter().any(|range| {
        range.timeline == segment.timeline() && (range.first.number(size)..=range.last.number(size)).contains(&number)
    })
}

fn beginning(backup: BackupId, beginnings: &[Beginning]) -> Option<&Beginning> {
    beginnings.iter().find(|begins| begins.backup_id == backup)
}

fn end_of(backup: BackupId, beginnings: &[Beginning]) -> Option<LostUntil> {
    let begins = beginning(backup, beginnings)?;
    let is_snapshot = begins.kind == BeginningKind::Snapshot;
    Some(LostUntil { backup, lsn: begins.stop_lsn, time: begins.stop_time, is_snapshot })
}
