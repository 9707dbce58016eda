//! WAL segments: their size, their names, and their LSNs.
//!
//! A name is the timeline and two more groups of eight hexadecimal digits. The LSN of a name depends on the cluster's
//! segment size, so every conversion from names to LSNs or to neighbours takes this size; `XLogFileName` and
//! `XLogFromFileName` of `xlog_internal.h` are the models. An LSN on a segment boundary has two segments, the one that
//! begins there and the one that ends there. So the two roundings have two names: `containing` (as `XLByteToSeg`) and
//! `ending_at` (as `XLByteToPrevSeg`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::parse_error::{ParseError, serde_as_text, upper_hex_u32};
use crate::timeline::TimelineId;

/// The size of a cluster's WAL segments in bytes: a power of two from 1 MiB to 1 GiB, taken from `pg_control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct WalSegmentSize(u32);

/// A number that is not a WAL segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is not a WAL segment size: it must be a power of two from 1 MiB to 1 GiB")]
pub struct InvalidSegmentSize(pub u32);

impl WalSegmentSize {
    /// 16 MiB, the default of `initdb`. For tests and messages only: a cluster's own size is in its `pg_control`.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Checks a size, as `IsValidWalSegSize` does.
    ///
    /// # Errors
    /// [`InvalidSegmentSize`] if `bytes` is not a power of two from 1 MiB to 1 GiB.
    pub const fn new(bytes: u32) -> Result<Self, InvalidSegmentSize> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 1 << 30 {
            Ok(Self(bytes))
        } else {
            Err(InvalidSegmentSize(bytes))
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, for arithmetic with LSNs.
    pub const fn as_u64(self) -> u64 {
        self.0 as u64
    }

    /// Segments in 4 GiB of WAL, the span of the name's middle group; as `XLogSegmentsPerXLogId`.
    pub const fn segments_per_id(self) -> u64 {
        (1 << 32) / self.as_u64()
    }
}

impl TryFrom<u32> for WalSegmentSize {
    type Error = InvalidSegmentSize;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<WalSegmentSize> for u32 {
    fn from(size: WalSegmentSize) -> Self {
        size.0
    }
}

/// The name of a WAL segment: `000000010000000A000000FF`.
///
/// Names sort like PostgreSQL's names as text: first by timeline, then by position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    id: u32,
    segment: u32,
}

serde_as_text!(SegmentName, "a WAL segment name of 24 hexadecimal digits");

impl SegmentName {
    /// The segment with this number, counted from 0 at the beginning of the WAL; as `XLogFileName`. `None` if the
    /// number is past the last possible segment.
    pub fn from_number(number: u64, timeline: TimelineId, size: WalSegmentSize) -> Option<Self> {
        let id = u32::try_from(number / size.segments_per_id()).ok()?;
        let segment = u32::try_from(number % size.segments_per_id()).ok()?;
        Some(Self { timeline, id, segment })
    }

    /// The segment that contains the byte at `lsn`; as `XLByteToSeg`.
    pub fn containing(lsn: Lsn, timeline: TimelineId, size: WalSegmentSize) -> Self {
        let within = (lsn.as_u64() & 0xFFFF_FFFF) / size.as_u64();
        Self { timeline, id: (lsn.as_u64() >> 32) as u32, segment: within as u32 }
    }

    /// The segment that contains the byte before `lsn`, so a stop LSN on a boundary gives the segment that ends there;
    /// as `XLByteToPrevSeg`. LSN 0 has no byte before it and gives the first segment.
    pub fn ending_at(lsn: Lsn, timeline: TimelineId, size: WalSegmentSize) -> Self {
        Self::containing(lsn.saturating_sub(1), timeline, size)
    }

    /// The first 8 digits of the name.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The middle group of the name: which 4 GiB of WAL the segment is in.
    pub const fn log(self) -> u32 {
        self.id
    }

    /// The segment at the same position on another timeline.
    #[must_use]
    pub const fn on_timeline(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }

    /// Whether a cluster with this segment size can have a segment with this name: the last group counts segments
    /// within 4 GiB.
    pub fn is_valid_for(self, size: WalSegmentSize) -> bool {
        u64::from(self.segment) < size.segments_per_id()
    }

    /// The segment's number, counted from 0 at the beginning of the WAL; as `XLogFromFileName`.
    pub fn number(self, size: WalSegmentSize) -> u64 {
        // At most 2^32 * 2^12 + 2^32.
        u64::from(self.id) * size.segments_per_id() + u64::from(self.segment)
    }

    /// The first LSN in the segment.
    pub fn start_lsn(self, size: WalSegmentSize) -> Lsn {
        Lsn::new(self.number(size).saturating_mul(size.as_u64()))
    }

    /// The first LSN after the segment.
    pub fn end_lsn(self, size: WalSegmentSize) -> Lsn {
        self.start_lsn(size).saturating_add(size.as_u64())
    }

