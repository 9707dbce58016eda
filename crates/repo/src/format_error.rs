//! The one error of the binary formats: which object, and what is wrong with it.
//!
//! A [`FormatError`] is an object's name around a [`Fault`]. The two are apart because most checks (a frame
//! header, a varint, a codec) do not know the object they work for; the name is put on at the first level
//! that does, once, instead of being carried into every variant.
//!
//! Callers decide by [`FormatError::class`]: damage is reported and another copy is tried, an unsupported
//! version asks for a newer program, a foreign repository or a key problem stops at once.

use std::fmt;

use crate::ChunkHash;
use crate::codec::Codec;
use crate::frame::{FrameKind, ObjectType};
use crate::identity::RepositoryId;

/// A [`Fault`] found in a named object, or while one was being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    object: String,
    fault: Fault,
}

impl FormatError {
    /// Puts the object's name on a fault.
    pub fn new(object: impl Into<String>, fault: Fault) -> Self {
        Self { object: object.into(), fault }
    }

    /// The full name of the object, relative to the repository.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// What is wrong.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What a caller can do about it.
    pub fn class(&self) -> FaultClass {
        self.fault.class()
    }

    /// A fault of the bytes, of the format version or of the key does not go away by trying again.
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

/// What a caller does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultClass {
    /// The bytes are not what was written: truncated, changed, swapped. A frame that does not authenticate counts
    /// as damaged: a wrong key was already refused by its key slot.
    Damaged,
    /// Written by a newer program, or by something that is not Holdfast.
    Unsupported,
    /// The object belongs to another repository, or is another kind of object.
    Foreign,
    /// No key where one is needed, or an object without encryption in an encrypted repository.
    Key,
    /// Larger than the format allows, or than the reader is ready for.
    Limit,
    /// The operating system gave no random bytes, or the cryptographic library refused to work.
    Internal,
}

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A frame does not begin with the magic number.
    #[error(
        "no frame begins at byte {offset}: magic number {found:#010x} instead of {:#010x}",
        crate::frame::FRAME_MAGIC
    )]
    BadMagic {
        /// The four bytes found, little endian.
        found: u32,
        /// Where the frame was looked for, from the start of the bytes given.
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
    BodyChecksum {
        /// The frame's number.
        number: u32,
    },
    /// A kind of frame this program does not know.
    #[error("unknown frame kind {0}: written by a newer holdfast")]
    UnknownKind(u8),
    /// A codec this program does not know.
    #[error("unknown codec {0}: written by a newer holdfast")]
    UnknownCodec(u8),
    /// A transform this program does not know.
    #[error("unknown transform {0}: written by a newer holdfast")]
    UnknownTransform(u8),
    /// Header flags this program does not know.
    #[error("unknown frame flags {0:#04x}: written by a newer holdfast")]
    UnknownFlags(u8),
    /// A type of object this program does not know.
    #[error("unknown object type {0}: written by a newer holdfast")]
    UnknownObjectType(u8),
    /// An encryption this program does not know.
    #[error("unknown encryption {0}: written by a newer holdfast")]
    UnknownEncryption(u8),
    /// A section of a manifest this program does not know.
    #[error("unknown manifest section {0}: written by a newer holdfast")]
    UnknownSection(u8),
    /// A kind of file in a manifest this program does not know.
    #[error("unknown kind of file {0}: written by a newer holdfast")]
    UnknownFileKind(u8),
    /// A format version this program does not know.
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
        /// The repository that is being read.
        expected: RepositoryId,
        /// The repository named in the head frame.
        found: RepositoryId,
    },
    /// The object is of another type than its name says.
    #[error("is a {found}, expected a {expected}")]
    WrongObjectType {
        /// What was asked for.
        expected: ObjectType,
        /// What the head frame says.
        found: ObjectType,
    },
    /// The object holds a file of another name.
    #[error("holds the file {found}, which its name does not say")]
    WrongFileName {
        /// The file name in the object's facts.
        found: String,
    },
    /// The repository is encrypted, the object is not.
    #[error("is not encrypted, but this repository is")]
    NotEncrypted,
    /// The object is encrypted, and there is no key.
    #[error("is encrypted, and no key is given")]
    KeyNeeded,
    /// The authentication tag does not match.
    #[error("frame {number} cannot be authenticated: changed, swapped with another object, or another key")]
    Authentication {
        /// The frame's number.
        number: u32,
    },
    /// Something is larger than the format allows.
    #[error("{what} of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest allowed.
        limit: u64,
    },
    /// The bytes end before something they announce.
    #[error("truncated: {needed} bytes needed, {available} there")]
    Truncated {
        /// Bytes that should be there.
        needed: u64,
        /// Bytes that are there.
        available: u64,
    },
    /// A frame stands where another should be.
    #[error("frame {found} stands where frame {expected} belongs")]
    FrameOrder {
        /// The number that belongs there.
        expected: u32,
        /// The number in the header.
        found: u32,
    },
    /// A frame is of another kind than its place asks for.
    #[error("frame {number} is a {found} frame where a {expected} frame belongs")]
    UnexpectedKind {
        /// The frame's number.
        number: u32,
        /// The kind that belongs there.
        expected: FrameKind,
        /// The kind in the header.
        found: FrameKind,
    },
    /// The object ends, and no frame was marked as the last one.
    #[error("truncated: no frame is marked as the last one")]
    MissingLastFrame,
    /// Bytes behind the last frame.
    #[error("{bytes} bytes behind the last frame")]
    TrailingBytes {
        /// How many.
        bytes: u64,
    },
    /// A frame decompresses to another length than its header says.
    #[error("frame decompresses to {found} bytes, its header says {expected}")]
    RawLength {
        /// `raw_len` of the header.
        expected: u64,
        /// What came out.
        found: u64,
    },
    /// The codec refuses the body of a frame.
    #[error("cannot decompress a {codec} frame: {reason}")]
    Decompression {
        /// The codec.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
    /// The codec cannot compress.
    #[error("cannot compress with {codec}: {reason}")]
    Compression {
        /// The codec.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
    /// The content is not the one that was hashed when it was written.
    #[error("content has BLAKE3 {found}, recorded as {expected}")]
    ContentHash {
        /// The hash recorded.
        expected: ChunkHash,
        /// The hash of what is there.
        found: ChunkHash,
    },
    /// A structure inside a frame does not follow its format.
    #[error("malformed {what}: {problem}")]
    Malformed {
        /// The structure.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A text that is no repository id.
    #[error("`{0}` is no repository id: 32 hexadecimal digits expected")]
    InvalidRepositoryId(String),
    /// A text that is no BLAKE3 hash.
    #[error("`{0}` is no BLAKE3 hash: 64 hexadecimal digits expected")]
    InvalidChunkHash(String),
    /// The operating system gave no random bytes, or a cryptographic operation failed that cannot fail.
    #[error("the cryptographic library failed at: {0}")]
    Cryptography(&'static str),
}

impl Fault {
    /// Puts the object's name on the fault.
    pub fn of(self, object: impl Into<String>) -> FormatError {
        FormatError::new(object, self)
    }

    /// What a caller can do about it.
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
