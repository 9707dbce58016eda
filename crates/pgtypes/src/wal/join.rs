//! The record that crosses from one segment into the next.
//!
//! Segments are scanned one at a time, in any order, often by different processes. So that the record between two of
//! them is not lost, the facts of a segment keep the beginning of the record that it leaves unfinished and the end of
//! the record that the segment before began. `join` makes one record of the two parts. At most 1024 bytes are kept on
//! each side: longer records have their times and transactions at the beginning, and only the CRC check needs all
//! bytes.

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::version::PgVersion;
use crate::wal::ddl_record::DdlRecord;
use crate::wal::record::{Event, crc_holds};

/// The number of bytes of a record that are kept on each side of a segment boundary.
pub const JOIN_BYTES: usize = 1024;

/// The rest of a record that began before this segment; it is at the segment's beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadContinuation {
    /// Bytes of the record from the beginning of this segment.
    pub remaining: u32,
    /// Where the record ends; `None` if it continues in the segment after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<Lsn>,
    /// The first of these bytes, without page headers.
    #[serde(with = "hex_text")]
    pub bytes: Vec<u8>,
}

/// The beginning of a record that ends in the next segment; it is at this segment's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailFragment {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Bytes of the whole record.
    pub total_length: u32,
    /// Bytes of it in this segment.
    pub in_segment: u32,
    /// The first of these bytes, without page headers.
    #[serde(with = "hex_text")]
    pub bytes: Vec<u8>,
}

/// A record in two or more neighbouring segments of one path of timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrossingRecord {
    lsn: Lsn,
    total_length: u32,
    /// Bytes of it in the segments so far; `None` if only the next segment says how many.
    passed: Option<u32>,
    /// The first of these bytes.
    bytes: Vec<u8>,
    end_lsn: Option<Lsn>,
}

impl CrossingRecord {
    /// The record that begins at a segment's end.
    pub fn begin(tail: &TailFragment) -> Self {
        let TailFragment { lsn, total_length, in_segment, bytes } = tail;
        let (lsn, total_length, passed, bytes) = (*lsn, *total_length, Some(*in_segment), bytes.clone());
        Self { lsn, total_length, passed, bytes, end_lsn: None }
    }

    /// Adds its part in the next segment. `None` if that does not fit, or if the CRC of the whole record is wrong.
    #[must_use]
    pub fn continue_with(mut self, head: &HeadContinuation) -> Option<Self> {
        let passed = self.total_length.checked_sub(head.remaining)?;
        if self.end_lsn.is_some() || self.passed.is_some_and(|expected| expected != passed) {
            return None;
        }
        if self.bytes.len() == passed as usize {
            self.bytes.extend_from_slice(&head.bytes);
        }
        (self.passed, self.end_lsn) = (None, head.end_lsn);
        if self.is_whole() && !crc_holds(&self.bytes) { None } else { Some(self) }
    }

    /// Where it begins.
    pub const fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Whether its end was added.
    pub const fn has_ended(&self) -> bool {
        self.end_lsn.is_some()
    }

    /// Whether all its bytes are known.
    pub const fn is_whole(&self) -> bool {
        self.bytes.len() == self.total_length as usize
    }

    /// Its content, if it is one that is reported and its end was added.
    pub fn event(&self, version: PgVersion) -> Option<Event> {
        Event::read(&self.bytes, self.lsn, self.end_lsn?, version)
    }

    /// What it tells about DDL, if its end was added, and where it ends.
    pub fn ddl(&self, version: PgVersion) -> Option<(DdlRecord, Lsn)> {
        DdlRecord::read(&self.bytes, version).zip(self.end_lsn)
    }
}

/// Reads the record between two neighbouring segments of one path of timelines.
///
/// `None` if the two parts do not fit together, if the record is not one that is reported, if its CRC is wrong, or if
/// it continues in a third segment.
pub fn join(tail: &TailFragment, head: &HeadContinuation, version: PgVersion) -> Option<Event> {
    CrossingRecord::begin(tail).continue_with(head)?.event(version)
}

/// Bytes as hexadecimal text in JSON.
mod hex_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
