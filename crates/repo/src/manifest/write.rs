//! Writing a manifest, one finished frame after the other.

use bytes::Bytes;

use super::entry::{EntryBuffers, FileEntry, MANIFEST_RAW_BYTES, ManifestHeader, RawBytes};
use super::memory::Manifest;
use super::origin::{
    FrameReference, LEAST_OF_REFERENCE, Origin, check_name, put_origins, put_references, read_origins,
};
use super::packs::{ManifestEnd, PackEntry};
use super::reach::Reach;
use super::{SECTION_FILES, SECTION_HEADER, SECTION_ORIGINS, SECTION_REFERENCES};
use crate::chunk::ChunkHash;
use crate::codec::{Codec, Compression, Compressor};
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameKind, FrameLocation, HEAD_FRAME_BYTES, ObjectSealer, ObjectType, seal_tail};
use crate::identity::{RepositoryId, RepositoryKey};
use crate::varint::Reader;

/// A frame of files is closed once it has more raw bytes than this.
const FRAME_FULL_BYTES: usize = 1 << 20;

/// A frame of references is closed when it has this many.
const MOST_REFERENCES: usize = 1 << 14;

/// Returns the frames of a manifest in order; holds at most one frame of files, or of references.
#[derive(Debug)]
pub struct ManifestWriter {
    sealer: ObjectSealer,
    compressor: Compressor,
    reach: Reach,
    next_number: u32,
    /// Bytes returned so far.
    size_bytes: u64,
    extent_bytes: u32,
    raw_bytes: RawBytes,
    files: Vec<u8>,
    origins: Vec<Origin>,
    references: Vec<FrameReference>,
}

impl ManifestWriter {
    /// Begins a manifest with this full object name. Also returns the bytes of the head and header frames, which are
    /// stored first.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for a length of extents that no repository can have, [`Fault::TooLong`] for a header that
    /// does not fit into a frame, [`Fault::Compression`] as [`Compressor::new`], and those of [`ObjectSealer::new`].
    pub fn new(
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
        header: &ManifestHeader,
    ) -> Result<(Self, Bytes), FormatError> {
        let named = |fault: Fault| fault.of(name);
        header.check().map_err(named)?;
        let (sealer, mut start) = ObjectSealer::new(ObjectType::Manifest, name, repository, key)?;
        let compressor = Compressor::new(Compression::of(Codec::Zstd)).map_err(named)?;
        let mut writer = Self {
            sealer,
            compressor,
            reach: Reach::default(),
            next_number: 1,
            size_bytes: HEAD_FRAME_BYTES as u64,
            extent_bytes: header.extent_bytes,
            raw_bytes: RawBytes::up_to(MANIFEST_RAW_BYTES),
            files: vec![SECTION_FILES],
            origins: Vec::new(),
            references: Vec::new(),
        };
        let mut section = vec![SECTION_HEADER];
        serde_json::to_writer(&mut section, header)
            .map_err(|error| named(Fault::malformed("manifest header", error.to_string())))?;
        start.extend_from_slice(&writer.seal(&section)?);
        Ok((writer, start.into()))
    }

    /// Begins a manifest that refers to others. The needed packs of those must already have their numbers: they come
    /// first in the list, and new packs are added after them.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for names and tables that a reader refuses, and those of [`ManifestWriter::new`].
    pub fn with_origins(
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
        header: &ManifestHeader,
        origins: Vec<Origin>,
    ) -> Result<(Self, Bytes), FormatError> {
        let named = |fault: Fault| fault.of(name);
        let (mut writer, start) = Self::new(name, repository, key, header)?;
        origins.iter().try_for_each(|origin| check_name(&origin.name)).map_err(named)?;
        let mut section = vec![SECTION_ORIGINS];
        put_origins(&mut section, &origins);
        // A section that a reader would refuse is not written.
        read_origins(section.get(1..).unwrap_or_default()).map_err(named)?;
        let start = [&start[..], &writer.seal(&section)?].concat();
        writer.origins = origins;
        Ok((writer, start.into()))
    }

    /// Takes over a frame of files of the manifest at this position of the origins; `raw` are its raw bytes. Returns
    /// full frames.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the manifest is not one of the origins, the frame is not of files, or a reader would
    /// refuse an entry. [`Fault::TooLong`] if the manifest exceeds [`MANIFEST_RAW_BYTES`].
    pub fn refer(&mut self, origin: u32, location: FrameLocation, raw: &[u8]) -> Result<Option<Bytes>, FormatError> {
        self.note_referenced(origin, raw).map_err(|fault| fault.of(self.sealer.name()))?;
        let before = if self.files.len() > 1 { Some(self.close_frame()?) } else { None };
        self.references.push(FrameReference { origin, location, hash: ChunkHash::of(raw) });
        if self.references.len() < MOST_REFERENCES {
            return Ok(before);
        }
        let full = self.close_references()?;
        Ok(Some([&before.unwrap_or_default()[..], &full].concat().into()))
    }

