//! A whole manifest in memory, packed tightly.

use std::ops::Range;

use super::entry::{FileEntry, FileKind, ManifestHeader, Patch};
use super::extents::{ExtentRange, ExtentStore};
use super::origin::Origin;
use super::packs::PackEntry;
use super::reach::Reach;
use crate::chunk::ChunkHash;
use crate::format_error::{Fault, FormatError};
use crate::frame::FrameLocation;
use crate::identity::{RepositoryId, RepositoryKey};
use crate::manifest::ManifestReader;

/// All files of a backup, in the order in which they were pushed.
#[derive(Debug, Clone)]
pub struct Manifest {
    header: ManifestHeader,
    packs: Vec<PackEntry>,
    files: Vec<File>,
    /// Paths, each followed by the target of a symbolic link.
    names: Vec<u8>,
    extents: ExtentStore,
    total_bytes: u64,
    reach: Reach,
    origins: Vec<Origin>,
    frames: Vec<FileFrame>,
    stored: Option<StoredManifest>,
    patches: Vec<Patch>,
    /// The files with patches, by their positions, and where their patches begin.
    patched: Vec<(u32, usize)>,
}

/// A frame from which files of a manifest were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFrame {
    /// The position of its object among the origins; `None` for a frame of the manifest itself.
    pub origin: Option<u32>,
    /// The place of the frame in its object.
    pub location: FrameLocation,
    /// The hash of its raw bytes, with the section's number.
    pub hash: ChunkHash,
    /// The number of its raw bytes.
    pub raw_bytes: u32,
    /// The positions of its files.
    pub files: Range<usize>,
}

/// The object from which a manifest was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredManifest {
    /// The full name of the object.
    pub(super) name: String,
    pub(super) size_bytes: u64,
    /// The salt in its head, with the key epoch; zeros without encryption.
    pub(super) salt: [u8; 32],
}

/// A file in 56 bytes; its names and extents are elsewhere.
#[derive(Debug, Clone, Copy)]
struct File {
    names_start: u64,
    size_bytes: u64,
    mtime_seconds: u64,
    path_length: u32,
    mode: u32,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum Content {
    File { has_crc32c: bool, crc32c: u32, extents: ExtentRange },
    Directory,
    Symlink { target_length: u32 },
}

impl Manifest {
    /// A manifest without files and packs.
    pub fn new(header: ManifestHeader) -> Self {
        Self {
            header,
            packs: Vec::new(),
            reach: Reach::default(),
            origins: Vec::new(),
            frames: Vec::new(),
            stored: None,
            patches: Vec::new(),
            patched: Vec::new(),
            files: Vec::new(),
            names: Vec::new(),
            extents: ExtentStore::default(),
            total_bytes: 0,
        }
    }

    /// Reads a manifest object in memory.
    ///
    /// # Errors
    /// Those of [`ManifestReader::feed`] and [`ManifestReader::finish`].
    pub fn parse(
        name: &str,
        object: &[u8],
        repository: RepositoryId,
        key: Option<&RepositoryKey>,
    ) -> Result<Self, FormatError> {
        let mut reader = ManifestReader::new(name, repository, key);
        reader.feed(object)?;
        reader.finish()
    }

    /// Adds the packs after the last file, and counts the needed bytes of each.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if an extent is in a pack that is not listed, or reaches beyond the end of its pack.
    pub fn set_packs(&mut self, packs: Vec<PackEntry>) -> Result<(), Fault> {
        let mut reach = std::mem::take(&mut self.reach);
        reach.check(&packs)?;
        self.packs = packs;
        for (pack, number) in self.packs.iter_mut().zip(0..) {
            pack.live_bytes = reach.live_bytes(number).unwrap_or(0).min(pack.size_bytes);
        }
        Ok(())
    }

