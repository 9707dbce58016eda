//! The frames of an object in order, as its bytes arrive.

use bytes::{Bytes, BytesMut};
use holdfast_repo::Fault;
use holdfast_repo::frame::{FrameHeader, HEADER_BYTES};
use holdfast_store::ObjectName;

use crate::error::{Error, ResultExt};
use crate::repository::{Repository, object_name};

/// The bytes of one request: enough to hide the latency, and few enough to read several objects at once.
pub(super) const PIECE_BYTES: u64 = 8 << 20;

/// The offset of a frame in its object, and the frame.
pub(super) type Placed = (u64, Bytes);

/// Reads an object frame by frame.
pub(super) struct FrameStream<'a> {
    repository: &'a Repository,
    object: ObjectName,
    size_bytes: u64,
    fetched: u64,
    /// The offset in the object of the first byte of the buffer.
    at: u64,
    buffer: BytesMut,
    crc32c: u32,
}

impl<'a> FrameStream<'a> {
    pub(super) fn new(repository: &'a Repository, name: &str, size_bytes: u64) -> Result<Self, Error> {
        let object = object_name(name)?;
        Ok(Self { repository, object, size_bytes, fetched: 0, at: 0, buffer: BytesMut::new(), crc32c: 0 })
    }

    /// Sends another request, and returns the frames that are complete now; `None` after the end of the object.
    ///
    /// # Errors
    /// What is wrong with a header or the length, and errors of the store.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Placed>>, Error> {
        if self.fetched >= self.size_bytes {
            return Ok(None);
        }
        let named = |fault: Fault| fault.of(self.object.as_ref());
        let range = self.fetched..self.size_bytes.min(self.fetched + PIECE_BYTES);
        let reading = || format!("reading bytes {} to {} of {}", range.start, range.end, self.object);
        let piece = self.repository.store().get_range(&self.object, range.clone()).await.doing(reading)?;
        if piece.len() as u64 != range.end - range.start {
            let fault = Fault::Truncated { needed: range.end - range.start, available: piece.len() as u64 };
            return Err(named(fault)).doing(reading);
        }
        self.fetched = range.end;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &piece);
        self.buffer.extend_from_slice(&piece);
        let mut frames = Vec::new();
        while self.buffer.len() >= HEADER_BYTES {
            let header = FrameHeader::parse(&self.buffer, self.at).map_err(named)?;
            let length = header.frame_bytes() as usize;
            if self.buffer.len() < length {
                break;
            }
            frames.push((self.at, self.buffer.split_to(length).freeze()));
            self.at += length as u64;
        }
        if self.fetched == self.size_bytes && !self.buffer.is_empty() {
            let needed = FrameHeader::parse(&self.buffer, self.at).map_or(HEADER_BYTES as u64, |it| it.frame_bytes());
            return Err(named(Fault::Truncated { needed, available: self.buffer.len() as u64 }).into());
        }
        Ok(Some(frames))
    }

    /// The CRC-32C of all bytes so far.
    pub(super) fn crc32c(&self) -> u32 {
        self.crc32c
    }
}
