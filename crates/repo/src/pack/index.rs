//! The index at the end of a pack: every frame, every chunk in it, and the extent it was stored for.

use super::carry::FrameShift;
use crate::chunk::ChunkHash;
use crate::cipher::TAG_BYTES;
use crate::codec::MAX_FRAME_RAW;
use crate::format_error::{Fault, FormatError};
use crate::frame::{
    FrameKind, FrameLocation, HEAD_FRAME_BYTES, HEADER_BYTES, ObjectOpener, ObjectType, TailPart, locate_last_part,
};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::varint::{Reader, put_bytes, put_varint};

/// The size of the shortest chunk entry, in bytes: four varints of one byte and the hash.
const SHORTEST_CHUNK: usize = 4 + 32;

/// A chunk in a frame, and the first extent for which it was stored (others may share it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackChunk {
    /// The offset of the chunk in the frame's raw bytes.
    pub offset: u32,
    /// The length of the chunk in bytes.
    pub length: u32,
    /// The hash of the chunk's raw bytes.
    pub hash: ChunkHash,
    /// The file of that extent, relative to the data directory; raw bytes.
    pub path: Vec<u8>,
    /// The number of the extent in the file, from 0.
    pub extent: u64,
}

/// A data frame of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFrame {
    /// The frame's place in the pack.
    pub location: FrameLocation,
    /// Bytes after decompression.
    pub raw_len: u32,
    /// The frame's chunks, in order of their offsets.
    pub chunks: Vec<PackChunk>,
}

/// The index of a pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackIndex {
    frames: Vec<PackFrame>,
}

impl PackIndex {
    /// The data frames in order. They follow each other without a gap, from the head to the index.
    pub fn frames(&self) -> &[PackFrame] {
        &self.frames
    }

    /// Reads the index of a pack held in memory.
    ///
    /// # Errors
    /// Those of [`ObjectOpener::new`] and [`PackIndex::from_end`].
    pub fn parse(
        name: &str,
        object: &[u8],
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, FormatError> {
        let opener = ObjectOpener::new(ObjectType::Pack, name, object, repository, key)?;
        match Self::from_end(&opener, object, object.len() as u64)? {
            TailPart::Complete(index) => Ok(index),
            TailPart::Fetch(range) => {
                Err(Fault::Truncated { needed: range.end, available: object.len() as u64 }.of(name))
            }
        }
    }

    /// Reads the index from the last bytes of a pack of the given size, or returns which bytes to fetch.
    ///
    /// # Errors
    /// [`Fault::Truncated`] if `end` is shorter than a tail frame. [`Fault::UnexpectedKind`],
    /// [`Fault::MissingLastFrame`] or [`Fault::FrameOrder`] if the pack does not end with an index and a tail.
    /// [`Fault::Malformed`] if the tail does not point to the index, or the index does not describe the frames before
    /// it. [`Fault::TooLong`] for an index of more than [`MAX_FRAME_RAW`]. Those of [`ObjectOpener::open_frame`].
    pub fn from_end(opener: &ObjectOpener, end: &[u8], object_size: u64) -> Result<TailPart<Self>, FormatError> {
        Self::from_end_at_most(opener, end, object_size, MAX_FRAME_RAW)
    }

    /// As [`PackIndex::from_end`], for an index of at most `most_raw` bytes after decompression. A larger one is
    /// refused before it is fetched or opened.
    ///
    /// # Errors
    /// Those of [`PackIndex::from_end`]; [`Fault::TooLong`] for a larger index.
    pub fn from_end_at_most(
        opener: &ObjectOpener,
        end: &[u8],
        object_size: u64,
        most_raw: u32,
    ) -> Result<TailPart<Self>, FormatError> {
        match locate_last_part(opener, end, object_size, FrameKind::Index, most_raw.min(MAX_FRAME_RAW))? {
            TailPart::Fetch(range) => Ok(TailPart::Fetch(range)),
            TailPart::Complete((index_offset, frame)) => {
                let index = Self::decode(&frame.raw, index_offset).map_err(|fault| fault.of(opener.name()))?;
                Ok(TailPart::Complete(index))
            }
        }
    }

    /// Whether a pack with this index has the same frames, of the same content, as one with the other; `encrypted` and
    /// `other_encrypted` say whether they are encrypted. Frames that name no chunk say nothing of their content.
    pub fn has_frames_of(&self, encrypted: bool, other: &Self, other_encrypted: bool) -> bool {
        let body = |frame: &PackFrame, encrypted| {
            (frame.location.length as usize).checked_sub(if encrypted { TAG_BYTES } else { 0 })
        };
        self.frames.len() == other.frames.len()
            && self.frames.iter().zip(&other.frames).all(|(one, two)| {
                one.raw_len == two.raw_len
                    && one.chunks == two.chunks
                    && body(one, encrypted) == body(two, other_encrypted)
            })
    }

    /// The chunk at this place, if the index names one.
    pub fn chunk(&self, location: FrameLocation, offset: u32, length: u32) -> Option<&PackChunk> {
        let at = self.frames.binary_search_by_key(&location.offset, |frame| frame.location.offset).ok()?;
        let frame = self.frames.get(at).filter(|frame| frame.location == location)?;
        let first = frame.chunks.partition_point(|chunk| chunk.offset < offset);
        let mut there = frame.chunks.get(first..)?.iter().take_while(|chunk| chunk.offset == offset);
        there.find(|chunk| chunk.length == length)
    }

    /// The raw bytes of the same index of frames that have moved.
    pub(super) fn moved(&self, shift: &FrameShift) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        for frame in &self.frames {
            put_frame(&mut raw, shift.place(frame.location)?, frame.raw_len, &frame.chunks);
        }
        Some(raw)
    }

