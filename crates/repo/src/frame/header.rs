//! The 32 bytes before the body of every frame.
//!
//! ```text
//!  0 u32 magic 0x184D2A5B, one of zstd's skippable frames
//!  4 u32 skip length: 24, or 24 + stored_len
//!  8 u8  kind    9 u8 codec    10 u8 transform    11 u8 flags
//! 12 u32 number  16 u32 raw_len  20 u32 stored_len
//! 24 u32 CRC-32C of the stored body   28 u32 CRC-32C of bytes 0 to 28
//! ```
//!
//! The header is a skippable frame for a zstd decoder. A zstd body that is not encrypted comes after the skippable
//! frame, so that the decoder sees it. Every other body is inside the skippable frame. The decoder sees data frames
//! only: an object decompresses to exactly its data.

use std::fmt;

use crate::cipher::{AuthenticatedHeader, TAG_BYTES};
use crate::codec::{Codec, MAX_FRAME_RAW, MAX_FRAME_STORED};
use crate::format_error::Fault;

/// Length of a frame header in bytes.
pub const HEADER_BYTES: usize = 32;

/// The first four bytes of a frame, little endian. zstd (RFC 8878, 3.1.2) skips frames with magic numbers
/// 0x184D2A50 to 0x184D2A5F.
pub const FRAME_MAGIC: u32 = 0x184D_2A5B;

/// Bytes of the header that zstd counts as content of its skippable frame.
const SKIPPED_HEADER_BYTES: u32 = 24;

const FLAG_LAST: u8 = 1;
const FLAG_ENCRYPTED: u8 = 2;

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// The object's type, repository and encryption; always the first frame.
    Head,
    /// The object's data.
    Data,
    /// The index of a pack.
    Index,
    /// The facts about a WAL file.
    Facts,
    /// The offset of the index or the facts; always the last frame.
    Tail,
}

impl FrameKind {
    const ALL: [Self; 5] = [Self::Head, Self::Data, Self::Index, Self::Facts, Self::Tail];

    /// The number for the header.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Head => 0,
            Self::Data => 1,
            Self::Index => 2,
            Self::Facts => 3,
            Self::Tail => 4,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, Fault> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte).ok_or(Fault::UnknownKind(byte))
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Head => "head",
            Self::Data => "data",
            Self::Index => "index",
            Self::Facts => "facts",
            Self::Tail => "tail",
        })
    }
}

/// The change to the raw bytes before compression. Readers refuse an unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transform {
    /// No change.
    None,
}

impl Transform {
    /// The number for the header.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
        }
    }

    fn from_byte(byte: u8) -> Result<Self, Fault> {
        match byte {
            0 => Ok(Self::None),
            _ => Err(Fault::UnknownTransform(byte)),
        }
    }
}

/// A frame header in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The content of the frame.
    pub kind: FrameKind,
    /// The compression of its body.
    pub codec: Codec,
    /// The change before compression.
    pub transform: Transform,
    /// Whether the object ends with this frame.
    pub last: bool,
    /// Whether the body is encrypted.
    pub encrypted: bool,
    /// The frame's number in its object, from 0.
    pub number: u32,
    /// Bytes after decryption, decompression and inverse transform.
    pub raw_len: u32,
    /// Bytes of the body as stored, including the authentication tag.
    pub stored_len: u32,
    /// CRC-32C of the body as stored.
    pub body_crc32c: u32,
}

impl FrameHeader {
    /// Bytes of header and body.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored_len)
    }

    fn skip_length(&self) -> u32 {
        if self.kind == FrameKind::Data && self.codec == Codec::Zstd && !self.encrypted {
            SKIPPED_HEADER_BYTES
        } else {
            SKIPPED_HEADER_BYTES + self.stored_len
        }
    }

    /// Header bytes 8 to 24, which are authenticated together with an encrypted body.
    pub(crate) fn authenticated(&self) -> AuthenticatedHeader {
        let mut bytes = [0; 16];
        bytes[0] = self.kind.to_byte();
        bytes[1] = self.codec.to_byte();
        bytes[2] = self.transform.to_byte();
        bytes[3] = if self.last { FLAG_LAST } else { 0 } | if self.encrypted { FLAG_ENCRYPTED } else { 0 };
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes
    }

    /// The 32 bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.skip_length().to_le_bytes());
        bytes[8..24].copy_from_slice(&self.authenticated());
        bytes[24..28].copy_from_slice(&self.body_crc32c.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the beginning of `bytes`, which are at `offset` of the caller's data (used for messages
    /// only). Lengths are checked against the limits of the format, not against `bytes`.
    ///
    /// # Errors
    /// [`Fault::Truncated`] for less than a header, [`Fault::BadMagic`] and [`Fault::HeaderChecksum`] for bytes that
    /// are not one. [`Fault::UnknownFlags`], [`Fault::UnknownKind`], [`Fault::UnknownCodec`] and
    /// [`Fault::UnknownTransform`] for a header that a newer program wrote. [`Fault::TooLong`] for lengths above
    /// [`MAX_FRAME_RAW`] and [`MAX_FRAME_STORED`], [`Fault::Malformed`] for fields that contradict each other.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Self, Fault> {
        let header: &[u8; HEADER_BYTES] = bytes
            .first_chunk()
            .ok_or(Fault::Truncated { needed: HEADER_BYTES as u64, available: bytes.len() as u64 })?;
        let number_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let magic = number_at(0);
        if magic != FRAME_MAGIC {
            return Err(Fault::BadMagic { found: magic, offset });
        }
        if crc32c::crc32c(&header[..28]) != number_at(28) {
            return Err(Fault::HeaderChecksum { offset });
        }
        let flags = header[11];
        if flags & !(FLAG_LAST | FLAG_ENCRYPTED) != 0 {
            return Err(Fault::UnknownFlags(flags));
        }
        let parsed = Self {
            kind: FrameKind::from_byte(header[8])?,
            codec: Codec::from_byte(header[9]).ok_or(Fault::UnknownCodec(header[9]))?,
            transform: Transform::from_byte(header[10])?,
            last: flags & FLAG_LAST != 0,
            encrypted: flags & FLAG_ENCRYPTED != 0,
            number: number_at(12),
            raw_len: number_at(16),
            stored_len: number_at(20),
            body_crc32c: number_at(24),
        };
        for (what, length, limit) in
            [("frame", parsed.raw_len, MAX_FRAME_RAW), ("frame body", parsed.stored_len, MAX_FRAME_STORED)]
        {
            if length > limit {
                return Err(Fault::TooLong { what, bytes: u64::from(length), limit: u64::from(limit) });
            }
        }
        let plain_len = if parsed.encrypted {
            parsed.stored_len.checked_sub(TAG_BYTES as u32).ok_or_else(|| wrong("shorter than its tag"))?
        } else {
            parsed.stored_len
        };
        if parsed.codec == Codec::None && parsed.transform == Transform::None && plain_len != parsed.raw_len {
            return Err(wrong("lengths of an uncompressed frame differ"));
        }
        if number_at(4) != parsed.skip_length() {
            return Err(wrong("skip length does not fit kind, codec and length"));
        }
        Ok(parsed)
    }
}

fn wrong(problem: &str) -> Fault {
    Fault::malformed("frame header", problem)
}
