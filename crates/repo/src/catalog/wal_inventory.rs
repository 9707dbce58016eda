//! The WAL of one claim as ranges of segments.
//!
//! A listing is in ascending order, so a segment nearly always extends the last range. A million segments cost one
//! comparison each and the memory of a few ranges. Any other order gives the same result, only slower.

use super::SegmentRange;
use crate::name::{ClaimNumber, ClusterName, ObjectPath};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use std::collections::{BTreeMap, BTreeSet};

/// Which WAL files of one claim are in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalInventory {
    size: WalSegmentSize,
    segments: BTreeMap<TimelineId, Ranges>,
    partials: BTreeSet<SegmentName>,
    backup_histories: BTreeSet<SegmentName>,
    histories: BTreeSet<TimelineId>,
    stored: BTreeMap<TimelineId, DateTime<Utc>>,
    tails: BTreeMap<TimelineId, Vec<Tail>>,
    stray_count: u64,
}

/// Segments of a timeline that are not whole, and of which pieces from streaming exist: one after the other, without a
/// hole before `end`, which is in the last of them or at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The number of the first segment.
    pub(crate) first: u64,
    /// The number of the last segment.
    pub(crate) last: u64,
    /// The end of the stored bytes.
    pub(crate) end: Lsn,
}

/// Segment numbers as sorted ranges, both ends included, with at least one missing number between two of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(Vec<(u64, u64)>);

impl WalInventory {
    /// An inventory without any file.
    pub fn new(size: WalSegmentSize) -> Self {
        Self {
            size,
            segments: BTreeMap::new(),
            partials: BTreeSet::new(),
            backup_histories: BTreeSet::new(),
            histories: BTreeSet::new(),
            stored: BTreeMap::new(),
            tails: BTreeMap::new(),
            stray_count: 0,
        }
    }

    /// An inventory of these files.
    pub fn from_files(size: WalSegmentSize, files: impl IntoIterator<Item = WalFileName>) -> Self {
        let mut inventory = Self::new(size);
        for file in files {
            inventory.add(file);
        }
        inventory
    }

