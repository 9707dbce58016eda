#![expect(clippy::single_range_in_vec_init, reason = "the tables list ranges of blocks, often only one")]

use super::*;
use crate::wal_summary::reader::ForkSummary;
use proptest::prelude::*;

/// A segment of 16 blocks instead of 131072, so that segments are small.
const SEGMENT: u32 = 16;

const PAGE: u64 = PAGE_SIZE as u64;

fn fork(tablespace: u32, database: u32, number: u32, fork: Fork) -> RelationFork {
    RelationFork { tablespace, database, number, fork }
}

/// The changes that all cases use.
fn changes() -> ChangedBlocks {
    let mut changes = ChangedBlocks::new();
    let mut add = |of: RelationFork, limit_block: Option<u32>, blocks: &[u32]| {
        changes.add_fork(ForkSummary { fork: of, limit_block });
        for block in blocks {
            changes.add_block(of, *block);
        }
    };
    let main = |number| fork(1663, 5, number, Fork::Main);
    add(main(100), None, &[0, 1, 5, 15, 16, 40]);
    add(main(101), Some(0), &[3]);
    add(main(102), Some(20), &[2, 17, 18, 30]);
    add(main(103), Some(16), &[2]);
    add(main(104), None, &[3]);
    add(fork(1663, 5, 104, Fork::VisibilityMap), None, &[0]);
    add(fork(1663, 5, 105, Fork::Init), None, &[0]);
    add(fork(1664, 0, 1262, Fork::Main), None, &[0]);
    add(fork(16_400, 5, 100, Fork::Main), None, &[7]);
    add(fork(1663, 6, 0, Fork::Main), Some(0), &[]);
    add(fork(16_400, 7, 0, Fork::Main), Some(0), &[]);
    changes
}

fn decide(path: &str, blocks: u64, parent_blocks: Option<u64>) -> FileChanges {
    let parent_size = parent_blocks.map(|blocks| blocks * PAGE);
    let file = DataFile { path: path.as_bytes(), size: blocks * PAGE, parent_size };
    changes().of_file(file, PgVersion::V18, SEGMENT)
}

fn read(length: u32, read: &[Range<u32>]) -> FileChanges {
    FileChanges::Blocks(FileBlocks { length, read: read.to_vec() })
}

#[test]
fn tables_of_files() {
    use FileChanges::{Unchanged, Whole};
    use WholeReason as Why;
    for (case, path, blocks, parent_blocks, expected) in [
        // Files that the WAL does not describe.
        ("a map of file numbers", "base/5/pg_filenode.map", 0, Some(0), Whole(Why::NotARelation)),
        ("the cache of relations", "base/5/pg_internal.init", 9, Some(9), Whole(Why::NotARelation)),
        ("the version", "base/5/PG_VERSION", 0, Some(0), Whole(Why::NotARelation)),
        ("commit status", "pg_xact/0000", 1, Some(1), Whole(Why::NotARelation)),
        ("a configuration file", "postgresql.conf", 1, Some(1), Whole(Why::NotARelation)),
        ("the control file", "global/pg_control", 1, Some(1), Whole(Why::NotARelation)),
        ("another major's directory", "pg_tblspc/16400/PG_17_202406281/5/100", 1, Some(1), Whole(Why::NotARelation)),
        ("a free space map", "base/5/100_fsm", 3, Some(3), Whole(Why::FreeSpaceMap)),
        ("a visibility map", "base/5/104_vm", 1, Some(1), Whole(Why::VisibilityMap)),
        ("a visibility map that no record names", "base/5/999_vm", 1, Some(1), Whole(Why::VisibilityMap)),
        ("a temporary relation", "base/5/t3_100", 1, Some(1), Whole(Why::TemporaryRelation)),
        // Files that the parent does not have.
        ("a new file", "base/5/999", 1, None, Whole(Why::NotInParent)),
        ("a new segment", "base/5/100.1", 1, None, Whole(Why::NotInParent)),
        ("a new empty file", "base/5/999", 0, None, Whole(Why::NotInParent)),
        // Databases.
        ("created or dropped", "base/6/999", 1, Some(1), Whole(Why::DatabaseRecreated)),
        ("moved into a tablespace", "pg_tblspc/16400/PG_18_202506291/7/999", 1, Some(1), Whole(Why::DatabaseRecreated)),
        ("still in another tablespace", "base/7/999", 1, Some(1), Unchanged),
        ("the maps of a new database", "base/6/999_fsm", 1, Some(1), Whole(Why::FreeSpaceMap)),
        // Relations.
        ("no record", "base/5/999", 7, Some(7), Unchanged),
        ("empty", "base/5/999", 0, Some(0), Unchanged),
        ("blocks", "base/5/100", 16, Some(16), read(16, &[0..2, 5..6, 15..16])),
        ("blocks of the second segment", "base/5/100.1", 16, Some(16), read(16, &[0..1])),
        ("blocks of the third segment", "base/5/100.2", 9, Some(9), read(9, &[8..9])),
        ("no block of the fourth segment", "base/5/100.3", 9, Some(9), Unchanged),
        ("blocks after its end", "base/5/100", 4, Some(4), read(4, &[0..2])),
        ("grown", "base/5/100", 16, Some(9), read(16, &[0..2, 5..6, 9..16])),
        ("grown after the last changed block", "base/5/100", 8, Some(6), read(8, &[0..2, 5..8])),
        ("grown without a record", "base/5/999", 9, Some(7), read(9, &[7..9])),
        ("shrunk without a record", "base/5/999", 5, Some(7), read(5, &[])),
        ("grown from nothing", "base/5/999", 2, Some(0), read(2, &[0..2])),
        ("an init fork", "base/5/105_init", 2, Some(2), read(2, &[0..1])),
        ("shared", "global/1262", 2, Some(2), read(2, &[0..1])),
        ("in a tablespace", "pg_tblspc/16400/PG_18_202506291/5/100", 8, Some(8), read(8, &[7..8])),
        // Limit blocks.
        ("created", "base/5/101", 4, Some(4), Whole(Why::RelationRecreated)),
        ("created, second segment", "base/5/101.1", 4, Some(4), Whole(Why::RelationRecreated)),
        ("truncated in a later segment", "base/5/102", 16, Some(16), read(16, &[2..3])),
        ("truncated in this segment and grown", "base/5/102.1", 8, Some(16), read(8, &[1..3, 4..8])),
        ("truncated in this segment", "base/5/102.1", 4, Some(16), read(4, &[1..3])),
        ("truncated before this segment", "base/5/102.2", 4, Some(4), Whole(Why::RelationRecreated)),
        ("truncated to the end of a segment", "base/5/103", 16, Some(16), read(16, &[2..3])),
        ("truncated to the start of this segment", "base/5/103.1", 0, Some(16), Whole(Why::RelationRecreated)),
        // Sizes.
        ("longer than a segment", "base/5/100", 17, Some(16), Whole(Why::OddSize)),
        ("longer than a segment in the parent", "base/5/100", 16, Some(17), Whole(Why::OddSize)),
        ("a segment that no relation has", "base/5/100.268435456", 1, Some(1), Whole(Why::OddSize)),
    ] {
        assert_eq!(decide(path, blocks, parent_blocks), expected, "{case}: {path}");
    }
}

