//! The tail of an archive: pieces of segments that are not whole yet, from streaming. Pure.
//!
//! A piece is an object like a WAL file's ([`wal_object`](crate::wal_object)), whose file name is its range, and whose
//! facts name the segment ([`TailFacts`]). [`next`] chooses pieces from the segment's beginning on, so that they
//! follow each other without a hole; two pieces may overlap. [`Assembly`] puts their bytes together.

use holdfast_pgtypes::SegmentName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format_error::{Fault, FormatError};
use crate::name::TailRange;

/// The facts of a piece, as `docs/format/wal-tail.md` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailFacts {
    /// The segment that the piece is a part of. Without encryption, only it finds a piece that was moved to another
    /// segment.
    pub segment: SegmentName,
}

impl TailFacts {
    /// The facts as the JSON that is stored in `object`.
    ///
    /// # Errors
    /// None today: the name of a segment always becomes JSON.
    pub fn to_json(self, object: &str) -> Result<Value, FormatError> {
        serde_json::to_value(self).map_err(|error| Fault::malformed("WAL facts", error.to_string()).of(object))
    }
}

/// The piece to read next, if everything before `at` is there: the one that leads furthest. `None` if no piece has the
/// byte at `at`.
pub fn next(pieces: &[TailRange], at: u32) -> Option<TailRange> {
    let fitting = pieces.iter().copied().filter(|piece| piece.start() <= at && at < piece.end());
    fitting.max_by_key(|piece| (piece.end(), piece.start()))
}

/// The pieces from this byte of the segment on, each the [`next`] one.
pub fn chain_from(pieces: &[TailRange], start: u32) -> Vec<TailRange> {
    let (mut chain, mut at) = (Vec::new(), start);
    while let Some(piece) = next(pieces, at) {
        chain.push(piece);
        at = piece.end();
    }
    chain
}

/// Bytes of a segment from its beginning on.
#[derive(Debug, Default, Clone)]
pub struct Assembly {
    content: Vec<u8>,
}

/// A piece has other bytes than another one at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the piece {piece} has other bytes than the piece before it from byte {at} on")]
pub struct Contradiction {
    /// The piece that was added.
    pub piece: TailRange,
    /// The first byte that differs, counted from the segment's beginning.
    pub at: u32,
}

impl Assembly {
    /// The end of what is there, counted from the segment's beginning.
    pub fn end(&self) -> u32 {
        u32::try_from(self.content.len()).unwrap_or(u32::MAX)
    }

    /// Adds a piece that begins at the end, or before it. A piece after it is not added: there is a hole.
    ///
    /// # Errors
    /// [`Contradiction`] if it differs from what is there. Then it is not added.
    pub fn add(&mut self, piece: TailRange, bytes: &[u8]) -> Result<(), Contradiction> {
        let start = piece.start() as usize;
        let Some(there) = self.content.get(start..) else { return Ok(()) };
        let common = there.len().min(bytes.len());
        if let Some(at) = (0..common).find(|at| there.get(*at) != bytes.get(*at)) {
            return Err(Contradiction { piece, at: u32::try_from(start + at).unwrap_or(u32::MAX) });
        }
        self.content.extend_from_slice(bytes.get(common..).unwrap_or_default());
        Ok(())
    }

    /// The bytes.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The whole segment: zeros follow what is there, as in a segment that PostgreSQL has begun.
    pub fn into_segment(mut self, segment_bytes: u32) -> Vec<u8> {
        self.content.resize(segment_bytes as usize, 0);
        self.content
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn range(start: u32, end: u32) -> TailRange {
        TailRange::new(start, end).unwrap()
    }

    #[test]
    fn pieces_are_chained_from_the_beginning_to_the_first_hole() {
        for (pieces, expected) in [
            (vec![], vec![]),
            (vec![range(5, 9)], vec![]),
            (vec![range(0, 5), range(5, 9)], vec![range(0, 5), range(5, 9)]),
            // A hole ends it.
            (vec![range(0, 5), range(6, 9)], vec![range(0, 5)]),
            // Of two that fit, the one that leads further; overlaps are no hole.
            (vec![range(0, 5), range(0, 7), range(5, 6), range(6, 9)], vec![range(0, 7), range(6, 9)]),
        ] {
            assert_eq!(chain_from(&pieces, 0), expected, "{pieces:?}");
        }
    }

    #[test]
    fn overlapping_bytes_must_be_equal() {
        let mut assembly = Assembly::default();
        assembly.add(range(0, 4), b"abcd").unwrap();
        assembly.add(range(2, 6), b"cdef").unwrap();
        assembly.add(range(1, 3), b"bc").unwrap();
        assert_eq!(assembly.content(), b"abcdef");
        let error = assembly.add(range(4, 8), b"eXgh").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the piece 00000004-00000008 has other bytes than the piece before it from byte 5 on"
        );
        assert_eq!(assembly.end(), 6);
        // After a hole nothing is added.
        assembly.add(range(7, 8), b"h").unwrap();
        assert_eq!(assembly.into_segment(8), b"abcdef\0\0");
    }
}
