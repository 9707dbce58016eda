//! Writing a manifest, one finished frame after the other.

use bytes::Bytes;

use super::entry::{FileEntry, MANIFEST_RAW_BYTES, ManifestHeader, PackEntry, RawBytes, put_packs};
use super::memory::Manifest;
use super::reach::PackReach;
use super::{SECTION_FILES, SECTION_HEADER, SECTION_PACKS};
use crate::codec::{Codec, Compression, Compressor};
use crate::format_error::{Fault, FormatError};
use crate::frame::{FrameKind, ObjectSealer, ObjectType};
use crate::identity::{RepositoryId, RepositoryKey};

/// A frame of files is closed once it has more raw bytes than this.
const FRAME_FULL_BYTES: usize = 1 << 20;

/// Returns the frames of a manifest in order; holds at most one frame of files.
#[derive(Debug)]
pub struct ManifestWriter {
    sealer: ObjectSealer,
    compressor: Compressor,
    reach: PackReach,
    next_number: u32,
    extent_bytes: u32,
    raw_bytes: RawBytes,
    files: Vec<u8>,
}

impl ManifestWriter {
    /// Begins a manifest with this full object name. Returns also the bytes of the head and header frames, which are
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
        let (reach, files) = (PackReach::default(), vec![SECTION_FILES]);
        let raw_bytes = RawBytes::up_to(MANIFEST_RAW_BYTES);
        let extent_bytes = header.extent_bytes;
        let mut writer = Self { sealer, compressor, reach, next_number: 1, extent_bytes, raw_bytes, files };
        let mut section = vec![SECTION_HEADER];
        serde_json::to_writer(&mut section, header)
            .map_err(|error| named(Fault::malformed("manifest header", error.to_string())))?;
        start.extend_from_slice(&writer.seal(&section, false)?);
        Ok((writer, start.into()))
    }

    /// Adds a file, and returns a frame if one is full.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for what a reader refuses: an unsafe path, an extent that is invalid or has another length
    /// than the header says, a size that is not the sum of the extents. [`Fault::TooLong`] if the manifest exceeds
    /// [`MANIFEST_RAW_BYTES`]. Those of [`Compressor::compress`] and [`ObjectSealer::seal`].
    pub fn push(&mut self, entry: &FileEntry<'_>) -> Result<Option<Bytes>, FormatError> {
        entry.check_written(self.extent_bytes).map_err(|fault| fault.of(self.sealer.name()))?;
        self.reach.note(entry);
        entry.put(&mut self.files);
        if self.files.len() <= FRAME_FULL_BYTES {
            return Ok(None);
        }
        self.close_frame().map(Some)
    }

    /// The last frames, for the end of the object. All packs must be known by now.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if an extent is in a pack that is not listed, or reaches beyond the end of its pack.
    /// Otherwise as [`ManifestWriter::push`].
    pub fn finish(mut self, packs: &[PackEntry]) -> Result<Bytes, FormatError> {
        std::mem::take(&mut self.reach).check(packs).map_err(|fault| fault.of(self.sealer.name()))?;
        let mut end = if self.files.len() > 1 { self.close_frame()?.to_vec() } else { Vec::new() };
        let mut section = vec![SECTION_PACKS];
        put_packs(&mut section, packs);
        end.extend_from_slice(&self.seal(&section, true)?);
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
        let sealed = self.seal(&files, false)?;
        files.clear();
        files.push(SECTION_FILES);
        self.files = files;
        Ok(sealed.into())
    }

    fn seal(&mut self, section: &[u8], last: bool) -> Result<Vec<u8>, FormatError> {
        self.raw_bytes.add(section.len() as u64).map_err(|fault| fault.of(self.sealer.name()))?;
        let frame = self.compressor.compress(FrameKind::Data, section).map_err(|fault| fault.of(self.sealer.name()))?;
        let number = self.next_number;
        self.next_number += 1;
        self.sealer.seal(number, last, frame)
    }
}
