//! Carries a pack from one repository to another: each frame is opened with the key of the first one and sealed with
//! the key of the second one. It stays compressed as it is.
//!
//! The numbers, the order and the content of the frames stay the same. If both repositories are encrypted, or neither
//! is, the places of the frames also stay the same. Otherwise each frame gains or loses its authentication tag:
//! [`FrameShift`] gives its new place, and the index is written again.

use bytes::Bytes;

use super::index::PackIndex;
use crate::cipher::TAG_BYTES;
use crate::codec::{Codec, Compression, Compressor};
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameHeader, FrameKind, FrameLocation, HEAD_FRAME_BYTES, ObjectOpener, ObjectSealer, ObjectType};
use crate::frame::{seal_tail, tail_frame_bytes};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::manifest::{PackEntry, PackIdentity};

/// The new places of the frames of a carried pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameShift {
    from_encrypted: bool,
    to_encrypted: bool,
    /// The old offsets of the data frames in bytes, ascending; empty if nothing moves.
    offsets: Vec<u32>,
}

impl FrameShift {
    /// The shift between a pack with this index and the carried pack in the other repository.
    pub fn of_index(index: &PackIndex, from_encrypted: bool, to_encrypted: bool) -> Self {
        let offsets = index.frames().iter().map(|frame| frame.location.offset);
        let offsets = if from_encrypted == to_encrypted { Vec::new() } else { offsets.collect() };
        Self { from_encrypted, to_encrypted, offsets }
    }

    /// Whether every frame stays where it is.
    pub fn is_none(&self) -> bool {
        self.from_encrypted == self.to_encrypted
    }

    /// The new place of a frame; `None` for a frame that is not in the pack.
    pub fn place(&self, location: FrameLocation) -> Option<FrameLocation> {
        if self.is_none() {
            return Some(location);
        }
        let before = self.offsets.binary_search(&location.offset).ok()?;
        let (tag, tags) = (TAG_BYTES as u32, u32::try_from(before * TAG_BYTES).ok()?);
        let FrameLocation { offset, length } = location;
        Some(if self.to_encrypted {
            FrameLocation { offset: offset.checked_add(tags)?, length: length.checked_add(tag)? }
        } else {
            FrameLocation { offset: offset.checked_sub(tags)?, length: length.checked_sub(tag)? }
        })
    }
}

/// Takes the frames of a stored pack in order, and returns those of the new one.
#[derive(Debug)]
pub struct PackCarrier {
    opener: ObjectOpener,
    sealer: ObjectSealer,
    next_number: u32,
    read_bytes: u64,
    size_bytes: u64,
    crc32c: u32,
    shift: FrameShift,
    index_at: Option<u64>,
    is_whole: bool,
}

impl PackCarrier {
    /// Begins a pack with this full name in the repository with this id and key. Also returns its head, which is stored
    /// first. With `salt`, the result is again a pack that was sealed with this salt before
    /// ([`ObjectSealer::seal_again`]).
    ///
    /// # Errors
    /// Those of [`ObjectSealer::new`] and [`ObjectSealer::seal_again`].
    pub fn new(
        opener: ObjectOpener,
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
        salt: Option<[u8; 32]>,
    ) -> Result<(Self, Bytes), FormatError> {
        let (sealer, head) = match salt {
            None => ObjectSealer::new(ObjectType::Pack, name, repository, key)?,
            Some(salt) => ObjectSealer::seal_again(ObjectType::Pack, name, repository, key, salt)?,
        };
        let shift = FrameShift {
            from_encrypted: opener.is_encrypted(),
            to_encrypted: sealer.is_encrypted(),
            offsets: Vec::new(),
        };
        let carrier = Self {
            opener,
            sealer,
            next_number: 1,
            read_bytes: HEAD_FRAME_BYTES as u64,
            size_bytes: head.len() as u64,
            crc32c: crc32c::crc32c(&head),
            shift,
            index_at: None,
            is_whole: false,
        };
        Ok((carrier, head.into()))
    }

    /// The opener of the pack that is carried.
    pub fn opener(&self) -> &ObjectOpener {
        &self.opener
    }

