//! The spool: a local directory for what may be lost, marks and segments fetched ahead.
//!
//! Files appear under their names by rename, so that a reader sees a whole file or none while the machine runs. Nothing is
//! fsynced: after a crash of the machine a file may be torn, and every reader checks what it reads. Temporary files
//! begin with `tmp-holdfast-`; those left by a killed run are removed by age.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;

use crate::error::Error;

/// How temporary files begin, in the spool and beside a destination.
const TEMPORARY_PREFIX: &str = "tmp-holdfast-";

/// Temporary files this old belong to nobody: writing one takes seconds.
const STALE_AFTER: Duration = Duration::from_mins(10);

/// Which repositories a command works with, for a cluster: what the spool knows is only true for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepositorySetId(ChunkHash);

impl RepositorySetId {
    /// The set of repositories of these descriptions, in any order. A description is all that tells one place from
    /// another: URL, endpoint, region; nothing secret is needed in it.
    pub fn new<'a>(cluster: &ClusterName, descriptions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut descriptions: Vec<&str> = descriptions.into_iter().collect();
        descriptions.sort_unstable();
        descriptions.dedup();
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(cluster.as_str()).chain(descriptions) {
            // Length first, so that no two lists run together into the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// Sixteen hexadecimal digits, enough for the name of a folder.
    pub(super) fn short(&self) -> String {
        hex::encode(&self.0.as_bytes()[..8])
    }
}

impl std::fmt::Display for RepositorySetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The folder of the marks of a cluster.
pub(super) fn push_folder(spool: &Path, cluster: &ClusterName) -> PathBuf {
    spool.join(cluster.as_str()).join("push")
}

/// Writes a file under a temporary name and renames it, without fsync.
pub(super) fn write_aside(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let aside = folder.join(temporary_name());
    let written = std::fs::File::create_new(&aside)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&aside, folder.join(name)));
    if written.is_err() {
        remove_quietly(&aside);
    }
    written
}

/// A name that no other thread or process of this host uses now.
pub(super) fn temporary_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // Two containers on one spool may have the same process id: the address of a fresh allocation is not
    // unique either, but `create_new` refuses the second, and the random part makes that rare.
    let random = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), 0_u8);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{TEMPORARY_PREFIX}{}-{count}-{random:016x}", std::process::id())
}

/// Removes temporary files that a killed run left in `folder`.
pub(super) fn remove_stale(folder: &Path, now: SystemTime) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX) {
            continue;
        }
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age > STALE_AFTER) {
            remove_quietly(&entry.path());
        }
    }
}

/// Forgets which files are durable. For when a repository has been made: one that stood at the same place before may
/// have had what the new one lacks.
pub fn forget_marks(spool: &Path, cluster: &ClusterName) -> Result<(), Error> {
    let folder = push_folder(spool, cluster);
    match std::fs::remove_dir_all(&folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("remove", &folder, error)),
    }
}

/// Removes a file of the spool. One that cannot be removed costs space, not truth.
pub(super) fn remove_quietly(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of the spool could not be removed");
    }
}
