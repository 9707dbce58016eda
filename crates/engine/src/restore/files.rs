//! The files being written. A file is opened when its first bytes come, and gets its mode and time after its last
//! bytes. The number of open files is limited. Blocking.
//!
//! Nothing is synced here; one `syncfs` at the end of the restore does that for all files together.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use holdfast_repo::manifest::{FileEntry, Manifest};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, OFlags};
use tokio_util::sync::CancellationToken;

use super::coalesce::Piece;
use super::durable::file_mode;
use super::layout::Layout;
use crate::error::{Cause, Error};

/// Files kept open between two writes. Only files of several extents stay open; the usual limit of a process is 1024.
const MAX_OPEN: usize = 256;

/// The regular files of a restore.
#[derive(Debug)]
pub(super) struct Files {
    manifest: Arc<Manifest>,
    layout: Arc<Layout>,
    /// For each entry of the manifest, the number of extents and patches still to be written.
    missing: Vec<AtomicU32>,
    open: Mutex<OpenFiles>,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<u32, (u64, Arc<File>)>,
    uses: u64,
}

impl Files {
    /// Expects no extents yet; see [`Self::expect`].
    pub(super) fn new(manifest: Arc<Manifest>, layout: Arc<Layout>) -> Self {
        let missing = (0..manifest.len()).map(|_| AtomicU32::new(0)).collect();
        Self { manifest, layout, missing, open: Mutex::default() }
    }

    /// Announces that `extents` extents or patches of a file will be written.
    pub(super) fn expect(&self, file: u32, extents: u32) {
        if let Some(missing) = self.missing.get(file as usize) {
            missing.fetch_add(extents, Ordering::Relaxed);
        }
    }

    /// Writes the pieces of a frame to their places; a file that has all its extents is finished and closed.
    pub(super) fn write(&self, pieces: &[Piece], raw: &[u8]) -> Result<(), Error> {
        // The pieces are in the order of their files: all pieces of one file are written through one handle.
        for pieces in pieces.chunk_by(|a, b| a.file == b.file) {
            let Some(first) = pieces.first() else { continue };
            let (number, count) = (first.file, pieces.len() as u32);
            let missing = self.missing.get(number as usize).ok_or_else(no_such_file)?;
            let whole = missing.load(Ordering::Relaxed) <= count;
            let file = self.file(number, whole)?;
            for piece in pieces {
                let start = piece.offset as usize;
                let bytes = raw.get(start..start + piece.length as usize).ok_or_else(no_such_file)?;
                let write = |bytes: &[u8], at: u64| {
                    file.write_all_at(bytes, at).map_err(|e| Error::file("write", &self.path(number), e))
                };
                let Some(seen) = &piece.seen else {
                    write(bytes, piece.file_offset)?;
                    continue;
                };
                for range in seen {
                    let part = bytes.get(range.start as usize..range.end as usize).ok_or_else(no_such_file)?;
                    write(part, piece.file_offset + u64::from(range.start))?;
                }
            }
            // The thread that counts down to zero runs after all others have written.
            if missing.fetch_sub(count, Ordering::AcqRel) == count {
                self.forget(number);
                self.finish(number, &file)?;
            }
        }
        Ok(())
    }

    /// Makes or completes the files that need no fetched data.
    pub(super) fn settle_complete(
        &self,
        files: impl Iterator<Item = u32>,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        for number in files {
            if cancel.is_cancelled() {
                return Err(Cause::Cancelled.into());
            }
            let missing = self.missing.get(number as usize).ok_or_else(no_such_file)?;
            if missing.load(Ordering::Relaxed) == 0 {
                self.settle(number)?;
            }
        }
        Ok(())
    }

    fn settle(&self, number: u32) -> Result<(), Error> {
        let file = self.create(number)?;
        self.finish(number, &file)
    }

    fn file(&self, number: u32, whole: bool) -> Result<Arc<File>, Error> {
        if let Some(file) = self.lookup(number) {
            return Ok(file);
        }
        let file = Arc::new(self.create(number)?);
        if whole {
            return Ok(file);
        }
        let mut open = self.open.lock();
        if open.files.len() >= MAX_OPEN
            && let Some(oldest) = open.files.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number)
        {
            open.files.remove(&oldest);
        }
        open.uses += 1;
        let now = open.uses;
        Ok(Arc::clone(&open.files.entry(number).or_insert((now, file)).1))
    }

    fn lookup(&self, number: u32) -> Option<Arc<File>> {
        let mut open = self.open.lock();
        open.uses += 1;
        let now = open.uses;
        let (used, file) = open.files.get_mut(&number)?;
        *used = now;
        Some(Arc::clone(file))
    }

    fn forget(&self, number: u32) {
        self.open.lock().files.remove(&number);
    }

    /// Opens the file and sets its full length. Extents that are not written stay holes.
    fn create(&self, number: u32) -> Result<File, Error> {
        let path = self.path(number);
        let size_bytes = self.entry(number)?.size_bytes;
        let file = open_for_writing(&path).map_err(|e| Error::file("create", &path, e))?;
        let metadata = file.metadata().map_err(|e| Error::file("look at", &path, e))?;
        if metadata.len() != size_bytes {
            file.set_len(size_bytes).map_err(|e| Error::file("extend", &path, e))?;
        }
        Ok(file)
    }

    fn finish(&self, number: u32, file: &File) -> Result<(), Error> {
        let entry = self.entry(number)?;
        let path = || self.path(number);
        file.set_permissions(Permissions::from_mode(file_mode(entry.mode)))
            .map_err(|e| Error::file("set the mode of", &path(), e))?;
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(entry.mtime_seconds));
        if let Some(modified) = modified {
            file.set_modified(modified).map_err(|e| Error::file("set the time of", &path(), e))?;
        }
        Ok(())
    }

    fn entry(&self, number: u32) -> Result<FileEntry<'_>, Error> {
        self.manifest.file(number as usize).ok_or_else(no_such_file)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.layout.place(self.manifest.file(number as usize).map_or(b"".as_slice(), |entry| entry.path))
    }
}

fn open_for_writing(path: &Path) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed())
        .open(path)
}

/// Written where the file system has no holes.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Makes a range of an existing file zero: with a hole, or with written zeros if the file system has no holes.
pub(super) fn make_hole(file: &File, offset: u64, length: u64) -> std::io::Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, punch, offset, length) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        done => return done.map_err(std::io::Error::from),
    }
    let end = offset + length;
    let mut at = offset;
    while at < end {
        let count = (end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..count as usize], at)?;
        at += count;
    }
    Ok(())
}

fn no_such_file() -> Error {
    Cause::Internal("a piece of a file that is not in the manifest".to_owned()).into()
}

#[cfg(test)]
mod tests;
