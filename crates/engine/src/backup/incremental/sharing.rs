//! Decides to which frames of earlier manifests a manifest refers. Pure.
//!
//! A reference takes the place of a frame of files of which none has changed. It saves the bytes of the frame in the
//! repository. It costs every later reader requests, one for neighbouring frames of an object and one to look at that
//! object, and the object stays as long as the reference. So:
//! 1. An object is referred to only if that saves much more than it costs. A small cluster never refers to anything.
//! 2. Only a few objects are referred to. Of the others, those with the fewest bytes, the files are written again. Each
//!    backup adds at most one object, its parent. So a long chain writes at most one object again at each backup, the
//!    smallest, and its two-hundredth manifest is read with no more requests than its twentieth.
//! 3. A frame is referred to as a whole. If one of its files has changed, all others are written again, in frames of
//!    their own, apart from the changed files. What changes at every backup is soon in frames with nothing else.

use std::cmp::Reverse;

/// What must be saved by the references to one object, in bytes: as long as two requests over a usual line.
const LEAST_SAVED_BYTES: u64 = 128 << 10;

/// The bytes of a reference, and of a number in the table of packs.
const REFERENCE_BYTES: u64 = 40;
const NUMBER_BYTES: u64 = 3;

/// A frame with fewer raw bytes counts as this many for a reader, so the files of the frame are written again.
const LEAST_FRAME_BYTES: u32 = 4096;

/// The most objects that a manifest refers to.
const MOST_OBJECTS: usize = 16;

/// The most numbers in all tables of packs: half of what a reader accepts.
const MOST_NUMBERS: u64 = 4 << 20;

/// A frame of files of an earlier manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Candidate {
    /// The object in which it is, as an index.
    pub object: usize,
    /// Its length in the object, in bytes.
    pub stored_bytes: u32,
    /// The number of its raw bytes.
    pub raw_bytes: u32,
    /// Whether none of its files has changed.
    pub is_unchanged: bool,
}

/// The numbers of the frames that are referred to, object by object. `tables` has for each object the number of packs
/// in its list.
pub(in super::super) fn share(frames: &[Candidate], tables: &[u64]) -> Vec<usize> {
    let is_fit = |frame: &Candidate| frame.is_unchanged && frame.raw_bytes >= LEAST_FRAME_BYTES;
    let mut saved = vec![0_u64; tables.len()];
    for frame in frames.iter().filter(|frame| is_fit(frame)) {
        if let Some(saved) = saved.get_mut(frame.object) {
            *saved += u64::from(frame.stored_bytes).saturating_sub(REFERENCE_BYTES);
        }
    }
    let mut objects: Vec<(u64, usize, u64)> = Vec::new();
    for (object, (saved, table)) in saved.into_iter().zip(tables).enumerate() {
        let cost = table.saturating_mul(NUMBER_BYTES);
        if saved >= cost.saturating_add(LEAST_SAVED_BYTES) {
            objects.push((saved - cost, object, *table));
        }
    }
    objects.sort_unstable_by_key(|(saved, object, _)| (Reverse(*saved), *object));
    objects.truncate(MOST_OBJECTS);
    let mut numbers = 0_u64;
    objects.retain(|(_, _, table)| {
        let fits = numbers.saturating_add(*table) <= MOST_NUMBERS;
        numbers += if fits { *table } else { 0 };
        fits
    });
    let is_chosen = |object| objects.iter().any(|(_, chosen, _)| *chosen == object);
    let mut shared: Vec<usize> =
        frames.iter().enumerate().filter(|(_, one)| is_fit(one) && is_chosen(one.object)).map(|(at, _)| at).collect();
    // Neighbours in an object are read in one request.
    shared.sort_by_key(|at| frames.get(*at).map(|frame| frame.object));
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u32 = 1 << 10;

    fn frame(object: usize, stored_bytes: u32) -> Candidate {
        Candidate { object, stored_bytes, raw_bytes: stored_bytes.max(LEAST_FRAME_BYTES), is_unchanged: true }
    }

    fn changed(object: usize) -> Candidate {
        Candidate { is_unchanged: false, ..frame(object, 64 * KIB) }
    }

    #[test]
    fn unchanged_frames_are_shared_if_that_saves_enough() {
        let three = [frame(0, 64 * KIB), changed(0), frame(0, 64 * KIB), frame(0, 64 * KIB)];
        assert_eq!(share(&three, &[1]), [0, 2, 3]);
        assert_eq!(share(&three[..3], &[1]), [0_usize; 0], "a small cluster");
        assert_eq!(share(&[], &[]), [0_usize; 0]);
        assert_eq!(share(&[changed(0); 9], &[1]), [0_usize; 0]);
        // A table of a million numbers costs more than three frames save.
        assert_eq!(share(&three, &[1_000_000]), [0_usize; 0]);
        let small = Candidate { raw_bytes: LEAST_FRAME_BYTES - 1, ..frame(0, 4000) };
        assert_eq!(share(&[three[0], small, three[2], three[3]], &[1]), [0, 2, 3], "a reader counts it as more");
    }

    #[test]
    fn each_object_must_be_worth_it() {
        let frames = [frame(0, 100 * KIB), frame(1, 100 * KIB), frame(0, 100 * KIB), frame(2, 200 * KIB)];
        assert_eq!(share(&frames, &[10, 10, 10]), [0, 2, 3]);
    }

    /// The objects with the most bytes stay; the frames are in the order of their objects.
    #[test]
    fn the_number_of_objects_is_bounded() {
        let frames: Vec<Candidate> = (0..40).map(|object| frame(object, (200 + object as u32) * KIB)).collect();
        let tables = vec![10; 40];
        let shared = share(&frames, &tables);
        assert_eq!(shared, (24..40).collect::<Vec<_>>());
        let tables = vec![MOST_NUMBERS / 3; 40];
        let large: Vec<Candidate> = frames.iter().map(|one| Candidate { stored_bytes: 64 << 20, ..*one }).collect();
        assert_eq!(share(&large, &tables), [0, 1, 2], "all tables together are bounded");
    }
}
