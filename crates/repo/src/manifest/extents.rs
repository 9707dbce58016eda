//! The extents of a file, and how a manifest in memory holds the extents of millions of files.
//!
//! Of the five numbers of an extent, three are mostly those of the extent before it: the pack, the offset 0 in its
//! frame, and the full length. So they are kept once for a run of extents. What is left takes 40 bytes, of which 32 are
//! the hash.

use super::extent::Extent;
use crate::chunk::ChunkHash;

/// Extents are kept in blocks of this many (2.6 MB). One large array that grows by doubling would need the old and the
/// new array at the same time. The extents of one file are in one block.
const BLOCK_EXTENTS: usize = 1 << 16;

/// The extents of a file, in order.
#[derive(Clone, Copy)]
pub struct Extents<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Slice(&'a [Extent]),
    Packed { block: &'a Block, start: u32, count: u32 },
}

/// The part of an extent that is its own.
#[derive(Debug, Clone, Copy)]
struct Own {
    hash: ChunkHash,
    frame_offset: u32,
    frame_length: u32,
}

/// What neighbouring extents have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Common {
    pack: u32,
    offset: u32,
    length: u32,
}

#[derive(Debug, Clone)]
struct Block {
    own: Vec<Own>,
    /// Each run with the number of its first extent in the block.
    runs: Vec<(u32, Common)>,
}

/// Where the extents of a file are.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExtentRange {
    block: u32,
    start: u32,
    count: u32,
}

/// The extents of all files of a manifest.
#[derive(Debug, Clone, Default)]
pub(super) struct ExtentStore {
    blocks: Vec<Block>,
    count: u64,
}

impl Own {
    fn with(&self, common: &Common) -> Extent {
        let (Self { hash, frame_offset, frame_length }, Common { pack, offset, length }) = (*self, *common);
        Extent { hash, pack, frame_offset, frame_length, offset, length }
    }
}

impl Block {
    fn run(&self, at: u32) -> usize {
        self.runs.partition_point(|(start, _)| *start <= at).saturating_sub(1)
    }

    fn get(&self, at: u32) -> Option<Extent> {
        let (own, (_, common)) = (self.own.get(at as usize)?, self.runs.get(self.run(at))?);
        Some(own.with(common))
    }

    fn push(&mut self, extent: &Extent) {
        let Extent { hash, pack, frame_offset, frame_length, offset, length } = *extent;
        let common = Common { pack, offset, length };
        if self.runs.last().is_none_or(|(_, last)| *last != common) {
            self.runs.push((self.own.len() as u32, common));
        }
        self.own.push(Own { hash, frame_offset, frame_length });
    }
}

impl ExtentStore {
    /// The number of all extents.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds the extents of a file, of which there are fewer than 2^32.
    pub(super) fn push(&mut self, extents: Extents<'_>) -> ExtentRange {
        let fits = |block: &Block| block.own.capacity() - block.own.len() >= extents.len();
        if !self.blocks.last().is_some_and(fits) {
            let own = Vec::with_capacity(extents.len().max(BLOCK_EXTENTS));
            self.blocks.push(Block { own, runs: Vec::new() });
        }
        let block = self.blocks.len() as u32 - 1;
        let mut start = 0;
        if let Some(last) = self.blocks.last_mut() {
            start = last.own.len() as u32;
            extents.iter().for_each(|extent| last.push(&extent));
        }
        self.count += extents.len() as u64;
        ExtentRange { block, start, count: extents.len() as u32 }
    }

    pub(super) fn get(&self, range: ExtentRange) -> Extents<'_> {
        let ExtentRange { block, start, count } = range;
        match self.blocks.get(block as usize) {
            Some(block) => Extents(Form::Packed { block, start, count }),
            None => Extents::default(),
        }
    }
}

impl<'a> Extents<'a> {
    /// These extents.
    pub const fn of(extents: &'a [Extent]) -> Self {
        Self(Form::Slice(extents))
    }

