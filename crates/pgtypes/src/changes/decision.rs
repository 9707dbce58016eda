//! What an incremental backup must read of one file, as `GetFileBackupMethod` of `basebackup_incremental.c`.
//!
//! The result is `Unchanged`, `Blocks` with the ranges to read, or `Whole`. `Whole` says only that the WAL does not
//! describe the changes of the file. The caller reads all of it, and can still find by checksum that it already has the
//! content.
//!
//! | file | why | decision |
//! |---|---|---|
//! | not a relation (`pg_filenode.map`, `PG_VERSION`, `pg_xact/0000`, configuration) | no block references | whole |
//! | free space map | only partly in the WAL; the summarizer leaves it out | whole |
//! | visibility map | clearing a bit names no block of the map, see below | whole |
//! | temporary relation | not in the WAL; normally not in a backup at all | whole |
//! | not in the parent | new, or moved to another tablespace, so the path is different | whole |
//! | size not in whole blocks, or more than a segment | damaged, or being written | whole |
//! | database with an entry of its own | `CREATE DATABASE` or `DROP DATABASE` since the parent | whole |
//! | limit block at or before the segment's start | created, dropped and created again, or truncated since the parent | whole |
//! | everything else, init forks too | each changed block is named in the WAL | blocks |
//!
//! An init fork (of an unlogged relation) is logged when it is created. Shared relations are always logged, with
//! database 0 in `pg_global`. Other forks of unlogged relations are not in a backup ([`crate::exclude`]).
//!
//! # Where this differs from PostgreSQL
//!
//! - **The visibility map is read whole.** Until the minor releases of 2026, a change of a heap page that clears its
//!   bit in the map logs only the heap page; replay finds the map's page itself (`heap_xlog_insert`, `heap_xlog_delete`
//!   call `visibilitymap_clear`). So no summary names the map's page: 17.10 does not, 18.6 does. An old map beside new
//!   heap pages makes index-only scans return wrong results. Which minor release wrote the WAL is not known here, and
//!   the map is only 1/32768 of its relation.
//! - **All blocks at or after the limit block are read**, and all blocks after the parent's end. PostgreSQL takes those
//!   that no record names from the parent, or as zeros. But a block that was truncated away, and came back when the
//!   file was extended by many blocks at once (which writes no WAL), is zero on disk and has old rows in the parent.
//!   18.6 restores these rows.
//! - **The order of the summaries does not matter** ([`crate::changes::changed_blocks`]).
//! - PostgreSQL sends a file whole if more than 90 % of it changed. That is a question of cost, and the caller decides:
//!   see [`FileBlocks::blocks_to_read`].
//!
//! A file can change during the decision and the reading. Replay repairs that, because the change came after the
//! backup's start LSN (see [`crate::changes`]). A file that shrank has fewer blocks than the ranges, and simply ends
//! earlier.

use std::fmt;
use std::ops::Range;

use crate::changes::changed_blocks::{ChangedBlocks, ForkChanges};
use crate::checksum::PAGE_SIZE;
use crate::relation::{Fork, RelationDirectory, RelationPath};
use crate::version::PgVersion;
use crate::wal_summary::reader::RelationFork;

/// `DEFAULTTABLESPACE_OID`: the tablespace of `base`.
const DEFAULT_TABLESPACE: u32 = 1663;

/// `GLOBALTABLESPACE_OID`: the tablespace of `global`.
const GLOBAL_TABLESPACE: u32 = 1664;

impl RelationFork {
    /// The fork that a file belongs to; `None` for a temporary relation, which is not in the WAL.
    pub fn of_path(path: &RelationPath) -> Option<Self> {
        let (tablespace, database) = match path.directory {
            RelationDirectory::Global => (GLOBAL_TABLESPACE, 0),
            RelationDirectory::Database { database, tablespace } => {
                (tablespace.unwrap_or(DEFAULT_TABLESPACE), database)
            }
        };
        let number = path.file.number;
        path.file.temporary_backend.is_none().then_some(Self { tablespace, database, number, fork: path.file.fork })
    }
}

/// A file of the data directory, now and in the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFile<'a> {
    /// The path relative to the data directory; the content of a tablespace is at `pg_tblspc/<oid>/...`.
    pub path: &'a [u8],
    /// The size in bytes, now.
    pub size: u64,
    /// The size in bytes in the parent; `None` if it is not there.
    pub parent_size: Option<u64>,
}

/// What to read of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileChanges {
    /// Nothing: the file is the parent's, with the same length.
    Unchanged,
    /// These blocks; the others are the parent's.
    Blocks(FileBlocks),
    /// Everything, for this reason.
    Whole(WholeReason),
}