    /// Checks the files of another manifest as if they were our own.
    fn note_referenced(&mut self, origin: u32, raw: &[u8]) -> Result<(), Fault> {
        let unknown = || Fault::malformed("reference to files", "a manifest that is not listed");
        let origin = self.origins.get(origin as usize).ok_or_else(unknown)?;
        self.raw_bytes.add(LEAST_OF_REFERENCE.max(raw.len() as u64))?;
        let Some((&SECTION_FILES, content)) = raw.split_first() else {
            return Err(Fault::malformed("reference to files", "a frame that is not of files"));
        };
        let mut reader = Reader::new("referenced file entry", content);
        while !reader.is_empty() {
            let mut buffers = EntryBuffers::default();
            let entry = FileEntry::read(&mut reader, &mut buffers, Some(&origin.packs))?;
            entry.check_written(self.extent_bytes)?;
            self.reach.note(&entry);
        }
        Ok(())
    }

    /// Adds a file, and returns a frame if one is full.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for an entry that a reader refuses: an unsafe path, an extent that is invalid or has
    /// another length than the header says, a size that is not the sum of the extents. [`Fault::TooLong`] if the
    /// manifest exceeds [`MANIFEST_RAW_BYTES`]. Those of [`Compressor::compress`] and [`ObjectSealer::seal`].
    pub fn push(&mut self, entry: &FileEntry<'_>) -> Result<Option<Bytes>, FormatError> {
        entry.check_written(self.extent_bytes).map_err(|fault| fault.of(self.sealer.name()))?;
        self.reach.note(entry);
        let before = self.close_references()?;
        entry.put(&mut self.files);
        if self.files.len() <= FRAME_FULL_BYTES {
            return Ok((!before.is_empty()).then_some(before));
        }
        let full = self.close_frame()?;
        Ok(Some(if before.is_empty() { full } else { [&before[..], &full].concat().into() }))
    }

    /// The last frames, for the end of the object. All packs must be known.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if an extent is in a pack that is not listed, or reaches beyond the end of its pack.
    /// Otherwise as [`ManifestWriter::push`].
    pub fn finish(mut self, packs: &[PackEntry]) -> Result<Bytes, FormatError> {
        self.reach.check(packs).map_err(|fault| fault.of(self.sealer.name()))?;
        let mut end = self.close_references()?.to_vec();
        if self.files.len() > 1 {
            end.extend_from_slice(&self.close_frame()?);
        }
        let packs_at = self.size_bytes;
        let mut section = Vec::new();
        let origins: Vec<&str> = self.origins.iter().map(|origin| origin.name.as_str()).collect();
        ManifestEnd::put(&mut section, packs, &origins, &self.reach);
        end.extend_from_slice(&self.seal(&section)?);
        end.extend_from_slice(&seal_tail(&self.sealer, self.next_number, packs_at)?);
        Ok(end.into())
    }

    /// A whole manifest as one object in memory.
    ///
    /// # Errors
    /// Those of [`ManifestWriter::new`], [`ManifestWriter::push`] and [`ManifestWriter::finish`].
    pub fn write(
        name: &str,
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
        manifest: &Manifest,
    ) -> Result<Bytes, FormatError> {
        let (mut writer, start) = Self::new(name, repository, key, manifest.header())?;
        let mut object = start.to_vec();
        for file in manifest.files() {
            if let Some(frame) = writer.push(&file)? {
                object.extend_from_slice(&frame);
            }
        }
        object.extend_from_slice(&writer.finish(manifest.packs())?);
        Ok(object.into())
    }

    fn close_frame(&mut self) -> Result<Bytes, FormatError> {
        let mut files = std::mem::take(&mut self.files);
        let sealed = self.seal(&files)?;
        files.clear();
        files.push(SECTION_FILES);
        self.files = files;
        Ok(sealed.into())
    }

    fn close_references(&mut self) -> Result<Bytes, FormatError> {
        if self.references.is_empty() {
            return Ok(Bytes::new());
        }
        let mut section = vec![SECTION_REFERENCES];
        put_references(&mut section, &std::mem::take(&mut self.references));
        Ok(self.seal(&section)?.into())
    }

    fn seal(&mut self, section: &[u8]) -> Result<Vec<u8>, FormatError> {
        self.raw_bytes.add(section.len() as u64).map_err(|fault| fault.of(self.sealer.name()))?;
        let frame = self.compressor.compress(FrameKind::Data, section).map_err(|fault| fault.of(self.sealer.name()))?;
        let number = self.next_number;
        self.next_number += 1;
        let sealed = self.sealer.seal(number, false, frame)?;
        self.size_bytes += sealed.len() as u64;
        Ok(sealed)
    }
}
