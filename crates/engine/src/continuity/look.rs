//! What the listing of a claim shows: gaps, objects that are too small, histories, and partial segments.

use holdfast_contract::report::wal_verify::WalFindingKind as Kind;
use holdfast_contract::report::wal_verify::{TimelineVerified, WalFinding, WalFindingWeight as Weight};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::BeginningKind;
use holdfast_retention::NumberRanges;

use super::findings::{Findings, Places, finding};
use super::histories::contradictions;
use super::losses::{Barrier, of_barrier, of_hole, under_their_names};
use super::removed::Removed;
use crate::archive::wal_object_name;
use crate::repository::Repository;
use crate::restore::{Chains, Line};
use crate::verify::judge::{Judged, judge};

/// The listed WAL of a claim, and the timelines along which it is followed.
pub(super) struct ClaimWal {
    pub(super) claim: ClaimRecord,
    pub(super) chains: Chains,
    pub(super) lines: Vec<Line>,
    /// Objects that are too small to be WAL, with their sizes in bytes.
    pub(super) stunted: Vec<(WalFileName, u64)>,
    pub(super) removed: Removed,
    /// Segments that are not there and may still be on their way.
    pub(super) young: Places,
}

/// Consecutive missing segments on the path of a line, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    /// The segments, under the names that recovery asks for.
    pub(super) range: SegmentRange,
    /// The line, and the hole of it; `None` for a hole inside of a backup.
    line: usize,
    hole: Option<usize>,
    backup: Option<BackupId>,
}

/// How many segments after a gap may show of which history it is. A server that does nothing for half an hour, and ends
/// a segment each minute, writes no transaction in 30.
const FOLLOWING: u64 = 32;

/// Consecutive missing segments of a line, and what the archive has beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// The segments, under the names that recovery asks for, oldest first.
    pub(super) ranges: Vec<SegmentRange>,
    /// The segment before them, if the archive has it.
    pub(super) before: Option<SegmentName>,
    /// The segments after them that the archive has, as far as they follow each other, at most [`FOLLOWING`].
    pub(super) after: Vec<SegmentName>,
    /// Where the line leaves the timeline of the last one of them, if it does.
    pub(super) left_at: Option<Lsn>,
}

impl ClaimWal {
    pub(super) fn size(&self) -> WalSegmentSize {
        self.claim.wal_segment_size
    }

    pub(super) fn object(&self, repository: &Repository, file: WalFileName) -> String {
        wal_object_name(repository, &self.claim.cluster, &self.claim, &file)
    }

    fn about(
        &self,
        repository: &Repository,
        kind: Kind,
        weight: Weight,
        file: WalFileName,
        problem: String,
    ) -> WalFinding {
        finding(kind, weight, self.claim.number, file, self.object(repository, file), problem)
    }

    /// A finding about a segment that recovery cannot pass. The times before it are not known yet.
    pub(super) fn barrier(
        &self,
        repository: &Repository,
        kind: Kind,
        barrier: Barrier,
        problem: String,
    ) -> (WalFinding, Vec<(usize, usize)>) {
        let (Barrier::In(segment) | Barrier::Before(segment) | Barrier::After(segment)) = barrier;
        let cost = of_barrier(barrier, &self.lines, self.chains.beginnings(), self.size());
        let is_loss = !cost.backups.is_empty() || !cost.lost.is_empty();
        let weight = if is_loss { Weight::Loss } else { Weight::Remark };
        let mut found = self.about(repository, kind, weight, WalFileName::Segment(segment), problem);
        found.lost = cost.lost;
        for id in cost.backups {
            self.harm(&mut found, id);
        }
        found.advice = advice(&found);
        (found, cost.places)
    }

    /// The followed timelines.
    pub(super) fn timelines(&self) -> Vec<TimelineVerified> {
        let size = self.size();
        let of_line = |line: &Line| {
            let segments = line.stretches.first().map_or(0, |first| {
                let backup = first.backups.first();
                let begins = self.chains.beginnings().iter().find(|begins| Some(&begins.backup_id) == backup);
                let from = begins.map_or(0, |begins| begins.start_segment.number(size));
                let ranges = line.stretches.iter().flat_map(|stretch| &stretch.segments);
                ranges
                    .map(|range| (range.last.number(size) + 1).saturating_sub(range.first.number(size).max(from)))
                    .sum()
            });
            TimelineVerified {
                timeline: line.ancestry.timeline(),
                segment_count: segments,
                windows: line.stretches.iter().map(|stretch| stretch.window.clone()).collect(),
            }
        };
        self.lines.iter().map(of_line).collect()
    }

