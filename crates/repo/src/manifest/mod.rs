//! The manifest of a backup: every file, and the place of each of its extents.
//!
//! Order of the object: the head, then data frames only, the last one marked as such. Each frame's raw bytes begin with
//! a section number: 1 header (JSON), 3 files, 2 packs. Sections come in this order, and header and packs occur once,
//! so that a manifest can be written while its packs are still being made. A file's entry is never split over frames.
//!
//! [`Manifest`] holds all of it in memory: 52 bytes for an extent, so that 10 TB in extents of 1 MiB, with a million
//! files, take well under 1 GiB. [`ManifestWriter`] and [`ManifestReader`] work frame by frame.
//!
//! A reader trusts nothing in a manifest. It refuses more than [`MANIFEST_RAW_BYTES`], paths that could leave the data
//! directory, extents outside their packs, and lengths that do not add up.

mod entry;
mod memory;
mod reach;
mod read;
mod write;

pub use entry::{
    EXTENT_BYTES, Extent, FileEntry, FileKind, MANIFEST_RAW_BYTES, ManifestHeader, PackEntry, check_path,
    usual_entry_bytes,
};
pub use memory::Manifest;
pub use read::ManifestReader;
pub use write::ManifestWriter;

const SECTION_HEADER: u8 = 1;
const SECTION_PACKS: u8 = 2;
const SECTION_FILES: u8 = 3;

#[cfg(test)]
mod tests;
