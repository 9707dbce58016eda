//! Decides by WAL summaries which files are read. Pure.

use std::collections::VecDeque;
use std::ops::Range;

use holdfast_pgtypes::changes::{ChangedBlocks, DataFile, FileChanges};
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::{ControlFile, PgVersion};
use holdfast_repo::manifest::FileEntry;

use super::super::listing::SourceFile;
use super::super::plan::{Part, Unit};
use super::Base;
use super::overlay::{Overlay, overlay};

/// The changes from WAL summaries, with what is needed to look up a file.
#[derive(Debug)]
pub(in super::super) struct Summarized {
    changes: ChangedBlocks,
    version: PgVersion,
    segment_pages: u32,
}

/// The files of a listing, sorted by what is read of them.
#[derive(Debug, Default)]
pub(in super::super) struct Sorted {
    /// Files that are read completely.
    pub whole: Vec<SourceFile>,
    /// Files of which some extents or pages are read; the rest is the parent's.
    pub parts: Vec<SourceFile>,
    /// Files that are not read: all of their content is in the parent's file, which may be longer.
    pub kept: Vec<SourceFile>,
    /// The number of bytes to read of `whole` and `parts`.
    pub read_bytes: u64,
}

impl Summarized {
    pub(in super::super) fn new(changes: ChangedBlocks, control: &ControlFile) -> Self {
        Self { changes, version: control.version, segment_pages: control.relation_segment_pages }
    }

    /// Sorts the files of a listing.
    pub(in super::super) fn sort(&self, base: &Base, files: Vec<SourceFile>, extent_size_bytes: u32) -> Sorted {
        let mut sorted = Sorted::default();
        for file in files {
            match self.parts(base, &file, extent_size_bytes) {
                None => {
                    sorted.read_bytes += file.size_bytes;
                    sorted.whole.push(file);
                }
                Some(parts) if parts.is_empty() => sorted.kept.push(file),
                Some(parts) => {
                    sorted.read_bytes += parts.iter().map(|part| part.end - part.start).sum::<u64>();
                    sorted.parts.push(file);
                }
            }
        }
        sorted
    }

    /// The bytes to read of a file, as ranges that never cross the end of an extent; `None` if it is read whole.
    fn parts(&self, base: &Base, file: &SourceFile, extent_size_bytes: u32) -> Option<Vec<Range<u64>>> {
        let parent = base.find(&file.path).and_then(|position| base.file(position))?;
        let data = DataFile { path: &file.path, size: file.size_bytes, parent_size: Some(parent.size_bytes) };
        match self.changes.of_file(data, self.version, self.segment_pages) {
            FileChanges::Whole(_) => None,
            FileChanges::Unchanged => Some(Vec::new()),
            FileChanges::Blocks(blocks) => {
                let page = PAGE_SIZE as u64;
                let read: Vec<Range<u64>> = blocks
                    .read
                    .iter()
                    .map(|range| u64::from(range.start) * page..u64::from(range.end) * page)
                    .collect();
                Some(parts_of(&parent, file.size_bytes, &read, extent_size_bytes, base.most_patches()))
            }
        }
    }
}

/// The bytes to read of a file that now has `size` bytes. `changed` has the changed ranges, sorted and without
/// overlaps.
fn parts_of(
    parent: &FileEntry<'_>,
    size: u64,
    changed: &[Range<u64>],
    extent_size_bytes: u32,
    most_patches: usize,
) -> Vec<Range<u64>> {
    let extent_size = u64::from(extent_size_bytes);
    let mut parts = Vec::new();
    // If the last extent was shortened or extended, it is no longer the parent's extent, whatever changed in it.
    let last = size.checked_sub(1).map(|byte| byte / extent_size);
    let mut numbers: Vec<u64> = changed
        .iter()
        .flat_map(|range| range.start / extent_size..range.end.div_ceil(extent_size))
        .chain(last)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let start = number * extent_size;
        let end = size.min(start + extent_size);
        let first = changed.partition_point(|range| range.end <= start);
        let within = changed.get(first..).unwrap_or_default().iter().take_while(|range| range.start < end);
        let within: Vec<Range<u32>> =
            within.map(|range| (range.start.max(start) - start) as u32..(range.end.min(end) - start) as u32).collect();
        match overlay(parent, number as u32, (end - start) as u32, &within, most_patches) {
            Overlay::Keep => {}
            Overlay::Patch => {
                parts.extend(within.iter().map(|range| start + u64::from(range.start)..start + u64::from(range.end)));
            }
            Overlay::Whole => parts.push(start..end),
        }
    }
    parts
}

