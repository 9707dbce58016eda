//! The codecs of frames: their names, their choice, and bounded decompression.
//!
//! [`Compression`] is what a user writes (`zstd:3`), [`Codec`] what a frame header names. Every frame is compressed on
//! its own, so that any frame can be read alone, and all of them in parallel. Decompression writes into a buffer of the
//! length that the header announces and can never produce more. A header can announce at most [`MAX_FRAME_RAW`].

mod decompressor;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::format_error::Fault;

pub use crate::frame::Compressor;
pub(crate) use decompressor::check_raw_len;
pub use decompressor::{decompress, decompress_into};

/// The most raw bytes that one frame may contain: 64 MiB. Frames contain 1 to 4 MiB of data. A pack's index or a file
/// with very many extents may need more, and every reader has this much memory.
pub const MAX_FRAME_RAW: u32 = 64 << 20;

/// The most bytes that a frame's body may have as stored: [`MAX_FRAME_RAW`] and 1 MiB, which is more than any codec
/// adds to incompressible bytes.
pub const MAX_FRAME_STORED: u32 = MAX_FRAME_RAW + (1 << 20);

/// How a frame's body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// Stored without compression.
    None,
    /// One zstd frame.
    Zstd,
    /// One LZ4 block, without a size in front.
    Lz4,
    /// One gzip member.
    Gzip,
}

impl Codec {
    /// All codecs.
    pub const ALL: [Self; 4] = [Self::None, Self::Zstd, Self::Lz4, Self::Gzip];

    /// The number for a frame header.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zstd => 1,
            Self::Lz4 => 2,
            Self::Gzip => 3,
        }
    }

    /// The codec with this number in a frame header; `None` for an unknown number.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Zstd),
            2 => Some(Self::Lz4),
            3 => Some(Self::Gzip),
            _ => None,
        }
    }

    /// The name in configurations: `none`, `zstd`, `lz4`, `gzip`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
        }
    }

    /// The extension of a WAL object's name, without the dot: `raw`, `zst`, `lz4`, `gz`.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::None => "raw",
            Self::Zstd => "zst",
            Self::Lz4 => "lz4",
            Self::Gzip => "gz",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = CompressionParseError;

    fn from_str(text: &str) -> Result<Self, CompressionParseError> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == text)
            .ok_or_else(|| CompressionParseError { text: text.to_owned() })
    }
}

impl Serialize for Codec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Codec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A codec and its level, as a user chooses them: `zstd:3`, `zstd`, `zstd:-5`, `lz4`, `gzip:6`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Compression {
    codec: Codec,
    level: i32,
}

impl Compression {
    /// No compression.
    pub const NONE: Self = Self { codec: Codec::None, level: 0 };

    /// A codec at its default level: zstd 3, gzip 6; lz4 and none have no levels.
    pub const fn of(codec: Codec) -> Self {
        let level = match codec {
            Codec::Zstd => 3,
            Codec::Gzip => 6,
            Codec::None | Codec::Lz4 => 0,
        };
        Self { codec, level }
    }

    /// A codec at a level: zstd -7 to 22 without 0 (negative levels are faster than 1), gzip 1 to 9.
    ///
    /// # Errors
    /// [`CompressionParseError`] for any other level, and for every level of a codec without levels.
    pub fn new(codec: Codec, level: i32) -> Result<Self, CompressionParseError> {
        let allowed = match codec {
            Codec::Zstd => (-7..=22).contains(&level) && level != 0,
            Codec::Gzip => (1..=9).contains(&level),
            Codec::None | Codec::Lz4 => false,
        };
        if allowed {
            Ok(Self { codec, level })
        } else {
            Err(CompressionParseError { text: format!("{codec}:{level}") })
        }
    }

    /// The codec, without its level.
    pub const fn codec(self) -> Codec {
        self.codec
    }

    /// The level; 0 for codecs without levels.
    pub const fn level(self) -> i32 {
        self.level
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::of(Codec::Zstd)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codec {
            Codec::Zstd | Codec::Gzip => write!(f, "{}:{}", self.codec, self.level),
            Codec::None | Codec::Lz4 => write!(f, "{}", self.codec),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionParseError;

    fn from_str(text: &str) -> Result<Self, CompressionParseError> {
        let wrong = || CompressionParseError { text: text.to_owned() };
        match text.split_once(':') {
            None => text.parse().map(Self::of),
            Some((codec, level)) => {
                let codec = codec.parse().map_err(|_| wrong())?;
                Self::new(codec, level.parse().map_err(|_| wrong())?).map_err(|_| wrong())
            }
        }
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        compression.to_string()
    }
}

impl TryFrom<String> for Compression {
    type Error = CompressionParseError;

    fn try_from(text: String) -> Result<Self, CompressionParseError> {
        text.parse()
    }
}

/// The text is not a compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a compression: use zstd:N (N from -7 to 22 without 0), lz4, gzip:N (N from 1 to 9) or none")]
pub struct CompressionParseError {
    text: String,
}

/// The length of a frame's raw bytes, if that is within a frame's limit.
pub(crate) fn checked_raw_len(raw: &[u8]) -> Result<u32, Fault> {
    u32::try_from(raw.len()).ok().filter(|length| *length <= MAX_FRAME_RAW).ok_or(Fault::TooLong {
        what: "frame",
        bytes: raw.len() as u64,
        limit: u64::from(MAX_FRAME_RAW),
    })
}

#[cfg(test)]
mod tests;
