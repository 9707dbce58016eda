//! The manifest of a backup: every file, and the place of each of its extents.
//!
//! Order of the object: the head, then data frames, then a tail with the offset of the last data frame. Each frame's
//! raw bytes begin with a section number: 1 header (JSON), 3 files, 9 manifests that are referred to, 7 files by
//! reference, 5 packs. Files and references alternate as needed. The header is first, and the packs are last, so that a
//! manifest can be written while its packs are still being made. The manifests that are referred to come once, at any
//! place before the first reference: a backup knows only at its end what has not changed. Readers ignore unknown
//! sections with even numbers. A file's entry is never split over frames.
//!
//! [`Manifest`] holds all of it in memory: 40 bytes for an extent, so that 10 TB in extents of 1 MiB, with a million
//! files, take less than 512 MiB. [`ManifestWriter`] and [`ManifestReader`] work frame by frame.
//!
//! A reader trusts nothing in a manifest. It refuses more than [`MANIFEST_RAW_BYTES`], paths that could leave the data
//! directory, extents outside their packs, and lengths that do not add up.

mod entry;
mod extent;
mod extents;
mod memory;
mod names;
mod origin;
mod packs;
mod reach;
mod read;
mod source;
mod write;

pub use entry::{
    EXTENT_BYTES, FileEntry, FileKind, MANIFEST_RAW_BYTES, MOST_PATCHES, ManifestHeader, Patch, check_path,
    usual_entry_bytes,
};
pub use extent::Extent;
pub use extents::Extents;
pub use memory::{FileFrame, Manifest};
pub use origin::{FrameReference, Origin};
pub use packs::{ManifestEnd, PackEntry, PackIdentity};
pub use read::{ManifestReader, WantedFrame};
pub use source::Source;
pub use write::ManifestWriter;

const SECTION_HEADER: u8 = 1;
const SECTION_FILES: u8 = 3;
const SECTION_PACKS: u8 = 5;
const SECTION_REFERENCES: u8 = 7;
const SECTION_ORIGINS: u8 = 9;

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
