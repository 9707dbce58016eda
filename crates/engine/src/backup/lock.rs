//! One backup at a time of one data directory on one host.
//!
//! The lock is an advisory lock on the data directory's `PG_VERSION`, opened for reading. Nothing is written into the
//! data directory, and the lock ends with the process, even after a kill.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Cause, Error};

/// Held while a backup runs.
#[derive(Debug)]
pub(super) struct BackupLock {
    _file: File,
}

impl BackupLock {
    /// Takes the lock; [`Cause::AnotherRun`] if another backup runs.
    pub(super) fn acquire(pgdata: &Path) -> Result<Self, Error> {
        let path = pgdata.join("PG_VERSION");
        let file = File::open(&path).map_err(|e| Error::file("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Cause::AnotherRun { verb: "backup", subject: pgdata.display().to_string(), pid: None }.into())
            }
            Err(e) => Err(Error::file("lock", &path, e.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[test]
    fn a_second_backup_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "18\n").unwrap();
        let first = BackupLock::acquire(dir.path()).unwrap();
        let refused = BackupLock::acquire(dir.path()).unwrap_err();
        assert!(matches!(*refused.what, Cause::AnotherRun { verb: "backup", .. }));
        drop(first);
        BackupLock::acquire(dir.path()).unwrap();
    }
}