    /// The objects listed under a claim's WAL folder. Names that are not WAL files of this claim are strays.
    pub fn from_listing<'a>(
        size: WalSegmentSize,
        cluster: &ClusterName,
        claim: ClaimNumber,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut inventory = Self::new(size);
        for name in names {
            match name.parse() {
                Ok(ObjectPath::WalFile { cluster: of, claim: under, file, .. }) if of == *cluster && under == claim => {
                    inventory.add(file);
                }
                _ => inventory.stray_count += 1,
            }
        }
        inventory
    }

    /// Adds a file. A segment whose name no cluster with this segment size can have is a stray.
    pub fn add(&mut self, file: WalFileName) {
        match file {
            WalFileName::Segment(segment) if segment.is_valid_for(self.size) => {
                self.segments.entry(segment.timeline()).or_default().insert(segment.number(self.size));
            }
            WalFileName::Partial(segment) if segment.is_valid_for(self.size) => {
                self.partials.insert(segment);
            }
            WalFileName::History(timeline) => {
                self.histories.insert(timeline);
            }
            WalFileName::BackupHistory { segment, .. } if segment.is_valid_for(self.size) => {
                self.backup_histories.insert(segment);
            }
            WalFileName::BackupHistory { .. } => {}
            WalFileName::Segment(_) | WalFileName::Partial(_) => self.stray_count += 1,
        }
    }

    /// Takes out a segment: one that cannot be read does not count.
    pub fn remove(&mut self, segment: SegmentName) {
        if let Some(ranges) = self.segments.get_mut(&segment.timeline()) {
            ranges.remove(segment.number(self.size));
        }
    }

    /// Records that a segment of the timeline was stored at this time, by the store's clock.
    pub fn stored_at(&mut self, timeline: TimelineId, moment: DateTime<Utc>) {
        let last = self.stored.entry(timeline).or_insert(moment);
        *last = moment.max(*last);
    }

    /// When the newest segment of the timeline was stored, if [`Self::stored_at`] recorded it.
    pub fn last_stored(&self, timeline: TimelineId) -> Option<DateTime<Utc>> {
        self.stored.get(&timeline).copied()
    }

    /// Records segments of which only pieces exist: the first one, and the end of the pieces. None of them may be
    /// whole.
    pub fn add_tail(&mut self, first: SegmentName, end: Lsn) {
        let last = SegmentName::ending_at(end, first.timeline(), self.size);
        if first.is_valid_for(self.size) && end > first.start_lsn(self.size) {
            self.segments.entry(first.timeline()).or_default();
            let tail = Tail { first: first.number(self.size), last: last.number(self.size), end };
            self.tails.entry(first.timeline()).or_default().push(tail);
        }
    }

    /// The segments of a timeline of which only pieces exist, in any order.
    pub(crate) fn tails(&self, timeline: TimelineId) -> &[Tail] {
        self.tails.get(&timeline).map_or(&[], Vec::as_slice)
    }

    /// Adds the segments of a range.
    pub fn add_range(&mut self, range: SegmentRange) {
        let (first, last) = (range.first.number(self.size), range.last.number(self.size));
        self.segments.entry(range.timeline).or_default().insert_range(first, last);
    }

    /// Adds the content of another inventory with the same segment size.
    pub fn absorb(&mut self, other: Self) {
        for (timeline, ranges) in other.segments {
            let own = self.segments.entry(timeline).or_default();
            for (first, last) in ranges.0 {
                own.insert_range(first, last);
            }
        }
        for (timeline, moment) in other.stored {
            self.stored_at(timeline, moment);
        }
        for (timeline, tails) in other.tails {
            self.tails.entry(timeline).or_default().extend(tails);
        }
        self.partials.extend(other.partials);
        self.backup_histories.extend(other.backup_histories);
        self.histories.extend(other.histories);
        self.stray_count += other.stray_count;
    }

    /// Records that the timeline has WAL, even if none of its segments was listed.
    pub fn know(&mut self, timeline: TimelineId) {
        self.segments.entry(timeline).or_default();
    }

    /// The segment size that the segment numbers are based on.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.size
    }

    /// The number of objects that are not WAL files of this claim.
    pub fn stray_count(&self) -> u64 {
        self.stray_count
    }

    /// Timelines that are known to have WAL, ascending.
    pub fn timelines(&self) -> impl DoubleEndedIterator<Item = TimelineId> {
        self.segments.keys().copied()
    }

    /// Timelines whose history file exists, ascending.
    pub fn histories(&self) -> impl DoubleEndedIterator<Item = TimelineId> {
        self.histories.iter().copied()
    }

    /// Partial segments, ascending.
    pub fn partials(&self) -> impl DoubleEndedIterator<Item = SegmentName> {
        self.partials.iter().copied()
    }

    /// The segments that backup history files follow in their names, in order.
    pub fn backup_histories(&self) -> impl DoubleEndedIterator<Item = SegmentName> {
        self.backup_histories.iter().copied()
    }

    /// Whether the whole segment exists.
    pub fn contains(&self, segment: SegmentName) -> bool {
        let number = segment.number(self.size);
        self.segments.get(&segment.timeline()).is_some_and(|ranges| ranges.holding(number).is_some())
    }

    /// The number of whole segments.
    pub fn segment_count(&self) -> u64 {
        self.segments.values().flat_map(|ranges| &ranges.0).map(|(first, last)| last - first + 1).sum()
    }

    /// The segments of a timeline as ranges, ascending. Adjacent segments are always in one range.
    pub fn ranges(&self, timeline: TimelineId) -> Vec<SegmentRange> {
        self.number_ranges(timeline)
            .iter()
            .filter_map(|&(first, last)| SegmentRange::new(timeline, first, last, self.size))
            .collect()
    }

    /// The segments missing from `first` to `last` (both included) of their timeline, ascending. Empty if the two are
    /// on different timelines.
    pub fn holes(&self, first: SegmentName, last: SegmentName) -> Vec<SegmentRange> {
        if first.timeline() != last.timeline() {
            return Vec::new();
        }
        let timeline = first.timeline();
        let (mut next, last) = (first.number(self.size), last.number(self.size));
        let mut holes = Vec::new();
        for &(present_first, present_last) in self.number_ranges(timeline) {
            if present_last < next {
                continue;
            }
            if present_first > last {
                break;
            }
            if present_first > next {
                holes.extend(SegmentRange::new(timeline, next, present_first - 1, self.size));
            }
            next = present_last.saturating_add(1);
        }
        if next <= last {
            holes.extend(SegmentRange::new(timeline, next, last, self.size));
        }
        holes
    }

    /// The last segment of the gapless run that contains `first`; `None` if `first` itself is missing.
    pub fn contiguous_end(&self, first: SegmentName) -> Option<SegmentName> {
        let timeline = first.timeline();
        let (_, last) = self.segments.get(&timeline)?.holding(first.number(self.size))?;
        SegmentName::from_number(last, timeline, self.size)
    }

    /// The segments of a timeline as ranges of numbers, both ends included.
    pub(crate) fn number_ranges(&self, timeline: TimelineId) -> &[(u64, u64)] {
        self.segments.get(&timeline).map_or(&[], |ranges| ranges.0.as_slice())
    }
}

impl Ranges {
    fn holding(&self, number: u64) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        let range = *self.0.get(after.checked_sub(1)?)?;
        (number <= range.1).then_some(range)
    }

    fn insert(&mut self, number: u64) {
        self.insert_range(number, number);
    }

    fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.holding(number) else { return };
        let at = self.0.partition_point(|&(start, _)| start < first);
        let before = number.checked_sub(1).filter(|end| *end >= first).map(|end| (first, end));
        let after = number.checked_add(1).filter(|start| *start <= last).map(|start| (start, last));
        self.0.splice(at..=at, before.into_iter().chain(after));
    }

    /// Adds the numbers from `first` to `last`, both included.
    fn insert_range(&mut self, first: u64, last: u64) {
        // All ranges that overlap the new one or are adjacent to it merge with it.
        let begin = self.0.partition_point(|&(_, end)| end.saturating_add(1) < first);
        let touched = self.0.get(begin..).unwrap_or_default();
        let count = touched.partition_point(|&(start, _)| start <= last.saturating_add(1));
        let touched = touched.get(..count).unwrap_or_default();
        let merged = touched.iter().fold((first, last), |(first, last), &(a, b)| (first.min(a), last.max(b)));
        self.0.splice(begin..begin + count, [merged]);
    }
}

#[cfg(test)]
mod tests;
