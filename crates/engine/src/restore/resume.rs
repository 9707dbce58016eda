//! The resume point: `holdfast.restore` in the data directory, and the lock that prevents two restores at once.
//!
//! It is written before anything else and removed after everything else. If a directory has this file, a restore of the
//! named backup was not finished. After a crash the file remains, and the kernel releases the lock.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use holdfast_contract::report::restore::TablespacePlace;
use holdfast_repo::RepositoryId;
use holdfast_repo::name::{BackupId, ClusterName};
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};

use super::settings::Archiving;
use crate::error::{Cause, Error};

/// The file's name in the data directory.
pub const RESUME_POINT: &str = "holdfast.restore";

/// The restore that is in progress in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumePoint {
    /// The version of the file's format.
    pub version: u32,
    /// The id of the repository.
    pub repository: RepositoryId,
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// The backup that is restored.
    pub backup: BackupId,
    /// The directories of the tablespaces.
    pub tablespaces: Vec<TablespacePlace>,
    /// Whether the copy archives. A restore that was begun without archiving must not be finished with it.
    #[serde(default)]
    pub archiving: Archiving,
    /// The name of the host that restores.
    pub host: String,
    /// The process id of the restore on that host.
    pub pid: u32,
    /// When the restore began or was last continued.
    pub started: DateTime<Utc>,
}

/// The version of the file that is written and read.
pub(super) const VERSION: u32 = 1;

impl ResumePoint {
    /// Reads the resume point of a directory; `None` if there is none, or if it was not written in full: then nothing
    /// else was done.
    ///
    /// # Errors
    /// [`Cause::File`] if the file exists and cannot be read.
    pub fn read(pgdata: &Path) -> Result<Option<Self>, Error> {
        let path = pgdata.join(RESUME_POINT);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("read", &path, e)),
        }
    }

    /// Whether a restore with these facts continues the other one.
    pub(super) fn is_same_restore(&self, other: &Self) -> bool {
        self.version == other.version
            && self.repository == other.repository
            && self.cluster == other.cluster
            && self.backup == other.backup
            && self.tablespaces == other.tablespaces
            && self.archiving == other.archiving
    }
}

/// The locked resume point of a running restore.
#[derive(Debug)]
pub(super) struct ResumeLock {
    file: File,
    path: PathBuf,
}

impl ResumeLock {
    /// Takes the lock; the directory must exist. Makes an empty file if there is none.
    pub(super) fn acquire(pgdata: &Path) -> Result<Self, Error> {
        let path = pgdata.join(RESUME_POINT);
        // It tries again if the restore that held the lock finished and removed the file in between.
        for _ in 0..3 {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed())
                .open(&path)
                .map_err(|e| Error::file("create", &path, e))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(another_run(pgdata, file)),
                Err(e) => return Err(Error::file("lock", &path, e.into())),
            }
            let held = file.metadata().map_err(|e| Error::file("look at", &path, e))?;
            match std::fs::symlink_metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => return Ok(Self { file, path }),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::file("look at", &path, e)),
            }
        }
        Err(another_run_of(pgdata, None))
    }

    /// Writes the resume point durably. It is written in place: a new file of this name would not have the lock.
    pub(super) fn record(&mut self, point: &ResumePoint) -> Result<(), Error> {
        let mut text = serde_json::to_vec_pretty(point)
            .map_err(|e| Cause::Internal(format!("the resume point cannot be written as JSON: {e}")))?;
        text.push(b'\n');
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(&text)?;
            file.sync_all()
        };
        write(&mut self.file).map_err(|e| Error::file("write", &self.path, e))?;
        sync_parent(&self.path)
    }

    /// Removes the resume point, durably: the restore is finished.
    pub(super) fn remove(self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(|e| Error::file("remove", &self.path, e))?;
        sync_parent(&self.path)
    }
}

fn another_run(pgdata: &Path, mut file: File) -> Error {
    let mut text = String::new();
    let point: Option<ResumePoint> = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
    another_run_of(pgdata, point.and_then(|point| i32::try_from(point.pid).ok()))
}

fn another_run_of(pgdata: &Path, pid: Option<i32>) -> Error {
    Cause::AnotherRun { verb: "restore", subject: format!("a backup into {}", pgdata.display()), pid }.into()
}

/// Syncs the directory of a file, so that its name is durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|e| Error::file("sync", parent, e))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn point() -> ResumePoint {
        ResumePoint {
            version: VERSION,
            repository: RepositoryId::random().unwrap(),
            cluster: "main".parse().unwrap(),
            backup: "20260822T101500Z".parse().unwrap(),
            tablespaces: Vec::new(),
            archiving: Archiving::AsBackedUp,
            host: "db1".to_owned(),
            pid: 4711,
            started: "2026-08-22T11:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_second_restore_learns_who_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let mut lock = ResumeLock::acquire(directory.path()).unwrap();
        let point = point();
        lock.record(&point).unwrap();
        assert_eq!(ResumePoint::read(directory.path()).unwrap(), Some(point));
        let error = ResumeLock::acquire(directory.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("another restore of a backup into {} is running (process 4711)", directory.path().display())
        );
        lock.remove().unwrap();
        assert!(ResumePoint::read(directory.path()).unwrap().is_none());
        ResumeLock::acquire(directory.path()).unwrap();
    }

    #[test]
    fn a_resume_point_of_an_earlier_release_archives_as_backed_up() {
        let mut old = serde_json::to_value(point()).unwrap();
        old.as_object_mut().unwrap().remove("archiving").unwrap();
        let read: ResumePoint = serde_json::from_value(old).unwrap();
        assert_eq!(read.archiving, Archiving::AsBackedUp);
        let off = ResumePoint { archiving: Archiving::Off, ..read.clone() };
        assert!(!off.is_same_restore(&read) && !read.is_same_restore(&off));
    }

    #[test]
    fn an_unfinished_resume_point_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        ResumeLock::acquire(directory.path()).unwrap();
        assert!(ResumePoint::read(directory.path()).unwrap().is_none());
        std::fs::write(directory.path().join(RESUME_POINT), "{\"version\": 1, ").unwrap();
        assert!(ResumePoint::read(directory.path()).unwrap().is_none());
    }
}