    /// Whether the byte at `lsn` is in the segment.
    pub fn contains(self, lsn: Lsn, size: WalSegmentSize) -> bool {
        self.start_lsn(size) <= lsn && lsn < self.end_lsn(size)
    }

    /// The segment after this one on the same timeline; `None` after the last possible one.
    pub fn next(self, size: WalSegmentSize) -> Option<Self> {
        Self::from_number(self.number(size).checked_add(1)?, self.timeline, size)
    }

    /// The segment before this one on the same timeline; `None` before the first.
    pub fn previous(self, size: WalSegmentSize) -> Option<Self> {
        Self::from_number(self.number(size).checked_sub(1)?, self.timeline, size)
    }

    /// The first sixteen digits: timeline and 4 GiB of WAL. A repository keeps the segments of one group in one folder.
    pub fn group(self) -> String {
        format!("{:08X}{:08X}", self.timeline.get(), self.id)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.id, self.segment)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentName({self})")
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let group = |range| upper_hex_u32(text.get(range)?);
            if text.len() != 24 {
                return None;
            }
            Some(Self { timeline: TimelineId::new(group(0..8)?)?, id: group(8..16)?, segment: group(16..24)? })
        };
        parse().ok_or_else(|| ParseError::new("a WAL segment name", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    #[test]
    fn the_two_roundings_differ_on_a_boundary() {
        let size = WalSegmentSize::DEFAULT;
        let border: Lsn = "A/FF000000".parse().unwrap();
        assert_eq!(SegmentName::containing(border, TimelineId::FIRST, size), name("000000010000000A000000FF"));
        assert_eq!(SegmentName::ending_at(border, TimelineId::FIRST, size), name("000000010000000A000000FE"));
        let inside = border.saturating_add(1);
        assert_eq!(SegmentName::ending_at(inside, TimelineId::FIRST, size), name("000000010000000A000000FF"));
    }

    #[test]
    fn neighbours_carry_over_the_middle_group() {
        let size = WalSegmentSize::DEFAULT;
        assert_eq!(name("000000010000000A000000FF").next(size), Some(name("000000010000000B00000000")));
        assert_eq!(name("000000010000000B00000000").previous(size), Some(name("000000010000000A000000FF")));
        assert_eq!(name("000000010000000000000000").previous(size), None);
        assert_eq!(name("00000001FFFFFFFF000000FF").next(size), None);
        let small = WalSegmentSize::new(1 << 20).unwrap();
        assert_eq!(name("000000010000000A000000FF").next(small), Some(name("000000010000000A00000100")));
        assert!(name("000000010000000A00000FFF").is_valid_for(small));
        assert!(!name("000000010000000A00000100").is_valid_for(size));
    }

    #[test]
    fn refuses_other_names() {
        for text in [
            "",
            "000000010000000A000000F",
            "000000010000000A000000FFF",
            "000000010000000a000000ff",
            "000000000000000A000000FF",
            "+00000010000000A000000FF",
            "000000010000000A000000F\u{e9}",
        ] {
            assert!(text.parse::<SegmentName>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two_between_the_limits() {
        for bytes in [1 << 20, 16 << 20, 1 << 30] {
            assert_eq!(WalSegmentSize::new(bytes).unwrap().bytes(), bytes);
        }
        for bytes in [0, 1, 1 << 19, 3 << 20, 1 << 31, u32::MAX] {
            assert_eq!(WalSegmentSize::new(bytes), Err(InvalidSegmentSize(bytes)));
        }
    }

    proptest! {
        #[test]
        fn lsn_and_name_agree(bytes: u64, timeline in 1u32.., shift in 20u32..=30) {
            let size = WalSegmentSize::new(1 << shift).unwrap();
            let timeline = TimelineId::new(timeline).unwrap();
            let segment = SegmentName::containing(Lsn::new(bytes), timeline, size);
            prop_assert!(segment.is_valid_for(size));
            prop_assert!(segment.start_lsn(size).as_u64() <= bytes);
            prop_assert!(bytes - segment.start_lsn(size).as_u64() < size.as_u64());
            prop_assert_eq!(segment.to_string().parse::<SegmentName>().unwrap(), segment);
            prop_assert_eq!(SegmentName::from_number(segment.number(size), timeline, size), Some(segment));
            if let Some(next) = segment.next(size) {
                prop_assert_eq!(next.start_lsn(size), segment.end_lsn(size));
                prop_assert_eq!(next.previous(size), Some(segment));
            }
        }

        #[test]
        fn never_panics(text in "[0-9A-F]{24}|.*", shift in 20u32..=30) {
            let size = WalSegmentSize::new(1 << shift).unwrap();
            if let Ok(segment) = text.parse::<SegmentName>() {
                let _ = (segment.start_lsn(size), segment.end_lsn(size), segment.next(size), segment.previous(size));
                prop_assert_eq!(segment.to_string(), text);
            }
        }
    }
}
