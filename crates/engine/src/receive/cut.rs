//! When a piece of the unfinished segment is stored, and how large it is. Pure.
//!
//! One piece is on its way at a time, and the next one takes what has come meanwhile. So a slow store gets fewer and
//! larger pieces, and `--interval 0` makes each commit wait for at most two pieces.

use std::time::Duration;

use holdfast_repo::name::TailRange;

/// This many bytes are stored without waiting for the interval.
const ENOUGH_BYTES: u32 = 256 << 10;

/// The largest piece: a reader gets several at the same time, and one that was lost on its way is sent again.
const MOST_BYTES: u32 = 4 << 20;

/// The rest of a segment that has become whole is still sent as a piece if it is not larger: it is durable sooner than
/// the segment.
const REST_BYTES: u32 = 1 << 20;

/// The received bytes of a segment that are in no piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    /// How many.
    pub(super) bytes: u32,
    /// Since when the first of them waits.
    pub(super) since: Duration,
    /// Whether the server has more than a segment that is not received yet: then this segment becomes whole in a
    /// moment, and would be stored twice.
    pub(super) is_catching_up: bool,
    /// Whether nothing of it belongs to the timeline of the stream: it repeats the segment of the timeline before. A
    /// piece of it would hide the same WAL of that timeline from a recovery, which asks for the newer one first.
    pub(super) is_all_older: bool,
}

/// The size in bytes of the next piece; `None` if none is due.
pub(super) fn due(waiting: Waiting, interval: Duration) -> Option<u32> {
    let Waiting { bytes, since, is_catching_up, is_all_older } = waiting;
    let is_due = bytes > 0 && !is_catching_up && !is_all_older && (bytes >= ENOUGH_BYTES || since >= interval);
    is_due.then_some(bytes.min(MOST_BYTES))
}

/// When a segment has this many pieces, they are stored once more as one, and removed: at one a second, a segment that
/// takes an hour would have thousands, and a recovery would fetch all of them one by one.
pub(super) const MERGED_PIECES: u32 = 64;

/// The range of the last `pieces` pieces, from `start` to `end`, if they are stored as one now. `None` if there are too
/// few of them, or if they are large.
pub(super) fn merged(pieces: u32, start: u32, end: u32) -> Option<TailRange> {
    TailRange::new(start, end).filter(|range| pieces >= MERGED_PIECES && range.length() <= MOST_BYTES)
}

/// Whether the rest of a whole segment is stored as a piece too. If the segment has no pieces, it was received at once.
pub(super) fn rest_is_piece(rest_bytes: u32, has_pieces: bool) -> bool {
    has_pieces && (1..=REST_BYTES).contains(&rest_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_due_by_its_size_or_by_its_age() {
        let second = Duration::from_secs(1);
        let waiting = |bytes, millis, is_catching_up| {
            let since = Duration::from_millis(millis);
            Waiting { bytes, since, is_catching_up, is_all_older: false }
        };
        for (what, waiting, expected) in [
            ("nothing waits", waiting(0, 5000, false), None),
            ("young and small", waiting(100, 999, false), None),
            ("old", waiting(100, 1000, false), Some(100)),
            ("large", waiting(ENOUGH_BYTES, 0, false), Some(ENOUGH_BYTES)),
            ("larger than a piece", waiting(MOST_BYTES + 1, 0, false), Some(MOST_BYTES)),
            ("the segment comes in a moment", waiting(MOST_BYTES, 5000, true), None),
            ("of the timeline before", Waiting { is_all_older: true, ..waiting(MOST_BYTES, 5000, false) }, None),
        ] {
            assert_eq!(due(waiting, second), expected, "{what}");
        }
        assert_eq!(due(waiting(1, 0, false), Duration::ZERO), Some(1));
    }

    #[test]
    fn many_small_pieces_become_one() {
        assert_eq!(merged(63, 100, 200), None);
        assert_eq!(merged(64, 100, 200), TailRange::new(100, 200));
        assert_eq!(merged(64, 0, MOST_BYTES + 1), None);
    }

    #[test]
    fn the_rest_of_a_segment_is_a_piece_if_the_others_are() {
        for (rest, has_pieces, expected) in [
            (0, true, false),
            (1, true, true),
            (REST_BYTES, true, true),
            (REST_BYTES + 1, true, false),
            (1, false, false),
        ] {
            assert_eq!(rest_is_piece(rest, has_pieces), expected, "{rest} {has_pieces}");
        }
    }
}
