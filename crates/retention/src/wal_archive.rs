//! The WAL of one claim: which segments there are, on which timelines, and where these branched off.

use crate::number_ranges::NumberRanges;
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Ancestry, HistoryFile, SegmentName, TimelineId, WalSegmentSize};
use std::collections::{BTreeMap, BTreeSet};

/// The WAL of one claim.
#[derive(Debug, Clone)]
pub struct WalArchive {
    /// The segment size on which the segment numbers are based.
    pub segment_size: WalSegmentSize,
    /// The whole segments of each timeline, by number.
    pub segments: BTreeMap<TimelineId, NumberRanges>,
    /// The partial segments.
    pub partials: BTreeSet<SegmentName>,
    /// The segments in the names of backup history files.
    pub backup_histories: BTreeSet<SegmentName>,
    /// Every history file that could be read. They stay for ever.
    pub histories: BTreeMap<TimelineId, HistoryFile>,
    /// When the newest file of a timeline was stored, by the store's clock, if known. The file is a segment or the
    /// history file: a timeline that has just begun has only the history file.
    pub last_stored: BTreeMap<TimelineId, DateTime<Utc>>,
}

impl WalArchive {
    /// An archive without WAL.
    pub fn new(segment_size: WalSegmentSize) -> Self {
        Self {
            segment_size,
            segments: BTreeMap::new(),
            partials: BTreeSet::new(),
            backup_histories: BTreeSet::new(),
            histories: BTreeMap::new(),
            last_stored: BTreeMap::new(),
        }
    }

    /// The segments of a timeline.
    pub fn of(&self, timeline: TimelineId) -> &NumberRanges {
        static NOTHING: NumberRanges = NumberRanges::nothing();
        self.segments.get(&timeline).unwrap_or(&NOTHING)
    }

    /// The path to a timeline; `None` if it is not known. The first timeline has no parent. For another timeline
    /// without a history file, the history of a descendant is enough. Without that, it may have branched off anywhere.
    pub(crate) fn ancestry(&self, timeline: TimelineId) -> Option<Ancestry> {
        if let Some(history) = self.histories.get(&timeline) {
            return Some(Ancestry::from_history(history));
        }
        if timeline == TimelineId::FIRST {
            return Some(Ancestry::alone(timeline));
        }
        self.histories.values().find_map(|descendant| {
            let place = descendant.entries().iter().position(|entry| entry.timeline == timeline)?;
            let before = descendant.entries().get(..place)?.to_vec();
            HistoryFile::new(timeline, before).ok().map(|history| Ancestry::from_history(&history))
        })
    }
}
