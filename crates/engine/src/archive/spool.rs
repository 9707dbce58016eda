//! The spool: a local directory for marks and segments fetched ahead, all of which may be lost.
//!
//! Its content is believed (a mark) or replayed (a segment), and segments are plain WAL. So everything of a cluster is
//! in one folder that belongs to PostgreSQL's user and is closed to everybody else ([`Spool::open`]). If others could
//! write to a folder, its content is thrown away, and a folder of another user is not used at all.
//!
//! Files get their names by rename, so that a reader sees a whole file or none, except after a crash of the machine.
//! Nothing is fsynced: after a crash of the machine a file may be torn, and every reader checks what it reads.
//! Temporary files begin with `tmp-holdfast-`; those that a killed run left are removed by age.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use holdfast_contract::agent::FileIdentity;
use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;

use super::private;
use crate::error::Error;

/// The prefix of temporary files, in the spool and beside a destination.
const TEMPORARY_PREFIX: &str = "tmp-holdfast-";

/// The file that is replaced when a repository is made.
const MADE: &str = "repository-made";

/// No run still uses temporary files of this age, because writing one takes seconds.
const STALE_AFTER: Duration = Duration::from_mins(10);

/// Identifies the repositories that a command uses for a cluster: the content of the spool is valid only for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepositorySetId(ChunkHash);

impl RepositorySetId {
    /// The set of repositories with these descriptions, in any order. A description distinguishes one place from
    /// another: URL, endpoint, region. It contains nothing secret.
    pub fn new<'a>(cluster: &ClusterName, descriptions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut descriptions: Vec<&str> = descriptions.into_iter().collect();
        descriptions.sort_unstable();
        descriptions.dedup();
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(cluster.as_str()).chain(descriptions) {
            // Length first, so that two different lists never give the same bytes.
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

/// A digest of settings: two programs with the same digest have the same settings.
pub fn digest_of_settings(text: &str) -> String {
    ChunkHash::of(text.as_bytes()).to_string()
}

/// The folder of one cluster in the spool, checked and found to be safe.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolRefused {
    /// It could not be made, read or changed.
    #[error("{source}")]
    Io {
        /// The operating system's error.
        #[from]
        source: io::Error,
    },
    /// Another user could put files there that would be taken for WAL.
    #[error("{} belongs to another user (id {owner}), who could put false WAL files there", path.display())]
    Foreign {
        /// Path of the directory.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
    },
    /// Something else has the name of the folder.
    #[error("{} is not a directory", path.display())]
    NoFolder {
        /// Path of that other file.
        path: PathBuf,
    },
}

impl Spool {
    /// The folder of a cluster; made if it is missing. Blocks.
    ///
    /// # Errors
    /// If it cannot be used, or must not be: then nothing in it may be believed.
    pub fn open(spool: &Path, cluster: &ClusterName) -> Result<Self, SpoolRefused> {
        make_folder(spool)?;
        let folder = spool.join(cluster.as_str());
        make_folder(&folder)?;
        let opened = Self { folder };
        opened.secure(spool)?;
        let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::access(&opened.folder, wanted).map_err(io::Error::from)?;
        Ok(opened)
    }

    /// The folder of a cluster, if there is one that can be used. A few system calls.
    pub fn existing(spool: &Path, cluster: &ClusterName) -> Option<Self> {
        let found = Self { folder: spool.join(cluster.as_str()) };
        found.secure(spool).ok().map(|()| found)
    }

    /// Checks who could have written here. The configured directory may be a link and may be open to others, as a
    /// container's volume is. What matters is that no other user owns it, and that the folder below it is ours.
    fn secure(&self, spool: &Path) -> Result<(), SpoolRefused> {
        let root = std::fs::metadata(spool)?;
        if !root.is_dir() {
            return Err(SpoolRefused::NoFolder { path: spool.to_owned() });
        }
        if root.uid() != 0 && !is_ours(root.uid()) {
            return Err(SpoolRefused::Foreign { path: spool.to_owned(), owner: root.uid() });
        }
        let own = std::fs::symlink_metadata(&self.folder)?;
        if !own.is_dir() {
            return Err(SpoolRefused::NoFolder { path: self.folder.clone() });
        }
        if !is_ours(own.uid()) {
            return Err(SpoolRefused::Foreign { path: self.folder.clone(), owner: own.uid() });
        }
        if own.mode() & 0o077 != 0 {
            // Closed first: from then on nobody can add to what is thrown away.
            std::fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
            if own.mode() & 0o022 != 0 {
                self.empty()?;
            }
        }
        Ok(())
    }

    fn empty(&self) -> io::Result<()> {
        tracing::info!(folder = %self.folder.display(), "other users could write into this part of the spool: \
                                                         emptying it");
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if std::fs::symlink_metadata(&path)?.is_dir() {
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The folder of the cluster, closed to other users.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes each time a repository is made on this machine.
    pub(super) fn generation(&self) -> Option<FileIdentity> {
        std::fs::metadata(self.folder.join(MADE)).ok().map(|metadata| FileIdentity::of(&metadata))
    }

    /// The folder of the marks.
    pub(super) fn push_folder(&self) -> PathBuf {
        self.folder.join("push")
    }

    /// A folder for segments fetched ahead.
    pub(super) fn get_folder(&self, who: &str) -> PathBuf {
        self.folder.join(format!("get-{who}"))
    }

    /// Removes the segments of all folders for segments fetched ahead whose content is older than `age`. Blocks.
    pub(super) fn remove_fetched(&self, now: std::time::SystemTime, age: std::time::Duration) {
        let Ok(folders) = std::fs::read_dir(&self.folder) else { return };
        let of_segments = folders.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("get-"));
        for entry in of_segments.filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten() {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|passed| passed >= age)) {
                remove_quietly(&entry.path());
            }
        }
    }

    /// Removes all marks, and makes a running agent look at its repositories again. Called when a repository has been
    /// made: an earlier one at the same place may have contained files that the new one lacks.
    ///
    /// # Errors
    /// [`Cause::File`](crate::Cause::File) if their folder cannot be removed.
    pub fn forget_marks(&self) -> Result<(), Error> {
        let made = self.folder.join(MADE);
        // Root may have made it, and it belongs to the user of the spool.
        let written = write_aside(&self.folder, MADE, b"")
            .and_then(|()| private::open(&made))
            .and_then(|file| private::fit_into(&file, &self.folder));
        written.map_err(|error| Error::file("write", &made, error))?;
        let folder = self.push_folder();
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::file("remove", &folder, error)),
        }
    }
}

/// Whether files of this user may be believed: our own, and for root, which acts for others, any user's.
fn is_ours(uid: u32) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || own.as_raw() == uid
}

/// Makes a folder and its parents, closed to other users.
fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Writes a file under a temporary name and renames it, without fsync.
pub(super) fn write_aside(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    make_folder(folder)?;
    let aside = folder.join(temporary_name());
    let written = private::create_new(&aside)
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
    // Two containers on one spool may have the same process id: so the name also has a random part, and `create_new`
    // refuses a name that is still used twice.
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

/// Removes a file of the spool. If it cannot be removed, it only costs space.
pub(super) fn remove_quietly(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "a file of the spool could not be removed");
    }
}
