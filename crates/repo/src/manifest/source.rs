//! The sources of a file: its extents and the patches over them, each with its visible bytes.
//!
//! Sources are numbered: the extents from 0, then the patches. The part of a source that a later patch covers is not
//! visible. The visible ranges of all sources make up the file, each byte once, so a restore may write them in any
//! order.

use std::ops::Range;

use super::entry::{FileEntry, Patch};
use super::extent::Extent;

/// Bytes of a file that come from one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The place of the chunk.
    pub place: Extent,
    /// The offset of the chunk in the file, in bytes.
    pub file_offset: u64,
    /// The visible ranges of the chunk, in order; `None` for all of it.
    pub seen: Option<Vec<Range<u32>>>,
}

impl Source {
    /// The number of bytes of the file that come from it.
    pub fn seen_bytes(&self) -> u64 {
        match &self.seen {
            None => u64::from(self.place.length),
            Some(seen) => seen.iter().map(|range| u64::from(range.end - range.start)).sum(),
        }
    }
}

impl FileEntry<'_> {
    /// The number of sources of a file.
    pub fn source_count(&self) -> u32 {
        (self.extents().len() + self.patches().len()) as u32
    }

    /// The place of a source; `None` past the end.
    pub fn place(&self, source: u32) -> Option<Extent> {
        let (extents, source) = (self.extents(), source as usize);
        match source.checked_sub(extents.len()) {
            None => extents.get(source),
            Some(patch) => self.patches().get(patch).map(|patch| patch.place),
        }
    }

    /// A source of a file whose extents (except the last) have this length in bytes; `None` past the end.
    pub fn source(&self, source: u32, extent_bytes: u32) -> Option<Source> {
        let place = self.place(source)?;
        let (extents, patches) = (self.extents(), self.patches());
        let (extent, at, later) = match (source as usize).checked_sub(extents.len()) {
            None => (source, 0, patches_over(patches, source)),
            Some(number) => {
                let patch = patches.get(number)?;
                let later = patches.get(number + 1..).unwrap_or_default();
                let end = later.partition_point(|later| later.extent == patch.extent);
                (patch.extent, patch.at, later.get(..end).unwrap_or_default())
            }
        };
        let file_offset = u64::from(extent) * u64::from(extent_bytes) + u64::from(at);
        let seen = if later.is_empty() { None } else { uncovered(&(at..at + place.length), later) };
        Some(Source { place, file_offset, seen })
    }

    /// The numbers of the sources that are patches over an extent.
    pub fn patch_sources(&self, extent: u32) -> Range<u32> {
        let before = self.patches().partition_point(|patch| patch.extent < extent);
        let first = self.extents().len() + before;
        first as u32..(first + patches_over(self.patches(), extent).len()) as u32
    }
}

pub(super) fn patches_over(patches: &[Patch], extent: u32) -> &[Patch] {
    let start = patches.partition_point(|patch| patch.extent < extent);
    let rest = patches.get(start..).unwrap_or_default();
    rest.get(..rest.partition_point(|patch| patch.extent == extent)).unwrap_or_default()
}

/// The parts of a range of the extent that these patches do not cover, counted from its start; `None` for all of it.
fn uncovered(range: &Range<u32>, patches: &[Patch]) -> Option<Vec<Range<u32>>> {
    let mut covers: Vec<Range<u32>> =
        patches.iter().map(Patch::range).filter(|cover| cover.start < range.end && cover.end > range.start).collect();
    if covers.is_empty() {
        return None;
    }
    covers.sort_unstable_by_key(|cover| cover.start);
    let mut seen = Vec::new();
    let mut at = range.start;
    for cover in covers {
        if cover.start > at {
            seen.push(at - range.start..cover.start - range.start);
        }
        at = at.max(cover.end);
    }
    if at < range.end {
        seen.push(at - range.start..range.end - range.start);
    }
    Some(seen)
}