/// The blocks of a file that are not the parent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBlocks {
    /// The number of blocks of the file.
    pub length: u32,
    /// The blocks to read, by their number in this file, not in the relation: sorted, not empty, and not adjacent.
    /// Every other block below `length` is the parent's block of the same number, which exists. Empty only if the file
    /// is shorter than the parent's.
    pub read: Vec<Range<u32>>,
}

impl FileBlocks {
    /// The number of blocks to read.
    pub fn blocks_to_read(&self) -> u32 {
        self.read.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges of blocks that are the parent's.
    pub fn kept(&self) -> Vec<Range<u32>> {
        let starts = std::iter::once(0).chain(self.read.iter().map(|range| range.end));
        let ends = self.read.iter().map(|range| range.start).chain(std::iter::once(self.length));
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
    }
}

/// Why a file must be read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WholeReason {
    /// It is not the file of a relation.
    NotARelation,
    /// It belongs to a session.
    TemporaryRelation,
    /// It is a free space map.
    FreeSpaceMap,
    /// It is a visibility map.
    VisibilityMap,
    /// Its size, or its size in the parent, is not a number of blocks that fits a segment.
    OddSize,
    /// The parent does not have it.
    NotInParent,
    /// Its database was created or dropped in this tablespace.
    DatabaseRecreated,
    /// Its relation was created, dropped, or truncated to before this segment.
    RelationRecreated,
}

impl fmt::Display for WholeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotARelation => "not a relation",
            Self::TemporaryRelation => "temporary relation",
            Self::FreeSpaceMap => "free space map",
            Self::VisibilityMap => "visibility map",
            Self::OddSize => "size is not in whole blocks of one segment",
            Self::NotInParent => "not in the parent backup",
            Self::DatabaseRecreated => "database created or dropped since the parent backup",
            Self::RelationRecreated => "relation created, dropped or truncated since the parent backup",
        })
    }
}

/// A relation's file that may be backed up by blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) fork: RelationFork,
    /// The number of the file's first block in the fork.
    pub(super) first_block: u32,
    /// The length now, and in the parent, in blocks.
    pub(super) length: u32,
    pub(super) parent_length: u32,
}

impl Segment {
    /// The checks that need only the two files.
    pub(super) fn of(file: DataFile<'_>, version: PgVersion, segment_pages: u32) -> Result<Self, WholeReason> {
        let path = RelationPath::parse(file.path, version).ok_or(WholeReason::NotARelation)?;
        let fork = RelationFork::of_path(&path).ok_or(WholeReason::TemporaryRelation)?;
        match fork.fork {
            Fork::Main | Fork::Init => {}
            Fork::FreeSpaceMap => return Err(WholeReason::FreeSpaceMap),
            Fork::VisibilityMap => return Err(WholeReason::VisibilityMap),
        }
        let blocks = |size: u64| {
            let blocks = u32::try_from(size / PAGE_SIZE as u64).ok().filter(|blocks| *blocks <= segment_pages);
            blocks.filter(|_| size.is_multiple_of(PAGE_SIZE as u64)).ok_or(WholeReason::OddSize)
        };
        let length = blocks(file.size)?;
        let parent_length = blocks(file.parent_size.ok_or(WholeReason::NotInParent)?)?;
        let first_block = path.file.first_block(segment_pages).ok_or(WholeReason::OddSize)?;
        // No block number of the segment may overflow.
        first_block.checked_add(segment_pages).ok_or(WholeReason::OddSize)?;
        Ok(Self { fork, first_block, length, parent_length })
    }
}

impl ChangedBlocks {
    /// What to read of a file. `segment_pages` is `relation_segment_pages` of the control file.
    pub fn of_file(&self, file: DataFile<'_>, version: PgVersion, segment_pages: u32) -> FileChanges {
        let Segment { fork, first_block, length, parent_length } = match Segment::of(file, version, segment_pages) {
            Ok(segment) => segment,
            Err(reason) => return FileChanges::Whole(reason),
        };
        if self.database_recreated(fork.tablespace, fork.database) {
            return FileChanges::Whole(WholeReason::DatabaseRecreated);
        }
        let of_fork = self.get(fork);
        if of_fork.and_then(ForkChanges::limit_block).is_some_and(|limit| limit <= first_block) {
            return FileChanges::Whole(WholeReason::RelationRecreated);
        }
        let known = length.min(parent_length);
        let changed = of_fork.map_or_else(Vec::new, |changes| changes.ranges(first_block..first_block + known));
        let mut read: Vec<_> =
            changed.into_iter().map(|range| range.start - first_block..range.end - first_block).collect();
        if known < length {
            match read.last_mut().filter(|last| last.end == known) {
                Some(last) => last.end = length,
                None => read.push(known..length),
            }
        }
        if read.is_empty() && length == parent_length {
            return FileChanges::Unchanged;
        }
        FileChanges::Blocks(FileBlocks { length, read })
    }
}

#[cfg(test)]
mod tests;
