//! Chunk identity: the BLAKE3 hash of a chunk's raw bytes.
//!
//! Verification, delta restore and deduplication all compare this one value. It is the hash of the raw bytes (before
//! compression and encryption), so that it can be compared with a local file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::format_error::Fault;

/// BLAKE3, 32 bytes, of a chunk's raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ChunkHash([u8; 32]);

impl ChunkHash {
    /// The hash of a whole chunk.
    pub fn of(raw: &[u8]) -> Self {
        Self(*blake3::hash(raw).as_bytes())
    }

    /// A hash read from a repository.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks that `raw` is the chunk with this hash.
    ///
    /// # Errors
    /// [`Fault::ContentHash`], with both hashes, if it is another one.
    pub fn verify(&self, raw: &[u8]) -> Result<(), Fault> {
        let found = Self::of(raw);
        if found == *self { Ok(()) } else { Err(Fault::ContentHash { expected: *self, found }) }
    }
}

impl From<blake3::Hash> for ChunkHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkHash({self})")
    }
}

impl FromStr for ChunkHash {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Fault::InvalidChunkHash(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl From<ChunkHash> for String {
    fn from(hash: ChunkHash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for ChunkHash {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

/// True if every byte is zero: such an extent is stored as a hole.
///
/// It compares 64 bytes at a time without an early exit among them, which the compiler turns into vector instructions.
/// A page of data ends the search within its first bytes.
pub fn is_all_zero(raw: &[u8]) -> bool {
    let (blocks, rest) = raw.as_chunks::<64>();
    blocks.iter().all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn hash_is_blake3_and_round_trips_as_text() {
        // The empty input's digest, from the BLAKE3 specification's test vectors.
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ChunkHash::of(b"").to_string(), text);
        assert_eq!(text.parse::<ChunkHash>().unwrap(), ChunkHash::of(b""));
        assert!("af13".parse::<ChunkHash>().is_err());
        assert!(ChunkHash::of(b"a").verify(b"b").is_err());
    }

    #[test]
    fn zero_detection_sees_every_byte() {
        for length in [0_usize, 1, 63, 64, 65, 200] {
            let mut raw = vec![0; length];
            assert!(is_all_zero(&raw));
            for position in 0..length {
                raw[position] = 1;
                assert!(!is_all_zero(&raw));
                raw[position] = 0;
            }
        }
    }
}
