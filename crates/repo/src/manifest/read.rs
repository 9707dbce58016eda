//! Reading a manifest as its bytes arrive.
//!
//! When frames of files in other manifests are due, [`ManifestReader::wanted`] names them and
//! [`ManifestReader::supply`] accepts them. Until then the reader only keeps the bytes that it is fed.

use std::collections::VecDeque;
use std::ops::Range;

use super::entry::{EntryBuffers, FileEntry, MANIFEST_RAW_BYTES, ManifestHeader, RawBytes};
use super::memory::{FileFrame, Manifest, StoredManifest};
use super::origin::{FrameReference, LEAST_OF_REFERENCE, Origin, read_origins, read_references};
use super::packs::ManifestEnd;
use super::{SECTION_FILES, SECTION_HEADER, SECTION_ORIGINS, SECTION_PACKS, SECTION_REFERENCES};
use crate::chunk::ChunkHash;
use crate::format_error::{Fault, FormatError};
use crate::frame::{
    FrameBuffers, FrameHeader, FrameKind, FrameLocation, HEADER_BYTES, ObjectOpener, ObjectType, check_order,
};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::varint::Reader;

/// A frame of another manifest that a reader needs before it can continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFrame {
    /// The full name of the object.
    pub object: String,
    /// The bytes of the frame.
    pub range: Range<u64>,
}

/// Accepts a manifest object in pieces of any size and returns the [`Manifest`] once it is complete. Besides the result
/// it holds at most one unfinished frame, or one piece while frames of other manifests are wanted.
#[derive(Debug)]
pub struct ManifestReader {
    name: String,
    repository: RepositoryId,
    key: Option<RepositoryKey>,
    /// The beginning of a frame whose rest has not arrived yet.
    unfinished: Vec<u8>,
    opener: Option<ObjectOpener>,
    next_number: u64,
    raw_bytes: RawBytes,
    finished: bool,
    buffers: FrameBuffers,
    entry: EntryBuffers,
    manifest: Option<Manifest>,
    origins: Vec<Origin>,
    openers: Vec<Option<ObjectOpener>>,
    wanted: VecDeque<FrameReference>,
    /// Whether the list of referenced manifests, or a reference, has been seen.
    past_origins: bool,
    /// Bytes of the frames so far.
    position: u64,
    /// Where the list of packs is.
    packs_at: Option<u64>,
}

impl ManifestReader {
    /// A reader for the object with this full name.
    pub fn new(name: &str, repository: RepositoryId, key: Option<&RepositoryKey>) -> Self {
        Self {
            name: name.to_owned(),
            repository,
            key: key.cloned(),
            unfinished: Vec::new(),
            opener: None,
            next_number: 0,
            raw_bytes: RawBytes::up_to(MANIFEST_RAW_BYTES),
            finished: false,
            buffers: FrameBuffers::default(),
            entry: EntryBuffers::default(),
            manifest: None,
            origins: Vec::new(),
            openers: Vec::new(),
            wanted: VecDeque::new(),
            past_origins: false,
            position: 0,
            packs_at: None,
        }
    }

    /// Replaces the format's limit on the raw bytes of all frames.
    #[cfg(test)]
    pub(super) fn with_raw_bytes(mut self, limit: u64) -> Self {
        self.raw_bytes = RawBytes::up_to(limit);
        self
    }

