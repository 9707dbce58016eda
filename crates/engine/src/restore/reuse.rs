//! Reuses files that are already there: the mechanism of both resume and `--delta`.
//!
//! [`sweep`] removes everything that is not in the manifest and every entry of the wrong kind, so that afterwards every
//! path of the manifest leads through real directories. [`compare`] reads the files that stay, extent by extent, and
//! returns the extents whose BLAKE3 differs. Times and sizes are not trusted: after a crash they may be right while the
//! bytes are missing. The page cache is not trusted either: after a failed write it has bytes that are not on the disk.

use std::ffi::OsStr;
use std::fs::{DirEntry, File};
use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_contract::report::restore::TablespacePlace;
use holdfast_repo::ChunkHash;
use holdfast_repo::chunk::is_all_zero;
use holdfast_repo::manifest::{Extent, FileKind, Manifest};
use holdfast_store::Buffer;
use rustix::fs::{Advice, OFlags};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::coalesce::WantedExtent;
use super::files::make_hole;
use super::layout::{LINKS, Layout, PathIndex};
use super::resume::RESUME_POINT;
use crate::error::{Cause, Error};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;

/// Bytes read at once for the comparison.
const BATCH_BYTES: u64 = 8 << 20;

/// Files in one batch, if they are tiny.
const BATCH_FILES: usize = 256;

/// Batches in progress: one is read while others are hashed.
const MAX_BATCHES: usize = 8;

/// The directory of `fsck`, which belongs to root and is made again by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// Removes what is not part of the backup, in the data directory and in the version directories of the tablespaces.
/// Returns the number of removed entries. Blocking.
pub(super) fn sweep(
    layout: &Layout,
    manifest: &Manifest,
    index: &PathIndex,
    version_directory: &str,
    cancel: &CancellationToken,
) -> Result<u64, Error> {
    let mut removed = 0;
    let mut waiting: Vec<(PathBuf, Vec<u8>)> = vec![(layout.pgdata().to_owned(), Vec::new())];
    for tablespace in layout.tablespaces() {
        let path = version_path(tablespace, version_directory);
        let directory = tablespace.location.join(version_directory);
        // A link in its place is not followed. If it is not part of the backup, it is removed.
        match std::fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() && index.find(manifest, &path).is_some() => {
                waiting.push((directory, path));
            }
            Ok(metadata) => removed += remove(&directory, metadata.is_dir())?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::file("look at", &directory, e)),
        }
    }
    while let Some((directory, path)) = waiting.pop() {
        if cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let entries = std::fs::read_dir(&directory).map_err(|e| Error::file("list", &directory, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::file("list", &directory, e))?;
            let name = entry.file_name();
            if stays(&path, &name) {
                continue;
            }
            let inside = join(&path, name.as_bytes());
            let is_directory = is_directory(&entry)?;
            match keep(manifest, index, &inside, &entry, is_directory)? {
                Kept::No => removed += remove(&entry.path(), is_directory)?,
                Kept::Leaf => {}
                Kept::Directory => waiting.push((entry.path(), inside)),
            }
        }
    }
    Ok(removed)
}

/// Where a sweep begins: the directories and the paths that the manifest has for them.
pub(super) fn starts(layout: &Layout, version_directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let tablespaces = layout.tablespaces().iter();
    let tablespaces = tablespaces.map(|t| (t.location.join(version_directory), version_path(t, version_directory)));
    std::iter::once((layout.pgdata().to_owned(), Vec::new())).chain(tablespaces).collect()
}

fn version_path(tablespace: &TablespacePlace, version_directory: &str) -> Vec<u8> {
    [LINKS, b"/", tablespace.oid.to_string().as_bytes(), b"/", version_directory.as_bytes()].concat()
}

/// Entries that are in no backup and stay: our own file, and what a file system keeps in its top directory.
pub(super) fn stays(path: &[u8], name: &OsStr) -> bool {
    path.is_empty() && (name == RESUME_POINT || name == LOST_AND_FOUND)
}

/// What a sweep does with an entry.
pub(super) enum Kept {
    /// It is removed, with everything in it.
    No,
    /// It stays.
    Leaf,
    /// It stays, and its content is examined.
    Directory,
}

