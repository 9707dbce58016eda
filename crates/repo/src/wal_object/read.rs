//! Reading WAL objects.

use super::bounds::{Bounds, FACTS_BYTES};
use super::facts::WalObjectFacts;
use crate::format_error::{Fault, FormatError};
use crate::frame::{
    FrameBuffers, FrameKind, FrameSpan, ObjectOpener, ObjectType, TailPart, locate_last_part, split_frames,
};
use crate::identity::{RepositoryId, RepositoryKey};

/// As [`decode_within`], for the largest possible file.
///
/// # Errors
/// As [`decode_within`].
pub fn decode(
    name: &str,
    object: &[u8],
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
) -> Result<(Vec<u8>, WalObjectFacts), FormatError> {
    decode_within(Bounds::LARGEST, name, object, repository, key)
}

/// Returns the file of a WAL object, and its facts, if all of it is right: order and kinds of the frames, checksums,
/// authentication, length, BLAKE3, and the file's name in the object's name. No frame is opened before the sum of the
/// bytes that all frames announce is within the bounds.
///
/// # Errors
/// Those of [`ObjectOpener::new`], [`split_frames`], [`facts_from_end`] and [`ObjectOpener::open_frame_into`].
/// [`Fault::RawLength`] if the frames announce another length than the facts, [`Fault::TooLong`] if it is beyond the
/// bounds, [`Fault::ContentHash`] if the file has another BLAKE3 than the facts say. [`Fault::Malformed`] or
/// [`Fault::UnexpectedKind`] for other frames than data between the head and the facts.
pub fn decode_within(
    bounds: Bounds,
    name: &str,
    object: &[u8],
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
) -> Result<(Vec<u8>, WalObjectFacts), FormatError> {
    let named = |fault: Fault| fault.of(name);
    let opener = ObjectOpener::new(ObjectType::Wal, name, object, repository, key)?;
    let spans = split_frames(name, object)?;
    // The facts come first: they contain the size of the file in memory.
    let (facts_offset, facts) = match parse_end(&opener, object, object.len() as u64)? {
        TailPart::Complete(found) => found,
        TailPart::Fetch(range) => {
            return Err(named(Fault::Truncated { needed: range.end, available: object.len() as u64 }));
        }
    };
    let data = data_frames(&spans, facts_offset).map_err(named)?;
    let total: u64 = data.iter().map(|span| u64::from(span.header.raw_len)).sum();
    if total != facts.raw_len {
        return Err(named(Fault::RawLength { expected: facts.raw_len, found: total }));
    }
    bounds.check_file(total).map_err(named)?;
    let mut raw = Vec::new();
    let mut buffers = FrameBuffers::default();
    for span in data {
        raw.extend_from_slice(opener.open_frame_into(&object[span.range.clone()], &mut buffers)?.1);
    }
    facts.blake3.verify(&raw).map_err(named)?;
    Ok((raw, facts))
}

/// Reads the facts from the last bytes of an object of the given size, or returns which bytes to fetch. At least the
/// last [`TAIL_FRAME_BYTES_ENCRYPTED`](crate::frame::TAIL_FRAME_BYTES_ENCRYPTED) bytes are needed; 4 KiB contain the
/// facts of nearly every object. The opener needs the object's head, its first
/// [`HEAD_FRAME_BYTES`](crate::frame::HEAD_FRAME_BYTES).
///
/// # Errors
/// [`Fault::Truncated`] if `end` is shorter than a tail frame. [`Fault::UnexpectedKind`], [`Fault::MissingLastFrame`],
/// [`Fault::FrameOrder`] or [`Fault::Malformed`] if the object does not end with facts and a tail that points to them.
/// [`Fault::TooLong`] for facts of more than [`FACTS_BYTES`], [`Fault::WrongFileName`] if they are of another file than
/// the object's name says. Those of [`ObjectOpener::open_frame`].
pub fn facts_from_end(
    opener: &ObjectOpener,
    end: &[u8],
    object_size: u64,
) -> Result<TailPart<WalObjectFacts>, FormatError> {
    Ok(match parse_end(opener, end, object_size)? {
        TailPart::Complete((_, facts)) => TailPart::Complete(facts),
        TailPart::Fetch(range) => TailPart::Fetch(range),
    })
}

fn parse_end(
    opener: &ObjectOpener,
    end: &[u8],
    object_size: u64,
) -> Result<TailPart<(u64, WalObjectFacts)>, FormatError> {
    match locate_last_part(opener, end, object_size, FrameKind::Facts, FACTS_BYTES)? {
        TailPart::Fetch(range) => Ok(TailPart::Fetch(range)),
        TailPart::Complete((offset, frame)) => {
            let facts = WalObjectFacts::decode(&frame.raw, opener.name()).map_err(|fault| fault.of(opener.name()))?;
            Ok(TailPart::Complete((offset, facts)))
        }
    }
}

/// The frames between head and facts. All of them must be data.
fn data_frames(spans: &[FrameSpan], facts_offset: u64) -> Result<&[FrameSpan], Fault> {
    let facts = spans.len().checked_sub(2).filter(|facts| spans[*facts].range.start as u64 == facts_offset);
    let data = facts
        .and_then(|facts| spans.get(1..facts))
        .ok_or_else(|| Fault::malformed("WAL object", "the tail does not point to the frame before it"))?;
    match data.iter().find(|span| span.header.kind != FrameKind::Data) {
        None => Ok(data),
        Some(span) => Err(Fault::UnexpectedKind {
            number: span.header.number,
            expected: FrameKind::Data,
            found: span.header.kind,
        }),
    }
}
