//! Pure planning: which pieces of which files are read, and in which order.
//!
//! A file of more than [`GROUPED_BYTES`] is cut into extents, and each extent is one unit of work, so that one 1 GiB
//! relation segment uses every core. Smaller files are put together, up to one extent per unit, so that a hundred
//! thousand small files need only a few thousand frames.
//!
//! Units are made one at a time from the sorted list of files: a plan for 10 TB needs no memory beyond the list itself.
//!
//! Small files are read long after they were listed. Those that are not relations must be stored as they are when they
//! are read. So a group has room for one extent, even if less is planned for it. A file that has grown beyond that room
//! gets its own units later ([`Units::cut`]).

use std::ops::Range;

use holdfast_repo::manifest::{MANIFEST_RAW_BYTES, usual_entry_bytes};

use super::listing::{Scan, SourceFile};
use crate::error::{Cause, Error};

/// Files up to this size share a frame with others. It is a quarter of an extent: a shared frame holds several such
/// files, and a larger file fills its own frame well enough.
pub(super) const GROUPED_BYTES: u64 = 256 * 1024;

/// The maximum number of files in a unit. Without it, all empty files would be in one unit.
const GROUPED_FILES: usize = 1024;

/// One piece of work: read at once, stored in one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unit {
    /// One extent of one file.
    Extent {
        /// Index into the list of files.
        file: usize,
        /// The extent's number within the file.
        number: u32,
        /// Its offset in the file, in bytes.
        offset: u64,
        /// Its planned length in bytes.
        length: u32,
    },
    /// Several whole small files.
    Group {
        /// Indexes into the list of files.
        files: Range<usize>,
        /// The sum of their planned lengths, in bytes.
        length: u32,
        /// The maximum number of bytes to read: one extent if one of the files can grow, else `length`.
        room: u32,
    },
    /// Parts of relation files. The parent backup has the rest.
    Parts {
        /// Sorted by file, and by offset within a file.
        parts: Vec<Part>,
        /// The sum of their lengths, in bytes.
        length: u32,
    },
}

/// A part of a file, within one extent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Index into the list of files.
    pub file: usize,
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u32,
}

impl Unit {
    /// The maximum number of bytes to read.
    pub(super) fn room(&self) -> u32 {
        match self {
            Self::Extent { length, .. } | Self::Parts { length, .. } => *length,
            Self::Group { room, .. } => *room,
        }
    }
}

/// Refuses a data directory whose manifest would be too long, before anything is read. The writer of the manifest would
/// also refuse it, but only after everything has been copied.
pub(super) fn check_manifest(scan: &Scan, extent_size_bytes: u32) -> Result<(), Error> {
    let extent_size = u64::from(extent_size_bytes).max(1);
    let directories = scan.directories.iter().map(|directory| usual_entry_bytes(directory.path.len() as u64, 0));
    let links = scan.links.iter().map(|link| usual_entry_bytes((link.path.len() + link.target.len()) as u64, 0));
    let files = scan.files.iter();
    let files = files.map(|file| usual_entry_bytes(file.path.len() as u64, file.size_bytes.div_ceil(extent_size)));
    let needed = directories.chain(links).chain(files).fold(0, u64::saturating_add);
    if needed <= MANIFEST_RAW_BYTES {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Cause::Refused(format!(
        "the data directory has {} files of {} MiB in total, whose manifest would take about {} MiB; a manifest can \
         have at most {} MiB, so this release cannot take a backup of it",
        scan.files.len(),
        mib(scan.total_bytes),
        mib(needed),
        mib(MANIFEST_RAW_BYTES)
    ))
    .into())
}

/// Sorts files into the order in which they are read: large ones first, so that a backup does not end with one long
/// file; then by path, so that the files of a database are together.
pub(super) fn sort(files: &mut [SourceFile]) {
    files.sort_unstable_by(|a, b| {
        let small = |f: &SourceFile| f.size_bytes <= GROUPED_BYTES;
        small(a).cmp(&small(b)).then_with(|| a.path.cmp(&b.path))
    });
}

