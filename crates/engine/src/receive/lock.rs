//! One receiver at a time in one folder: a second one would remove the segments of the first.
//!
//! The lock is an advisory lock on a file in the folder. It ends with the process, even after a kill; the file stays.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::error::{Cause, Error};

/// The name of the file.
pub(super) const NAME: &str = "lock";

/// Held while a receiver runs.
#[derive(Debug)]
pub(super) struct ReceiverLock {
    _file: File,
}

impl ReceiverLock {
    /// Takes the lock; [`Cause::AnotherRun`] if another receiver has it.
    pub(super) fn acquire(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| Error::file("open", &path, e))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Cause::AnotherRun { verb: "wal receive", subject: folder.display().to_string(), pid: None }.into())
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
    fn a_second_receiver_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = ReceiverLock::acquire(folder.path()).unwrap();
        let refused = ReceiverLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(*refused.what, Cause::AnotherRun { verb: "wal receive", .. }));
        drop(first);
        ReceiverLock::acquire(folder.path()).unwrap();
    }
}
