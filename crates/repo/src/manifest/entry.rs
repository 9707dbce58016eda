//! The entries of a manifest and their binary form.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::extent::Extent;
use super::extents::Extents;
use super::source::patches_over;
use crate::format_error::Fault;
use crate::record::check_extent_bytes;
use crate::varint::{Reader, put_bytes, put_varint};

/// Files are cut into extents of 128 pages: 1 MiB.
pub const EXTENT_BYTES: u32 = 1 << 20;

/// The most raw bytes that all frames of one manifest may have: 4 GiB, which is enough for the extents of about 90 TB.
/// Few stored bytes can announce very many raw bytes, and all of them are kept in memory.
pub const MANIFEST_RAW_BYTES: u64 = 4 << 30;

/// The bytes of a usual extent in a manifest: the hash, the number of a pack among ten thousands, the place and length
/// of its frame, and its own length.
const USUAL_EXTENT_BYTES: u64 = 32 + 3 + 4 + 3 + 1 + 3;

/// The bytes of an entry besides its path, the target of a link, and extents: kind, flags, mode, size, time, checksum
/// and counts.
const USUAL_ENTRY_BYTES: u64 = 23;

/// About how many raw bytes a manifest needs for an entry; `path_bytes` is the length of its path and link target
/// together. It is known before anything is stored.
pub fn usual_entry_bytes(path_bytes: u64, extents: u64) -> u64 {
    USUAL_ENTRY_BYTES + path_bytes + extents.saturating_mul(USUAL_EXTENT_BYTES)
}

/// The most patches over one extent. A writer that needs more stores the whole extent again.
pub const MOST_PATCHES: usize = 1024;

/// Flag of a file: the CRC-32C of the whole content follows.
const HAS_CRC32C: u64 = 1;

/// Flag of a file: each extent is followed by its patches.
const HAS_PATCHES: u64 = 2;

/// The size of the shortest extent in a manifest, in bytes: five varints of one byte and the hash.
const SHORTEST_EXTENT: usize = 5 + 32;

/// The first section: the backup and the cluster of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// The backup's id.
    pub backup: String,
    /// The cluster's name.
    pub cluster: String,
    /// Length of every extent in bytes, except the last one of a file.
    pub extent_bytes: u32,
    /// Further facts from the writer; readers use the ones they know.
    #[serde(default)]
    pub details: Map<String, Value>,
}

impl ManifestHeader {
    /// Refuses an extent length that no repository can have, because memory is reserved for whole extents.
    pub(super) fn check(&self) -> Result<(), Fault> {
        check_extent_bytes(self.extent_bytes).map_err(|problem| Fault::malformed("manifest header", problem))
    }
}

/// Counts the raw bytes of a manifest's frames as they are written or read.
#[derive(Debug)]
pub(super) struct RawBytes {
    seen: u64,
    limit: u64,
}

impl RawBytes {
    /// A count of 0 with this limit.
    pub(super) fn up_to(limit: u64) -> Self {
        Self { seen: 0, limit }
    }

    /// Counts a frame, before memory is reserved for it.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), Fault> {
        self.seen = self.seen.saturating_add(bytes);
        if self.seen <= self.limit {
            return Ok(());
        }
        Err(Fault::TooLong { what: "manifest", bytes: self.seen, limit: self.limit })
    }
}

/// Bytes that replace a part of an extent. A later patch of an extent covers an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// The number of the extent in its file.
    pub extent: u32,
    /// The offset of the patch in the extent, in bytes.
    pub at: u32,
    /// The place of its bytes, as for an extent: a hole is a patch of zeros.
    pub place: Extent,
}

impl Patch {
    /// The bytes of the extent that the patch covers.
    pub fn range(&self) -> Range<u32> {
        self.at..self.at.saturating_add(self.place.length)
    }
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind<'a> {
    /// A regular file.
    File {
        /// CRC-32C of the whole content. A writer that did not read all of it does not know it.
        crc32c: Option<u32>,
        /// The file's extents in order, as they are without the patches.
        extents: Extents<'a>,
        /// Patches over the extents, in the order of the extents.
        patches: &'a [Patch],
    },
    /// A directory; its files have entries of their own.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The target of the link; raw bytes.
        target: &'a [u8],
    },
}

