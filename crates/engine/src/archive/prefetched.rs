//! Segments in the spool that were fetched ahead, and how a file gets its name at the destination.
//!
//! A segment is kept as `<segment>.<BLAKE3>`. Its content is always hashed before it is used, so that damage from a
//! crash of the machine is found. The folder is named by the repositories and the cluster, so that neither a changed
//! configuration nor another cluster's restore on this machine gets its files. Two processes may work on one folder:
//! files appear and are taken by rename, and the process that loses a race fetches from the repository.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use holdfast_pgtypes::{SegmentName, SystemIdentifier};
use holdfast_repo::ChunkHash;

use super::private;
use super::spool::{self, RepositorySetId, Spool};
use crate::error::Error;

/// How much of a segment is in memory at once: it stays in the processor's cache.
const PIECE_BYTES: usize = 256 << 10;

/// The segments of one cluster that were fetched ahead from one set of repositories.
#[derive(Debug, Clone)]
pub(super) struct Prefetched {
    folder: PathBuf,
}

#[derive(Debug)]
struct Entry {
    segment: SegmentName,
    hash: ChunkHash,
    path: PathBuf,
}

impl Prefetched {
    pub(super) fn new(spool: &Spool, set: &RepositorySetId, system_identifier: SystemIdentifier) -> Self {
        Self { folder: spool.get_folder(&format!("{}-{system_identifier}", set.short())) }
    }

    fn entries(&self) -> Vec<Entry> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let parsed = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let (segment, hash) = name.to_str()?.split_once('.')?;
            Some(Entry { segment: segment.parse().ok()?, hash: hash.parse().ok()?, path: entry.path() })
        });
        parsed.collect()
    }

    /// Whether a segment is here. Its content is checked when it is used.
    pub(super) fn has(&self, segment: SegmentName) -> bool {
        self.entries().iter().any(|entry| entry.segment == segment)
    }

    /// Keeps a verified segment in the spool, and returns its path. Blocks.
    pub(super) fn keep(&self, segment: SegmentName, hash: &ChunkHash, raw: &[u8]) -> Result<PathBuf, Error> {
        let name = format!("{segment}.{hash}");
        spool::write_aside(&self.folder, &name, raw).map_err(|e| Error::file("write", &self.folder, e))?;
        Ok(self.folder.join(name))
    }

    /// Moves a segment to `destination` if it is here and whole. Returns its size, or `None`. Blocks.
    pub(super) fn hand_over(&self, segment: SegmentName, destination: &Path) -> Result<Option<u64>, Error> {
        for entry in self.entries().into_iter().filter(|entry| entry.segment == segment) {
            let aside = parent_of(destination).join(spool::temporary_name());
            match move_aside(&entry.path, &entry.hash, &aside) {
                Ok(Some((file, size_bytes))) => {
                    finish(&file, &aside, destination)?;
                    return Ok(Some(size_bytes));
                }
                Ok(None) => {}
                Err(error) => {
                    // The spool only saves time: what cannot be read there is fetched.
                    tracing::warn!(path = %entry.path.display(), %error, "a segment fetched ahead cannot be used");
                    spool::remove_quietly(&entry.path);
                }
            }
            spool::remove_quietly(&aside);
        }
        Ok(None)
    }

    /// Removes the segments that recovery has passed and those beyond `limit` files. Segments of this timeline after
    /// `reached` are kept first. Blocks.
    pub(super) fn sweep(&self, reached: SegmentName, limit: usize) {
        let mut entries = self.entries();
        let passed = |segment: SegmentName| segment <= reached.on_timeline(segment.timeline());
        entries.sort_unstable_by_key(|entry| {
            (passed(entry.segment), entry.segment.timeline() != reached.timeline(), entry.segment)
        });
        for (index, entry) in entries.iter().enumerate() {
            if index >= limit || passed(entry.segment) {
                spool::remove_quietly(&entry.path);
            }
        }
    }

    /// Removes everything. Blocks.
    pub(super) fn empty(&self) {
        for entry in self.entries() {
            spool::remove_quietly(&entry.path);
        }
    }

    /// Removes temporary files of killed runs. Blocks.
    pub(super) fn remove_stale(&self, now: std::time::SystemTime) {
        spool::remove_stale(&self.folder, now);
    }
}

/// Moves a segment that an agent has fetched from its spool to `destination`, if its content has this hash, and returns
/// its size. `Ok(None)` means that it is not there any more, or damaged. Blocks.
///
/// # Errors
/// [`Cause::File`](crate::Cause::File) if it cannot be written to `destination`.
pub fn hand_over_from_agent(path: &Path, hash: ChunkHash, destination: &Path) -> Result<Option<u64>, Error> {
    let aside = parent_of(destination).join(spool::temporary_name());
    match move_aside(path, &hash, &aside) {
        Ok(Some((file, size_bytes))) => finish(&file, &aside, destination).map(|()| Some(size_bytes)),
        Ok(None) => {
            spool::remove_quietly(&aside);
            Ok(None)
        }
        Err(error) => {
            spool::remove_quietly(&aside);
            Err(Error::file("write", destination, error))
        }
    }
}

