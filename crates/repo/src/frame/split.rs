//! The order of frames in a whole object.

use std::ops::Range;

use super::header::{FrameHeader, FrameKind};
use crate::format_error::{Fault, FormatError};

/// A frame found in an object in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpan {
    /// Its header, whose checksum matched.
    pub header: FrameHeader,
    /// The bytes of header and body.
    pub range: Range<usize>,
}

/// Finds the frames of a whole object by their headers, without opening them, so that they can be opened in parallel.
/// It insists on the head first (and nowhere else), numbers that count up by one, exactly one last frame and nothing
/// after it.
///
/// # Errors
/// [`Fault::FrameOrder`] for a wrong number, [`Fault::UnexpectedKind`] for a head in another place or another frame in
/// the head's, [`Fault::MissingLastFrame`], [`Fault::TrailingBytes`] for bytes after the last frame,
/// [`Fault::Truncated`] if a frame reaches beyond `bytes`; those of [`FrameHeader::parse`].
pub fn split_frames(name: &str, bytes: &[u8]) -> Result<Vec<FrameSpan>, FormatError> {
    split(bytes).map_err(|fault| fault.of(name))
}

fn split(bytes: &[u8]) -> Result<Vec<FrameSpan>, Fault> {
    let mut spans: Vec<FrameSpan> = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        if spans.last().is_some_and(|span| span.header.last) {
            return Err(Fault::TrailingBytes { bytes: (bytes.len() - offset) as u64 });
        }
        let rest = &bytes[offset..];
        let header = FrameHeader::parse(rest, offset as u64)?;
        check_order(&header, spans.len() as u64)?;
        if header.frame_bytes() > rest.len() as u64 {
            return Err(Fault::Truncated { needed: header.frame_bytes(), available: rest.len() as u64 });
        }
        let end = offset + header.frame_bytes() as usize;
        spans.push(FrameSpan { header, range: offset..end });
        offset = end;
    }
    match spans.last() {
        Some(span) if span.header.last => Ok(spans),
        _ => Err(Fault::MissingLastFrame),
    }
}

/// Checks a frame's number and that the head, and only the head, is frame 0.
pub(crate) fn check_order(header: &FrameHeader, expected: u64) -> Result<(), Fault> {
    if u64::from(header.number) != expected {
        return Err(Fault::FrameOrder { expected: u32::try_from(expected).unwrap_or(u32::MAX), found: header.number });
    }
    if (header.kind == FrameKind::Head) != (expected == 0) {
        let wanted = if expected == 0 { FrameKind::Head } else { FrameKind::Data };
        return Err(Fault::UnexpectedKind { number: header.number, expected: wanted, found: header.kind });
    }
    Ok(())
}
