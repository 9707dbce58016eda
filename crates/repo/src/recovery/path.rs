//! Step 1: the timeline, the backups on it, and the runs of WAL along it.

use super::ancestry::ancestry;
use super::other_line::other_lines;
use super::{Beginning, Hole, NeededTail, Newer, OtherLine, RecoveryRequest, RecoveryWorld, Unreachable};
use crate::catalog::{SegmentRange, Tail, WalInventory};
use crate::name::BackupId;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, TimelineId, TimelineSpan, WalSegmentSize};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A gapless run of WAL along the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalRun {
    /// The segments of the run, under the names that recovery asks for, in order.
    pub segments: Vec<SegmentRange>,
    /// The first LSN of the run.
    pub start_lsn: Lsn,
    /// The end of the WAL that may be replayed: the end of the last segment, or the LSN at which the path leaves it.
    pub end_lsn: Lsn,
    /// The same, if the last segments are not whole and only pieces of them exist.
    #[serde(skip)]
    pub tail_lsn: Option<Lsn>,
    /// What of the run exists in pieces only, one for each timeline.
    #[serde(skip)]
    pub tails: Vec<NeededTail>,
    /// The missing segments after the run; `None` at the end of the archive.
    pub hole: Option<Hole>,
    #[serde(skip)]
    first: u64,
    #[serde(skip)]
    last: u64,
}

/// A backup from which the path can be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The backup, or the snapshot.
    pub backup: Beginning,
    /// The run that contains all its WAL: an index into [`RecoveryPath::runs`].
    pub run: usize,
}

/// Why a backup on the timeline cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The id of the rejected backup.
    pub backup: BackupId,
    /// The missing WAL between its start and its stop.
    pub hole: Hole,
}

/// What [`RecoveryPath::decide`] needs to know about the runs, by the kind of target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactsNeeded {
    /// No facts.
    None,
    /// The last commit or abort of each run.
    LastTransaction,
    /// The places of the commit, abort or prepare records of the transaction, or of the restore points with the name.
    TargetRecords,
}

/// The way to the target timeline: the result of the first step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPath {
    pub(super) request: RecoveryRequest,
    pub(super) timeline: TimelineId,
    pub(super) ancestry: Ancestry,
    pub(super) size: WalSegmentSize,
    pub(super) runs: Vec<WalRun>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) rejected: Vec<Rejection>,
    pub(super) history_files: Vec<TimelineId>,
    pub(super) unreached: Vec<TimelineId>,
    pub(super) others: Vec<OtherLine>,
}

impl RecoveryPath {
    /// Finds the path for a request.
    ///
    /// # Errors
    /// [`Unreachable`], if no backup leads to the wanted timeline at all.
    pub fn find(request: &RecoveryRequest, world: &RecoveryWorld<'_>) -> Result<Self, Unreachable> {
        let backups: Vec<&Beginning> = world.backups.iter().filter(|backup| backup.claim == world.claim).collect();
        let newest = backups.iter().max_by_key(|backup| backup.stop_time).ok_or(Unreachable::NoBackups)?;
        let named = match request.backup {
            None => None,
            Some(id) => {
                let named = backups.iter().copied().find(|backup| backup.backup_id == id);
                Some(named.ok_or(Unreachable::BackupUnknown { backup: id })?)
            }
        };
        let known = known_timelines(world, &backups);
        let timeline = match request.timeline {
            TargetTimeline::Number(timeline) => timeline,
            TargetTimeline::Current => named.unwrap_or(newest).timeline,
            TargetTimeline::Latest => known
                .iter()
                .rev()
                .copied()
                .find(|timeline| {
                    let ancestry = ancestry(world, *timeline);
                    match named {
                        Some(backup) => backup.is_on(&ancestry),
                        None => backups.iter().any(|backup| backup.is_on(&ancestry)),
                    }
                })
                .unwrap_or_else(|| named.unwrap_or(newest).timeline),
        };
        if !known.contains(&timeline) {
            return Err(Unreachable::TimelineUnknown { timeline, known: known.into_iter().collect() });
        }
        let ancestry = ancestry(world, timeline);
        if let Some(backup) = named.filter(|backup| !backup.is_on(&ancestry)) {
            return Err(Unreachable::BackupNotOnTimeline {
                backup: backup.backup_id,
                backup_timeline: backup.timeline,
                stop_lsn: backup.stop_lsn,
                timeline,
                switch_lsn: ancestry.span(backup.timeline).and_then(|span| span.end),
            });
        }
        let mut on_path: Vec<&Beginning> = backups.iter().copied().filter(|backup| backup.is_on(&ancestry)).collect();
        if on_path.is_empty() {
            let backup_timelines: BTreeSet<TimelineId> = backups.iter().map(|backup| backup.timeline).collect();
            let backup_timelines = backup_timelines.into_iter().collect();
            return Err(Unreachable::NoBackupOnTimeline { timeline, backup_timelines });
        }
        on_path.sort_by_key(|backup| std::cmp::Reverse((backup.stop_lsn, backup.backup_id)));

        let history_files = ancestry.path().iter().map(|span| span.timeline);
        let history_files = history_files.filter(|timeline| world.histories.contains_key(timeline)).collect();
        let mut path = Self {
            request: request.clone(),
            timeline,
            size: world.wal.segment_size(),
            runs: wal_runs(&ancestry, world.wal),
            others: other_lines(world, &ancestry, timeline, &known, &backups),
            ancestry,
            candidates: Vec::new(),
            rejected: Vec::new(),
            history_files,
            unreached: known.into_iter().filter(|known| *known > timeline).collect(),
        };
        for backup in on_path {
            match path.run_of(backup) {
                Ok(run) => path.candidates.push(Candidate { backup: backup.clone(), run }),
                Err(hole) => path.rejected.push(Rejection { backup: backup.backup_id, hole }),
            }
        }
        Ok(path)
    }