pub(super) fn keep(
    manifest: &Manifest,
    index: &PathIndex,
    path: &[u8],
    entry: &DirEntry,
    is_directory: bool,
) -> Result<Kept, Error> {
    let Some(wanted) = index.find(manifest, path).and_then(|position| manifest.file(position)) else {
        return Ok(Kept::No);
    };
    Ok(match wanted.kind {
        FileKind::Directory if is_directory => Kept::Directory,
        FileKind::File { .. } => {
            let metadata = entry.metadata().map_err(|e| Error::file("look at", &entry.path(), e))?;
            // Another name of the same file would change as well, for example the old cluster after `pg_upgrade
            // --link`.
            if metadata.is_file() && metadata.nlink() == 1 { Kept::Leaf } else { Kept::No }
        }
        FileKind::Directory | FileKind::Symlink { .. } => Kept::No,
    })
}

fn is_directory(entry: &DirEntry) -> Result<bool, Error> {
    entry.file_type().map(|kind| kind.is_dir()).map_err(|e| Error::file("look at", &entry.path(), e))
}

/// Removes an entry; does not follow links.
fn remove(path: &Path, is_directory: bool) -> Result<u64, Error> {
    let removed = if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(|e| Error::file("remove", path, e))?;
    Ok(1)
}

/// Drops a range of a file from the page cache, so that it is read from the disk. After a write that the disk refused,
/// the kernel keeps the pages and counts them as written. Pages that are not written yet stay: the `syncfs` at the end
/// reports their errors.
fn read_from_disk(file: &File, start: u64, length: usize) {
    let Some(length) = NonZeroU64::new(length as u64) else { return };
    if let Err(error) = rustix::fs::fadvise(file, start, Some(length), Advice::DontNeed) {
        tracing::debug!(%error, "the page cache cannot be passed over");
    }
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Extents that must be fetched, unsorted.
    pub wanted: Vec<WantedExtent>,
    /// Bytes that are already there, without holes.
    pub reused_bytes: u64,
}

/// Some extents of one file.
#[derive(Debug, Clone, Copy)]
struct FileExtents {
    file: u32,
    first: u32,
    count: u32,
}

/// Everything that the comparison needs.
pub(super) struct Comparison {
    pub manifest: Arc<Manifest>,
    pub layout: Arc<Layout>,
    pub budget: ByteBudget,
    pub crew: Crew,
    pub progress: Arc<dyn Progress>,
    pub cancel: CancellationToken,
}

/// Compares the files of the manifest at `positions` with what is on disk.
pub(super) async fn compare(
    comparison: &Arc<Comparison>,
    positions: impl Iterator<Item = u32>,
) -> Result<Compared, Error> {
    let manifest = Arc::clone(&comparison.manifest);
    let mut tasks: JoinSet<Result<Compared, Error>> = JoinSet::new();
    let mut total = Compared::default();
    let mut outcome = Ok(());
    let mut batches = Batches { manifest: &manifest, positions, rest: None };
    loop {
        let batch = if outcome.is_ok() && !comparison.cancel.is_cancelled() { batches.next() } else { None };
        let done = match (&batch, tasks.len() < MAX_BATCHES) {
            (Some(_), true) => None,
            _ => tasks.join_next().await,
        };
        if let Some(done) = done {
            match done.unwrap_or_else(|e| Err(Cause::Internal(format!("a comparing task failed: {e}")).into())) {
                Ok(part) => {
                    total.wanted.extend(part.wanted);
                    total.reused_bytes += part.reused_bytes;
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        match batch {
            Some((stretches, bytes)) => {
                let permit = comparison.budget.acquire(bytes).await;
                let comparison = Arc::clone(comparison);
                tasks.spawn(async move {
                    let compared = comparison.batch(stretches).await;
                    drop(permit);
                    compared
                });
            }
            None if tasks.is_empty() => break,
            None => {}
        }
    }
    outcome?;
    if comparison.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(total) }
}

/// Splits the files into batches: a large file into several, many small files into one.
struct Batches<'a, I> {
    manifest: &'a Manifest,
    positions: I,
    /// The rest of a large file.
    rest: Option<FileExtents>,
}

impl<I: Iterator<Item = u32>> Iterator for Batches<'_, I> {
    type Item = (Vec<FileExtents>, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let mut stretches = Vec::new();
        let mut bytes = 0;
        while stretches.len() < BATCH_FILES && bytes < BATCH_BYTES {
            let Some(stretch) = self.rest.take().or_else(|| {
                let file = self.positions.next()?;
                let count = self.manifest.file(file as usize)?.extents().len() as u32;
                Some(FileExtents { file, first: 0, count })
            }) else {
                break;
            };
            let entry = self.manifest.file(stretch.file as usize)?;
            let mut taken = 0;
            for extent in entry.extents().starting_at(stretch.first as usize) {
                if taken > 0 && bytes >= BATCH_BYTES {
                    break;
                }
                bytes += u64::from(extent.length);
                taken += 1;
            }
            if taken < stretch.count {
                self.rest = Some(FileExtents {
                    file: stretch.file,
                    first: stretch.first + taken,
                    count: stretch.count - taken,
                });
            }
            stretches.push(FileExtents { count: taken, ..stretch });
        }
        if stretches.is_empty() { None } else { Some((stretches, bytes)) }
    }
}