#[test]
fn a_size_that_is_not_in_blocks_is_odd() {
    let decide = |size, parent_size| {
        let file = DataFile { path: b"base/5/100", size, parent_size: Some(parent_size) };
        changes().of_file(file, PgVersion::V18, SEGMENT)
    };
    assert_eq!(decide(PAGE + 1, PAGE), FileChanges::Whole(WholeReason::OddSize));
    assert_eq!(decide(PAGE, PAGE - 1), FileChanges::Whole(WholeReason::OddSize));
    assert_eq!(decide(u64::MAX, PAGE), FileChanges::Whole(WholeReason::OddSize));
    assert_eq!(decide(PAGE, 0x1_0000_0000 * PAGE), FileChanges::Whole(WholeReason::OddSize));
}

proptest! {
    #[test]
    fn what_is_not_read_is_the_parents(
        blocks in proptest::collection::btree_set(0u32..64, 0..20),
        limit in proptest::option::of(0u32..64),
        segment in 0u32..4,
        length in 0u32..=SEGMENT,
        parent_length in 0u32..=SEGMENT,
    ) {
        let mut changes = ChangedBlocks::new();
        let of = fork(1663, 5, 100, Fork::Main);
        changes.add_fork(ForkSummary { fork: of, limit_block: limit });
        for block in &blocks {
            changes.add_block(of, *block);
        }
        let path = if segment == 0 { "base/5/100".to_owned() } else { format!("base/5/100.{segment}") };
        let parent_size = Some(u64::from(parent_length) * PAGE);
        let file = DataFile { path: path.as_bytes(), size: u64::from(length) * PAGE, parent_size };
        let first = segment * SEGMENT;
        let must_read = |block: u32| {
            block >= parent_length || blocks.contains(&(first + block)) || limit.is_some_and(|limit| limit <= first + block)
        };
        match changes.of_file(file, PgVersion::V18, SEGMENT) {
            FileChanges::Unchanged => {
                prop_assert_eq!(length, parent_length);
                prop_assert!(!(0..length).any(must_read));
            }
            FileChanges::Whole(reason) => {
                prop_assert_eq!(reason, WholeReason::RelationRecreated);
                prop_assert!((0..length).all(must_read));
            }
            FileChanges::Blocks(decided) => {
                prop_assert_eq!(decided.length, length);
                let read: Vec<u32> = decided.read.iter().cloned().flatten().collect();
                let expected: Vec<u32> = (0..length).filter(|block| must_read(*block)).collect();
                prop_assert_eq!(decided.blocks_to_read() as usize, expected.len());
                prop_assert_eq!(&read, &expected);
                let mut all: Vec<u32> = decided.kept().into_iter().flatten().chain(read).collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..length).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn never_panics(
        path in "(base/5|global)/[0-9]{1,10}(_fsm|_vm|_init)?(\\.[0-9]{1,10})?|.*",
        size: u64,
        parent_size: Option<u64>,
        segment_pages: u32,
    ) {
        let file = DataFile { path: path.as_bytes(), size, parent_size };
        let _ = changes().of_file(file, PgVersion::V18, segment_pages);
        let file = DataFile { size: size % 64 * PAGE, parent_size: Some(8192), ..file };
        let _ = changes().of_file(file, PgVersion::V18, segment_pages);
    }
}