    /// The timeline to follow: the restore writes it as `recovery_target_timeline`.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The timelines of the path, with the LSN range of each.
    pub fn ancestry(&self) -> &Ancestry {
        &self.ancestry
    }

    /// The gapless runs of WAL along the path, oldest first.
    pub fn runs(&self) -> &[WalRun] {
        &self.runs
    }

    /// The backups from which the path can be followed, newest first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The backups on the timeline that lack WAL of their own, newest first.
    pub fn rejected(&self) -> &[Rejection] {
        &self.rejected
    }

    /// Timelines above the chosen one, ascending. For `latest` these are the ones that no backup leads to, perhaps
    /// because their history file is not in the archive. The caller should warn about them.
    pub fn higher_timelines(&self) -> &[TimelineId] {
        &self.unreached
    }

    /// Timelines that part from the chosen one and contain something that it does not lead to, ascending.
    pub fn other_lines(&self) -> &[OtherLine] {
        &self.others
    }

    /// The line with a complete backup newer than all on the chosen timeline, if the request names no timeline. If
    /// there are several, the one with the newest backup.
    pub fn newer_backup(&self) -> Option<&OtherLine> {
        let said = self.request.timeline != TargetTimeline::Latest || self.request.backup.is_some();
        let newer = self.others.iter().filter(|other| !said && other.newer == Newer::Backup);
        newer.max_by_key(|other| other.backup_stop_time)
    }

    /// What must be looked up before [`decide`](Self::decide).
    pub fn facts_needed(&self) -> FactsNeeded {
        match self.request.target {
            RecoveryTarget::Latest | RecoveryTarget::Immediate | RecoveryTarget::Lsn(_) => FactsNeeded::None,
            RecoveryTarget::Time(_) => FactsNeeded::LastTransaction,
            RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => FactsNeeded::TargetRecords,
        }
    }

    /// The run that contains all WAL of a backup, or the missing part.
    fn run_of(&self, backup: &Beginning) -> Result<usize, Hole> {
        let first = backup.start_segment.number(self.size);
        let last = backup.stop_segment.number(self.size).max(first);
        let missing = |number: u64, last: u64| self.missing(number, last);
        // The runs ascend, so only the first one that ends at the start segment or later can contain it.
        let Some((index, run)) = self.runs.iter().enumerate().find(|(_, run)| run.last >= first) else {
            return Err(missing(first, last));
        };
        if run.first > first {
            return Err(missing(first, last.min(run.first - 1)));
        }
        if run.last < last {
            let next = self.runs.get(index + 1).map_or(last, |next| last.min(next.first.saturating_sub(1)));
            return Err(run.hole.unwrap_or_else(|| missing(run.last + 1, next)));
        }
        if run.end_lsn < backup.stop_lsn {
            return Err(run.hole.unwrap_or_else(|| missing(run.last, last)));
        }
        Ok(index)
    }

    fn missing(&self, first: u64, last: u64) -> Hole {
        missing(&self.ancestry, self.size, first, last)
    }