    /// Decodes the raw bytes of an index frame that is at `index_offset` of its pack.
    pub(super) fn decode(raw: &[u8], index_offset: u64) -> Result<Self, Fault> {
        let mut reader = Reader::new("pack index", raw);
        let mut frames = Vec::new();
        let mut next = HEAD_FRAME_BYTES as u64;
        while !reader.is_empty() {
            let location = FrameLocation {
                offset: reader.varint_u32("frame offset")?,
                length: reader.varint_u32("frame length")?,
            };
            if u64::from(location.offset) != next || (location.length as usize) < HEADER_BYTES {
                return Err(reader.malformed(format!("a frame at {location:?} where {next} was expected")));
            }
            next = location.range().end;
            let raw_len = reader.varint_u32("raw length")?;
            let count = reader.count(SHORTEST_CHUNK)?;
            let chunks = (0..count).map(|_| read_chunk(&mut reader, raw_len)).collect::<Result<_, _>>()?;
            frames.push(PackFrame { location, raw_len, chunks });
        }
        if next != index_offset {
            return Err(reader.malformed(format!("frames end at {next}, the index is at {index_offset}")));
        }
        Ok(Self { frames })
    }
}

fn read_chunk(reader: &mut Reader<'_>, raw_len: u32) -> Result<PackChunk, Fault> {
    let chunk = PackChunk {
        offset: reader.varint_u32("chunk offset")?,
        length: reader.varint_u32("chunk length")?,
        hash: ChunkHash::from_bytes(reader.array()?),
        path: reader.bytes()?.to_vec(),
        extent: reader.varint()?,
    };
    if u64::from(chunk.offset) + u64::from(chunk.length) > u64::from(raw_len) {
        return Err(reader.malformed("a chunk reaches beyond its frame"));
    }
    Ok(chunk)
}

pub(super) fn put_frame(out: &mut Vec<u8>, location: FrameLocation, raw_len: u32, chunks: &[PackChunk]) {
    put_varint(out, u64::from(location.offset));
    put_varint(out, u64::from(location.length));
    put_varint(out, u64::from(raw_len));
    put_varint(out, chunks.len() as u64);
    for PackChunk { offset, length, hash, path, extent } in chunks {
        put_varint(out, u64::from(*offset));
        put_varint(out, u64::from(*length));
        out.extend_from_slice(hash.as_bytes());
        put_bytes(out, path);
        put_varint(out, *extent);
    }
}
