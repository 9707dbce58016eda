//! What a recovery needs of a WAL tail: `wal get --tail` gets it as text.

use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The part of a timeline that recovery reads from segments of which only pieces are stored.
///
/// As text, `TIMELINE:END` or `TIMELINE:END:SWITCH`, such as `2:16/B9000000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeededTail {
    /// The timeline of the segments.
    pub timeline: TimelineId,
    /// Every byte before this LSN is stored: if recovery gets less, something was lost or damaged since the plan.
    pub end_lsn: Lsn,
    /// Where a later timeline leaves this one, if recovery continues to that one. From here on, WAL must not be
    /// replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch_lsn: Option<Lsn>,
}

impl NeededTail {
    /// How many bytes of the segment must be there, counted from its beginning.
    pub fn bytes_needed(&self, segment: SegmentName, size: WalSegmentSize) -> u32 {
        bytes_before(self.end_lsn, segment, size)
    }

    /// How many bytes of the segment may be given, counted from its beginning; zeros follow.
    pub fn bytes_allowed(&self, segment: SegmentName, size: WalSegmentSize) -> u32 {
        self.switch_lsn.map_or(size.bytes(), |switch| bytes_before(switch, segment, size))
    }
}

fn bytes_before(lsn: Lsn, segment: SegmentName, size: WalSegmentSize) -> u32 {
    let bytes = lsn.as_u64().saturating_sub(segment.start_lsn(size).as_u64());
    u32::try_from(bytes).unwrap_or(u32::MAX).min(size.bytes())
}

impl fmt::Display for NeededTail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.timeline, self.end_lsn)?;
        self.switch_lsn.map_or(Ok(()), |switch| write!(formatter, ":{switch}"))
    }
}

/// The text is not that of a [`NeededTail`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is a timeline and the end of its stored WAL, such as 2:16/B9000000, perhaps with :LSN of a switch after it"
)]
pub struct NeededTailError;

impl FromStr for NeededTail {
    type Err = NeededTailError;

    fn from_str(text: &str) -> Result<Self, NeededTailError> {
        let mut parts = text.split(':');
        let lsn = |part: &str| part.parse::<Lsn>().map_err(|_| NeededTailError);
        let timeline = parts.next().and_then(|part| part.parse().ok()).ok_or(NeededTailError)?;
        let end_lsn = lsn(parts.next().ok_or(NeededTailError)?)?;
        let switch_lsn = parts.next().map(lsn).transpose()?;
        match parts.next() {
            None => Ok(Self { timeline, end_lsn, switch_lsn }),
            Some(_) => Err(NeededTailError),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_text_gives_the_same_tail_again() {
        for text in ["2:16/B9000000", "1:0/5001000:0/5000500"] {
            assert_eq!(text.parse::<NeededTail>().unwrap().to_string(), text);
        }
        for text in ["", "2", "0:0/1", "2:", "2:5", "x:0/1", "2:0/1:", "2:0/1:0/2:0/3"] {
            assert_eq!(text.parse::<NeededTail>(), Err(NeededTailError), "{text}");
        }
    }

    #[test]
    fn a_segment_needs_what_is_before_the_end_and_may_give_what_is_before_the_switch() {
        let size = WalSegmentSize::DEFAULT;
        let tail: NeededTail = "1:0/5000100:0/5000500".parse().unwrap();
        let of = |name: &str| {
            let segment: SegmentName = name.parse().unwrap();
            (tail.bytes_needed(segment, size), tail.bytes_allowed(segment, size))
        };
        assert_eq!(of("000000010000000000000004"), (size.bytes(), size.bytes()));
        assert_eq!(of("000000010000000000000005"), (0x100, 0x500));
        assert_eq!(of("000000010000000000000006"), (0, 0));
    }
}
