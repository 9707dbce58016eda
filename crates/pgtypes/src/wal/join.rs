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

/// Reads the record between two neighbouring segments of one path of timelines.
///
/// `None` if the two parts do not fit together, if the record is not one that is reported, if its CRC is wrong, or if
/// it continues in a third segment.
pub fn join(tail: &TailFragment, head: &HeadContinuation, version: PgVersion) -> Option<Event> {
    if tail.in_segment.checked_add(head.remaining)? != tail.total_length {
        return None;
    }
    let end_lsn = head.end_lsn?;
    let mut record = tail.bytes.clone();
    if record.len() == tail.in_segment as usize {
        record.extend_from_slice(&head.bytes);
    }
    if record.len() == tail.total_length as usize && !crc_holds(&record) {
        return None;
    }
    Event::read(&record, tail.lsn, end_lsn, version)
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
