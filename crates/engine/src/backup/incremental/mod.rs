//! What an incremental backup takes from its parent, and what it reads.
//!
//! An incremental backup is as complete as a full one: its manifest names the place of every byte, in its own packs and
//! in packs of earlier backups. Data that did not change since the parent is not read, or it is read and not stored:
//!
//! 1. [`parent`] finds the newest backup that all repositories have and that this server's data descends from, with its
//!    manifest in each repository.
//! 2. [`choose`] decides whether there is a parent and how changes are found. [`changed`] gets the changed blocks from
//!    the server's WAL summaries (17 and later). Without summaries, [`page_lsn`] uses the LSNs of the pages after they
//!    were read.
//! 3. [`sort`] decides which files are the parent's, which are read in parts, and which are read whole (pure).
//!    [`overlay`] decides what is stored of an extent with changes (pure).
//! 4. An extent that is read whole is compared with the parent's by its hash, and not stored again if it is the same.
//! 5. [`lane`] notes which files have not changed at all. [`sharing`] decides which of them the new manifest takes over
//!    by reference to frames of earlier manifests (pure).
//!
//! [`holdfast_pgtypes::changes`] explains why a mixture of old and new pages is correct, and which changes no method
//! finds.

pub(super) mod changed;
pub(super) mod choose;
pub(super) mod lane;
pub(super) mod overlay;
pub(super) mod page_lsn;
pub(super) mod parent;
pub(super) mod sharing;
pub(super) mod sort;

use std::sync::Arc;

use holdfast_repo::manifest::{FileEntry, Manifest};

use self::page_lsn::PageLsns;
use crate::restore::PathIndex;

/// The content of the parent's files. It is the same in all repositories, except for the places in packs.
#[derive(Debug)]
pub(super) struct Base {
    manifest: Arc<Manifest>,
    index: Arc<PathIndex>,
    /// Finds changed pages in files that are read whole; `None` with WAL summaries.
    by_lsn: Option<PageLsns>,
    /// The maximum number of patches over one extent.
    most_patches: usize,
}

impl Base {
    pub(super) fn new(
        manifest: Arc<Manifest>,
        index: Arc<PathIndex>,
        by_lsn: Option<PageLsns>,
        most_patches: usize,
    ) -> Self {
        Self { manifest, index, by_lsn, most_patches }
    }

    /// The position of a file in the parent's manifest.
    pub(super) fn find(&self, path: &[u8]) -> Option<u32> {
        let position = self.index.find(&self.manifest, path)?;
        // A directory or a link with that name has no file content.
        let file = self.manifest.file(position)?;
        matches!(file.kind, holdfast_repo::FileKind::File { .. }).then_some(position as u32)
    }

    /// The file at a position from [`Self::find`].
    pub(super) fn file(&self, position: u32) -> Option<FileEntry<'_>> {
        self.manifest.file(position as usize)
    }

    pub(super) fn most_patches(&self) -> usize {
        self.most_patches
    }

    pub(super) fn by_lsn(&self) -> Option<&PageLsns> {
        self.by_lsn.as_ref()
    }
}
