//! Little-endian numbers at fixed offsets of a slice that may be too short.
//!
//! Every structure here comes from a disk, a network or a bucket, so nothing is indexed: a read past the end is `None`.
//! All platforms for which PostgreSQL is packaged today write little-endian, and WAL and data files do not move between
//! platforms, so one byte order is enough. A file from a big-endian machine fails its version check.

pub(crate) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The two bytes at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

/// The four bytes at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// The eight bytes at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The eight bytes at `offset`, with a sign.
pub(crate) fn i64_at(bytes: &[u8], offset: usize) -> Option<i64> {
    bytes.get(offset..)?.first_chunk().map(|b| i64::from_le_bytes(*b))
}