    /// Adds what the listing shows. Returns notes.
    pub(super) fn add_findings(&self, repository: &Repository, findings: &mut Findings) -> Vec<String> {
        let mut notes = Vec::new();
        findings.know(self.claim.number, self.size());
        self.gaps(repository, findings, &mut notes);
        self.histories(repository, findings, &mut notes);
        self.partials(repository, findings);
        notes
    }

    /// Notes that a backup or a snapshot cannot be restored.
    fn harm(&self, found: &mut WalFinding, id: BackupId) {
        for begins in self.chains.beginnings().iter().filter(|begins| begins.backup_id == id) {
            let harmed = match begins.kind {
                BeginningKind::Backup => &mut found.backups,
                BeginningKind::Snapshot => &mut found.snapshots,
            };
            if !harmed.contains(&id) {
                harmed.push(id);
                harmed.sort_unstable();
            }
        }
    }

    /// The missing segments of all lines: those that are needed, not removed by `expire`, and not on their way.
    pub(super) fn missing(&self) -> Vec<Missing> {
        let size = self.size();
        let mut found = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            let holes = line.holes.iter().enumerate().map(|(hole, of)| (of.hole, Some(hole), None));
            let rejected = line.rejected.iter().filter(|rejected| !self.is_usable(rejected.backup));
            let all = holes.chain(rejected.map(|rejected| (rejected.hole, None, Some(rejected.backup))));
            for (hole, number, backup) in all {
                let first = hole.first_missing.number(size);
                let last = first + hole.count.saturating_sub(1);
                for range in under_their_names(&line.ancestry, first, last, size) {
                    let missing = NumberRanges::of(range.first.number(size), range.last.number(size));
                    let missing =
                        missing.without(&self.removed.of(range.timeline)).without(&self.young_of(range.timeline));
                    let pieces = missing.iter().collect::<Vec<_>>().into_iter();
                    let pieces = pieces.filter_map(|(a, b)| SegmentRange::new(range.timeline, a, b, size));
                    found.extend(pieces.map(|range| Missing { range, line: at, hole: number, backup }));
                }
            }
        }
        found
    }

    /// The same as gaps, each once, across the ends of timelines.
    pub(super) fn gaps_of_lines(&self) -> Vec<Gap> {
        let size = self.size();
        let mut found: Vec<Gap> = Vec::new();
        let missing = self.missing();
        let follows = |a: &Missing, b: &Missing| {
            (a.line, a.hole, a.backup) == (b.line, b.hole, b.backup)
                && a.range.last.number(size) + 1 == b.range.first.number(size)
        };
        for group in missing.chunk_by(follows) {
            let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
            let Some(ancestry) = self.lines.get(first.line).map(|line| &line.ancestry) else { continue };
            let neighbour = |number: Option<u64>| {
                let name = ancestry.segment_containing(Lsn::new(number?.checked_mul(size.as_u64())?), size);
                let is_stunted = self.stunted.iter().any(|(file, _)| *file == WalFileName::Segment(name));
                (self.chains.wal().contains(name) && !is_stunted).then_some(name)
            };
            let gap = Gap {
                ranges: group.iter().map(|missing| missing.range).collect(),
                before: neighbour(first.range.first.number(size).checked_sub(1)),
                after: (1..=FOLLOWING)
                    .map_while(|step| neighbour(last.range.last.number(size).checked_add(step)))
                    .collect(),
                left_at: ancestry.span(last.range.timeline).and_then(|span| span.end),
            };
            if !found.contains(&gap) {
                found.push(gap);
            }
        }
        found
    }

    fn young_of(&self, timeline: TimelineId) -> NumberRanges {
        self.young.get(&(self.claim.number, timeline)).cloned().unwrap_or_default()
    }

    fn gaps(&self, repository: &Repository, findings: &mut Findings, notes: &mut Vec<String>) {
        let size = self.size();
        let mut gaps: Vec<WalFinding> = Vec::new();
        for Missing { range, line, hole, backup } in self.missing() {
            let line = self.lines.get(line);
            if let Some((line, hole)) = line.zip(hole).and_then(|(line, hole)| Some((line, line.holes.get(hole)?))) {
                let gap = self.gap(repository, &mut gaps, range, "there is WAL after it");
                let moments = of_hole(line, hole, self.chains.beginnings());
                let new: Vec<_> = moments.into_iter().filter(|lost| !gap.lost.contains(lost)).collect();
                gap.lost.extend(new);
            }
            if let Some(id) = backup {
                let gap = self.gap(repository, &mut gaps, range, "a backup needs it to become consistent");
                self.harm(gap, id);
            }
        }
        for mut gap in gaps {
            gap.advice = advice(&gap);
            findings.add(gap);
        }
        for line in &self.lines {
            for hole in line.holes.iter().map(|of| of.hole).chain(line.rejected.iter().map(|of| of.hole)) {
                let first = hole.first_missing.number(size);
                let last = first + hole.count.saturating_sub(1);
                for range in under_their_names(&line.ancestry, first, last, size) {
                    let missing = NumberRanges::of(range.first.number(size), range.last.number(size));
                    self.note(notes, range, &missing.common(&self.removed.of(range.timeline)), "`expire` removed them");
                    let young = "later WAL is there, and they may still be on their way";
                    self.note(notes, range, &missing.common(&self.young_of(range.timeline)), young);
                }
            }
        }
    }

    /// A note about segments that are not missed, once.
    fn note(&self, notes: &mut Vec<String>, of: SegmentRange, numbers: &NumberRanges, why: &str) {
        for (first, last) in numbers.iter() {
            let Some(range) = SegmentRange::new(of.timeline, first, last, self.size()) else { continue };
            let note = format!("{range} of claim {} are not missed: {why}", self.claim.number);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }

    /// The finding about a range of missing segments: one that contains it, or a new one.
    fn gap<'a>(
        &self,
        repository: &Repository,
        gaps: &'a mut Vec<WalFinding>,
        range: SegmentRange,
        problem: &str,
    ) -> &'a mut WalFinding {
        let contains = |gap: &WalFinding| {
            matches!(gap.file, WalFileName::Segment(first)
                if first.timeline() == range.timeline && first <= range.first && range.last <= gap.last.unwrap_or(first))
        };
        let at = gaps.iter().position(contains).unwrap_or_else(|| {
            let file = WalFileName::Segment(range.first);
            let mut gap = self.about(repository, Kind::Gap, Weight::Loss, file, problem.to_owned());
            gap.count = range.count;
            gap.last = (range.count > 1).then_some(range.last);
            gaps.push(gap);
            gaps.len() - 1
        });
        &mut gaps[at]
    }

    fn is_usable(&self, backup: BackupId) -> bool {
        self.lines.iter().any(|line| line.stretches.iter().any(|stretch| stretch.backups.contains(&backup)))
    }

    fn histories(&self, repository: &Repository, findings: &mut Findings, notes: &mut Vec<String>) {
        let file = WalFileName::History;
        for timeline in self.chains.without_history() {
            let problem = format!("timeline {timeline} has WAL or backups, and only this file says where it begins");
            let mut found = self.about(repository, Kind::HistoryMissing, Weight::Loss, file(timeline), problem);
            found.advice = advice(&found);
            findings.add(found);
        }
        for bad in self.chains.unreadable_histories() {
            let (kind, problem) = match judge(&bad.error, &bad.object) {
                Judged::Damaged { kind, problem, .. } => (Kind::HistoryDamaged, with(kind.words(), &problem)),
                Judged::Newer { reason, .. } => (Kind::Newer, reason),
                Judged::Nothing => {
                    notes.push(format!("the history of timeline {} cannot be judged: {}", bad.id, bad.error));
                    continue;
                }
            };
            let mut found = self.about(repository, kind, Weight::Loss, file(bad.id), problem);
            found.advice = advice(&found);
            findings.add(found);
        }
        for wrong in contradictions(self.chains.histories(), self.chains.wal()) {
            let mut found =
                self.about(repository, Kind::HistoryContradicts, Weight::Loss, file(wrong.timeline), wrong.problem);
            found.advice = advice(&found);
            findings.add(found);
        }
    }

    fn partials(&self, repository: &Repository, findings: &mut Findings) {
        for partial in self.chains.wal().partials() {
            let problem = match (self.chains.wal().contains(partial), self.followed_by(partial)) {
                (true, _) => "the whole segment is there too, so nothing needs it".to_owned(),
                (false, Some(next)) => format!(
                    "timeline {} ended in it; recovery along timeline {next} reads that timeline's own segment",
                    partial.timeline()
                ),
                (false, None) => format!(
                    "timeline {} ends in it, and PostgreSQL never replays a partial segment: its transactions after \
                     the segment before are in no restore",
                    partial.timeline()
                ),
            };
            let file = WalFileName::Partial(partial);
            let mut found = self.about(repository, Kind::Partial, Weight::Remark, file, problem);
            found.advice = advice(&found);
            findings.add(found);
        }
    }

    /// The timeline that continues in the same segment, if its segment is there.
    fn followed_by(&self, partial: SegmentName) -> Option<TimelineId> {
        let size = self.size();
        let number = partial.number(size);
        let parents =
            self.chains.histories().values().filter_map(|history| Some((history.timeline(), history.parent()?)));
        let mut next = parents.filter(|(next, parent)| {
            parent.timeline == partial.timeline()
                && parent.switch_lsn.as_u64() / size.as_u64() == number
                && self.chains.wal().contains(partial.on_timeline(*next))
        });
        next.next().map(|(next, _)| next)
    }
}

