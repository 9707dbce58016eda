//! Room on the file system of the drill: how much must be free at the start, and a reserve that always stays free.
//!
//! The production cluster may be on the same file system, and a full file system stops it.

use std::path::{Path, PathBuf};

use crate::error::{Cause, Error};

/// The reserve is the size of the file system divided by this number, but at most [`MOST_RESERVED`].
const RESERVED_PART: u64 = 20;

/// The maximum reserve in bytes. The drill checks 20 times per second, and no disk is filled faster than that.
const MOST_RESERVED: u64 = 1 << 30;

/// Bytes that the server writes besides the data and its WAL.
const BESIDES: u64 = 64 << 20;

/// The file system of a drill.
#[derive(Debug, Clone)]
pub(super) struct Room {
    directory: PathBuf,
    reserve: u64,
}

impl Room {
    /// The file system of this directory.
    pub(super) fn of(directory: &Path) -> Result<Self, Error> {
        let (_, total) = space(directory)?;
        Ok(Self { directory: directory.to_owned(), reserve: (total / RESERVED_PART).min(MOST_RESERVED) })
    }

    #[cfg(test)]
    pub(super) fn with_reserve(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve }
    }

    /// Refuses to begin with too little room. WAL counts twice: it is fetched, and replay makes the data files grow.
    pub(super) fn check(&self, files: u64, wal: u64) -> Result<(), Error> {
        let needed = [files, wal, wal, BESIDES, self.reserve].into_iter().fold(0, u64::saturating_add);
        let (free, _) = space(&self.directory)?;
        if free < needed { Err(self.missing(needed, free)) } else { Ok(()) }
    }

    /// Refuses to continue if less than the reserve is free. A file system that does not answer does not end the drill.
    pub(super) fn check_reserve(&self) -> Result<(), Error> {
        match space(&self.directory) {
            Ok((free, _)) if free < self.reserve => Err(self.missing(self.reserve, free)),
            _ => Ok(()),
        }
    }

    /// The limit for the temporary files of one session, in kB: everything that is free, except the reserve.
    pub(super) fn temporary_kilobytes(&self) -> u64 {
        let free = space(&self.directory).map_or(0, |(free, _)| free);
        // 0 would forbid even the smallest file. PostgreSQL has the limit in a signed 32-bit number.
        (free.saturating_sub(self.reserve) >> 10).clamp(1 << 10, u64::from(i32::MAX.unsigned_abs()))
    }

    fn missing(&self, needed: u64, free: u64) -> Error {
        Cause::NoRoom { directory: self.directory.clone(), needed, free }.into()
    }
}

/// The bytes that are free for this user, and the size of the file system in bytes.
fn space(directory: &Path) -> Result<(u64, u64), Error> {
    let space = rustix::fs::statvfs(directory).map_err(|e| Error::file("look at", directory, e.into()))?;
    Ok((space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_reserve_is_needed_besides_and_never_touched() {
        let parent = tempfile::tempdir().unwrap();
        let place = parent.path().to_owned();
        let (free, _) = space(&place).unwrap();
        let needed = |error: Error| match *error.what {
            Cause::NoRoom { needed, .. } => needed,
            other => panic!("{other}"),
        };
        // Everything counts, and WAL counts twice.
        let room = Room::with_reserve(place.clone(), free);
        assert_eq!(needed(room.check(1000, 100).unwrap_err()), 1000 + 2 * 100 + BESIDES + free);
        assert_eq!(needed(room.check(u64::MAX, 1).unwrap_err()), u64::MAX);
        let huge = Room::with_reserve(place.clone(), u64::MAX);
        assert_eq!(needed(huge.check_reserve().unwrap_err()), u64::MAX);
        assert_eq!(huge.temporary_kilobytes(), 1 << 10);
        Room::with_reserve(place.clone(), 0).check_reserve().unwrap();
        let usual = Room::of(&place).unwrap();
        assert!(usual.reserve > 0 && usual.reserve <= MOST_RESERVED);
        // A directory that is gone does not end a drill.
        let gone = Room::with_reserve(place.join("gone"), u64::MAX);
        gone.check_reserve().unwrap();
        gone.check(1, 1).unwrap_err();
    }
}
