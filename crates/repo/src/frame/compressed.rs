//! [`CompressedFrame`]: what passes from compressing to sealing.

use super::header::{FrameKind, HEADER_BYTES};
use crate::cipher::TAG_BYTES;
use crate::codec::Codec;
use crate::format_error::Fault;

/// A compressed frame that has no place in its object yet.
#[derive(Debug, Clone)]
pub struct CompressedFrame {
    pub(super) kind: FrameKind,
    pub(super) codec: Codec,
    pub(super) raw_len: u32,
    /// [`HEADER_BYTES`] of free space, then the body; capacity for the tag is reserved.
    pub(super) buffer: Vec<u8>,
}

impl CompressedFrame {
    /// A frame with an uncompressed body.
    ///
    /// # Errors
    /// [`Fault::TooLong`] for more than [`MAX_FRAME_RAW`](crate::codec::MAX_FRAME_RAW) bytes.
    pub fn stored(kind: FrameKind, raw: &[u8]) -> Result<Self, Fault> {
        let raw_len = crate::codec::checked_raw_len(raw)?;
        let mut buffer = Vec::with_capacity(HEADER_BYTES + raw.len() + TAG_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        buffer.extend_from_slice(raw);
        Ok(Self::from_parts(kind, Codec::None, raw_len, buffer))
    }

    pub(crate) fn from_parts(kind: FrameKind, codec: Codec, raw_len: u32, buffer: Vec<u8>) -> Self {
        Self { kind, codec, raw_len, buffer }
    }

    /// The content of the frame.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The compression of the body.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Bytes before compression.
    pub fn raw_len(&self) -> u32 {
        self.raw_len
    }

    /// The compressed body.
    pub fn body(&self) -> &[u8] {
        self.buffer.get(HEADER_BYTES..).unwrap_or_default()
    }

    /// The bytes of the sealed frame, including the header. Byte budgets count them.
    pub fn sealed_bytes(&self, encrypted: bool) -> usize {
        self.buffer.len() + if encrypted { TAG_BYTES } else { 0 }
    }
}