    /// The number of extents.
    pub fn len(&self) -> usize {
        match self.0 {
            Form::Slice(extents) => extents.len(),
            Form::Packed { count, .. } => count as usize,
        }
    }

    /// Whether there are none, as in an empty file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extent with this number, from 0; `None` past the end.
    pub fn get(&self, number: usize) -> Option<Extent> {
        match self.0 {
            Form::Slice(extents) => extents.get(number).copied(),
            Form::Packed { block, start, count } => {
                if number < count as usize {
                    block.get(start + number as u32)
                } else {
                    None
                }
            }
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + use<'a> {
        self.starting_at(0)
    }

    /// Those from this number on, in order.
    pub fn starting_at(&self, first: usize) -> impl Iterator<Item = Extent> + use<'a> {
        let (slice, packed) = match self.0 {
            Form::Slice(extents) => (extents.get(first..).unwrap_or_default(), None),
            Form::Packed { block, start, count } => {
                let (end, start) = (start + count, start.saturating_add(u32::try_from(first).unwrap_or(u32::MAX)));
                (&[][..], Some(PackedIter { block, at: start.min(end), end, run: block.run(start) }))
            }
        };
        slice.iter().copied().chain(packed.into_iter().flatten())
    }
}

/// Walks over the extents of a block, and over the runs with them.
struct PackedIter<'a> {
    block: &'a Block,
    at: u32,
    end: u32,
    run: usize,
}

impl Iterator for PackedIter<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.at >= self.end {
            return None;
        }
        if self.block.runs.get(self.run + 1).is_some_and(|(start, _)| *start <= self.at) {
            self.run += 1;
        }
        let own = self.block.own.get(self.at as usize)?;
        let (_, common) = self.block.runs.get(self.run)?;
        self.at += 1;
        Some(own.with(common))
    }
}

impl Default for Extents<'_> {
    fn default() -> Self {
        Self::of(&[])
    }
}

impl PartialEq for Extents<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Extents<'_> {}

impl std::fmt::Debug for Extents<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_testkit::random::Random;

    use super::*;

    /// Runs begin and end anywhere, also in the middle of a file and of a block.
    #[test]
    fn packed_extents_are_those_that_were_pushed() {
        let mut random = Random::of_seed(5);
        let mut store = ExtentStore::default();
        let mut files = Vec::new();
        let mut extent = Extent::hole(ChunkHash::of(b"x"), 1 << 20);
        for number in 0..3000_u64 {
            let count = [0, 1, 2, 300][random.index(4)];
            let extents: Vec<Extent> = (0..count)
                .map(|_| {
                    match random.below(9) {
                        0 => extent.pack = random.below(3) as u32,
                        1 => extent.offset = random.below(2) as u32,
                        2 => extent.length = 1 + random.below(2) as u32,
                        _ => {}
                    }
                    extent.frame_offset = random.word() as u32;
                    extent.frame_length = random.word() as u32;
                    extent.hash = ChunkHash::of(&[number.to_le_bytes(), random.word().to_le_bytes()].concat());
                    extent
                })
                .collect();
            files.push((store.push(Extents::of(&extents)), extents));
        }
        assert_eq!(store.count(), files.iter().map(|(_, extents)| extents.len() as u64).sum::<u64>());
        assert!(store.blocks.len() > 2);
        for (range, expected) in &files {
            let found = store.get(*range);
            assert_eq!(found, Extents::of(expected));
            assert!((0..expected.len()).all(|number| found.get(number).unwrap() == expected[number]));
            assert_eq!(found.get(expected.len()), None);
            let middle = expected.len() / 2;
            assert!(found.starting_at(middle).eq(expected[middle..].iter().copied()));
            assert_eq!(found.starting_at(expected.len() + 1).next(), None);
        }
    }

    #[test]
    fn an_extent_takes_forty_bytes() {
        assert_eq!((size_of::<Own>(), size_of::<(u32, Common)>()), (40, 16));
    }
}