/// The bytes of a batch on disk, in one block of memory: the allocator would keep many small blocks.
struct LocalBatch {
    /// The bytes of all stretches, one after the other.
    bytes: Buffer,
    /// Each stretch with its length, and whether the file exists.
    stretches: Vec<(FileExtents, usize, bool)>,
}

impl Comparison {
    async fn batch(self: &Arc<Self>, stretches: Vec<FileExtents>) -> Result<Compared, Error> {
        let reader = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || reader.read_all(&stretches));
        let found = found.await.map_err(|e| Cause::Internal(format!("a reading thread failed: {e}")))??;
        let judge = Arc::clone(self);
        let (compared, holes) = self.crew.run(move || judge.judge(&found)).await?;
        if !holes.is_empty() {
            let writer = Arc::clone(self);
            let punched = tokio::task::spawn_blocking(move || writer.punch(&holes));
            punched.await.map_err(|e| Cause::Internal(format!("a writing thread failed: {e}")))??;
        }
        Ok(compared)
    }

    fn read_all(&self, stretches: &[FileExtents]) -> Result<LocalBatch, Error> {
        let length = |stretch: &FileExtents| self.extents(*stretch).map(|extent| extent.length as usize).sum();
        let total = stretches.iter().map(length).sum();
        let no_memory = |e| Cause::Internal(format!("no memory for a comparison: {e}"));
        let mut found = LocalBatch { bytes: Buffer::zeroed(total).map_err(no_memory)?, stretches: Vec::new() };
        let mut start = 0;
        for stretch in stretches {
            let length = length(stretch);
            let there = self.read(*stretch, &mut found.bytes[start..start + length])?;
            found.stretches.push((*stretch, length, there));
            start += length;
        }
        Ok(found)
    }

    /// Reads a stretch; returns whether the file exists.
    fn read(&self, stretch: FileExtents, bytes: &mut [u8]) -> Result<bool, Error> {
        let path = self.path(stretch.file);
        let file = match open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            // A file that we may not write cannot be reused.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                remove(&path, false)?;
                return Ok(false);
            }
            Err(e) => return Err(Error::file("open", &path, e)),
        };
        let start = self.offset(stretch.first);
        read_from_disk(&file, start, bytes.len());
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], start + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::file("read", &path, e)),
            }
        }
        // After the end of the file there will be zeros when it gets its full length.
        self.progress.advance(bytes.len() as u64);
        Ok(true)
    }

    /// Finds the extents that differ, and the holes that are not zero.
    fn judge(&self, found: &LocalBatch) -> (Compared, Vec<(u32, u64, u64)>) {
        let mut compared = Compared::default();
        let mut holes = Vec::new();
        let mut start = 0;
        for (stretch, length, there) in &found.stretches {
            let mut rest = there.then(|| &found.bytes[start..start + length]);
            start += length;
            for (extent, number) in self.extents(*stretch).zip(stretch.first..) {
                let here = rest.and_then(|bytes| bytes.split_at_checked(extent.length as usize));
                rest = here.map(|(_, rest)| rest);
                let patches = self.patches(stretch.file, number);
                if !patches.is_empty() {
                    self.judge_patched(
                        stretch.file,
                        number,
                        patches,
                        here.map(|(bytes, _)| bytes),
                        &mut compared,
                        &mut holes,
                    );
                    continue;
                }
                let equal = here.is_some_and(|(bytes, _)| ChunkHash::of(bytes) == extent.hash);
                match (extent.is_hole(), equal) {
                    (true, false) if here.is_some() => {
                        holes.push((stretch.file, self.offset(number), u64::from(extent.length)));
                    }
                    (true, _) => {}
                    (false, true) => compared.reused_bytes += u64::from(extent.length),
                    (false, false) => compared.wanted.push(wanted(stretch.file, number, extent)),
                }
            }
        }
        (compared, holes)
    }

    /// The same, for an extent under patches. A source that no patch covers is compared by its hash. If a part of it is
    /// covered, the covered bytes are not in the file, so it cannot be compared and is fetched.
    fn judge_patched(
        &self,
        file: u32,
        extent: u32,
        patches: Range<u32>,
        here: Option<&[u8]>,
        compared: &mut Compared,
        holes: &mut Vec<(u32, u64, u64)>,
    ) {
        let Some(entry) = self.manifest.file(file as usize) else { return };
        let (extent_bytes, start) = (self.manifest.header().extent_bytes, self.offset(extent));
        for number in std::iter::once(extent).chain(patches) {
            let Some(source) = entry.source(number, extent_bytes).filter(|source| source.seen_bytes() > 0) else {
                continue;
            };
            let place = source.place;
            let at = (source.file_offset - start) as usize;
            let bytes = here.and_then(|here| here.get(at..at + place.length as usize));
            if place.is_hole() {
                let all = 0..place.length;
                for seen in source.seen.as_deref().unwrap_or(std::slice::from_ref(&all)) {
                    let part = bytes.and_then(|bytes| bytes.get(seen.start as usize..seen.end as usize));
                    if part.is_some_and(|part| !is_all_zero(part)) {
                        let length = u64::from(seen.end - seen.start);
                        holes.push((file, source.file_offset + u64::from(seen.start), length));
                    }
                }
            } else if source.seen.is_none() && bytes.is_some_and(|bytes| ChunkHash::of(bytes) == place.hash) {
                compared.reused_bytes += u64::from(place.length);
            } else {
                compared.wanted.push(wanted(file, number, place));
            }
        }
    }

    fn patches(&self, file: u32, extent: u32) -> Range<u32> {
        self.manifest.file(file as usize).map_or(0..0, |entry| entry.patch_sources(extent))
    }

    fn punch(&self, holes: &[(u32, u64, u64)]) -> Result<(), Error> {
        for &(file, offset, length) in holes {
            let path = self.path(file);
            open(&path)
                .and_then(|file| make_hole(&file, offset, length))
                .map_err(|e| Error::file("write", &path, e))?;
        }
        Ok(())
    }

    fn extents(&self, stretch: FileExtents) -> impl Iterator<Item = Extent> {
        let extents = self.manifest.file(stretch.file as usize).map(|entry| entry.extents()).unwrap_or_default();
        extents.starting_at(stretch.first as usize).take(stretch.count as usize)
    }

    fn offset(&self, extent: u32) -> u64 {
        u64::from(extent) * u64::from(self.manifest.header().extent_bytes)
    }

    fn path(&self, file: u32) -> PathBuf {
        self.layout.place(self.manifest.file(file as usize).map_or(b"".as_slice(), |entry| entry.path))
    }
}

/// Everything to fetch for a file that does not exist.
pub(super) fn all_extents(manifest: &Manifest, file: u32) -> impl Iterator<Item = WantedExtent> {
    let extent_bytes = manifest.header().extent_bytes;
    let entry = manifest.file(file as usize);
    entry.into_iter().flat_map(move |entry| {
        (0..entry.source_count()).filter_map(move |number| {
            let place = entry.place(number).filter(|place| !place.is_hole())?;
            let covered = || entry.source(number, extent_bytes).is_none_or(|source| source.seen_bytes() == 0);
            if !entry.patches().is_empty() && covered() { None } else { Some(wanted(file, number, place)) }
        })
    })
}

fn wanted(file: u32, source: u32, place: Extent) -> WantedExtent {
    WantedExtent { pack: place.pack, frame_offset: place.frame_offset, file, source }
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    File::options().read(true).write(true).custom_flags(flags).open(OsStr::new(path))
}