    /// Adds a file.
    ///
    /// # Errors
    /// [`Fault::Malformed`] if the path is unsafe, the mode has other bits than permissions, an extent is invalid, the
    /// extents do not add up to the size, or a link has no proper target. [`Fault::TooLong`] for a path, target or list
    /// of extents whose length does not fit into 32 bits.
    pub fn push(&mut self, entry: &FileEntry<'_>) -> Result<(), Fault> {
        entry.check()?;
        self.reach.note(entry);
        let too_long = |what, bytes: usize| Fault::TooLong { what, bytes: bytes as u64, limit: u64::from(u32::MAX) };
        let length_of = |what, bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| too_long(what, bytes.len()));
        let path_length = length_of("path", entry.path)?;
        let content = match entry.kind {
            FileKind::Directory => Content::Directory,
            FileKind::Symlink { target } => Content::Symlink { target_length: length_of("link target", target)? },
            FileKind::File { crc32c, extents, patches } => {
                if !patches.is_empty() {
                    let position =
                        u32::try_from(self.files.len()).map_err(|_| too_long("list of files", usize::MAX))?;
                    self.patched.push((position, self.patches.len()));
                    self.patches.extend_from_slice(patches);
                }
                if u32::try_from(extents.len()).is_err() {
                    return Err(too_long("extent list", extents.len()));
                }
                let extents = self.extents.push(extents);
                Content::File { has_crc32c: crc32c.is_some(), crc32c: crc32c.unwrap_or(0), extents }
            }
        };
        let names_start = self.names.len() as u64;
        self.names.extend_from_slice(entry.path);
        if let FileKind::Symlink { target } = entry.kind {
            self.names.extend_from_slice(target);
        }
        let FileEntry { size_bytes, mtime_seconds, mode, .. } = *entry;
        self.files.push(File { names_start, size_bytes, mtime_seconds, path_length, mode, content });
        self.total_bytes += size_bytes;
        Ok(())
    }

    /// The first section of the manifest.
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The packs that extents refer to by position.
    pub fn packs(&self) -> &[PackEntry] {
        &self.packs
    }

    /// The number of files, directories and links.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The number of extents of all files.
    pub fn extent_count(&self) -> u64 {
        self.extents.count()
    }

    /// The length of all files together, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The file at this position; `None` past the end.
    pub fn file(&self, position: usize) -> Option<FileEntry<'_>> {
        let file = self.files.get(position)?;
        let start = file.names_start as usize;
        let path_end = start + file.path_length as usize;
        let kind = match file.content {
            Content::Directory => FileKind::Directory,
            Content::Symlink { target_length } => {
                FileKind::Symlink { target: &self.names[path_end..path_end + target_length as usize] }
            }
            Content::File { has_crc32c, crc32c, extents } => FileKind::File {
                crc32c: has_crc32c.then_some(crc32c),
                patches: self.patches_of(position),
                extents: self.extents.get(extents),
            },
        };
        Some(FileEntry {
            path: &self.names[start..path_end],
            kind,
            mode: file.mode,
            size_bytes: file.size_bytes,
            mtime_seconds: file.mtime_seconds,
        })
    }

    fn patches_of(&self, position: usize) -> &[Patch] {
        let found = self.patched.binary_search_by_key(&position, |(file, _)| *file as usize);
        let Some((number, (_, start))) = found.ok().and_then(|number| Some((number, self.patched.get(number)?))) else {
            return &[];
        };
        let end = self.patched.get(number + 1).map_or(self.patches.len(), |(_, next)| *next);
        self.patches.get(*start..end).unwrap_or_default()
    }

    /// The manifests to whose frames of files this one refers.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    pub(super) fn set_origins(&mut self, origins: Vec<Origin>) {
        self.origins = origins;
    }

    /// The frames of files, in the order of the files; none if the manifest was not read from an object.
    pub fn frames(&self) -> &[FileFrame] {
        &self.frames
    }

    /// A frame without files is left out: it costs few bytes in an object, and more in memory.
    pub(super) fn note_frame(&mut self, frame: FileFrame) {
        if !frame.files.is_empty() {
            self.frames.push(frame);
        }
    }

    pub(super) fn set_stored(&mut self, stored: StoredManifest) {
        self.stored = Some(stored);
    }

    /// The object of a [`FileFrame::origin`], for a manifest that refers to the frame. `numbers` has for each pack of
    /// this manifest its number there. `None` if there is no such origin, or this manifest was not read from an object.
    pub fn origin_of(&self, origin: Option<u32>, numbers: &[Option<u32>]) -> Option<Origin> {
        let Some(origin) = origin else {
            let StoredManifest { name, size_bytes, salt } = self.stored.clone()?;
            return Some(Origin { name, size_bytes, salt, packs: numbers.to_vec() });
        };
        let Origin { name, size_bytes, salt, packs } = self.origins.get(origin as usize)?;
        let packs = packs.iter().map(|here| numbers.get((*here)? as usize).copied().flatten()).collect();
        Some(Origin { name: name.clone(), size_bytes: *size_bytes, salt: *salt, packs })
    }

    /// All files in order.
    pub fn files(&self) -> impl Iterator<Item = FileEntry<'_>> {
        (0..self.files.len()).filter_map(|position| self.file(position))
    }
}
