//! The manifest of a backup: every file, and the place of each of its extents.
//!
//! Order of the object: the head, then data frames, then a tail with the offset of the last data frame. Each frame's
//! raw bytes begin with a section number: 1 header (JSON), 9 manifests that are referred to, 3 files, 7 files by
//! reference, 5 packs. Files and references alternate as needed; all others occur once, in this order, so that a
//! manifest can be written while its packs are still being made. Readers ignore unknown sections with even numbers. A
//! file's entry is never split over frames.
//!
//! [`Manifest`] holds all of it in memory: 52 bytes for an extent, so that 10 TB in extents of 1 MiB, with a million
//! files, take well under 1 GiB. [`ManifestWriter`] and [`ManifestReader`] work frame by frame.
//!
//! A reader trusts nothing in a manifest. It refuses more than [`MANIFEST_RAW_BYTES`], paths that could leave the data
//! directory, extents outside their packs, and lengths that do not add up.

mod entry;
mod memory;
mod names;
mod origin;
mod packs;
mod reach;
mod read;
mod source;
mod write;

pub use entry::{
    EXTENT_BYTES, Extent, FileEntry, FileKind, MANIFEST_RAW_BYTES, MOST_PATCHES, ManifestHeader, Patch, check_path,
    usual_entry_bytes,
};
pub use memory::Manifest;
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