    /// The segments of a run between two numbers, both included.
    pub(super) fn segments_between(&self, run: &WalRun, first: u64, last: u64) -> Vec<SegmentRange> {
        run.segments
            .iter()
            .filter_map(|range| {
                let range_first = range.first.number(self.size).max(first);
                let range_last = range.last.number(self.size).min(last);
                SegmentRange::new(range.timeline, range_first, range_last, self.size)
            })
            .collect()
    }
}

impl WalRun {
    /// Whether the byte at `lsn` is in the run.
    pub fn contains(&self, lsn: Lsn) -> bool {
        self.start_lsn <= lsn && lsn < self.end_lsn
    }

    pub(super) fn last_number(&self) -> u64 {
        self.last
    }
}

/// Every timeline that history files, WAL or backups mention.
fn known_timelines(world: &RecoveryWorld<'_>, backups: &[&Beginning]) -> BTreeSet<TimelineId> {
    let mut known: BTreeSet<TimelineId> = world.wal.timelines().collect();
    known.extend(backups.iter().map(|backup| backup.timeline));
    for history in world.histories.values() {
        known.insert(history.timeline());
        known.extend(history.entries().iter().map(|entry| entry.timeline));
    }
    known
}

/// The segments `first` to `last` as a hole, under the name that recovery asks for.
fn missing(ancestry: &Ancestry, size: WalSegmentSize, first: u64, last: u64) -> Hole {
    let first_missing = ancestry.segment_containing(Lsn::new(first.saturating_mul(size.as_u64())), size);
    Hole { timeline: first_missing.timeline(), first_missing, count: last.saturating_sub(first).saturating_add(1) }
}

/// An existing piece of the path: segment numbers of one timeline, and whether only part of the last may be replayed.
#[derive(Debug, Clone, Copy)]
struct Piece {
    timeline: TimelineId,
    first: u64,
    last: u64,
    cut: Option<Lsn>,
    /// The end of what may be replayed of the last segment, if it is a tail that ends inside of it.
    tail_end: Option<Lsn>,
    /// If only pieces of these segments exist.
    tail: Option<NeededTail>,
}

/// The runs of WAL along an ancestry. The cost grows with the number of ranges, not of segments.
fn wal_runs(ancestry: &Ancestry, wal: &WalInventory) -> Vec<WalRun> {
    let size = wal.segment_size();
    let mut runs: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces(ancestry, wal) {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|before| before.continues_with(&piece)) => run.push(piece),
            _ => runs.push(vec![piece]),
        }
    }
    let starts: Vec<u64> = runs.iter().filter_map(|run| run.first().map(|piece| piece.first)).collect();
    let mut built = Vec::with_capacity(runs.len());
    for (index, run) in runs.iter().enumerate() {
        let (Some(head), Some(tail)) = (run.first(), run.last()) else { continue };
        // The segment that is cut is itself the first missing one, under its new name; the same with one that ends
        // early.
        let first_missing = if tail.ends_inside().is_some() { tail.last } else { tail.last + 1 };
        let hole = match starts.get(index + 1) {
            Some(next) => Some(missing(ancestry, size, first_missing, next.saturating_sub(1).max(first_missing))),
            None => tail.cut.map(|_| missing(ancestry, size, first_missing, first_missing)),
        };
        let segments = ranges(run, size);
        let start_lsn = Lsn::new(head.first.saturating_mul(size.as_u64()));
        let end_lsn = tail.ends_inside().unwrap_or_else(|| Lsn::new((tail.last + 1).saturating_mul(size.as_u64())));
        let (tail_lsn, tails) = (tail.tail.map(|_| end_lsn), needed_tails(run));
        built.push(WalRun { segments, start_lsn, end_lsn, tail_lsn, tails, hole, first: head.first, last: tail.last });
    }
    built
}

impl Piece {
    fn ends_inside(&self) -> Option<Lsn> {
        self.cut.or(self.tail_end)
    }

    fn continues_with(&self, next: &Self) -> bool {
        self.ends_inside().is_none() && self.last + 1 == next.first
    }
}

/// What is needed of tails: the end of the last one of each timeline.
fn needed_tails(pieces: &[Piece]) -> Vec<NeededTail> {
    let ends = pieces.iter().filter_map(|piece| Some((piece.timeline, piece.tail?)));
    ends.collect::<BTreeMap<TimelineId, NeededTail>>().into_values().collect()
}

