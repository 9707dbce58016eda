//! The facts about a WAL file that can be read without the file.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bounds::FACTS_BYTES;
use crate::chunk::ChunkHash;
use crate::codec::Codec;
use crate::format_error::Fault;

/// The content of a facts frame, stored as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WalObjectFacts {
    /// The file's name in PostgreSQL.
    pub file_name: String,
    /// The file's length in bytes.
    pub raw_len: u64,
    /// The hash of the whole file.
    pub blake3: ChunkHash,
    /// What the archiver learnt from the file: a JSON object, empty if it learnt nothing. Readers use the fields they
    /// know.
    #[serde(default)]
    pub facts: Value,
}

impl WalObjectFacts {
    /// The facts about a file whose bytes are in memory.
    pub fn of(file_name: &str, raw: &[u8], facts: Value) -> Self {
        Self { file_name: file_name.to_owned(), raw_len: raw.len() as u64, blake3: ChunkHash::of(raw), facts }
    }

    /// The content of the facts frame. What the archiver learnt is left out if it is longer than a reader accepts. So a
    /// segment full of restore points is archived all the same; its content can be read from the segment itself.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the facts cannot be written as JSON, which no JSON value causes.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        let encoded = self.encode_all()?;
        if encoded.len() <= FACTS_BYTES as usize {
            return Ok(encoded);
        }
        let note = json!({ "note": "the segment has more restore points and checkpoints than are listed here" });
        let without =
            Self { file_name: self.file_name.clone(), raw_len: self.raw_len, blake3: self.blake3, facts: note };
        without.encode_all()
    }

    fn encode_all(&self) -> Result<Vec<u8>, Fault> {
        serde_json::to_vec(self).map_err(|error| Fault::malformed("WAL facts", error.to_string()))
    }

    /// Reads the facts and checks that the object named `object` belongs to this file. In a repository without
    /// encryption, only this check finds two objects that were swapped.
    pub(super) fn decode(raw: &[u8], object: &str) -> Result<Self, Fault> {
        let facts: Self =
            serde_json::from_slice(raw).map_err(|error| Fault::malformed("WAL facts", error.to_string()))?;
        let last = object.rsplit('/').next().unwrap_or_default();
        let last = last.strip_suffix(".enc").unwrap_or(last);
        let named = last.rsplit_once('.').is_some_and(|(file, extension)| {
            file == facts.file_name && Codec::ALL.iter().any(|codec| codec.extension() == extension)
        });
        if named { Ok(facts) } else { Err(Fault::WrongFileName { found: facts.file_name }) }
    }
}
