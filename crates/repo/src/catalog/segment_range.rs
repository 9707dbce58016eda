//! A range of consecutive WAL segments of one timeline.

use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Consecutive segments of one timeline, first and last included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentRange {
    /// The timeline of all segments in the range.
    pub timeline: TimelineId,
    /// The first segment.
    pub first: SegmentName,
    /// The last segment.
    pub last: SegmentName,
    /// The number of segments, at least 1.
    pub count: u64,
}

impl SegmentRange {
    /// The segments numbered `first` to `last`; `None` if the range is empty or the numbers are past the last LSN.
    pub fn new(timeline: TimelineId, first: u64, last: u64, size: WalSegmentSize) -> Option<Self> {
        let count = last.checked_sub(first)?.checked_add(1)?;
        let first = SegmentName::from_number(first, timeline, size)?;
        let last = SegmentName::from_number(last, timeline, size)?;
        Some(Self { timeline, first, last, count })
    }

    /// Every name in the range, in order.
    pub fn names(self, size: WalSegmentSize) -> impl Iterator<Item = SegmentName> {
        let timeline = self.timeline;
        (self.first.number(size)..=self.last.number(size))
            .filter_map(move |number| SegmentName::from_number(number, timeline, size))
    }

    /// The first LSN in the range.
    pub fn start_lsn(self, size: WalSegmentSize) -> Lsn {
        self.first.start_lsn(size)
    }

    /// The first LSN after the range.
    pub fn end_lsn(self, size: WalSegmentSize) -> Lsn {
        self.last.end_lsn(size)
    }
}

impl fmt::Display for SegmentRange {
    /// `000000010000000000000001..000000010000000000000009 (9)`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}..{} ({})", self.first, self.last, self.count)
    }
}