/// Writes a small file whose content an agent sent in hexadecimal digits, and returns its size; `Ok(None)` if they are
/// none. Blocks.
///
/// # Errors
/// [`Cause::File`](crate::Cause::File) if it cannot be written.
pub fn write_small(destination: &Path, digits: &str) -> Result<Option<u64>, Error> {
    let Ok(content) = hex::decode(digits) else { return Ok(None) };
    write_whole(destination, &content)?;
    Ok(Some(content.len() as u64))
}

/// Moves an entry from the spool to `aside`; `None` if another process took it or it is not what it was.
fn move_aside(path: &Path, hash: &ChunkHash, aside: &Path) -> std::io::Result<Option<(File, u64)>> {
    let (file, found, size_bytes) = match std::fs::rename(path, aside) {
        Ok(()) => {
            let mut file = private::open(aside)?;
            let (found, size_bytes) = read_through(&mut file, None)?;
            (file, found, size_bytes)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::CrossesDevices => match copy(path, aside)? {
            Some(copied) => copied,
            None => return Ok(None),
        },
        Err(error) => return Err(error),
    };
    if found == *hash {
        Ok(Some((file, size_bytes)))
    } else {
        tracing::warn!(path = %path.display(), "a segment fetched ahead is damaged and is fetched again");
        Ok(None)
    }
}

/// Copies an entry to another file system, with the hash and the length of what was read; `None` if another process
/// took it. A rename between file systems fails before it looks whether the file is there.
fn copy(path: &Path, aside: &Path) -> std::io::Result<Option<(File, ChunkHash, u64)>> {
    let mut from = match private::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut file = private::create_new(aside)?;
    let (found, size_bytes) = read_through(&mut from, Some(&mut file))?;
    spool::remove_quietly(path);
    Ok(Some((file, found, size_bytes)))
}

/// The hash and the length of a file, read in pieces, because the memory of a whole segment costs more time than its
/// hash. With `copy`, what is read is written there.
fn read_through(file: &mut File, mut copy: Option<&mut File>) -> std::io::Result<(ChunkHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut size_bytes = 0;
    loop {
        let read = match file.read(&mut piece) {
            Ok(0) => return Ok((hasher.finalize().into(), size_bytes)),
            Ok(read) => &piece[..read],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(read);
        size_bytes += read.len() as u64;
        if let Some(copy) = &mut copy {
            copy.write_all(read)?;
        }
    }
}

/// Writes a verified file under a temporary name and renames it. Blocks.
///
/// Nothing is fsynced: a crash of the machine also ends the recovery, which then asks for the file again. PostgreSQL
/// itself fsyncs a restored segment that it keeps (`KeepFileRestoredFromArchive` in `xlogarchive.c`, by
/// `durable_rename`). An fsync of 16 MiB would be most of the time that PostgreSQL waits here.
pub(super) fn write_whole(destination: &Path, content: &[u8]) -> Result<(), Error> {
    let aside = parent_of(destination).join(spool::temporary_name());
    let written = private::create_new(&aside).and_then(|mut file| file.write_all(content).map(|()| file));
    match written {
        Ok(file) => finish(&file, &aside, destination),
        Err(error) => {
            spool::remove_quietly(&aside);
            Err(Error::file("write", &aside, error))
        }
    }
}

fn finish(file: &File, aside: &Path, destination: &Path) -> Result<(), Error> {
    let fitted = private::fit_into(file, parent_of(destination));
    fitted.and_then(|()| std::fs::rename(aside, destination)).map_err(|error| {
        spool::remove_quietly(aside);
        Error::file("write", destination, error)
    })
}

/// The directory of a file, also of a path without one.
pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[test]
    fn what_another_process_left_is_removed_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path(), &"main".parse().unwrap()).unwrap();
        let set = |name: &str| RepositorySetId::new(&"main".parse().unwrap(), [name]);
        let segment: SegmentName = "000000010000000000000005".parse().unwrap();
        let kept = ["one", "two"].map(|name| {
            let spooled = Prefetched::new(&spool, &set(name), SystemIdentifier::new(7));
            spooled.keep(segment, &blake3::hash(b"wal").into(), b"wal").unwrap()
        });
        let minute = std::time::Duration::from_mins(1);
        let now = std::time::SystemTime::now();
        spool.remove_fetched(now, minute);
        assert!(kept.iter().all(|path| path.exists()), "they are young");
        spool.remove_fetched(now + 2 * minute, minute);
        assert!(kept.iter().all(|path| !path.exists()));
    }

    #[test]
    fn an_entry_that_another_process_took_is_absent_whatever_the_file_systems_are() {
        let folder = tempfile::tempdir().unwrap();
        let (entry, aside) = (folder.path().join("entry"), folder.path().join("aside"));
        let hash: ChunkHash = blake3::hash(b"wal").into();
        assert!(move_aside(&entry, &hash, &aside).unwrap().is_none());
        assert!(copy(&entry, &aside).unwrap().is_none());
        assert!(!aside.exists());
        std::fs::write(&entry, b"wal").unwrap();
        let (_, found, size_bytes) = copy(&entry, &aside).unwrap().unwrap();
        assert_eq!((found, size_bytes, std::fs::read(&aside).unwrap().as_slice()), (hash, 3, &b"wal"[..]));
        assert!(!entry.exists(), "it is taken");
    }
}
