//! Decides what is stored of an extent in which some bytes changed. Pure.
//!
//! Patches replace bytes of the parent's extent, and new patches replace those of the parent. Each patch needs room in
//! the manifest and, at a restore, a part of another pack. So an extent with many patches, or mostly patches, is stored
//! again in full: the two-hundredth backup of a chain restores as fast as the first.

use std::ops::Range;

use holdfast_repo::manifest::{FileEntry, Patch};

/// The maximum number of patches over one extent. The format allows more ([`holdfast_repo::manifest::MOST_PATCHES`]),
/// but a restore must fetch each of them.
const MOST_PATCHES: u64 = 64;

/// The maximum number of patches in one manifest. Each takes 60 bytes in memory, and about 48 in the manifest, whose
/// length is limited.
const MOST_IN_MANIFEST: u64 = 16 << 20;

/// The maximum number of patches over one extent, for a cluster with this many extents: a large cluster gets fewer.
pub(in super::super) fn most_patches(extents: u64) -> usize {
    (MOST_IN_MANIFEST / extents.max(1)).min(MOST_PATCHES) as usize
}

/// What is stored of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Overlay {
    /// Nothing: it is the parent's.
    Keep,
    /// Only the changed bytes.
    Patch,
    /// All of it.
    Whole,
}

/// Decides for extent `number` of a file of the parent, which now has `length` bytes. `changed` has the changed bytes,
/// as ranges within the extent, sorted and without overlaps. `most` is the maximum number of patches.
pub(in super::super) fn overlay(
    parent: &FileEntry<'_>,
    number: u32,
    length: u32,
    changed: &[Range<u32>],
    most: usize,
) -> Overlay {
    if parent.extents().get(number as usize).is_none_or(|extent| extent.length != length) {
        return Overlay::Whole;
    }
    if changed.is_empty() {
        return Overlay::Keep;
    }
    let first = parent.patches().partition_point(|patch| patch.extent < number);
    let old = parent.patches().get(first..).unwrap_or_default().iter().take_while(|patch| patch.extent == number);
    let bytes_of = |range: &Range<u32>| u64::from(range.end.saturating_sub(range.start));
    let (mut count, mut bytes) = (changed.len(), changed.iter().map(bytes_of).sum::<u64>());
    for range in old.map(Patch::range).filter(|old| !is_within(old, changed)) {
        count += 1;
        bytes += bytes_of(&range);
    }
    if count > most || bytes * 2 > u64::from(length) { Overlay::Whole } else { Overlay::Patch }
}

/// Whether one of these ranges, sorted and without overlaps, contains all of `range`.
fn is_within(range: &Range<u32>, ranges: &[Range<u32>]) -> bool {
    let at = ranges.partition_point(|other| other.end < range.end);
    ranges.get(at).is_some_and(|other| other.start <= range.start && range.end <= other.end)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "the changed ranges are often only one")]

    use holdfast_repo::manifest::{Extent, Extents, FileKind};
    use holdfast_repo::{ChunkHash, FrameLocation};

    use super::*;

    const PAGE: u32 = 8192;
    const LENGTH: u32 = 128 * PAGE;

    fn place(length: u32) -> Extent {
        Extent::stored(ChunkHash::of(b"x"), 0, FrameLocation { offset: 92, length: 100 }, 0, length)
    }

    /// The decision for the second extent of a file. The parent has patches over the pages `old` of it.
    fn decide(old: &[Range<u32>], changed: &[Range<u32>]) -> Overlay {
        let bytes = |range: &Range<u32>| range.start * PAGE..range.end * PAGE;
        let patch = |range: &Range<u32>| {
            let bytes = bytes(range);
            Patch { extent: 1, at: bytes.start, place: place(bytes.end - bytes.start) }
        };
        let (extents, patches) = ([place(LENGTH), place(LENGTH)], old.iter().map(patch).collect::<Vec<_>>());
        let entry = FileEntry {
            path: b"base/5/100",
            kind: FileKind::File { crc32c: None, extents: Extents::of(&extents), patches: &patches },
            mode: 0o600,
            size_bytes: u64::from(2 * LENGTH),
            mtime_seconds: 0,
        };
        overlay(&entry, 1, LENGTH, &changed.iter().map(bytes).collect::<Vec<_>>(), 64)
    }

    fn every_other(pages: u32) -> Vec<Range<u32>> {
        (0..pages).map(|page| page * 2..page * 2 + 1).collect()
    }

    #[test]
    fn few_changes_are_patches_and_many_are_a_new_extent() {
        assert_eq!(decide(&[], &[]), Overlay::Keep);
        assert_eq!(decide(&[0..1], &[]), Overlay::Keep);
        assert_eq!(decide(&[], &[5..6]), Overlay::Patch);
        assert_eq!(decide(&[], &[0..64]), Overlay::Patch);
        assert_eq!(decide(&[], &[0..65]), Overlay::Whole, "more than half");
        assert_eq!(decide(&[], &every_other(64)), Overlay::Patch);
    }

    #[test]
    fn patches_of_the_parent_count_unless_new_ones_cover_them() {
        assert_eq!(decide(&every_other(63), &[126..127]), Overlay::Patch);
        assert_eq!(decide(&every_other(63), &[1..2, 3..4]), Overlay::Whole, "too many");
        assert_eq!(decide(&[0..40], &[50..80]), Overlay::Whole, "too much");
        assert_eq!(decide(&[50..80], &[50..80]), Overlay::Patch, "the same pages again");
        assert_eq!(decide(&every_other(64), &every_other(64)), Overlay::Patch);
    }

    #[test]
    fn an_extent_of_another_length_or_without_a_parent_is_stored_whole() {
        let extents = [place(LENGTH), place(PAGE)];
        let entry = FileEntry {
            path: b"base/5/100",
            kind: FileKind::file(0, &extents),
            mode: 0o600,
            size_bytes: u64::from(LENGTH + PAGE),
            mtime_seconds: 0,
        };
        assert_eq!(overlay(&entry, 1, 2 * PAGE, &[PAGE..2 * PAGE], 64), Overlay::Whole);
        assert_eq!(overlay(&entry, 2, PAGE, &[], 64), Overlay::Whole);
        assert_eq!(overlay(&entry, 1, PAGE, &[], 64), Overlay::Keep);
    }

    /// Ten terabytes in extents of 1 MiB, and a small cluster.
    #[test]
    fn a_manifest_never_has_more_patches_than_fit() {
        assert_eq!(most_patches(10 << 20), 1);
        assert_eq!(most_patches(1 << 20), 16);
        assert_eq!((most_patches(1000), most_patches(0)), (64, 64));
        assert_eq!(most_patches(100 << 20), 0);
    }
}