impl<'a> FileKind<'a> {
    /// A file without patches that was read in full.
    pub const fn file(crc32c: u32, extents: &'a [Extent]) -> Self {
        Self::File { crc32c: Some(crc32c), extents: Extents::of(extents), patches: &[] }
    }
}

/// One file, directory or symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Relative to the data directory, parts separated by `/`; raw bytes. Empty for the data directory itself.
    pub path: &'a [u8],
    /// The kind of the entry, with its content.
    pub kind: FileKind<'a>,
    /// Permission bits, as `st_mode & 07777`.
    pub mode: u32,
    /// Length in bytes; 0 for directories and links.
    pub size_bytes: u64,
    /// Time of the last change, seconds since 1970.
    pub mtime_seconds: u64,
}

impl<'a> FileEntry<'a> {
    /// The extents of a file; empty for any other kind.
    pub fn extents(&self) -> Extents<'a> {
        match self.kind {
            FileKind::File { extents, .. } => extents,
            FileKind::Directory | FileKind::Symlink { .. } => Extents::of(&[]),
        }
    }

    /// The patches over a file's extents, in their order.
    pub fn patches(&self) -> &'a [Patch] {
        match self.kind {
            FileKind::File { patches, .. } => patches,
            FileKind::Directory | FileKind::Symlink { .. } => &[],
        }
    }

    /// Whether a file is cut as the format requires: every extent but the last has `extent_bytes`, and the last has no
    /// more.
    pub fn is_cut_in(&self, extent_bytes: u32) -> bool {
        let (extents, last) = (self.extents(), self.extents().len().saturating_sub(1));
        extents.iter().take(last).all(|extent| extent.length == extent_bytes)
            && extents.get(last).is_none_or(|extent| extent.length <= extent_bytes)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.path);
        let (kind, flags) = match self.kind {
            FileKind::File { crc32c, patches, .. } => {
                let checksum = if crc32c.is_some() { HAS_CRC32C } else { 0 };
                (0, checksum | if patches.is_empty() { 0 } else { HAS_PATCHES })
            }
            FileKind::Directory => (1, 0),
            FileKind::Symlink { .. } => (2, 0),
        };
        out.push(kind);
        put_varint(out, flags);
        put_varint(out, u64::from(self.mode));
        put_varint(out, self.size_bytes);
        put_varint(out, self.mtime_seconds);
        match self.kind {
            FileKind::Directory => {}
            FileKind::Symlink { target } => put_bytes(out, target),
            FileKind::File { crc32c, extents, patches } => {
                if let Some(crc32c) = crc32c {
                    out.extend_from_slice(&crc32c.to_le_bytes());
                }
                put_varint(out, extents.len() as u64);
                for (extent, number) in extents.iter().zip(0_u32..) {
                    extent.put(out);
                    if patches.is_empty() {
                        continue;
                    }
                    let over = patches_over(patches, number);
                    put_varint(out, over.len() as u64);
                    for patch in over {
                        put_varint(out, u64::from(patch.at));
                        patch.place.put(out);
                    }
                }
            }
        }
    }

    /// Reads an entry. The extents and patches of a file replace the content of `buffers`. If the entry is from another
    /// manifest, the table gives the packs their numbers in this one.
    pub(super) fn read<'r: 'a>(
        reader: &mut Reader<'r>,
        buffers: &'a mut EntryBuffers,
        numbers: Option<&[Option<u32>]>,
    ) -> Result<Self, Fault> {
        let EntryBuffers { extents, patches } = buffers;
        extents.clear();
        patches.clear();
        let path = reader.bytes()?;
        let kind = reader.byte()?;
        // The kind and the flags are checked first: an unknown one can change everything that follows.
        let known = match kind {
            0 => HAS_CRC32C | HAS_PATCHES,
            1 | 2 => 0,
            other => return Err(Fault::UnknownFileKind(other)),
        };
        let flags = reader.varint()?;
        if flags & !known != 0 {
            return Err(Fault::UnknownEntryFlags(flags & !known));
        }
        let mode = reader.varint_u32("mode")?;
        let size_bytes = reader.varint()?;
        let mtime_seconds = reader.varint()?;
        let kind = match kind {
            0 => {
                let crc32c = if flags & HAS_CRC32C != 0 { Some(u32::from_le_bytes(reader.array()?)) } else { None };
                let count = reader.count(SHORTEST_EXTENT)?;
                extents.reserve(count);
                for number in 0..count {
                    extents.push(Extent::read(reader)?);
                    if flags & HAS_PATCHES != 0 {
                        read_patches(reader, number, patches)?;
                    }
                }
                if let Some(numbers) = numbers {
                    extents.iter_mut().try_for_each(|extent| extent.renumber(numbers))?;
                    patches.iter_mut().try_for_each(|patch| patch.place.renumber(numbers))?;
                }
                FileKind::File { crc32c, extents: Extents::of(extents), patches }
            }
            1 => FileKind::Directory,
            _ => FileKind::Symlink { target: reader.bytes()? },
        };
        Ok(Self { path, kind, mode, size_bytes, mtime_seconds })
    }

    /// The checks of a writer: all checks of a reader, and that extents have the manifest's own length. So no backup is
    /// made that a restore would refuse.
    pub(super) fn check_written(&self, extent_bytes: u32) -> Result<(), Fault> {
        self.check()?;
        if self.is_cut_in(extent_bytes) {
            return Ok(());
        }
        let path = String::from_utf8_lossy(self.path);
        Err(Fault::malformed("file entry", format!("extents that are not of {extent_bytes} bytes (path `{path}`)")))
    }

    /// The checks of a reader while it reads: a safe path, valid extents, lengths that add up. [`PackReach`] checks the
    /// packs, and the restore checks how entries relate to each other.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |problem: String| {
            let path = String::from_utf8_lossy(self.path);
            Fault::malformed("file entry", format!("{problem} (path `{path}`)"))
        };
        if !(self.path.is_empty() && self.kind == FileKind::Directory) {
            check_path(self.path)?;
        }
        if self.mode > 0o7777 {
            return Err(wrong(format!("mode {:o}", self.mode)));
        }
        let mut total = 0;
        for extent in self.extents().iter() {
            extent.check_shape().map_err(wrong)?;
            total += u64::from(extent.length);
        }
        self.check_patches().map_err(wrong)?;
        if total != self.size_bytes {
            return Err(wrong(format!("extents of {total} bytes for a size of {}", self.size_bytes)));
        }
        match self.kind {
            FileKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                Err(wrong("a link without a proper target".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn check_patches(&self) -> Result<(), String> {
        for over in self.patches().chunk_by(|a, b| a.extent == b.extent) {
            if over.len() > MOST_PATCHES {
                return Err(format!("an extent with {} patches", over.len()));
            }
        }
        let mut last = 0;
        for patch in self.patches() {
            patch.place.check_shape()?;
            let extent = self.extents().get(patch.extent as usize).ok_or("a patch without an extent")?;
            if patch.extent < last {
                return Err("patches out of order".to_owned());
            }
            if u64::from(patch.at) + u64::from(patch.place.length) > u64::from(extent.length) {
                return Err("a patch after the end of its extent".to_owned());
            }
            last = patch.extent;
        }
        Ok(())
    }
}

/// Memory for the extents and patches of an entry that is read.
#[derive(Debug, Default)]
pub(super) struct EntryBuffers {
    extents: Vec<Extent>,
    patches: Vec<Patch>,
}

fn read_patches(reader: &mut Reader<'_>, extent: usize, patches: &mut Vec<Patch>) -> Result<(), Fault> {
    let count = reader.count(1 + SHORTEST_EXTENT)?;
    if count > MOST_PATCHES {
        return Err(reader.malformed(format!("an extent with {count} patches")));
    }
    for _ in 0..count {
        let at = reader.varint_u32("offset of a patch")?;
        patches.push(Patch { extent: extent as u32, at, place: Extent::read(reader)? });
    }
    Ok(())
}

/// Refuses a path that could leave the data directory or that no file system accepts: absolute, with an empty part, `.`
/// or `..`, or with a zero byte.
///
/// # Errors
/// [`Fault::Malformed`], with the path.
pub fn check_path(path: &[u8]) -> Result<(), Fault> {
    let safe = path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    if safe && !path.contains(&0) {
        Ok(())
    } else {
        Err(Fault::malformed("file entry", format!("unsafe path `{}`", String::from_utf8_lossy(path))))
    }
}