/// The units for files that are read in parts: each has as many parts as one extent has room for.
pub(in super::super) struct PartUnits<'a> {
    summarized: &'a Summarized,
    base: &'a Base,
    files: &'a [SourceFile],
    extent_size_bytes: u32,
    next_file: usize,
    waiting: VecDeque<Part>,
}

impl<'a> PartUnits<'a> {
    pub(in super::super) fn new(
        summarized: &'a Summarized,
        base: &'a Base,
        files: &'a [SourceFile],
        extent_size_bytes: u32,
    ) -> Self {
        Self { summarized, base, files, extent_size_bytes, next_file: 0, waiting: VecDeque::new() }
    }

    /// The length of the next part in bytes.
    fn next_length(&mut self) -> Option<u32> {
        while self.waiting.is_empty() {
            let file = self.files.get(self.next_file)?;
            let parts = self.summarized.parts(self.base, file, self.extent_size_bytes).unwrap_or_default();
            let index = self.next_file;
            let part =
                |range: Range<u64>| Part { file: index, offset: range.start, length: (range.end - range.start) as u32 };
            self.waiting.extend(parts.into_iter().map(part));
            self.next_file += 1;
        }
        self.waiting.front().map(|part| part.length)
    }
}

impl Iterator for PartUnits<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (mut parts, mut length) = (Vec::new(), 0_u32);
        while let Some(next) = self.next_length() {
            if !parts.is_empty() && length + next > self.extent_size_bytes {
                break;
            }
            length += next;
            parts.extend(self.waiting.pop_front());
        }
        (!parts.is_empty()).then_some(Unit::Parts { parts, length })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "the ranges to read are often only one")]

    use holdfast_repo::manifest::{Extent, FileKind};
    use holdfast_repo::{ChunkHash, FrameLocation};

    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    /// Eight pages.
    const EXTENT: u64 = 8 * PAGE;

    /// The pages to read of a file that had `parent` pages in the parent, and has `now` pages now.
    fn pages(parent: u64, now: u64, changed: &[Range<u64>]) -> Vec<Range<u64>> {
        let lengths = (0..parent.div_ceil(8)).map(|number| (parent - number * 8).min(8) * PAGE);
        let location = FrameLocation { offset: 92, length: 100 };
        let extents: Vec<Extent> =
            lengths.map(|length| Extent::stored(ChunkHash::of(b"x"), 0, location, 0, length as u32)).collect();
        let entry = FileEntry {
            path: b"base/5/100",
            kind: FileKind::file(0, &extents),
            mode: 0o600,
            size_bytes: parent * PAGE,
            mtime_seconds: 0,
        };
        let changed: Vec<Range<u64>> = changed.iter().map(|range| range.start * PAGE..range.end * PAGE).collect();
        let parts = parts_of(&entry, now * PAGE, &changed, EXTENT as u32, 64);
        parts.into_iter().map(|part| part.start / PAGE..part.end / PAGE).collect()
    }

    #[test]
    fn changed_pages_are_read_without_crossing_the_end_of_an_extent() {
        assert_eq!(pages(20, 20, &[]), []);
        assert_eq!(pages(20, 20, &[3..4]), [3..4]);
        assert_eq!(pages(20, 20, &[7..10]), [7..8, 8..10]);
        assert_eq!(pages(20, 20, &[2..3, 5..6, 18..19]), [2..3, 5..6, 18..19]);
        assert_eq!(pages(20, 20, &[0..5]), [0..8], "more than half of the extent");
        assert_eq!(pages(20, 20, &[1..20]), [0..8, 8..16, 16..20]);
    }

    #[test]
    fn an_extent_of_another_length_is_read_whole() {
        assert_eq!(pages(20, 21, &[20..21]), [16..21], "grown");
        assert_eq!(pages(20, 19, &[]), [16..19], "shortened");
        assert_eq!(pages(20, 16, &[]), [], "shortened to whole extents");
        assert_eq!(pages(16, 26, &[16..26]), [16..24, 24..26], "grown by whole extents");
        assert_eq!(pages(20, 0, &[]), []);
        assert_eq!(pages(20, 10, &[3..4]), [3..4, 8..10]);
    }
}
