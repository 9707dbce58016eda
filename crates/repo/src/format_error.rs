//! The one error of the binary formats: which object, and what is wrong with it.
//!
//! A [`FormatError`] is an object's name around a [`Fault`]. They are two types because most checks (a frame header, a
//! varint, a codec) do not know which object they check. The first level that knows the name adds it, once, so that the
//! variants do not have to carry it.
//!
//! Callers decide by [`FormatError::class`]. Damage is reported, and another copy is tried. An unsupported version asks
//! for a newer program. A foreign repository or a key problem stops the command at once.

use std::fmt;

use crate::ChunkHash;
use crate::codec::Codec;
use crate::frame::{FrameKind, ObjectType};
use crate::identity::RepositoryId;

/// A [`Fault`] found in a named object, or while such an object was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    object: String,
    fault: Fault,
}

impl FormatError {
    /// Adds the object's name to a fault.
    pub fn new(object: impl Into<String>, fault: Fault) -> Self {
        Self { object: object.into(), fault }
    }

    /// The full name of the object, relative to the repository.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The fault in the object.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The class of the fault, which decides what a caller does.
    pub fn class(&self) -> FaultClass {
        self.fault.class()
    }

    /// Never: a fault of the bytes, of the format version or of the key does not disappear on another try.
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {}: {}", self.object, self.fault)
    }
}

impl std::error::Error for FormatError {}

/// The classes of faults. A caller does something different for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// The bytes are not those that were written: truncated, changed, swapped. A frame that does not authenticate
    /// counts as damaged, because a wrong key is refused earlier, by its key slot.
    Damaged,
    /// Written by a newer program, or by something that is not Holdfast.
    Unsupported,
    /// The object belongs to another repository, or is an object of another kind.
    Foreign,
    /// There is no key where one is needed, or an unencrypted object is in an encrypted repository.
    Key,
    /// Larger than the format allows, or than the reader accepts.
    Limit,
    /// The operating system gave no random bytes, or the cryptographic library refused to work.
    Internal,
}

