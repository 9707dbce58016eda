//! Which pages of a cluster changed since an earlier backup, and what an incremental backup must read.
//!
//! - [`crate::wal_summary::block_set`]: a compact set of block numbers
//! - [`changed_blocks`]: the union of WAL summaries ([`crate::wal_summary`]), in memory
//! - [`decision`]: what to read of one file, by WAL summaries
//! - [`page_lsn`]: what to read of one file, and whether one page changed, by the LSNs in the pages: for servers
//!   without summaries
//!
//! # Why a mixture of old and new pages is right
//!
//! An incremental backup takes each page either from its parent or from the disk. For three reasons this is as good as
//! a copy of the whole disk:
//!
//! 1. The examined range of WAL begins at the parent's **start** LSN, not at its stop LSN. The parent copied its pages
//!    between the two, each at a different moment. A page that no record changed since the parent's start has the same
//!    content in the parent's copy, no matter when the page was copied.
//! 2. The range ends at the new backup's start LSN. Later changes may or may not be in the new backup, and may be torn.
//!    Replay begins at that LSN, the first record for a page after it has a full-page image (online backups force
//!    `full_page_writes`), and replay overwrites the page.
//! 3. A page comes from one of the two as a whole. So its checksum always matches its content.
//!
//! A kept page may contain changes up to the parent's **stop** LSN. So the new backup is consistent only from the later
//! of the two stop LSNs. On a standby without much activity the new start LSN can be before the parent's stop LSN, or
//! be the parent's start LSN (`pg_basebackup` refuses that); the new stop LSN must not be before the parent's.
//!
//! # Hint bits
//!
//! A hint bit (a known commit status, a known dead index entry) is written without WAL, if the cluster has neither page
//! checksums nor `wal_log_hints`; the manual says so at `wal_log_hints`. Then a page on disk differs from the parent's,
//! and neither the WAL nor the page LSN shows it. It is still right to keep the parent's page: a server can find out
//! each hint again (`SetHintBits`, `MarkBufferDirtyHint`: "the change is not critical"), and the page is whole. With
//! checksums or `wal_log_hints`, the first hint after a checkpoint writes the whole page to the WAL and sets its LSN
//! (`XLogSaveBufferForHint`). Later hints in the same checkpoint cycle write nothing. But both a cycle and the range
//! begin at a redo LSN, so the page is already known as changed. For the same reasons the parent may be from a primary
//! and the new backup from its standby, or the reverse: their pages are the same except for hints and for files that
//! are read whole.
//!
//! The metapage of an SP-GiST index caches pages with free space. It is written with neither WAL nor a new LSN,
//! whatever the settings are (`SpGistUpdateMetaPage`). It is a hint too: an insertion checks the page it names. Random
//! statements on 17.10 and 18.6 found no other page that changed without WAL, in clusters with page checksums.
//!
//! One flag is written like a hint, but is not a hint: `PD_ALL_VISIBLE` of a heap page. See [`page_lsn`].
//!
//! # What no method sees
//!
//! The caller must start again with a full backup if `data_checksum_version` of the control file differs from the
//! parent's: `pg_checksums --enable` writes every page, without WAL and without a new page LSN. The same is true after
//! `pg_resetwal`, and if the parent is not an ancestor of the cluster's state ([`crate::wal_summary::coverage`]).

pub mod changed_blocks;
pub mod decision;
pub mod page_lsn;

pub use changed_blocks::{ChangedBlocks, ForkChanges};
pub use decision::{DataFile, FileBlocks, FileChanges, WholeReason};
