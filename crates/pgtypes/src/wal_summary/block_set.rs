//! `BlockSet`: a set of block numbers in little memory, in chunks of 2^16 blocks as in WAL summaries.
//!
//! A chunk with up to 4096 blocks is a sorted array of 16-bit offsets, a fuller one a bitmap of 8 KiB: two bytes for
//! each block, and never more than one bit for each block that exists. The content alone decides the form of a chunk,
//! so equal sets compare equal.

use std::ops::Range;

/// `InvalidBlockNumber`: the number that no block has.
pub(crate) const INVALID_BLOCK: u32 = u32::MAX;

pub(crate) const BLOCKS_PER_CHUNK: u32 = 1 << 16;

/// The most offsets in an array: more would take more bytes than a bitmap.
const MAX_OFFSETS: usize = 4096;

/// Words of a bitmap.
const WORDS: usize = 1024;

/// The blocks of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Sorted, without duplicates, at most `MAX_OFFSETS`.
    Offsets(Box<[u16]>),
    /// More than `MAX_OFFSETS` bits, the lowest first.
    Bitmap(Box<[u64; WORDS]>),
}

impl Chunk {
    /// The blocks with these little-endian 16-bit offsets, in any order.
    pub(crate) fn from_offsets(bytes: &[u8]) -> Self {
        let (pairs, _) = bytes.as_chunks::<2>();
        Self::of_unsorted(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
    }

    /// The blocks whose bit is set in these bytes, lowest bit first.
    pub(crate) fn from_bitmap(bytes: &[u8]) -> Self {
        let mut words = empty_bitmap();
        let (eights, _) = bytes.as_chunks::<8>();
        for (word, eight) in words.iter_mut().zip(eights) {
            *word = u64::from_le_bytes(*eight);
        }
        Self::of_bitmap(words)
    }

    fn of_unsorted(mut offsets: Vec<u16>) -> Self {
        offsets.sort_unstable();
        offsets.dedup();
        Self::of_sorted(offsets)
    }

    fn of_sorted(offsets: Vec<u16>) -> Self {
        if offsets.len() <= MAX_OFFSETS {
            return Self(Form::Offsets(offsets.into_boxed_slice()));
        }
        let mut words = empty_bitmap();
        set_bits(&mut words, &offsets);
        Self(Form::Bitmap(words))
    }

    fn of_bitmap(words: Box<[u64; WORDS]>) -> Self {
        if count_bits(&words) > MAX_OFFSETS {
            return Self(Form::Bitmap(words));
        }
        let mut offsets = Vec::with_capacity(count_bits(&words));
        each_bit(&words, |offset| offsets.push(offset));
        Self(Form::Offsets(offsets.into_boxed_slice()))
    }

    /// The number of blocks.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Offsets(offsets) => offsets.len(),
            Form::Bitmap(words) => count_bits(words),
        }
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Form::Offsets(offsets) if offsets.is_empty())
    }

    /// Whether the block at this offset is in the chunk.
    pub fn contains(&self, offset: u16) -> bool {
        match &self.0 {
            Form::Offsets(offsets) => offsets.binary_search(&offset).is_ok(),
            Form::Bitmap(words) => {
                words.get(usize::from(offset / 64)).is_some_and(|word| word >> (offset % 64) & 1 == 1)
            }
        }
    }

    /// The offsets of the blocks, in order.
    pub fn offsets(&self) -> Vec<u16> {
        match &self.0 {
            Form::Offsets(offsets) => offsets.to_vec(),
            Form::Bitmap(words) => {
                let mut offsets = Vec::with_capacity(count_bits(words));
                each_bit(words, |offset| offsets.push(offset));
                offsets
            }
        }
    }

    /// The blocks of both.
    fn union(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Form::Offsets(a), Form::Offsets(b)) => Self::of_sorted(merge(&a, &b)),
            (Form::Bitmap(mut words), Form::Offsets(offsets)) | (Form::Offsets(offsets), Form::Bitmap(mut words)) => {
                set_bits(&mut words, &offsets);
                Self(Form::Bitmap(words))
            }
            (Form::Bitmap(mut words), Form::Bitmap(others)) => {
                for (word, other) in words.iter_mut().zip(others.iter()) {
                    *word |= other;
                }
                Self(Form::Bitmap(words))
            }
        }
    }

    /// Only the blocks below this offset.
    fn below(self, limit: u16) -> Self {
        match self.0 {
            Form::Offsets(offsets) => {
                let kept = offsets.partition_point(|offset| *offset < limit);
                if kept == offsets.len() {
                    return Self(Form::Offsets(offsets));
                }
                Self(Form::Offsets(offsets.iter().take(kept).copied().collect()))
            }
            Form::Bitmap(mut words) => {
                let (word, bit) = (usize::from(limit / 64), limit % 64);
                for (at, bits) in words.iter_mut().enumerate().skip(word) {
                    *bits &= if at == word { (1 << bit) - 1 } else { 0 };
                }
                Self::of_bitmap(words)
            }
        }
    }

    fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Offsets(offsets) => size_of_val(&**offsets),
            Form::Bitmap(words) => size_of_val(&**words),
        }
    }
}

