//! `ChangedBlocks`: the union of WAL summaries, in memory.
//!
//! For each fork it has the smallest limit block of all summaries, and the changed blocks below it. Blocks at or after
//! the limit block need no list. The fork was at least once so short that they did not exist. So the parent's copy says
//! nothing about them, and [`crate::changes::decision`] reads all of them. PostgreSQL keeps those that were changed
//! after the truncation, and therefore depends on the order in which it reads the summaries. Without these blocks the
//! order does not matter: no truncation in any summary removed a block below the smallest limit block.
//!
//! # Memory
//!
//! At most two bytes for a changed block, and at most one bit for a block that exists, as in [`BlockSet`]; about 130
//! bytes for each fork with a change, with all overhead; nothing for blocks of new relations. So a cluster of 10 TB
//! (1.3 thousand million blocks) with 1 % of its blocks changed takes 27 MB if the changes are scattered evenly, and
//! 170 MB if every block changed. A million relations with one changed block each take 130 MB.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use crate::relation::Fork;
use crate::wal_summary::block_set::{BlockSet, Chunk, INVALID_BLOCK};
use crate::wal_summary::reader::{ForkSummary, RelationFork, WalSummaryError, WalSummaryReader};

/// The changes of one fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkChanges {
    /// `INVALID_BLOCK` for none: every block is below it.
    limit_block: u32,
    /// Blocks below `limit_block`.
    blocks: BlockSet,
}

impl ForkChanges {
    const fn none() -> Self {
        Self { limit_block: INVALID_BLOCK, blocks: BlockSet::empty() }
    }

    /// The smallest length in blocks that the fork had: 0 if it was created or dropped, `None` if it never got shorter.
    pub fn limit_block(&self) -> Option<u32> {
        Some(self.limit_block).filter(|limit| *limit != INVALID_BLOCK)
    }

    /// The changed blocks below the limit block.
    pub const fn blocks(&self) -> &BlockSet {
        &self.blocks
    }

    /// The changed blocks within `within` as sorted ranges, with all blocks at or after the limit block.
    pub fn ranges(&self, within: Range<u32>) -> Vec<Range<u32>> {
        let listed = within.start..within.end.min(self.limit_block);
        let unknown = within.start.max(self.limit_block)..within.end;
        let mut ranges = self.blocks.ranges(listed);
        if !unknown.is_empty() {
            match ranges.last_mut().filter(|last| last.end == unknown.start) {
                Some(last) => last.end = unknown.end,
                None => ranges.push(unknown),
            }
        }
        ranges
    }

    fn set_limit_block(&mut self, limit_block: u32) {
        if limit_block < self.limit_block {
            self.limit_block = limit_block;
            self.blocks.truncate(limit_block);
        }
    }
}

/// All changes in a range of WAL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangedBlocks {
    forks: BTreeMap<RelationFork, ForkChanges>,
}

impl ChangedBlocks {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// These changes and those of one WAL summary file. Summaries may be added in any order. The source should have a
    /// buffer.
    ///
    /// An error consumes the set: a summary may prove damaged only at its end, and its earlier changes must not be
    /// used.
    ///
    /// # Errors
    /// Those of [`WalSummaryReader`]: the source cannot be read, or the summary is damaged.
    pub fn with_summary(mut self, source: impl Read) -> Result<Self, WalSummaryError> {
        let mut reader = WalSummaryReader::new(source)?;
        while let Some(fork) = reader.next_fork()? {
            self.add_fork(fork);
            while let Some((number, chunk)) = reader.next_chunk()? {
                self.add_chunk(fork.fork, number, chunk);
            }
        }
        Ok(self)
    }

    /// Adds a fork's limit block, as `BlockRefTableSetLimitBlock`.
    pub fn add_fork(&mut self, ForkSummary { fork, limit_block }: ForkSummary) {
        self.entry(fork).set_limit_block(limit_block.unwrap_or(INVALID_BLOCK));
    }

    /// Adds changed blocks, as `BlockRefTableMarkBlockModified`.
    pub fn add_chunk(&mut self, fork: RelationFork, number: u16, chunk: Chunk) {
        let changes = self.entry(fork);
        if changes.limit_block > 0 {
            changes.blocks.insert_chunk(number, chunk);
            if changes.limit_block != INVALID_BLOCK {
                changes.blocks.truncate(changes.limit_block);
            }
        }
    }

    /// Adds one changed block, for example from the SQL function `pg_wal_summary_contents`.
    pub fn add_block(&mut self, fork: RelationFork, block: u32) {
        let changes = self.entry(fork);
        if block < changes.limit_block {
            changes.blocks.insert(block);
        }
    }

    /// The changes of one fork; `None` if no record named it.
    pub fn get(&self, fork: RelationFork) -> Option<&ForkChanges> {
        self.forks.get(&fork)
    }

    /// Whether the database was created or dropped in this tablespace, so that none of its files there is the parent's.
    /// The summarizer records this as an entry with relation number 0, for both strategies of `CREATE DATABASE` and for
    /// `ALTER DATABASE ... SET TABLESPACE`.
    pub fn database_recreated(&self, tablespace: u32, database: u32) -> bool {
        self.forks.contains_key(&RelationFork { tablespace, database, number: 0, fork: Fork::Main })
    }

    /// All forks with changes, in the order of [`RelationFork`].
    pub fn forks(&self) -> impl Iterator<Item = (RelationFork, &ForkChanges)> {
        self.forks.iter().map(|(fork, changes)| (*fork, changes))
    }

    /// The number of forks with changes.
    pub fn len(&self) -> usize {
        self.forks.len()
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.forks.is_empty()
    }

