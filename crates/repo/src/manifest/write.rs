//! Writing a manifest, one finished frame after the other.

use bytes::Bytes;

use super::entry::{FileEntry, MANIFEST_RAW_BYTES, ManifestHeader, RawBytes};
use super::memory::Manifest;
use super::origin::{
    FrameReference, LEAST_OF_REFERENCE, Origin, check_name, put_origins, put_references, read_origins,
};
use super::packs::{ManifestEnd, PackEntry};
use super::reach::Reach;
use super::{SECTION_FILES, SECTION_HEADER, SECTION_ORIGINS, SECTION_REFERENCES};
use crate::codec::{Codec, Compression, Compressor};
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameKind, HEAD_FRAME_BYTES, ObjectSealer, ObjectType, seal_tail};
use crate::identity::{RepositoryId, RepositoryKey};

/// A frame of files is closed once it has more raw bytes than this. A later backup can refer to a frame only if none of
/// its files has changed. So frames are short: this is the entry of one segment of 1 GiB, or of six hundred small
/// files. With 10 TB, a manifest has about seven thousand of them.
const FRAME_FULL_BYTES: usize = 1 << 16;

/// A group of files gets frames of its own if it has at least this many raw bytes. In a small manifest, the header of
/// another frame would cost more than it can ever save.
const LEAST_GROUP_BYTES: usize = 1 << 14;

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
    has_origins: bool,
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
            has_origins: false,
            references: Vec::new(),
        };
        let mut section = vec![SECTION_HEADER];
        serde_json::to_writer(&mut section, header)
            .map_err(|error| named(Fault::malformed("manifest header", error.to_string())))?;
        start.extend_from_slice(&writer.seal(&section)?);
        Ok((writer, start.into()))
    }

    /// Lists the manifests to whose frames this one refers, once and before the first reference. The needed packs of
    /// those must already have their numbers. Returns full frames.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for a second list, and for names and tables that a reader refuses; those of
    /// [`Compressor::compress`] and [`ObjectSealer::seal`].
    pub fn list_origins(&mut self, origins: Vec<Origin>) -> Result<Bytes, FormatError> {
        let mut section = vec![SECTION_ORIGINS];
        put_origins(&mut section, &origins);
        let check = || {
            origins.iter().try_for_each(|origin| check_name(&origin.name))?;
            // A section that a reader would refuse is not written.
            read_origins(section.get(1..).unwrap_or_default())?;
            if self.has_origins {
                return Err(Fault::malformed("list of referenced manifests", "a second list"));
            }
            Ok(())
        };
        check().map_err(|fault| fault.of(self.sealer.name()))?;
        let before = self.close_files(1)?;
        let listed = self.seal(&section)?;
        (self.origins, self.has_origins) = (origins, true);
        Ok([&before[..], &listed].concat().into())
    }

    /// Checks a file of another manifest as if it were our own. Its packs have their numbers of this manifest. All
    /// files of a frame are noted before [`Self::refer`].
    ///
    /// # Errors
    /// [`Fault::Malformed`] for an entry that a reader refuses.
    pub fn note_referred(&mut self, entry: &FileEntry<'_>) -> Result<(), FormatError> {
        entry.check_written(self.extent_bytes).map_err(|fault| fault.of(self.sealer.name()))?;
        self.reach.note(entry);
        Ok(())
    }

    /// Takes over a frame of files of another manifest, which has this many raw bytes. Returns full frames.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the manifest is not one of the origins. [`Fault::TooLong`] if the manifest exceeds
    /// [`MANIFEST_RAW_BYTES`].
    pub fn refer(&mut self, reference: FrameReference, raw_bytes: u32) -> Result<Option<Bytes>, FormatError> {
        let unknown = || Fault::malformed("reference to files", "a manifest that is not listed");
        let counted = match self.origins.get(reference.origin as usize) {
            Some(_) => self.raw_bytes.add(LEAST_OF_REFERENCE.max(u64::from(raw_bytes))),
            None => Err(unknown()),
        };
        counted.map_err(|fault| fault.of(self.sealer.name()))?;
        let before = self.close_files(1)?;
        self.references.push(reference);
        let full = if self.references.len() < MOST_REFERENCES { Bytes::new() } else { self.close_references()? };
        Ok(joined(before, &full))
    }

    /// Ends a group of files: files that change at every backup, and files that do not change, are best in frames of
    /// their own. Returns full frames.
    ///
    /// # Errors
    /// As [`ManifestWriter::push`].
    pub fn end_group(&mut self) -> Result<Option<Bytes>, FormatError> {
        let before = self.close_references()?;
        let full = self.close_files(LEAST_GROUP_BYTES)?;
        Ok(joined(before, &full))
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
        let full = self.close_files(FRAME_FULL_BYTES)?;
        Ok(joined(before, &full))
    }

    /// The last frames, for the end of the object. All packs must be known.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if an extent is in a pack that is not listed, or reaches beyond the end of its pack.
    /// Otherwise as [`ManifestWriter::push`].
    pub fn finish(mut self, packs: &[PackEntry]) -> Result<Bytes, FormatError> {
        self.reach.check(packs).map_err(|fault| fault.of(self.sealer.name()))?;
        let mut end = self.close_references()?.to_vec();
        end.extend_from_slice(&self.close_files(1)?);
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

    /// Closes the frame of files if it has more raw bytes than this; 1 is the number of the section.
    fn close_files(&mut self, bytes: usize) -> Result<Bytes, FormatError> {
        if self.files.len() <= bytes {
            return Ok(Bytes::new());
        }
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

/// Two pieces of an object as one; `None` if there are no bytes.
fn joined(before: Bytes, after: &Bytes) -> Option<Bytes> {
    match (before.is_empty(), after.is_empty()) {
        (true, true) => None,
        (false, true) => Some(before),
        (true, false) => Some(after.clone()),
        (false, false) => Some([&before[..], after].concat().into()),
    }
}
