//! WAL summaries: the blocks that a range of WAL changed, as PostgreSQL 17 and later record them in `pg_wal/summaries`.
//!
//! With `summarize_wal = on` the server reads its own WAL once and keeps, for each range from one checkpoint's redo LSN
//! to the next, a small file with the blocks that the records name. An incremental backup needs the summaries from its
//! parent's start LSN to its own start LSN:
//!
//! 1. [`name`]: the names of the files in the directory say timeline, start LSN and end LSN.
//! 2. [`coverage`]: chooses the files that cover the range without a gap, or reports what is missing.
//! 3. [`reader`]: reads one file, with little memory, and detects all damage.
//! 4. [`crate::changes`] merges the files and decides what to read of each relation file.
//!
//! Sources: `src/common/blkreftable.c` (the file), `src/backend/backup/walsummary.c` (names and coverage),
//! `src/backend/postmaster/walsummarizer.c` (what goes into it), and the manual, "WAL Summarization".
//!
//! A summary does not contain these changes, because no record of the WAL names the block:
//!
//! - the free space map, which the summarizer leaves out on purpose;
//! - a bit of the visibility map that is cleared: before the minor releases of 2026 the record names only the heap
//!   block (see [`crate::changes::decision`]);
//! - pages that were added to a file as zeros and never filled;
//! - hint bits, in a cluster with neither page checksums nor `wal_log_hints`;
//! - the files of a database that `CREATE DATABASE ... STRATEGY = FILE_COPY` copied. Instead, the whole database has an
//!   entry with relation number 0 and limit block 0.
//!
//! WAL written with `wal_level = minimal` is never summarized; it is a gap.

pub mod block_set;
pub mod coverage;
pub mod name;
pub mod reader;

pub use coverage::{CoverageError, MissingSummaries, covering};
pub use name::WalSummaryName;
pub use reader::{ForkSummary, RelationFork, WalSummaryError, WalSummaryReader};