/// Consecutive pieces as ranges; those of one timeline are joined.
fn ranges(pieces: &[Piece], size: WalSegmentSize) -> Vec<SegmentRange> {
    pieces
        .chunk_by(|a, b| a.timeline == b.timeline)
        .filter_map(|joined| {
            let (first, last) = (joined.first()?, joined.last()?);
            SegmentRange::new(first.timeline, first.first, last.last, size)
        })
        .collect()
}

/// The existing pieces of the path, in order of segment numbers.
fn pieces(ancestry: &Ancestry, wal: &WalInventory) -> Vec<Piece> {
    let size = wal.segment_size();
    let spans = ancestry.path();
    let begin = |lsn: Lsn| lsn.as_u64() / size.as_u64();
    let mut pieces = Vec::new();
    // From the newest timeline back: each owns the segments from the one in which it begins to the one in which a newer
    // one begins.
    let mut owned_until = u64::MAX;
    for (index, span) in spans.iter().enumerate().rev() {
        let first_owned = begin(span.start);
        if first_owned >= owned_until {
            continue;
        }
        let mut of_span = Vec::new();
        for &(first, last) in wal.number_ranges(span.timeline) {
            let (first, last) = (first.max(first_owned), last.min(owned_until - 1));
            if first <= last {
                of_span.push(Piece { timeline: span.timeline, first, last, cut: None, tail_end: None, tail: None });
            }
        }
        for tail in wal.tails(span.timeline) {
            of_span.extend(pieces_of_tail(tail, span, first_owned, owned_until - 1, size));
        }
        let switches_inside = span.start.as_u64() % size.as_u64() != 0;
        if switches_inside && !of_span.iter().any(|piece| piece.first == first_owned) {
            // Only a copy under an older name exists: its part before the switch is on the path.
            let mut older = spans.iter().take(index).rev().filter(|older| begin(older.start) <= first_owned);
            of_span.extend(older.find_map(|older| older_copy(wal, older, first_owned, span.start)));
        }
        of_span.sort_by_key(|piece| std::cmp::Reverse(piece.first));
        pieces.extend(of_span);
        owned_until = first_owned;
    }
    pieces.reverse();
    pieces
}

/// The part of a tail within these segment numbers, both included: the complete segments, and the last one. What ends
/// before the timeline's own beginning is left out: a receiver stores the segment in which it begins from the segment's
/// start, and the older timeline may have more of it.
fn pieces_of_tail(tail: &Tail, span: &TimelineSpan, from: u64, to: u64, size: WalSegmentSize) -> Vec<Piece> {
    let timeline = span.timeline;
    let is_complete = tail.end.as_u64().is_multiple_of(size.as_u64());
    let complete_until = if is_complete { tail.last } else { tail.last.saturating_sub(1) };
    let needed = |end_lsn: Lsn| Some(NeededTail { timeline, end_lsn, switch_lsn: span.end });
    let mut pieces = Vec::new();
    let (first, last) = (tail.first.max(from), complete_until.min(to));
    if tail.first <= complete_until && first <= last {
        let end = Lsn::new((last + 1).saturating_mul(size.as_u64()));
        pieces.push(Piece { timeline, first, last, cut: None, tail_end: None, tail: needed(end) });
    }
    if !is_complete && (from..=to).contains(&tail.last) && tail.end > span.start {
        let (first, last) = (tail.last, tail.last);
        pieces.push(Piece { timeline, first, last, cut: None, tail_end: Some(tail.end), tail: needed(tail.end) });
    }
    pieces
}

/// What an older timeline has of the segment in which a newer one begins, if anything.
fn older_copy(wal: &WalInventory, older: &TimelineSpan, number: u64, begin: Lsn) -> Option<Piece> {
    let size = wal.segment_size();
    let (timeline, switch) = (older.timeline, older.end.unwrap_or(begin));
    let piece = Piece { timeline, first: number, last: number, cut: None, tail_end: None, tail: None };
    if holds(wal, timeline, number, size) {
        return Some(Piece { cut: Some(switch), ..piece });
    }
    let tail = wal.tails(timeline).iter().find(|tail| (tail.first..=tail.last).contains(&number))?;
    let end = tail.end.min(Lsn::new((number + 1).saturating_mul(size.as_u64())));
    let tail = NeededTail { timeline, end_lsn: end.min(switch), switch_lsn: Some(switch) };
    (end > older.start).then_some(Piece { tail_end: Some(tail.end_lsn), tail: Some(tail), ..piece })
}

fn holds(wal: &WalInventory, timeline: TimelineId, number: u64, size: WalSegmentSize) -> bool {
    SegmentName::from_number(number, timeline, size).is_some_and(|segment| wal.contains(segment))
}