/// The units of a sorted list of files.
pub(super) struct Units<'a> {
    files: &'a [SourceFile],
    extent_size: u64,
    /// Whether small files share a unit.
    grouping: bool,
    file: usize,
    offset: u64,
}

impl<'a> Units<'a> {
    /// The units of `files`, which are sorted by [`sort`].
    pub(super) fn new(files: &'a [SourceFile], extent_size_bytes: u32) -> Self {
        Self { files, extent_size: u64::from(extent_size_bytes), grouping: true, file: 0, offset: 0 }
    }

    /// Every file, even a small one, in its own units: for files that keep growing.
    pub(super) fn cut(files: &'a [SourceFile], extent_size_bytes: u32) -> Self {
        Self { grouping: false, ..Self::new(files, extent_size_bytes) }
    }

    fn group(&mut self) -> Unit {
        let start = self.file;
        let mut length = 0;
        let mut may_grow = false;
        while let Some(file) = self.files.get(self.file) {
            let full = length + file.size_bytes > self.extent_size || self.file - start >= GROUPED_FILES;
            if self.file > start && full {
                break;
            }
            length += file.size_bytes;
            may_grow |= !file.check.is_relation();
            self.file += 1;
        }
        let room = if may_grow { length.max(self.extent_size) } else { length };
        Unit::Group { files: start..self.file, length: length as u32, room: room as u32 }
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let file = self.files.get(self.file)?;
        // A grouped file must fit in one extent, even if the extents of the repository are short.
        if self.grouping && file.size_bytes <= GROUPED_BYTES.min(self.extent_size) {
            return Some(self.group());
        }
        let offset = self.offset;
        let length = (file.size_bytes - offset).min(self.extent_size);
        let unit =
            Unit::Extent { file: self.file, number: (offset / self.extent_size) as u32, offset, length: length as u32 };
        self.offset += length;
        if self.offset == file.size_bytes {
            self.file += 1;
            self.offset = 0;
        }
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::backup::listing::PageCheck;

    const MIB: u64 = 1024 * 1024;

    fn file(path: &str, size_bytes: u64) -> SourceFile {
        SourceFile {
            path: path.as_bytes().into(),
            size_bytes,
            mtime: 0,
            mode: 0o600,
            check: PageCheck::None,
            identity: None,
        }
    }

    #[test]
    fn a_large_file_is_cut_in_extents_and_small_ones_share_a_unit() {
        let mut files =
            vec![file("small/a", 8192), file("base/1/2", 2 * MIB + 8192), file("small/b", 0), file("small/c", 100)];
        sort(&mut files);
        let units: Vec<Unit> = Units::new(&files, MIB as u32).collect();
        assert_eq!(
            units,
            vec![
                Unit::Extent { file: 0, number: 0, offset: 0, length: MIB as u32 },
                Unit::Extent { file: 0, number: 1, offset: MIB, length: MIB as u32 },
                Unit::Extent { file: 0, number: 2, offset: 2 * MIB, length: 8192 },
                Unit::Group { files: 1..4, length: 8292, room: MIB as u32 },
            ]
        );
    }

    /// It is refused before a byte is read, and not after days of copying.
    #[test]
    fn a_directory_too_large_for_a_manifest_is_refused_before_the_copy() {
        let scan = |terabytes: u64| {
            let files: Vec<SourceFile> =
                (0..terabytes * 1000).map(|n| file(&format!("base/16384/{n}"), 1_000_000_000)).collect();
            Scan { total_bytes: files.iter().map(|file| file.size_bytes).sum(), files, ..Scan::default() }
        };
        check_manifest(&scan(85), MIB as u32).unwrap();
        let error = check_manifest(&scan(120), MIB as u32).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the data directory has 120000 files of 114440918 MiB in total, whose manifest would take about 5027 MiB; \
             a manifest can have at most 4096 MiB, so this release cannot take a backup of it"
        );
        // Larger extents make the manifest shorter.
        check_manifest(&scan(120), 8 * MIB as u32).unwrap();
    }