fn empty_bitmap() -> Box<[u64; WORDS]> {
    Box::new([0; WORDS])
}

fn count_bits(words: &[u64; WORDS]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

fn set_bits(words: &mut [u64; WORDS], offsets: &[u16]) {
    for offset in offsets {
        if let Some(word) = words.get_mut(usize::from(offset / 64)) {
            *word |= 1 << (offset % 64);
        }
    }
}

fn each_bit(words: &[u64; WORDS], mut visit: impl FnMut(u16)) {
    for (first, word) in (0..=u16::MAX).step_by(64).zip(words) {
        let mut rest = *word;
        while rest != 0 {
            visit(first + rest.trailing_zeros() as u16);
            rest &= rest - 1;
        }
    }
}

/// The union of two sorted lists without duplicates.
fn merge(a: &[u16], b: &[u16]) -> Vec<u16> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    loop {
        merged.push(match (a.peek().copied(), b.peek().copied()) {
            (Some(left), Some(right)) => {
                if left <= right {
                    a.next();
                }
                if right <= left {
                    b.next();
                }
                left.min(right)
            }
            (Some(left), None) => {
                a.next();
                left
            }
            (None, Some(right)) => {
                b.next();
                right
            }
            (None, None) => return merged,
        });
    }
}

/// A set of block numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockSet {
    /// Sorted by number; none is empty.
    chunks: Vec<(u16, Chunk)>,
}

impl BlockSet {
    /// No blocks.
    pub const fn empty() -> Self {
        Self { chunks: Vec::new() }
    }

    /// The number of blocks.
    pub fn len(&self) -> u64 {
        self.chunks.iter().map(|(_, chunk)| chunk.len() as u64).sum()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether the block is in the set.
    pub fn contains(&self, block: u32) -> bool {
        let (number, offset) = split(block);
        self.position(number).ok().and_then(|at| self.chunks.get(at)).is_some_and(|(_, chunk)| chunk.contains(offset))
    }

    /// Adds the blocks of one chunk of a WAL summary.
    pub fn insert_chunk(&mut self, number: u16, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        match self.position(number) {
            Ok(at) => {
                if let Some((_, present)) = self.chunks.get_mut(at) {
                    let before = std::mem::replace(present, Chunk(Form::Offsets(Box::default())));
                    *present = before.union(chunk);
                }
            }
            Err(at) => {
                // Most forks have one chunk. The usual growth of a Vec begins with four places.
                if self.chunks.is_empty() {
                    self.chunks.reserve_exact(1);
                }
                self.chunks.insert(at, (number, chunk));
            }
        }
    }

    /// Adds one block.
    pub fn insert(&mut self, block: u32) {
        let (number, offset) = split(block);
        self.insert_chunk(number, Chunk(Form::Offsets(Box::new([offset]))));
    }

    /// Removes the blocks from `limit` on.
    pub fn truncate(&mut self, limit: u32) {
        let (number, offset) = split(limit);
        let kept = self.chunks.partition_point(|(chunk, _)| *chunk <= number);
        self.chunks.truncate(kept);
        if let Some((last, chunk)) = self.chunks.pop() {
            let chunk = if last == number { chunk.below(offset) } else { chunk };
            if !chunk.is_empty() {
                self.chunks.push((last, chunk));
            }
        }
        // Most truncations are to 0, at the creation of a relation that then fills many blocks.
        if self.chunks.is_empty() {
            self.chunks = Vec::new();
        }
    }

    /// The blocks within `within` as ranges: sorted, none empty, none touching the next.
    pub fn ranges(&self, within: Range<u32>) -> Vec<Range<u32>> {
        let mut ranges = Vec::new();
        let first = self.chunks.partition_point(|(number, _)| *number < split(within.start).0);
        for (number, chunk) in self.chunks.iter().skip(first) {
            let base = u32::from(*number) * BLOCKS_PER_CHUNK;
            if base >= within.end {
                break;
            }
            for block in chunk.offsets().into_iter().map(|offset| base + u32::from(offset)) {
                if within.contains(&block) {
                    push_block(&mut ranges, block);
                }
            }
        }
        ranges
    }

    /// Bytes on the heap, without what the allocator adds.
    pub fn heap_bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<(u16, Chunk)>()
            + self.chunks.iter().map(|(_, chunk)| chunk.heap_bytes()).sum::<usize>()
    }

