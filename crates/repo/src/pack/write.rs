//! Writing a pack, frame by frame.

use bytes::Bytes;

use super::index::{PackChunk, put_frame};
use crate::codec::{Codec, Compression, Compressor, MAX_FRAME_RAW};
use crate::format_error::{Fault, FormatError};
use crate::frame::{CompressedFrame, FrameKind, FrameLocation, ObjectSealer, ObjectType, seal_tail, tail_frame_bytes};
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::manifest::{PackEntry, PackIdentity};

/// The most bytes of a pack that frames may use: offsets in manifests have 32 bits.
pub const MAX_PACK_BYTES: u64 = u32::MAX as u64;

/// The index size in bytes, before compression, at which a pack is closed. The index is one frame, which may have
/// [`MAX_FRAME_RAW`], and a reader holds all of it in memory. With tiny files the index reaches this size long before
/// the pack is large.
const INDEX_FULL_BYTES: usize = 16 << 20;

/// Returns the bytes of a pack in order. The caller compresses the frames elsewhere and uploads the bytes.
#[derive(Debug)]
pub struct PackWriter {
    sealer: ObjectSealer,
    next_number: u32,
    size_bytes: u64,
    /// CRC-32C of the bytes returned so far.
    crc32c: u32,
    /// The raw content of the index frame so far.
    index: Vec<u8>,
}

impl PackWriter {
    /// Begins a pack with this full object name. Also returns the bytes of its head frame, which are stored first.
    ///
    /// # Errors
    /// As [`ObjectSealer::new`].
    pub fn new(
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<(Self, Bytes), FormatError> {
        let (sealer, head) = ObjectSealer::new(ObjectType::Pack, name, repository, key)?;
        let writer = Self {
            sealer,
            next_number: 1,
            size_bytes: head.len() as u64,
            crc32c: crc32c::crc32c(&head),
            index: Vec::new(),
        };
        Ok((writer, head.into()))
    }

    /// The object's full name.
    pub fn name(&self) -> &str {
        self.sealer.name()
    }

    /// Bytes returned so far, including the head.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Data frames so far.
    pub fn frames(&self) -> u32 {
        self.next_number - 1
    }

    /// Whether a pack of this target size should be finished before another frame is appended.
    pub fn is_full(&self, target_bytes: u64) -> bool {
        self.size_bytes >= target_bytes || self.index.len() >= INDEX_FULL_BYTES
    }

    /// Gives a data frame its place: returns the place and the bytes. The chunks are those in the frame, in order of
    /// their offsets.
    ///
    /// # Errors
    /// [`Fault::UnexpectedKind`] for a frame that is not a data frame, [`Fault::TooLong`] if the frame would exceed
    /// [`MAX_PACK_BYTES`], or its chunks the largest index. The writer is then unchanged, and the frame is lost. After
    /// an error of [`ObjectSealer::seal`] the writer cannot be used any more.
    pub fn append(
        &mut self,
        frame: CompressedFrame,
        chunks: &[PackChunk],
    ) -> Result<(FrameLocation, Bytes), FormatError> {
        let named = |fault: Fault| fault.of(self.sealer.name());
        if frame.kind() != FrameKind::Data {
            let (number, found) = (self.next_number, frame.kind());
            return Err(named(Fault::UnexpectedKind { number, expected: FrameKind::Data, found }));
        }
        let length = frame.sealed_bytes(self.sealer.is_encrypted()) as u64;
        let end = self.size_bytes + length;
        if end > MAX_PACK_BYTES {
            return Err(named(Fault::TooLong { what: "pack", bytes: end, limit: MAX_PACK_BYTES }));
        }
        let location = FrameLocation { offset: self.size_bytes as u32, length: length as u32 };
        let index_bytes = self.index.len();
        put_frame(&mut self.index, location, frame.raw_len(), chunks);
        if self.index.len() > MAX_FRAME_RAW as usize {
            let bytes = self.index.len() as u64;
            self.index.truncate(index_bytes);
            return Err(named(Fault::TooLong { what: "pack index", bytes, limit: u64::from(MAX_FRAME_RAW) }));
        }
        let sealed = self.sealer.seal(self.next_number, false, frame)?;
        debug_assert_eq!(sealed.len() as u64, length);
        self.next_number += 1;
        self.size_bytes = end;
        self.crc32c = with_frame(self.crc32c, &sealed).map_err(|fault| fault.of(self.sealer.name()))?;
        Ok((location, sealed.into()))
    }

    /// The index and tail, which are stored last, and the pack as a manifest names it.
    ///
    /// # Errors
    /// Those of [`Compressor::new`], [`Compressor::compress`] and [`ObjectSealer::seal`].
    pub fn finish(self) -> Result<(Bytes, PackEntry), FormatError> {
        let frame = Compressor::new(Compression::of(Codec::Zstd))
            .and_then(|mut compressor| compressor.compress(FrameKind::Index, &self.index))
            .map_err(|fault| fault.of(self.sealer.name()))?;
        let mut end = self.sealer.seal(self.next_number, false, frame)?;
        end.reserve_exact(tail_frame_bytes(self.sealer.is_encrypted()));
        end.extend_from_slice(&seal_tail(&self.sealer, self.next_number + 1, self.size_bytes)?);
        let entry = PackEntry {
            name: self.sealer.name().to_owned(),
            size_bytes: self.size_bytes + end.len() as u64,
            live_bytes: 0,
            identity: Some(PackIdentity { salt: self.sealer.salt(), crc32c: crc32c::crc32c_append(self.crc32c, &end) }),
        };
        Ok((end.into(), entry))
    }
}

/// The CRC-32C of the bytes up to the end of this frame. The CRC-32C of its body is in its header, so the body is not
/// read again.
fn with_frame(before: u32, frame: &[u8]) -> Result<u32, Fault> {
    let header = FrameHeader::parse(frame, 0)?;
    let before = crc32c::crc32c_append(before, frame.get(..HEADER_BYTES).unwrap_or_default());
    Ok(crc32c::crc32c_combine(before, header.body_crc32c, header.stored_len as usize))
}
