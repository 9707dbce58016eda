//! The WAL of a claim: what the listing promises, its gaps, and what remains without the damaged parts.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_contract::report::verify::{ClaimWindow, DamageKind, VerifiedClaim};
use holdfast_pgtypes::{SegmentName, TimelineId, WalFileName};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::{BackupId, ClaimNumber};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{Beginning, ReachableWindow, Rejection};
use holdfast_retention::NumberRanges;

use super::findings::{Findings, add_windows};
use crate::archive::wal_object_name;
use crate::repository::Repository;
use crate::restore::{Chains, Line};

/// The examined archive of one claim.
pub(super) struct ClaimWal {
    pub(super) claim: ClaimRecord,
    chains: Chains,
    lines: Vec<Line>,
    damaged: BTreeSet<SegmentName>,
    /// The number of segments that were read.
    pub(super) segments_read: u64,
}

impl ClaimWal {
    /// Makes it from the read claim and its plans.
    pub(super) fn new(claim: ClaimRecord, chains: Chains, lines: Vec<Line>) -> Self {
        Self { claim, chains, lines, damaged: BTreeSet::new(), segments_read: 0 }
    }

    /// Whether this is a backup of the claim.
    pub(super) fn has(&self, backup: BackupId) -> bool {
        self.beginning(backup).is_some()
    }

    fn beginning(&self, backup: BackupId) -> Option<&Beginning> {
        self.chains.beginnings().iter().find(|begins| begins.backup_id == backup)
    }

    pub(super) fn object(&self, repository: &Repository, file: WalFileName) -> String {
        wal_object_name(repository, &self.claim.cluster, &self.claim, &file)
    }

    /// Records what the listing lacks: WAL of backups, WAL between backups, histories.
    pub(super) fn find_missing(&self, repository: &Repository, findings: &mut Findings) {
        let history = |timeline| self.object(repository, WalFileName::History(timeline));
        for timeline in self.chains.without_history() {
            let problem =
                format!("timeline {timeline} has WAL or backups here, but only this file says where it begins");
            findings.damage(DamageKind::Missing, &history(timeline), 1, problem, &[]);
        }
        for bad in self.chains.unreadable_histories() {
            let harmed = self.chains.beginnings().iter().filter(|begins| {
                let timelines = [begins.timeline, begins.stop_segment.timeline()];
                timelines.contains(&bad.id) && !self.is_usable(begins.backup_id)
            });
            let harmed: Vec<BackupId> = harmed.map(|begins| begins.backup_id).collect();
            if findings.look(&bad.error, &bad.object, &harmed).is_none() {
                findings.notes.push(format!("the history of timeline {} cannot be judged: {}", bad.id, bad.error));
            }
        }
        for line in &self.lines {
            for stretch in &line.stretches {
                let Some(hole) = stretch.hole else { continue };
                let object = self.object(repository, WalFileName::Segment(hole.first_missing));
                let problem = "there is WAL after it".to_owned();
                let damage = findings.damage(DamageKind::Missing, &object, hole.count, problem, &[]);
                add_windows(damage, [self.named(stretch.window.clone())]);
            }
            for Rejection { backup, hole } in &line.rejected {
                if self.is_usable(*backup) {
                    continue;
                }
                let object = self.object(repository, WalFileName::Segment(hole.first_missing));
                let problem = "a backup needs it to become consistent".to_owned();
                findings.damage(DamageKind::Missing, &object, hole.count, problem, &[*backup]);
            }
        }
        let rejected = |backup| self.lines.iter().any(|line| line.rejected.iter().any(|found| found.backup == backup));
        for begins in self.chains.beginnings() {
            let (backup, stop) = (begins.backup_id, begins.stop_segment.timeline());
            if self.is_usable(backup) || rejected(backup) || findings.is_damaged(backup) || findings.is_newer(backup) {
                continue;
            }
            let problem = format!("nothing leads from the start of the backup to its end on timeline {stop}");
            findings.damage(DamageKind::Missing, &history(stop), 1, problem, &[backup]);
        }
    }

    /// Whether a recovery along some timeline can begin with the backup.
    fn is_usable(&self, backup: BackupId) -> bool {
        self.lines.iter().any(|line| line.stretches.iter().any(|stretch| stretch.backups.contains(&backup)))
    }

    fn named(&self, window: ReachableWindow) -> ClaimWindow {
        ClaimWindow { claim: self.claim.number, window }
    }

    /// Records a damaged segment, and returns the affected backups and windows.
    pub(super) fn damaged(&mut self, segment: SegmentName) -> (Vec<BackupId>, Vec<ClaimWindow>) {
        self.damaged.insert(segment);
        let size = self.claim.wal_segment_size;
        let number = segment.number(size);
        let (mut backups, mut windows) = (Vec::new(), Vec::new());
        for stretch in self.lines.iter().flat_map(|line| &line.stretches) {
            let holds = |range: &SegmentRange| {
                range.timeline == segment.timeline()
                    && (range.first.number(size)..=range.last.number(size)).contains(&number)
            };
            if !stretch.segments.iter().any(holds) {
                continue;
            }
            let of_stretch = stretch.backups.iter().filter_map(|backup| self.beginning(*backup));
            let mut is_after = false;
            for begins in of_stretch {
                is_after |= begins.start_segment.number(size) <= number;
                if (begins.start_segment.number(size)..=begins.stop_segment.number(size)).contains(&number) {
                    backups.push(begins.backup_id);
                }
            }
            if is_after {
                windows.push(self.named(stretch.window.clone()));
            }
        }
        backups.sort_unstable();
        backups.dedup();
        (backups, windows)
    }