    /// Bytes in memory, without what the allocator and the tree add.
    pub fn bytes(&self) -> usize {
        self.forks.len() * size_of::<(RelationFork, ForkChanges)>()
            + self.forks.values().map(|changes| changes.blocks.heap_bytes()).sum::<usize>()
    }

    fn entry(&mut self, fork: RelationFork) -> &mut ForkChanges {
        self.forks.entry(fork).or_insert(ForkChanges::none())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    #![expect(clippy::single_range_in_vec_init, reason = "the expected ranges are often only one")]

    use super::*;
    use holdfast_testkit::random::Random;
    use proptest::prelude::*;

    fn fork(number: u32) -> RelationFork {
        RelationFork { tablespace: 1663, database: 5, number, fork: Fork::Main }
    }

    fn limit(number: u32, limit_block: u32) -> ForkSummary {
        ForkSummary { fork: fork(number), limit_block: Some(limit_block) }
    }

    #[test]
    fn a_truncation_makes_everything_after_it_unknown() {
        let mut changes = ChangedBlocks::new();
        for block in [1, 3, 7, 200_000] {
            changes.add_block(fork(9), block);
        }
        assert_eq!(changes.get(fork(9)).unwrap().ranges(0..u32::MAX), [1..2, 3..4, 7..8, 200_000..200_001]);
        changes.add_fork(limit(9, 4));
        changes.add_block(fork(9), 2);
        changes.add_block(fork(9), 12);
        let of = changes.get(fork(9)).unwrap();
        assert_eq!(of.limit_block(), Some(4));
        assert_eq!(of.ranges(0..20), [1..20], "2 and 3 touch the unknown rest");
        assert_eq!(of.ranges(0..3), [1..3]);
        assert_eq!(of.ranges(10..12), [10..12]);
        // A later summary with a longer fork does not change this.
        changes.add_fork(limit(9, 100));
        changes.add_fork(ForkSummary { fork: fork(9), limit_block: None });
        assert_eq!(changes.get(fork(9)).unwrap().limit_block(), Some(4));
        assert_eq!(changes.get(fork(8)), None);
    }

    #[test]
    fn a_created_relation_needs_no_list() {
        let mut changes = ChangedBlocks::new();
        changes.add_fork(limit(9, 0));
        changes.add_chunk(fork(9), 3, Chunk::from_bitmap(&[0xFF; 8192]));
        changes.add_block(fork(9), 5);
        let of = changes.get(fork(9)).unwrap();
        assert!(of.blocks().is_empty());
        assert_eq!(of.ranges(0..100), [0..100]);
        assert!(changes.bytes() < 100);
    }

    #[test]
    fn a_database_has_relation_number_0() {
        let mut changes = ChangedBlocks::new();
        changes.add_fork(limit(0, 0));
        assert!(changes.database_recreated(1663, 5));
        assert!(!changes.database_recreated(1663, 4));
        assert!(!changes.database_recreated(16_400, 5));
    }

    /// The memory for 10 TB with every hundredth block changed, for 10 TB with all blocks changed, and for many small
    /// relations. Each is measured at one thousandth of its size.
    #[test]
    fn memory_is_bounded() {
        let blocks = (10_u64 << 40) / 8192 / 1000;
        let mut scattered = ChangedBlocks::new();
        for block in (0..blocks as u32).step_by(100) {
            scattered.add_block(fork(9), block);
        }
        assert!(scattered.bytes() * 1000 < 28_000_000, "{}", scattered.bytes());
        let mut full = ChangedBlocks::new();
        for chunk in 0..blocks.div_ceil(65_536) {
            full.add_chunk(fork(9), chunk as u16, Chunk::from_bitmap(&[0xFF; 8192]));
        }
        assert!(full.bytes() * 1000 < 190_000_000, "{}", full.bytes());
        let mut small = ChangedBlocks::new();
        for number in 1..=1000 {
            small.add_block(fork(number), number);
        }
        assert!(small.bytes() * 1000 < 80_000_000, "{}", small.bytes());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Change(u32),
        Truncate(u32),
        NextSummary,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// A history of one fork is cut into summaries as the summarizer does, and read in another order. Every block
        /// that was changed, or that did not exist at some time, is read.
        #[test]
        fn the_order_of_summaries_does_not_matter(
            events in proptest::collection::vec(prop_oneof![
                4 => (0u32..40).prop_map(Event::Change),
                1 => (0u32..40).prop_map(Event::Truncate),
                2 => Just(Event::NextSummary),
            ], 0..40),
            seed: u64,
        ) {
            let mut summaries = vec![ForkChanges::none()];
            let mut shortest = u32::MAX;
            let mut changed = std::collections::BTreeSet::new();
            for event in events {
                let summary = summaries.last_mut().unwrap();
                match event {
                    Event::Change(block) => {
                        summary.blocks.insert(block);
                        changed.insert(block);
                    }
                    Event::Truncate(limit) => {
                        shortest = shortest.min(limit);
                        summary.set_limit_block(limit);
                    }
                    Event::NextSummary => summaries.push(ForkChanges::none()),
                }
            }
            let mut merged = ChangedBlocks::new();
            let mut random = Random::of_seed(seed);
            while !summaries.is_empty() {
                let ForkChanges { limit_block, blocks } = summaries.swap_remove(random.index(summaries.len()));
                let limit_block = Some(limit_block).filter(|limit| *limit != INVALID_BLOCK);
                merged.add_fork(ForkSummary { fork: fork(9), limit_block });
                for block in blocks.ranges(0..u32::MAX).into_iter().flatten() {
                    merged.add_block(fork(9), block);
                }
            }
            let read: Vec<u32> = merged.get(fork(9)).unwrap().ranges(0..50).into_iter().flatten().collect();
            let expected: Vec<u32> = (0..50).filter(|block| changed.contains(block) || *block >= shortest).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
