//! One extent: the place of its bytes, and its form in a manifest.

use crate::chunk::ChunkHash;
use crate::codec::{MAX_FRAME_RAW, MAX_FRAME_STORED};
use crate::format_error::Fault;
use crate::frame::{FrameLocation, HEADER_BYTES};
use crate::varint::{Reader, put_varint};

/// The place of the bytes of one extent. Extents follow each other in the file without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The hash of the extent's raw bytes.
    pub hash: ChunkHash,
    /// The pack's position in the list of packs.
    pub pack: u32,
    /// The offset of the frame in the pack.
    pub frame_offset: u32,
    /// Length of the frame with its header; 0 for a hole.
    pub frame_length: u32,
    /// The offset of the extent in the frame's raw bytes.
    pub offset: u32,
    /// Length of the extent in bytes.
    pub length: u32,
}

impl Extent {
    /// An extent in a frame of a pack.
    pub fn stored(hash: ChunkHash, pack: u32, frame: FrameLocation, offset: u32, length: u32) -> Self {
        Self { hash, pack, frame_offset: frame.offset, frame_length: frame.length, offset, length }
    }

    /// An extent of zeros, which is not stored. `hash` is that of `length` zeros.
    pub fn hole(hash: ChunkHash, length: u32) -> Self {
        Self { hash, pack: 0, frame_offset: 0, frame_length: 0, offset: 0, length }
    }

    /// Whether the extent is all zeros and not stored.
    pub fn is_hole(&self) -> bool {
        self.frame_length == 0
    }

    /// The extent's bytes in the raw bytes of its frame.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if `raw` ends before the extent does, [`Fault::ContentHash`] if the bytes have another
    /// hash.
    pub fn verified_in<'r>(&self, raw: &'r [u8]) -> Result<&'r [u8], Fault> {
        let start = self.offset as usize;
        let end = start.saturating_add(self.length as usize);
        let found = raw.get(start..end).ok_or(Fault::Truncated { needed: end as u64, available: raw.len() as u64 })?;
        self.hash.verify(found)?;
        Ok(found)
    }

    /// The frame's place in its pack.
    pub fn frame(&self) -> FrameLocation {
        FrameLocation { offset: self.frame_offset, length: self.frame_length }
    }

    /// Replaces the number of the pack by the one that it has in another list.
    pub(super) fn renumber(&mut self, numbers: &[Option<u32>]) -> Result<(), Fault> {
        if !self.is_hole() {
            let number = numbers.get(self.pack as usize).copied().flatten();
            self.pack = number.ok_or_else(|| {
                Fault::malformed("referenced file entry", format!("pack number {} is not in the table", self.pack))
            })?;
        }
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let Self { hash, pack, frame_offset, frame_length, offset, length } = self;
        for field in [pack, frame_offset, frame_length, offset, length] {
            put_varint(out, u64::from(*field));
        }
        out.extend_from_slice(hash.as_bytes());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(Self {
            pack: reader.varint_u32("pack number")?,
            frame_offset: reader.varint_u32("frame offset")?,
            frame_length: reader.varint_u32("frame length")?,
            offset: reader.varint_u32("offset in the frame")?,
            length: reader.varint_u32("extent length")?,
            hash: ChunkHash::from_bytes(reader.array()?),
        })
    }

    /// Makes the checks that do not need the list of packs, which comes last in a manifest.
    pub(super) fn check_shape(&self) -> Result<(), String> {
        if self.length == 0 || self.length > MAX_FRAME_RAW {
            return Err(format!("an extent of {} bytes", self.length));
        }
        if self.is_hole() {
            let placed = self.pack != 0 || self.frame_offset != 0 || self.offset != 0;
            return if placed { Err("a hole with a place in a pack".to_owned()) } else { Ok(()) };
        }
        if u64::from(self.frame_length) > HEADER_BYTES as u64 + u64::from(MAX_FRAME_STORED) {
            return Err(format!("a frame of {} bytes", self.frame_length));
        }
        if u64::from(self.offset) + u64::from(self.length) > u64::from(MAX_FRAME_RAW) {
            return Err("an extent beyond the end of its frame".to_owned());
        }
        Ok(())
    }
}
