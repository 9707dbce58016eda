//! The CRC of a record that lies in several segments.
//!
//! Segments are read one at a time, and such a record can have 1 GiB. So of the part in each segment only the first
//! bytes are kept, and the CRC of the rest: the CRCs of all parts together give that of the whole record.

use crate::wal::record::{RECORD_HEADER_SIZE, RecordHeader};

/// The bytes of a record that are in one segment, without page headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPart {
    /// At most [`RECORD_HEADER_SIZE`] bytes: the header of a record may be in two segments.
    first: Vec<u8>,
    rest_crc: u32,
    rest_bytes: usize,
}

impl RecordPart {
    /// The part with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let (first, rest) = bytes.split_at(bytes.len().min(RECORD_HEADER_SIZE));
        Self { first: first.to_vec(), rest_crc: crc32c::crc32c(rest), rest_bytes: rest.len() }
    }

    /// The number of its bytes.
    pub fn size_bytes(&self) -> usize {
        self.first.len() + self.rest_bytes
    }
}

/// Whether these are all parts of one record in their order, and its CRC is right.
pub fn parts_make_a_record<'a>(parts: impl IntoIterator<Item = &'a RecordPart>) -> bool {
    let (mut header, mut crc, mut size_bytes) = (Vec::new(), 0, 0_usize);
    for part in parts {
        let of_header = part.first.len().min(RECORD_HEADER_SIZE - header.len());
        let (begin, body) = part.first.split_at(of_header);
        header.extend_from_slice(begin);
        crc = crc32c::crc32c_append(crc, body);
        if part.rest_bytes > 0 {
            crc = crc32c::crc32c_combine(crc, part.rest_crc, part.rest_bytes);
        }
        size_bytes = size_bytes.saturating_add(part.size_bytes());
    }
    let (Some(found), Some(signed)) = (RecordHeader::parse(&header), header.get(..20)) else { return false };
    found.total_length as usize == size_bytes && crc32c::crc32c_append(crc, signed) == found.crc
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    fn record(body: usize) -> Vec<u8> {
        let mut header = vec![0_u8; RECORD_HEADER_SIZE];
        header[..4].copy_from_slice(&((RECORD_HEADER_SIZE + body) as u32).to_le_bytes());
        header[8..16].copy_from_slice(&0x0012_3456_u64.to_le_bytes());
        let body: Vec<u8> = (0..body).map(|at| (at * 7 % 251) as u8).collect();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &header[..20]);
        header[20..].copy_from_slice(&crc.to_le_bytes());
        header.extend(body);
        header
    }

    #[test]
    fn a_record_in_any_two_or_three_parts_has_its_crc() {
        for body in [0, 1, 30, 5000] {
            let whole = record(body);
            for first in (0..whole.len()).filter(|at| *at < 60 || at % 97 == 0) {
                let (before, after) = whole.split_at(first);
                assert!(parts_make_a_record([&RecordPart::of(before), &RecordPart::of(after)]), "{body} {first}");
                let (middle, last) = after.split_at(after.len() / 3);
                let three = [before, middle, last].map(RecordPart::of);
                assert!(parts_make_a_record(&three), "{body} {first}");
                assert!(!parts_make_a_record(&three[..2]), "{body} {first}: the end is missing");
            }
        }
    }

    #[test]
    fn a_bit_anywhere_is_noticed() {
        let whole = record(300);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            let (before, after) = changed.split_at(100);
            assert!(!parts_make_a_record([&RecordPart::of(before), &RecordPart::of(after)]), "{at}");
        }
        assert!(!parts_make_a_record([]));
    }
}