    #[test]
    fn a_group_is_never_larger_than_one_extent() {
        let files: Vec<SourceFile> = (0..100).map(|n| file(&format!("f{n:03}"), 200 * 1024)).collect();
        let units: Vec<Unit> = Units::new(&files, MIB as u32).collect();
        assert_eq!(units.len(), 20);
        assert!(units.iter().all(|unit| u64::from(unit.room()) <= MIB));
    }

    #[test]
    fn empty_files_do_not_all_share_one_unit() {
        let files: Vec<SourceFile> = (0..3000).map(|n| file(&format!("f{n:04}"), 0)).collect();
        assert_eq!(Units::new(&files, MIB as u32).count(), 3);
    }

    #[test]
    fn only_files_that_may_grow_get_room_for_it() {
        let relation = |path: &str| SourceFile { check: PageCheck::Off, ..file(path, 8192) };
        let rooms = |files: &[SourceFile]| Units::new(files, MIB as u32).map(|unit| unit.room()).collect::<Vec<u32>>();
        assert_eq!(rooms(&[relation("base/1/2"), relation("base/1/3")]), [16384]);
        assert_eq!(rooms(&[relation("base/1/2"), file("log/a.log", 10)]), [MIB as u32]);
    }

    /// An empty file also has a unit, so that it gets its entry.
    #[test]
    fn files_that_grow_are_cut_one_by_one() {
        let files = [file("a", 0), file("b", 100), file("c", MIB + 1)];
        let units: Vec<Unit> = Units::cut(&files, MIB as u32).collect();
        let extent = |file, number, offset, length| Unit::Extent { file, number, offset, length };
        assert_eq!(
            units,
            [extent(0, 0, 0, 0), extent(1, 0, 0, 100), extent(2, 0, 0, MIB as u32), extent(2, 1, MIB, 1)]
        );
    }

    /// Every byte of every file is in exactly one unit, whatever the sizes are.
    #[test]
    fn units_cover_every_file_once() {
        let sizes = [0, 1, GROUPED_BYTES - 1, GROUPED_BYTES, GROUPED_BYTES + 1, MIB, MIB + 1, 3 * MIB];
        let mut files: Vec<SourceFile> =
            (0..64).map(|n| file(&format!("f{n}"), sizes[(n * 7) % sizes.len()])).collect();
        sort(&mut files);
        let mut covered = vec![0_u64; files.len()];
        let mut seen = vec![0_u32; files.len()];
        for unit in Units::new(&files, MIB as u32) {
            match unit {
                Unit::Extent { file, offset, length, .. } => {
                    assert_eq!(covered[file], offset);
                    covered[file] += u64::from(length);
                    seen[file] += 1;
                }
                // Only incremental backups have parts.
                Unit::Parts { .. } => assert!(files.is_empty(), "{unit:?}"),
                Unit::Group { files: range, .. } => {
                    for index in range {
                        covered[index] += files[index].size_bytes;
                        seen[index] += 1;
                    }
                }
            }
        }
        for (index, file) in files.iter().enumerate() {
            assert_eq!(covered[index], file.size_bytes);
            assert!(seen[index] >= 1);
        }
    }

    #[test]
    fn ten_terabytes_in_a_million_files_are_planned_in_little_memory() {
        // 10 MiB each: 10 million extents, and none of them is held in memory.
        let files: Vec<SourceFile> = (0..1_000_000).map(|n| file(&format!("base/16384/{n}"), 10 * MIB)).collect();
        let mut total = 0_u64;
        let mut count = 0_u64;
        for unit in Units::new(&files, MIB as u32) {
            total += u64::from(unit.room());
            count += 1;
        }
        assert_eq!(total, 10 * MIB * 1_000_000);
        assert_eq!(count, 10_000_000);
    }
}