/// What is wrong with an object.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A frame does not begin with the magic number.
    #[error(
        "no frame begins at byte {offset}: magic number {found:#010x} instead of {:#010x}",
        crate::frame::FRAME_MAGIC
    )]
    BadMagic {
        /// The four bytes that were found, little endian.
        found: u32,
        /// Where a frame should begin, from the start of the bytes given.
        offset: u64,
    },
    /// The CRC-32C of a frame header does not match.
    #[error("the frame header at byte {offset} fails its checksum")]
    HeaderChecksum {
        /// Where the frame begins, from the start of the bytes given.
        offset: u64,
    },
    /// The CRC-32C of a frame body does not match.
    #[error("the body of frame {number} fails its checksum")]
    BodyChecksum { number: u32 },
    /// A kind of frame that this program does not know.
    #[error("unknown frame kind {0}: written by a newer holdfast")]
    UnknownKind(u8),
    /// A codec that this program does not know.
    #[error("unknown codec {0}: written by a newer holdfast")]
    UnknownCodec(u8),
    /// A transform that this program does not know.
    #[error("unknown transform {0}: written by a newer holdfast")]
    UnknownTransform(u8),
    /// Header flags that this program does not know.
    #[error("unknown frame flags {0:#04x}: written by a newer holdfast")]
    UnknownFlags(u8),
    /// A type of object that this program does not know.
    #[error("unknown object type {0}: written by a newer holdfast")]
    UnknownObjectType(u8),
    /// An encryption that this program does not know.
    #[error("unknown encryption {0}: written by a newer holdfast")]
    UnknownEncryption(u8),
    /// A section of a manifest that this program does not know.
    #[error("unknown manifest section {0}: written by a newer holdfast")]
    UnknownSection(u8),
    /// A kind of file in a manifest that this program does not know.
    #[error("unknown kind of file {0}: written by a newer holdfast")]
    UnknownFileKind(u8),
    /// Flags of a file in a manifest that this program does not know.
    #[error("unknown flags {0:#x} of a file: written by a newer holdfast")]
    UnknownEntryFlags(u64),
    /// Flags of a pack in a manifest that this program does not know.
    #[error("unknown flags {0:#x} of a pack: written by a newer holdfast")]
    UnknownPackFlags(u64),
    /// The object was encrypted under a key that is later than the keys of the slot that opened the repository.
    #[error("is encrypted under key epoch {0}, and the key slot that opened the repository is of an earlier one")]
    UnknownKeyEpoch(u32),
    /// A format version that this program does not know.
    #[error("format version {found}, this holdfast reads up to {supported}")]
    UnsupportedVersion {
        /// The version in the head frame.
        found: u16,
        /// The newest version this program reads.
        supported: u16,
    },
    /// The object was written for another repository.
    #[error("belongs to repository {found}, this is repository {expected}")]
    WrongRepository {
        /// The repository being read.
        expected: RepositoryId,
        /// The repository in the head frame.
        found: RepositoryId,
    },
    /// The object's type is not the one that its name says.
    #[error("is a {found}, expected a {expected}")]
    WrongObjectType {
        /// The type that the caller needs.
        expected: ObjectType,
        /// The type in the head frame.
        found: ObjectType,
    },
    /// The object contains a file with another name.
    #[error("holds the file {found}, but its name says another one")]
    WrongFileName {
        /// The file name in the object's facts.
        found: String,
    },
    /// The repository is encrypted, but the object is not.
    #[error("is not encrypted, but this repository is")]
    NotEncrypted,
    /// The object is encrypted, but there is no key.
    #[error("is encrypted, but no key is given")]
    KeyNeeded,
    /// The authentication tag does not match.
    #[error("frame {number} cannot be authenticated: changed, swapped with another object, or another key")]
    Authentication { number: u32 },
    /// Something is larger than the format allows.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// The part that is too long.
        what: &'static str,
        bytes: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// The bytes end before something they announce.
    #[error("truncated: {needed} bytes needed, {available} there")]
    Truncated {
        /// The number of bytes that should exist.
        needed: u64,
        /// The number of bytes that exist.
        available: u64,
    },
    /// A frame is in another frame's place.
    #[error("frame {found} is found where frame {expected} belongs")]
    FrameOrder {
        /// The number that belongs in this place.
        expected: u32,
        /// The number in the header.
        found: u32,
    },
    /// A frame has another kind than its place requires.
    #[error("frame {number} is a {found} frame where a {expected} frame belongs")]
    UnexpectedKind {
        number: u32,
        /// The kind that belongs in this place.
        expected: FrameKind,
        /// The kind in the header.
        found: FrameKind,
    },
    /// The object ends, and no frame was marked as the last one.
    #[error("truncated: no frame is marked as the last one")]
    MissingLastFrame,
    /// There are bytes after the last frame.
    #[error("{bytes} bytes after the last frame")]
    TrailingBytes {
        /// The number of these bytes.
        bytes: u64,
    },
    /// A frame decompresses to another length than its header says.
    #[error("frame decompresses to {found} bytes, its header says {expected}")]
    RawLength {
        /// `raw_len` of the header.
        expected: u64,
        /// The length after decompression.
        found: u64,
    },
    /// The codec refuses the body of a frame.
    #[error("cannot decompress a {codec} frame: {reason}")]
    Decompression {
        /// The codec that the frame names.
        codec: Codec,
        reason: String,
    },
    /// The codec could not compress.
    #[error("cannot compress with {codec}: {reason}")]
    Compression {
        /// The codec that was asked for.
        codec: Codec,
        reason: String,
    },
    /// The content does not have the hash that was recorded when it was written.
    #[error("content has BLAKE3 {found}, recorded as {expected}")]
    ContentHash {
        expected: ChunkHash,
        /// The hash of the present content.
        found: ChunkHash,
    },
    /// A structure inside a frame does not follow its format.
    #[error("malformed {what}: {problem}")]
    Malformed {
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A text that is not a repository id.
    #[error("`{0}` is not a repository id: 32 hexadecimal digits expected")]
    InvalidRepositoryId(String),
    /// A text that is not a BLAKE3 hash.
    #[error("`{0}` is not a BLAKE3 hash: 64 hexadecimal digits expected")]
    InvalidChunkHash(String),
    /// The operating system gave no random bytes, or a cryptographic operation failed that should never fail.
    #[error("the cryptographic library failed at: {0}")]
    Cryptography(&'static str),
}

impl Fault {
    /// Adds the object's name to the fault.
    pub fn of(self, object: impl Into<String>) -> FormatError {
        FormatError::new(object, self)
    }

    /// The class of the fault, which decides what a caller does.
    pub fn class(&self) -> FaultClass {
        match self {
            Self::BadMagic { .. }
            | Self::HeaderChecksum { .. }
            | Self::BodyChecksum { .. }
            | Self::Truncated { .. }
            | Self::FrameOrder { .. }
            | Self::UnexpectedKind { .. }
            | Self::MissingLastFrame
            | Self::TrailingBytes { .. }
            | Self::RawLength { .. }
            | Self::Decompression { .. }
            | Self::ContentHash { .. }
            | Self::WrongFileName { .. }
            | Self::Authentication { .. }
            | Self::InvalidRepositoryId(_)
            | Self::InvalidChunkHash(_)
            | Self::Malformed { .. } => FaultClass::Damaged,
            Self::UnknownKind(_)
            | Self::UnknownCodec(_)
            | Self::UnknownTransform(_)
            | Self::UnknownFlags(_)
            | Self::UnknownObjectType(_)
            | Self::UnknownEncryption(_)
            | Self::UnknownSection(_)
            | Self::UnknownFileKind(_)
            | Self::UnknownEntryFlags(_)
            | Self::UnknownPackFlags(_)
            | Self::UnknownKeyEpoch(_)
            | Self::UnsupportedVersion { .. } => FaultClass::Unsupported,
            Self::WrongRepository { .. } | Self::WrongObjectType { .. } => FaultClass::Foreign,
            Self::NotEncrypted | Self::KeyNeeded => FaultClass::Key,
            Self::TooLong { .. } => FaultClass::Limit,
            Self::Compression { .. } | Self::Cryptography(_) => FaultClass::Internal,
        }
    }

    pub(crate) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }
}