    fn position(&self, number: u16) -> Result<usize, usize> {
        self.chunks.binary_search_by_key(&number, |(number, _)| *number)
    }
}

/// Adds a block that is after all others.
fn push_block(ranges: &mut Vec<Range<u32>>, block: u32) {
    match ranges.last_mut().filter(|last| last.end == block) {
        Some(last) => last.end = block + 1,
        None => ranges.push(block..block + 1),
    }
}

/// The number of the chunk, and the offset in it.
const fn split(block: u32) -> (u16, u16) {
    ((block / BLOCKS_PER_CHUNK) as u16, (block % BLOCKS_PER_CHUNK) as u16)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::single_range_in_vec_init, reason = "the expected ranges are often only one")]

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u32),
        /// More blocks than an array can have.
        Fill(u32, u32),
        Truncate(u32),
    }

    fn block() -> impl Strategy<Value = u32> {
        // Near the boundaries of chunks, and the last block that can exist.
        prop_oneof![0u32..300, 65_400u32..65_700, 131_000u32..131_200, Just(u32::MAX - 1)]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => block().prop_map(Step::Insert),
            1 => (block(), 1u32..5000).prop_map(|(first, count)| Step::Fill(first.min(200_000), count)),
            1 => block().prop_map(Step::Truncate),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn is_a_set(steps in proptest::collection::vec(step(), 0..40), within in (block(), block())) {
            let (mut set, mut model) = (BlockSet::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(block) => {
                        set.insert(block);
                        model.insert(block);
                    }
                    Step::Fill(first, count) => {
                        // Every second block, so that ranges do not join.
                        for block in (first..first + count * 2).step_by(2) {
                            set.insert(block);
                            model.insert(block);
                        }
                    }
                    Step::Truncate(limit) => {
                        set.truncate(limit);
                        model.retain(|block| *block < limit);
                    }
                }
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.is_empty(), model.is_empty());
            for block in model.iter().take(50) {
                prop_assert!(set.contains(*block));
                prop_assert_eq!(set.contains(block + 1), model.contains(&(block + 1)));
            }
            let within = within.0..within.1;
            let listed: Vec<u32> = set.ranges(within.clone()).into_iter().flatten().collect();
            let expected: Vec<u32> = model.iter().copied().filter(|block| within.contains(block)).collect();
            prop_assert_eq!(listed, expected);
            // The form depends on the content alone.
            let mut again = BlockSet::default();
            for block in model.iter().rev() {
                again.insert(*block);
            }
            prop_assert_eq!(set, again);
        }
    }

    #[test]
    fn a_full_chunk_is_one_bit_for_each_block() {
        let mut set = BlockSet::default();
        set.insert_chunk(7, Chunk::from_bitmap(&[0xFF; 8192]));
        assert_eq!(set.len(), 65_536);
        assert!(set.heap_bytes() < 8192 + 64);
        let first = 7 * 65_536;
        assert_eq!(set.ranges(0..u32::MAX), [first..first + 65_536]);
        set.truncate(first + 10);
        assert_eq!(set.ranges(0..u32::MAX), [first..first + 10]);
        assert!(set.heap_bytes() < 64);
    }

    #[test]
    fn offsets_come_in_any_order() {
        let chunk = Chunk::from_offsets(&[9, 0, 1, 0, 9, 0, 0xFF, 0xFF]);
        assert_eq!(chunk.offsets(), [1, 9, 65_535]);
    }
}
