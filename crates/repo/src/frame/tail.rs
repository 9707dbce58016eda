//! The tail frame: with it, a reader that has only the end of a pack or WAL object finds the index or the facts.
//!
//! The tail is the last frame and is not compressed. Its body is the offset of the index or facts frame (u64). So it is
//! always the last 40 bytes of the object, or the last 56 if it is encrypted.

use std::ops::Range;

use super::compressed::CompressedFrame;
use super::head::HEAD_FRAME_BYTES;
use super::header::{FrameHeader, FrameKind, HEADER_BYTES};
use super::open::{Frame, ObjectOpener};
use super::seal::ObjectSealer;
use crate::cipher::TAG_BYTES;
use crate::codec::{MAX_FRAME_RAW, MAX_FRAME_STORED};
use crate::format_error::{Fault, FormatError};

/// Length of a tail frame that is not encrypted.
pub const TAIL_FRAME_BYTES: usize = HEADER_BYTES + 8;

/// Length of an encrypted tail frame.
pub const TAIL_FRAME_BYTES_ENCRYPTED: usize = TAIL_FRAME_BYTES + TAG_BYTES;

/// Length of the tail frame of an object.
pub const fn tail_frame_bytes(encrypted: bool) -> usize {
    if encrypted { TAIL_FRAME_BYTES_ENCRYPTED } else { TAIL_FRAME_BYTES }
}

/// The result of reading the end of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailPart<T> {
    /// The end contained the whole part.
    Complete(T),
    /// The part begins before the given bytes: fetch from this offset to the end of the object and try again.
    Fetch(Range<u64>),
}

pub(crate) fn seal_tail(sealer: &ObjectSealer, number: u32, offset: u64) -> Result<Vec<u8>, FormatError> {
    let frame =
        CompressedFrame::stored(FrameKind::Tail, &offset.to_le_bytes()).map_err(|fault| fault.of(sealer.name()))?;
    sealer.seal(number, true, frame)
}

/// Opens the index or facts frame given the last bytes of an object, and returns its offset. A frame of more than
/// `most_raw` bytes is refused before it is fetched or opened.
pub(crate) fn locate_last_part(
    opener: &ObjectOpener,
    end: &[u8],
    object_size: u64,
    kind: FrameKind,
    most_raw: u32,
) -> Result<TailPart<(u64, Frame)>, FormatError> {
    let named = |fault: Fault| fault.of(opener.name());
    let tail_bytes = tail_frame_bytes(opener.is_encrypted());
    let given = end.len() as u64;
    let tail_at = end
        .len()
        .checked_sub(tail_bytes)
        .ok_or_else(|| named(Fault::Truncated { needed: tail_bytes as u64, available: given }))?;
    let tail = opener.open_frame(&end[tail_at..])?;
    let number = tail.header.number;
    if tail.header.kind != FrameKind::Tail {
        return Err(named(Fault::UnexpectedKind { number, expected: FrameKind::Tail, found: tail.header.kind }));
    }
    if !tail.header.last {
        return Err(named(Fault::MissingLastFrame));
    }
    let offset = <[u8; 8]>::try_from(tail.raw.as_slice())
        .map(u64::from_le_bytes)
        .map_err(|_| named(Fault::malformed("tail frame", "not 8 bytes long")))?;
    // The part must be between the head and the tail, for the object size that the caller gave.
    let part_end = object_size
        .checked_sub(tail_bytes as u64)
        .filter(|part_end| given <= object_size && (HEAD_FRAME_BYTES as u64..*part_end).contains(&offset))
        .ok_or_else(|| named(Fault::malformed("tail frame", format!("points to byte {offset}"))))?;
    // The same surplus of stored bytes over raw bytes that the format allows for every frame.
    let most_stored = u64::from(most_raw) + u64::from(MAX_FRAME_STORED - MAX_FRAME_RAW);
    if part_end - offset > HEADER_BYTES as u64 + most_stored {
        let (bytes, limit) = (part_end - offset, most_stored);
        return Err(named(Fault::TooLong { what: "last part", bytes, limit }));
    }
    let before_given = object_size - given;
    if offset < before_given {
        return Ok(TailPart::Fetch(offset..object_size));
    }
    let part = &end[(offset - before_given) as usize..(part_end - before_given) as usize];
    let header = FrameHeader::parse(part, offset).map_err(named)?;
    if header.kind != kind {
        return Err(named(Fault::UnexpectedKind { number: header.number, expected: kind, found: header.kind }));
    }
    if header.raw_len > most_raw {
        let (bytes, limit) = (u64::from(header.raw_len), u64::from(most_raw));
        return Err(named(Fault::TooLong { what: "last part", bytes, limit }));
    }
    if header.number.checked_add(1) != Some(number) {
        return Err(named(Fault::FrameOrder { expected: number.saturating_sub(1), found: header.number }));
    }
    Ok(TailPart::Complete((offset, opener.open_frame(part)?)))
}
