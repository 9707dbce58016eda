//! Marks: "exactly this file is durable in exactly these repositories".
//!
//! A push that took neighbours along leaves a mark for each, so that PostgreSQL's call for it is answered without a look
//! at the network. A mark names the file by device, inode, size and both times: PostgreSQL recycles segments by renaming
//! them, which changes the time of the inode, so a mark never speaks for a later file of the same name. It is compared
//! as a whole, so a torn or foreign one does not match; a lost one costs a second look at the repository.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use holdfast_pgtypes::WalFileName;
use holdfast_repo::name::ClusterName;

use super::spool::{self, RepositorySetId};

/// What tells one file from another, and a file from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    /// Length in bytes.
    pub(super) size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn mark_text(&self, set: &RepositorySetId) -> String {
        format!(
            "holdfast mark 1\nrepositories {set}\nfile {} {}\nsize {}\nmodified {}.{:09}\nchanged {}.{:09}\nend\n",
            self.device, self.inode, self.size_bytes, self.modified.0, self.modified.1, self.changed.0, self.changed.1
        )
    }
}

/// Whether `path` is marked as durable in these repositories; the mark is used up by the answer `true`.
///
/// Synchronous and a few system calls long, for a command line that starts no runtime before it has asked. Any doubt
/// (no spool, unreadable mark, a file that changed) is `false`.
pub fn marked_durable(spool: &Path, cluster: &ClusterName, set: &RepositorySetId, path: &Path) -> bool {
    let Some(name) = wal_file_name(path) else { return false };
    let mark = mark_path(spool, cluster, &name);
    let (Ok(text), Ok(metadata)) = (std::fs::read(&mark), std::fs::metadata(path)) else { return false };
    let matches = text == FileIdentity::of(&metadata).mark_text(set).as_bytes();
    // One that does not match will not match later either.
    spool::remove_quietly(&mark);
    matches
}

/// Whether a mark for exactly this file stands; it stays.
pub(super) fn is_marked(
    spool: &Path,
    cluster: &ClusterName,
    set: &RepositorySetId,
    name: &WalFileName,
    identity: &FileIdentity,
) -> bool {
    std::fs::read(mark_path(spool, cluster, name)).is_ok_and(|text| text == identity.mark_text(set).as_bytes())
}

/// Marks a file as durable.
pub(super) fn write(
    spool: &Path,
    cluster: &ClusterName,
    set: &RepositorySetId,
    name: &WalFileName,
    identity: &FileIdentity,
) -> std::io::Result<()> {
    let folder = spool::push_folder(spool, cluster);
    spool::write_aside(&folder, &mark_name(name), identity.mark_text(set).as_bytes())
}

/// Notes that a push of this file failed, so that the next one does not wonder at finding it stored.
pub(super) fn write_tried(spool: &Path, cluster: &ClusterName, name: &WalFileName) {
    let folder = spool::push_folder(spool, cluster);
    if let Err(error) = spool::write_aside(&folder, &tried_name(name), b"") {
        tracing::debug!(folder = %folder.display(), %error, "the spool cannot be written");
    }
}

/// Whether an earlier push of this file failed; the note is used up.
pub(super) fn take_tried(spool: &Path, cluster: &ClusterName, name: &WalFileName) -> bool {
    std::fs::remove_file(spool::push_folder(spool, cluster).join(tried_name(name))).is_ok()
}

/// Removes the marks and notes of files for which `still_waiting` is false.
pub(super) fn sweep(spool: &Path, cluster: &ClusterName, still_waiting: impl Fn(&WalFileName) -> bool) {
    let Ok(entries) = std::fs::read_dir(spool::push_folder(spool, cluster)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let file = name.strip_suffix(".durable").or_else(|| name.strip_suffix(".tried"));
        if let Some(file) = file.and_then(|file| file.parse().ok())
            && !still_waiting(&file)
        {
            spool::remove_quietly(&entry.path());
        }
    }
}

/// The WAL file that a path names by its last part.
pub(super) fn wal_file_name(path: &Path) -> Option<WalFileName> {
    path.file_name()?.to_str()?.parse().ok()
}

fn mark_path(spool: &Path, cluster: &ClusterName, name: &WalFileName) -> PathBuf {
    spool::push_folder(spool, cluster).join(mark_name(name))
}

fn mark_name(name: &WalFileName) -> String {
    format!("{name}.durable")
}

fn tried_name(name: &WalFileName) -> String {
    format!("{name}.tried")
}
