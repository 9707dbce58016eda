//! Frames: the parts of every binary object of a repository.
//!
//! An object is a head frame, with its type and its repository, and then numbered frames of data, index, facts and
//! tail. A frame is a 32-byte header and a body. The header has a checksum of its own and one of the body, so that
//! damage is found before anything is decrypted or decompressed. The page `docs/format/frame.md` has the byte tables.
//!
//! Writing: [`Compressor`] makes a [`CompressedFrame`] on any thread; [`ObjectSealer::seal`]
//! numbers, encrypts and finishes it in the place where the order is known. Reading: [`ObjectOpener`] checks the head
//! once and opens frames in any order; [`split_frames`] checks that an object in memory is complete.

mod compressed;
mod compressor;
mod head;
mod header;
mod open;
mod seal;
mod split;
mod tail;

pub use crate::object_type::ObjectType;
pub use compressed::CompressedFrame;
pub use compressor::Compressor;
pub use head::{Encryption, FORMAT_VERSION, HEAD_FRAME_BYTES, ObjectHead};
pub use header::{FRAME_MAGIC, FrameHeader, FrameKind, HEADER_BYTES, Transform};
pub use open::{Frame, FrameBuffers, ObjectOpener, open_object};
pub use seal::{ObjectSealer, seal_object};
pub use split::{FrameSpan, split_frames};
pub use tail::{TAIL_FRAME_BYTES, TAIL_FRAME_BYTES_ENCRYPTED, TailPart, tail_frame_bytes};

pub(crate) use split::check_order;
pub(crate) use tail::{locate_last_part, seal_tail};

/// The position of a frame in its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameLocation {
    /// Offset of the frame's header from the start of the object, in bytes.
    pub offset: u32,
    /// Length of header and body, in bytes.
    pub length: u32,
}

impl FrameLocation {
    /// The bytes of the frame, for a ranged read.
    pub fn range(&self) -> std::ops::Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + u64::from(self.length)
    }
}

#[cfg(test)]
mod tests;
