//! What an incremental backup takes from its parent, and what it reads.
//!
//! An incremental backup is as complete as a full one: its manifest names the place of every byte, in its own packs and in
//! those of earlier backups. What did not change since the parent is named and not read, or read and not stored:
//!
//! 1. [`parent`]: the newest backup that all repositories have and that this server's data descends from, with its
//!    manifest in each of them.
//! 2. [`choose`]: whether there is one, and how what changed is found. [`changed`]: the changed blocks, from the server's WAL summaries (17 and later). Without them, [`page_lsn`] decides
//!    by the pages' own LSNs after they were read.
//! 3. [`sort`]: which files are the parent's, of which ones some blocks are read, and which ones are read whole (pure).
//!    [`overlay`]: what becomes of one extent of which some bytes changed (pure).
//! 4. What is read whole is compared with the parent by its hash, and not stored again if it is the same.
//!
//! Why a mixture of old and new pages is right, and what no method sees, is said in [`holdfast_pgtypes::changes`].

pub(super) mod changed;
pub(super) mod choose;
pub(super) mod overlay;
pub(super) mod page_lsn;
pub(super) mod parent;
pub(super) mod sort;

use std::sync::Arc;

use holdfast_repo::manifest::{FileEntry, Manifest};

use self::page_lsn::PageLsns;
use crate::restore::PathIndex;

/// What the parent has of each file: the same in all repositories, but for the places.
#[derive(Debug)]
pub(super) struct Base {
    manifest: Arc<Manifest>,
    index: Arc<PathIndex>,
    /// How changed pages are told where files are read whole.
    by_lsn: Option<PageLsns>,
    /// The most patches over one extent.
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
        // A directory or a link of that name has nothing of a file.
        let file = self.manifest.file(position)?;
        matches!(file.kind, holdfast_repo::FileKind::File { .. }).then_some(position as u32)
    }

    /// The file at a position that [`Self::find`] gave.
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