    /// Carries the next frame after the head; `bytes` is exactly this frame.
    ///
    /// # Errors
    /// [`Fault::FrameOrder`] or [`Fault::UnexpectedKind`] for a frame that is in a wrong place, [`Fault::TooLong`] if
    /// the new pack would be too long for an offset, [`Fault::Malformed`] for an index that does not match its frames.
    /// Those of [`ObjectOpener::unseal_frame`], [`ObjectSealer::seal`] and [`PackIndex::from_end`].
    pub fn carry(&mut self, bytes: &[u8]) -> Result<Bytes, FormatError> {
        let source = |fault: Fault| fault.of(self.opener.name());
        let header = FrameHeader::parse(bytes, self.read_bytes).map_err(source)?;
        let FrameHeader { number, kind, last, .. } = header;
        if number != self.next_number || self.is_whole || last != (kind == FrameKind::Tail) {
            return Err(source(Fault::malformed("pack", format!("frame {number} is not in its place"))));
        }
        let expected = if self.index_at.is_some() { FrameKind::Tail } else { FrameKind::Data };
        let sealed = match kind {
            FrameKind::Data if self.index_at.is_none() => {
                let offset = u32::try_from(self.read_bytes).map_err(|_| {
                    source(Fault::TooLong { what: "pack", bytes: self.read_bytes, limit: u64::from(u32::MAX) })
                })?;
                if !self.shift.is_none() {
                    self.shift.offsets.push(offset);
                }
                self.sealer.seal(number, false, self.opener.unseal_frame(bytes)?)?
            }
            FrameKind::Index if self.index_at.is_none() => {
                self.index_at = Some(self.size_bytes);
                if self.shift.is_none() {
                    self.sealer.seal(number, false, self.opener.unseal_frame(bytes)?)?
                } else {
                    self.seal_index(number, bytes)?
                }
            }
            FrameKind::Tail => match self.index_at {
                Some(index_at) => {
                    self.opener.unseal_frame(bytes)?;
                    self.is_whole = true;
                    seal_tail(&self.sealer, number, index_at)?
                }
                None => return Err(source(Fault::UnexpectedKind { number, expected, found: kind })),
            },
            found => return Err(source(Fault::UnexpectedKind { number, expected, found })),
        };
        self.next_number += 1;
        self.read_bytes += bytes.len() as u64;
        self.size_bytes += sealed.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &sealed);
        Ok(sealed.into())
    }

    fn seal_index(&self, number: u32, bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
        let frame = self.opener.open_frame(bytes)?;
        let index = PackIndex::decode(&frame.raw, self.read_bytes).map_err(|fault| fault.of(self.opener.name()))?;
        let named = |fault: Fault| fault.of(self.sealer.name());
        let raw = index
            .moved(&self.shift)
            .ok_or_else(|| named(Fault::malformed("pack index", "it names other frames than there are".to_owned())))?;
        let frame = Compressor::new(Compression::of(Codec::Zstd))
            .and_then(|mut compressor| compressor.compress(FrameKind::Index, &raw))
            .map_err(named)?;
        self.sealer.seal(number, false, frame)
    }

    /// The new pack as a manifest names it, and where its frames are.
    ///
    /// # Errors
    /// [`Fault::MissingLastFrame`] if the tail was not carried, [`Fault::TooLong`] if a frame is too far away for an
    /// offset.
    pub fn finish(self) -> Result<(PackEntry, FrameShift), FormatError> {
        if !self.is_whole {
            return Err(Fault::MissingLastFrame.of(self.opener.name()));
        }
        let limit = u64::from(u32::MAX);
        let frames = self.index_at.unwrap_or(self.size_bytes - tail_frame_bytes(self.sealer.is_encrypted()) as u64);
        if frames > limit {
            return Err(Fault::TooLong { what: "pack", bytes: frames, limit }.of(self.sealer.name()));
        }
        let entry = PackEntry {
            name: self.sealer.name().to_owned(),
            size_bytes: self.size_bytes,
            live_bytes: 0,
            identity: Some(PackIdentity { salt: self.sealer.salt(), crc32c: self.crc32c }),
        };
        Ok((entry, self.shift))
    }
}