/// The words of a kind with details.
pub(super) fn with(words: &str, problem: &str) -> String {
    if problem.is_empty() { words.to_owned() } else { format!("{words}: {problem}") }
}

/// What a person can do about a finding.
pub(super) fn advice(found: &WalFinding) -> String {
    let is_open = found.lost.iter().any(|lost| lost.until.is_none());
    let backup = if is_open { "take a backup now, since no moment after it can be restored until then; " } else { "" };
    let advice = match found.kind {
        Kind::Gap => {
            "if a server, a standby or an old archive still has the segments, `holdfast wal verify --heal DIR` brings \
             them back; if a second repository has them, `holdfast verify --repair` does"
        }
        Kind::HistoryMissing => {
            "`holdfast wal verify --heal DIR` brings it back from the pg_wal of a server that still has it, and \
             `holdfast verify --repair` from a second repository"
        }
        Kind::Damaged | Kind::HistoryDamaged => {
            "`holdfast verify --deep --repair` brings it back from a second repository; otherwise look for an older \
             version of the object in the bucket"
        }
        Kind::Newer => "use the release that wrote it, or a newer one",
        Kind::Unfinished => {
            "recovery ends in this segment: look at it with pg_waldump, and find out which server archived it"
        }
        Kind::OtherHistory => {
            "two servers wrote into this archive: see \"Two servers in one archive\" in docs/operations.md"
        }
        Kind::HistoryContradicts => {
            "two servers wrote into this archive, or somebody changed the file: find out which history is right before \
             a restore follows one of these timelines"
        }
        Kind::Partial => "nothing has to be done",
        Kind::Divergence => "see \"Two servers in one archive\" in docs/operations.md",
    };
    format!("{backup}{advice}")
}

/// A finding about a file that is too small to be a WAL object.
pub(super) fn of_stunted(
    wal: &ClaimWal,
    repository: &Repository,
    file: WalFileName,
    bytes: u64,
) -> Option<(WalFinding, Vec<(usize, usize)>)> {
    let problem = format!("it has {bytes} bytes, less than the head of an object");
    match file {
        WalFileName::Segment(segment) => Some(wal.barrier(repository, Kind::Damaged, Barrier::In(segment), problem)),
        WalFileName::Partial(_) => {
            let mut found = wal.about(repository, Kind::Damaged, Weight::Remark, file, problem);
            found.advice = advice(&found);
            Some((found, Vec::new()))
        }
        // A history is read, and judged by that; no restore needs a backup history.
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => None,
    }
}
