//! Reading a manifest as its bytes arrive.

use super::entry::{Extent, FileEntry, MANIFEST_RAW_BYTES, ManifestHeader, PackEntry, RawBytes, read_packs};
use super::memory::Manifest;
use super::{SECTION_FILES, SECTION_HEADER, SECTION_PACKS};
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameBuffers, FrameHeader, FrameKind, HEADER_BYTES, ObjectOpener, ObjectType, check_order};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::varint::Reader;

/// Accepts a manifest object in pieces of any size and returns the [`Manifest`] once it is complete. Besides the result
/// it holds at most one unfinished frame.
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
    extents: Vec<Extent>,
    manifest: Option<Manifest>,
    has_packs: bool,
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
            extents: Vec::new(),
            manifest: None,
            has_packs: false,
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
    /// What is wrong with the object, as soon as the bytes show it; the reader is of no more use then. Those of
    /// [`ObjectOpener::new`] and [`ObjectOpener::open_frame_into`]; [`Fault::FrameOrder`], [`Fault::UnexpectedKind`]
    /// and [`Fault::TrailingBytes`] for frames that are not in their places; [`Fault::UnknownSection`] and
    /// [`Fault::UnknownFileKind`] for what a newer program wrote; [`Fault::TooLong`] for more bytes than
    /// [`MANIFEST_RAW_BYTES`], or more packs than a backup can have; [`Fault::Malformed`] for sections that do not
    /// follow the format.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), FormatError> {
        // A frame that began in an earlier piece is completed first: its header, then its body.
        while !self.unfinished.is_empty() && !piece.is_empty() {
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
        while let Some(length) = self.frame_bytes(piece)?.filter(|length| *length <= piece.len()) {
            let (frame, rest) = piece.split_at(length);
            self.take_frame(frame)?;
            piece = rest;
        }
        self.unfinished.extend_from_slice(piece);
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
        self.manifest
            .filter(|_| self.has_packs)
            .ok_or_else(|| Fault::malformed("manifest", "no list of packs").of(self.name))
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
        self.raw_bytes.add(u64::from(header.raw_len)).map_err(|fault| fault.of(&self.name))?;
        let Some(opener) = &self.opener else {
            let opener =
                ObjectOpener::new(ObjectType::Manifest, &self.name, frame, self.repository, self.key.as_ref())?;
            self.opener = Some(opener);
            return Ok(());
        };
        let mut buffers = std::mem::take(&mut self.buffers);
        let (header, raw) = opener.open_frame_into(frame, &mut buffers)?;
        if header.kind != FrameKind::Data {
            let (number, found) = (header.number, header.kind);
            return Err(Fault::UnexpectedKind { number, expected: FrameKind::Data, found }.of(&self.name));
        }
        self.take_section(raw).map_err(|fault| fault.of(&self.name))?;
        self.finished = header.last;
        self.buffers = buffers;
        Ok(())
    }

    fn take_section(&mut self, raw: &[u8]) -> Result<(), Fault> {
        let out_of_order = |section: &str| Fault::malformed("manifest", format!("{section} out of order"));
        let (section, content) =
            raw.split_first().ok_or_else(|| Fault::malformed("manifest", "a frame without a section"))?;
        if self.has_packs {
            return Err(out_of_order("a section after the list of packs"));
        }
        match *section {
            SECTION_HEADER => {
                if self.manifest.is_some() {
                    return Err(out_of_order("header"));
                }
                let header: ManifestHeader = serde_json::from_slice(content)
                    .map_err(|error| Fault::malformed("manifest header", error.to_string()))?;
                header.check()?;
                self.manifest = Some(Manifest::new(header));
                Ok(())
            }
            SECTION_FILES => {
                let manifest = self.manifest.as_mut().ok_or_else(|| out_of_order("files"))?;
                let mut reader = Reader::new("file entry", content);
                while !reader.is_empty() {
                    let entry = FileEntry::read(&mut reader, &mut self.extents)?;
                    manifest.push(&entry)?;
                }
                Ok(())
            }
            SECTION_PACKS => {
                let manifest = self.manifest.as_mut().ok_or_else(|| out_of_order("list of packs"))?;
                let packs: Vec<PackEntry> = read_packs(&mut Reader::new("list of packs", content))?;
                self.has_packs = true;
                manifest.set_packs(packs)
            }
            other => Err(Fault::UnknownSection(other)),
        }
    }
}
