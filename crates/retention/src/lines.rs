//! The timelines of one claim, and which backups lead to which timeline.
//!
//! A backup leads to a timeline if its start LSN and its stop LSN are in that timeline's history, as recovery requires.
//! A timeline with an unknown history may have branched off anywhere, so every backup may lead to it.

use crate::catalog::Backup;
use crate::number_ranges::NumberRanges;
use crate::wal_archive::WalArchive;
use holdfast_pgtypes::{Ancestry, Lsn, TimelineId, WalSegmentSize};
use std::collections::{BTreeMap, BTreeSet};

/// All known timelines of a claim.
pub(crate) struct Lines<'a> {
    pub(crate) wal: &'a WalArchive,
    /// The history of each timeline; `None` if it is unknown.
    pub(crate) ancestries: BTreeMap<TimelineId, Option<Ancestry>>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new<'b>(wal: &'a WalArchive, backups: impl IntoIterator<Item = &'b Backup>) -> Self {
        let mut known: BTreeSet<TimelineId> = wal.segments.keys().copied().collect();
        known.extend(wal.partials.iter().map(|partial| partial.timeline()));
        for history in wal.histories.values() {
            known.insert(history.timeline());
            known.extend(history.entries().iter().map(|entry| entry.timeline));
        }
        for backup in backups {
            known.extend([backup.timeline, backup.stop_timeline]);
        }
        Self { wal, ancestries: known.into_iter().map(|timeline| (timeline, wal.ancestry(timeline))).collect() }
    }

    /// Whether the backup certainly leads to the timeline.
    pub(crate) fn leads(&self, backup: &Backup, timeline: TimelineId) -> bool {
        // It always leads to the timeline of its own end, even if a history contradicts that.
        timeline == backup.stop_timeline
            || self.ancestries.get(&timeline).and_then(Option::as_ref).is_some_and(|ancestry| {
                ancestry.owner(backup.start_lsn) == backup.timeline
                    && ancestry.passes(backup.stop_timeline, backup.stop_lsn)
            })
    }

    /// The timelines with an unknown history.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = TimelineId> {
        self.ancestries.iter().filter(|(_, ancestry)| ancestry.is_none()).map(|(timeline, _)| *timeline)
    }

    /// The numbers of the first and the last segment that the backup needs to become consistent.
    pub(crate) fn own_segments(&self, backup: &Backup) -> (u64, u64) {
        let size = self.wal.segment_size;
        let first = number_containing(backup.start_lsn, size);
        (first, number_ending_at(backup.stop_lsn, size).max(first))
    }

    /// The timelines from a backup's start to its stop. Without a history, all timelines between the two numbers.
    pub(crate) fn own_timelines(&self, backup: &Backup) -> Vec<TimelineId> {
        if backup.timeline == backup.stop_timeline {
            return vec![backup.timeline];
        }
        let between = backup.timeline.min(backup.stop_timeline)..=backup.timeline.max(backup.stop_timeline);
        let ancestry = self.ancestries.get(&backup.stop_timeline).and_then(Option::as_ref);
        self.ancestries
            .keys()
            .copied()
            .filter(|timeline| between.contains(timeline))
            .filter(|timeline| ancestry.is_none_or(|path| path.span(*timeline).is_some()))
            .chain([backup.timeline, backup.stop_timeline])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Whether the WAL that the backup needs to become consistent is there.
    pub(crate) fn has_own_wal(&self, backup: &Backup) -> bool {
        let (first, last) = self.own_segments(backup);
        let timelines = self.own_timelines(backup);
        if let [timeline] = timelines.as_slice() {
            return self.wal.of(*timeline).covers(first, last);
        }
        let all: NumberRanges = timelines.iter().flat_map(|timeline| self.wal.of(*timeline).iter()).collect();
        all.covers(first, last)
    }
}

/// The number of the segment that contains the byte at `lsn`.
pub(crate) fn number_containing(lsn: Lsn, size: WalSegmentSize) -> u64 {
    lsn.as_u64() / size.as_u64()
}

/// The number of the segment that contains the byte before `lsn`.
pub(crate) fn number_ending_at(lsn: Lsn, size: WalSegmentSize) -> u64 {
    number_containing(lsn.saturating_sub(1), size)
}