    /// Accepts the next bytes of the object.
    ///
    /// # Errors
    /// The fault of the object, as soon as the bytes show it; after that the reader cannot be used. Those of
    /// [`ObjectOpener::new`] and [`ObjectOpener::open_frame_into`]; [`Fault::FrameOrder`], [`Fault::UnexpectedKind`]
    /// and [`Fault::TrailingBytes`] for frames that are not in their places; [`Fault::UnknownSection`] and
    /// [`Fault::UnknownFileKind`] for parts that a newer program wrote; [`Fault::TooLong`] for more bytes than
    /// [`MANIFEST_RAW_BYTES`], or more packs than a backup can have; [`Fault::Malformed`] for sections that do not
    /// follow the format.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), FormatError> {
        // A frame that began in an earlier piece is completed first: its header, then its body.
        while self.wanted.is_empty() && !self.unfinished.is_empty() && !piece.is_empty() {
            let wanted = self.frame_bytes(&self.unfinished)?.unwrap_or(HEADER_BYTES);
            let (taken, rest) = piece.split_at(piece.len().min(wanted - self.unfinished.len()));
            self.unfinished.extend_from_slice(taken);
            piece = rest;
            if self.frame_bytes(&self.unfinished)? == Some(self.unfinished.len()) {
                let mut frame = std::mem::take(&mut self.unfinished);
                self.take_frame(&frame)?;
                frame.clear();
                self.unfinished = frame;
            }
        }
        while self.wanted.is_empty() {
            let Some(length) = self.frame_bytes(piece)?.filter(|length| *length <= piece.len()) else { break };
            let (frame, rest) = piece.split_at(length);
            self.take_frame(frame)?;
            piece = rest;
        }
        self.unfinished.extend_from_slice(piece);
        Ok(())
    }

    /// The frames of other manifests that must be supplied next, in this order, before this manifest can be read
    /// further.
    pub fn wanted(&self) -> Vec<WantedFrame> {
        let wanted = self.wanted.iter().filter_map(|reference| {
            let object = self.origins.get(reference.origin as usize)?.name.clone();
            Some(WantedFrame { object, range: reference.location.range() })
        });
        wanted.collect()
    }

    /// Accepts the bytes of the first wanted frame.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if no frame is wanted, or the frame is not of files; [`Fault::UnexpectedKind`] if it is not
    /// a data frame; [`Fault::ContentHash`] if it is not the referred frame; those of [`ManifestReader::feed`] for its
    /// content and for bytes that were kept back.
    pub fn supply(&mut self, frame: &[u8]) -> Result<(), FormatError> {
        let Some(reference) = self.wanted.pop_front() else {
            return Err(Fault::malformed("manifest", "a frame that was not asked for").of(&self.name));
        };
        self.take_referenced(reference, frame)?;
        if !self.wanted.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.unfinished);
        self.feed(&held)
    }

    fn take_referenced(&mut self, reference: FrameReference, frame: &[u8]) -> Result<(), FormatError> {
        let number = reference.origin as usize;
        let (Some(origin), Some(slot)) = (self.origins.get(number), self.openers.get_mut(number)) else {
            return Err(Fault::malformed("manifest", "a manifest that is not listed").of(&self.name));
        };
        let named = |fault: Fault| fault.of(&origin.name);
        let opener = match slot {
            Some(opener) => opener,
            empty => {
                let (id, key) = (self.repository, self.key.as_ref());
                empty.insert(ObjectOpener::with_salt(ObjectType::Manifest, &origin.name, &origin.salt, id, key)?)
            }
        };
        let header = FrameHeader::parse(frame, 0).map_err(named)?;
        self.raw_bytes.add(LEAST_OF_REFERENCE.max(u64::from(header.raw_len))).map_err(named)?;
        let (header, raw) = opener.open_frame_into(frame, &mut self.buffers)?;
        if header.kind != FrameKind::Data {
            let (number, found) = (header.number, header.kind);
            return Err(named(Fault::UnexpectedKind { number, expected: FrameKind::Data, found }));
        }
        reference.hash.verify(raw).map_err(named)?;
        let Some((&SECTION_FILES, content)) = raw.split_first() else {
            return Err(named(Fault::malformed("manifest", "a reference to a frame that is not of files")));
        };
        let Some(manifest) = &mut self.manifest else {
            return Err(named(Fault::malformed("manifest", "files without a header")));
        };
        let first = manifest.len();
        take_files(manifest, content, &mut self.entry, Some(&origin.packs)).map_err(named)?;
        let FrameReference { origin, location, hash } = reference;
        let files = first..manifest.len();
        manifest.note_frame(FileFrame { origin: Some(origin), location, hash, raw_bytes: header.raw_len, files });
        Ok(())
    }

    /// The manifest, after all bytes of the object.
    ///
    /// # Errors
    /// [`Fault::MissingLastFrame`] unless the last frame has arrived, [`Fault::Malformed`] if the list of packs is
    /// missing.
    pub fn finish(self) -> Result<Manifest, FormatError> {
        if !self.finished || !self.unfinished.is_empty() {
            return Err(Fault::MissingLastFrame.of(self.name));
        }
        let (Some(mut manifest), Some(opener), true) = (self.manifest, &self.opener, self.wanted.is_empty()) else {
            return Err(Fault::malformed("manifest", "frames of other manifests are missing").of(self.name));
        };
        let salt = opener.head().encryption.salt();
        manifest.set_stored(StoredManifest { name: self.name, size_bytes: self.position, salt });
        Ok(manifest)
    }

    /// The length of the frame that begins here; `None` until its header is complete.
    fn frame_bytes(&self, bytes: &[u8]) -> Result<Option<usize>, FormatError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if self.finished {
            return Err(Fault::TrailingBytes { bytes: bytes.len() as u64 }.of(&self.name));
        }
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let header = FrameHeader::parse(bytes, 0).map_err(|fault| fault.of(&self.name))?;
        Ok(Some(header.frame_bytes() as usize))
    }

    fn take_frame(&mut self, frame: &[u8]) -> Result<(), FormatError> {
        let header = FrameHeader::parse(frame, 0).map_err(|fault| fault.of(&self.name))?;
        check_order(&header, self.next_number).map_err(|fault| fault.of(&self.name))?;
        self.next_number += 1;
        let at = self.position;
        self.position += frame.len() as u64;
        self.raw_bytes.add(u64::from(header.raw_len)).map_err(|fault| fault.of(&self.name))?;
        let Some(opener) = &self.opener else {
            let opener =
                ObjectOpener::new(ObjectType::Manifest, &self.name, frame, self.repository, self.key.as_ref())?;
            self.opener = Some(opener);
            return Ok(());
        };
        let mut buffers = std::mem::take(&mut self.buffers);
        let (header, raw) = opener.open_frame_into(frame, &mut buffers)?;
        let place = at..self.position;
        self.take_opened(&header, raw, &place).map_err(|fault| fault.of(&self.name))?;
        self.buffers = buffers;
        Ok(())
    }

    fn take_opened(&mut self, header: &FrameHeader, raw: &[u8], place: &Range<u64>) -> Result<(), Fault> {
        let expected = if self.packs_at.is_some() { FrameKind::Tail } else { FrameKind::Data };
        if header.kind != expected {
            return Err(Fault::UnexpectedKind { number: header.number, expected, found: header.kind });
        }
        if header.last != (expected == FrameKind::Tail) {
            return Err(Fault::malformed("manifest", "a last frame that is not the tail, or a tail that is not last"));
        }
        self.finished = header.last;
        match self.packs_at {
            None => self.take_section(raw, place),
            Some(packs_at) if raw == packs_at.to_le_bytes() => Ok(()),
            Some(_) => Err(Fault::malformed("tail frame", "does not point to the list of packs")),
        }
    }

    fn take_section(&mut self, raw: &[u8], place: &Range<u64>) -> Result<(), Fault> {
        let out_of_order = |section: &str| Fault::malformed("manifest", format!("{section} out of order"));
        let (section, content) =
            raw.split_first().ok_or_else(|| Fault::malformed("manifest", "a frame without a section"))?;
        if *section == SECTION_HEADER {
            if self.manifest.is_some() {
                return Err(out_of_order("header"));
            }
            let header: ManifestHeader = serde_json::from_slice(content)
                .map_err(|error| Fault::malformed("manifest header", error.to_string()))?;
            header.check()?;
            self.manifest = Some(Manifest::new(header));
            return Ok(());
        }
        let manifest = self.manifest.as_mut().ok_or_else(|| out_of_order("a section before the header"))?;
        match *section {
            SECTION_ORIGINS if self.past_origins => return Err(out_of_order("list of referenced manifests")),
            SECTION_ORIGINS => {
                self.origins = read_origins(content)?;
                self.openers = self.origins.iter().map(|_| None).collect();
                self.past_origins = true;
            }
            SECTION_FILES => {
                let first = manifest.len();
                take_files(manifest, content, &mut self.entry, None)?;
                let (files, hash, raw_bytes) = (first..manifest.len(), ChunkHash::of(raw), raw.len() as u32);
                // Nothing refers to a frame that begins later than a reference can say.
                if let Ok(offset) = u32::try_from(place.start) {
                    let location = FrameLocation { offset, length: (place.end - place.start) as u32 };
                    manifest.note_frame(FileFrame { origin: None, location, hash, raw_bytes, files });
                }
            }
            SECTION_REFERENCES => {
                self.wanted.extend(read_references(content, &self.origins)?);
                self.past_origins = true;
            }
            SECTION_PACKS => {
                let ManifestEnd { packs, origins } = ManifestEnd::read(content)?;
                if !origins.iter().eq(self.origins.iter().map(|origin| &origin.name)) {
                    return Err(Fault::malformed("list of packs", "names other manifests than are referred to"));
                }
                self.packs_at = Some(place.start);
                manifest.set_packs(packs)?;
                manifest.set_origins(std::mem::take(&mut self.origins));
            }
            // A later release wrote it for readers that know it.
            even if even.is_multiple_of(2) => {}
            other => return Err(Fault::UnknownSection(other)),
        }
        Ok(())
    }
}

/// Adds the files of a frame. For files of another manifest, packs get their numbers in this one.
fn take_files(
    manifest: &mut Manifest,
    content: &[u8],
    buffers: &mut EntryBuffers,
    numbers: Option<&[Option<u32>]>,
) -> Result<(), Fault> {
    let mut reader = Reader::new("file entry", content);
    while !reader.is_empty() {
        let entry = FileEntry::read(&mut reader, buffers, numbers)?;
        manifest.push(&entry)?;
    }
    Ok(())
}