    /// The segments from the start of a backup at least to its own stop, and if `to_next` to the start of the next
    /// backup.
    pub(super) fn segments_of(&self, backup: BackupId, to_next: bool) -> Vec<SegmentRange> {
        let size = self.claim.wal_segment_size;
        let Some(own) = self.beginning(backup) else { return Vec::new() };
        let (first, stop) = (own.start_segment.number(size), own.stop_segment.number(size));
        let starts = self.chains.beginnings().iter().map(|begins| begins.start_segment.number(size));
        let next = starts.filter(|start| *start > first).min();
        let last = if to_next { next.map_or(u64::MAX, |next| (next - 1).max(stop)) } else { stop };
        let mut needed = WalInventory::new(size);
        for stretch in self.lines.iter().flat_map(|line| &line.stretches) {
            if !to_next && !stretch.backups.contains(&backup) {
                continue;
            }
            for range in &stretch.segments {
                let from = range.first.number(size).max(first);
                let to = range.last.number(size).min(last);
                if let Some(part) = SegmentRange::new(range.timeline, from, to, size) {
                    needed.add_range(part);
                }
            }
        }
        let timelines: Vec<TimelineId> = needed.timelines().collect();
        timelines.into_iter().flat_map(|timeline| needed.ranges(timeline)).collect()
    }

    /// The claim without its damaged parts.
    pub(super) fn verified(&self, is_damaged: impl Fn(BackupId) -> bool) -> VerifiedClaim {
        let windows = |lines: &[Line]| {
            let stretches = lines.iter().flat_map(|line| &line.stretches);
            stretches.map(|stretch| stretch.window.clone()).collect::<Vec<_>>()
        };
        let named = windows(&self.lines);
        let wal = without(self.chains.wal(), &self.damaged);
        let sound = |begins: &&Beginning| !is_damaged(begins.backup_id);
        let sound: Vec<Beginning> = self.chains.beginnings().iter().filter(sound).cloned().collect();
        let mut left = windows(&self.chains.lines(&wal, &sound));
        for window in &mut left {
            // If the WAL ends where it did before, its time is already known.
            let same = named.iter().find(|named| (named.timeline, named.to_lsn) == (window.timeline, window.to_lsn));
            window.to_time = same.and_then(|same| same.to_time);
        }
        VerifiedClaim {
            claim: self.claim.number,
            segment_count: self.segment_count(),
            segments_read: self.segments_read,
            windows: named,
            sound_windows: left,
        }
    }

    /// The windows that begin later because backups before their first sound one are damaged, by these backups.
    pub(super) fn windows_without(
        &self,
        is_damaged: impl Fn(BackupId) -> bool,
    ) -> BTreeMap<BackupId, Vec<ClaimWindow>> {
        let mut moved: BTreeMap<BackupId, Vec<ClaimWindow>> = BTreeMap::new();
        for stretch in self.lines.iter().flat_map(|line| &line.stretches) {
            for backup in stretch.backups.iter().take_while(|backup| is_damaged(**backup)) {
                moved.entry(*backup).or_default().push(self.named(stretch.window.clone()));
            }
        }
        moved
    }

    /// The listed segments of a timeline, by their numbers.
    pub(super) fn listed(&self, timeline: TimelineId) -> NumberRanges {
        let size = self.claim.wal_segment_size;
        let ranges = self.chains.wal().ranges(timeline);
        ranges.iter().map(|range| (range.first.number(size), range.last.number(size))).collect()
    }

    /// The number of listed segments.
    pub(super) fn segment_count(&self) -> u64 {
        self.chains.wal().segment_count()
    }

    pub(super) fn number(&self) -> ClaimNumber {
        self.claim.number
    }
}

/// The WAL without some segments.
fn without(wal: &WalInventory, damaged: &BTreeSet<SegmentName>) -> WalInventory {
    let size = wal.segment_size();
    let mut left = WalInventory::new(size);
    for timeline in wal.timelines() {
        left.know(timeline);
        for range in wal.ranges(timeline) {
            let mut first = range.first.number(size);
            for bad in damaged.range(range.first..=range.last) {
                let number = bad.number(size);
                if let Some(before) =
                    number.checked_sub(1).and_then(|last| SegmentRange::new(timeline, first, last, size))
                {
                    left.add_range(before);
                }
                first = number + 1;
            }
            if let Some(rest) = SegmentRange::new(timeline, first, range.last.number(size), size) {
                left.add_range(rest);
            }
        }
    }
    for timeline in wal.histories() {
        left.add(WalFileName::History(timeline));
    }
    left
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_pgtypes::WalSegmentSize;

    use super::*;

    #[test]
    fn damaged_segments_are_taken_out_of_their_ranges() {
        let size = WalSegmentSize::DEFAULT;
        let segment = |number| SegmentName::from_number(number, TimelineId::FIRST, size).unwrap();
        let wal = WalInventory::from_files(size, (1..=9).map(|number| WalFileName::Segment(segment(number))));
        for (damaged, left) in [
            (vec![], vec![(1, 9)]),
            (vec![5], vec![(1, 4), (6, 9)]),
            (vec![1, 9], vec![(2, 8)]),
            (vec![3, 4, 20], vec![(1, 2), (5, 9)]),
            ((1..=9).collect(), vec![]),
        ] {
            let damaged: BTreeSet<SegmentName> = damaged.into_iter().map(segment).collect();
            let ranges = without(&wal, &damaged).ranges(TimelineId::FIRST);
            let found: Vec<_> =
                ranges.iter().map(|range| (range.first.number(size), range.last.number(size))).collect();
            assert_eq!(found, left);
        }
    }
}
