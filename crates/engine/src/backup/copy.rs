//! Copies the files: many threads read and encode units, which are committed in order.
//!
//! ```text
//! plan -> [ permit | read (blocking pool) | check, hash, compress (crew) ] -> in order -> sinks (one a repository)
//!          `--------------- several units at once ----------------------'
//! ```
//! A unit holds a permit for its raw and compressed bytes from before it is read until the store has its part, so
//! memory stays within the budget. Units get their permits in the order in which they are committed. While the next
//! unit waits for its permit, earlier units are still committed. So a waiting unit waits only for uploads, which make
//! progress by themselves, and for parts that are being filled, for which [`Copier::check_budget`] leaves room.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use holdfast_pgtypes::Lsn;
use holdfast_repo::FrameLocation;
use holdfast_repo::manifest::Extent;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::bad_pages::{BadPages, Patience};
use super::encode::{EncodedChunk, EncodedUnit, Encoding, Form, encode_unit};
use super::incremental::Base;
use super::incremental::sort::{PartUnits, Sorted, Summarized};
use super::links;
use super::listing::{Directory, Link, Scan, SourceFile};
use super::plan::{Unit, Units};
use super::present::is_missed;
use super::read::{FileState, OneVersion, Piece, ReadUnit, no_file_any_more, path_of, read_unit};
use super::scan::{Standing, holds_data, inspect};
use super::sink::Sink;
use super::sinks::{FrameLocations, Sinks};
use crate::error::{Cause, Error};
use crate::path_overlap::Identity;
use crate::pipeline::budget::{ByteBudget, Permit};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;

/// The maximum number of times that files are listed again because they changed while they were read. No backup can
/// take a file that changes every time.
const MOST_LISTINGS: usize = 10;

/// The settings and shared resources of one copy.
pub(super) struct Copier<'a> {
    pub pgdata: PathBuf,
    pub encoding: Encoding,
    pub crew: Crew,
    pub budget: ByteBudget,
    /// The start LSN of the backup.
    pub start_lsn: Lsn,
    pub progress: &'a dyn Progress,
    pub cancel: CancellationToken,
}

/// Counts over all files.
#[derive(Debug)]
pub(super) struct Copied {
    /// Files with an entry in the manifest.
    pub file_count: u64,
    /// Files that were gone when they were listed or read.
    pub removed_count: u64,
    /// Those of them that a volume would take along, as [`is_missed`] chooses them.
    pub missing: Vec<Box<[u8]>>,
    /// Bytes of files in the manifest.
    pub size_bytes: u64,
    /// Those of them that a killed run had stored.
    pub resumed_bytes: u64,
    /// Pages with a wrong checksum.
    pub bad_pages: BadPages,
    /// Warnings about files that had become links when they were read.
    pub link_warnings: Vec<String>,
}

type Buffers = Arc<Mutex<Vec<Vec<u8>>>>;

impl Copier<'_> {
    /// Copies the files of an incremental backup: only the parts that changed according to WAL summaries.
    pub(super) async fn copy_changed(
        &self,
        files: Sorted,
        summarized: &Summarized,
        base: &Base,
        sinks: &mut Sinks<'_>,
    ) -> Result<Copied, Error> {
        let Sorted { whole, parts, kept, .. } = files;
        let mut copied = self.copy(whole, sinks).await?;
        let parts: Arc<[SourceFile]> = parts.into();
        let units = PartUnits::new(summarized, base, &parts, self.encoding.extent_size_bytes);
        let (of_parts, changed) = self.copy_units(&parts, units, sinks).await?;
        copied.add(of_parts);
        self.copy_again(changed, &mut copied, sinks).await?;
        for file in kept {
            let unknown = || Cause::Internal("a file should be in the parent and is not".to_owned());
            sinks.kept_file(&file, base.find(&file.path).ok_or_else(unknown)?).await?;
            copied.file_count += 1;
            copied.size_bytes += file.size_bytes;
        }
        Ok(copied)
    }

    /// Copies all `files` into every sink. They are sorted by [`super::plan::sort`].
    pub(super) async fn copy(&self, files: Vec<SourceFile>, sinks: &mut Sinks<'_>) -> Result<Copied, Error> {
        let files: Arc<[SourceFile]> = files.into();
        let (mut copied, changed) =
            self.copy_units(&files, Units::new(&files, self.encoding.extent_size_bytes), sinks).await?;
        drop(files);
        self.copy_again(changed, &mut copied, sinks).await?;
        Ok(copied)
    }

    /// Copies files that had changed too much for their planned units.
    async fn copy_again(
        &self,
        mut changed: Vec<SourceFile>,
        copied: &mut Copied,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), Error> {
        // With the size of this moment: later growth is left out. A file that is replaced again is listed once more.
        for _ in 0..MOST_LISTINGS {
            if changed.is_empty() {
                return Ok(());
            }
            let pgdata = self.pgdata.clone();
            let (again, missing) = tokio::task::spawn_blocking(move || list_again(&pgdata, changed))
                .await
                .map_err(|e| Cause::Internal(format!("listing files again: {e}")))??;
            copied.removed_count += again.removed;
            copied.missing.extend(missing);
            for entry in again.directories.iter().map(Directory::entry).chain(again.links.iter().map(Link::entry)) {
                sinks.entry(&entry).await?;
            }
            copied.link_warnings.extend(again.link_warnings);
            let files: Arc<[SourceFile]> = again.files.into();
            let more;
            (more, changed) =
                self.copy_units(&files, Units::cut(&files, self.encoding.extent_size_bytes), sinks).await?;
            copied.add(more);
        }
        match changed.first() {
            None => Ok(()),
            Some(file) => Err(Cause::Refused(format!(
                "{} is replaced by another file again and again while it is read",
                path_of(&self.pgdata, file).display()
            ))
            .into()),
        }
    }

    /// Copies the units of `files`; gives the files that had changed too much for their planned units.
    async fn copy_units(
        &self,
        files: &Arc<[SourceFile]>,
        units: impl Iterator<Item = Unit>,
        sinks: &mut Sinks<'_>,
    ) -> Result<(Copied, Vec<SourceFile>), Error> {
        let (buffers, patience) = (Buffers::default(), Arc::<Patience>::default());
        // Enough to keep every thread busy while others wait for the disk; the budget bounds the rest.
        let window = self.crew.threads() * 2 + 2;
        let mut units = units.peekable();
        let mut at_work = FuturesOrdered::new();
        // The open file of the units that are being started. It stays open while one of its units is at work.
        let mut version = (usize::MAX, OneVersion::default());
        let mut commit = Commit::new(files, self.start_lsn, &self.encoding);
        loop {
            let wanted = units.peek().filter(|_| at_work.len() < window).map(Unit::room);
            // The select cannot have an `else`: waiting for a cancel is always one of its branches.
            if wanted.is_none() && at_work.is_empty() {
                break;
            }
            let next = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Err(Cause::Cancelled.into()),
                // With many threads and a small budget, the units at work hold all of it until the first is committed.
                Some(permit) = self.permit_for(wanted, sinks.len()) => {
                    if let Some(unit) = units.next() {
                        if let Unit::Extent { file, .. } = unit
                            && file != version.0
                        {
                            version = (file, OneVersion::default());
                        }
                        at_work.push_back(self.start(files, unit, version.1.clone(), &buffers, &patience, permit));
                    }
                    continue;
                }
                Some(next) = at_work.next() => next,
            };
            let (mut encoded, permit) = next.map_err(|e| Cause::Internal(format!("a copying task failed: {e}")))??;
            let buffer = std::mem::take(&mut encoded.buffer);
            let raw_len = encoded.raw_len;
            commit.unit(encoded, permit, sinks).await?;
            buffers.lock().push(buffer);
            self.progress.advance(raw_len as u64);
        }
        commit.finish_current(sinks).await?;
        Ok((commit.copied, commit.changed))
    }

    /// Stores a few files whose content is already in memory, such as `backup_label`.
    pub(super) async fn copy_from_memory(
        &self,
        contents: Vec<(SourceFile, Vec<u8>)>,
        sinks: &mut Sinks<'_>,
    ) -> Result<Copied, Error> {
        let mut raw = Vec::new();
        let mut pieces = Vec::new();
        let mut files = Vec::new();
        for (file, content) in contents {
            // Cut into extents like any other file: `tablespace_map` can be long, with a line for each tablespace.
            let mut offset = 0;
            for part in content.chunks(self.encoding.extent_size_bytes as usize) {
                pieces.push(Piece { file: files.len(), offset, length: part.len(), found: FileState::Read });
                offset += part.len() as u64;
            }
            raw.extend_from_slice(&content);
            files.push(file);
        }
        let permit = self.permit(raw.len() as u32, sinks.len()).await?;
        let encoding = Encoding { base: None, ..self.encoding.clone() };
        let read = ReadUnit { raw, pieces, parts: false };
        let encoded = encode_unit(&self.pgdata, &files, read, &encoding, &Patience::default())?;
        let mut commit = Commit::new(&files, self.start_lsn, &encoding);
        commit.unit(encoded, permit, sinks).await?;
        commit.finish_current(sinks).await?;
        Ok(commit.copied)
    }

    /// Refuses a budget that is too small. Each repository has one part that is being filled; together they must leave
    /// room for a unit that fills them up.
    pub(super) fn check_budget(&self, part_size: usize, repositories: usize) -> Result<(), Error> {
        let (part_size, repositories) = (part_size as u64, repositories as u64);
        let unit = unit_bytes(self.encoding.extent_size_bytes, repositories);
        // A frame can be somewhat larger than its content, and permits are counted in pages.
        let least = repositories * (part_size + part_size / 8) + 2 * unit;
        if self.budget.total_bytes() >= least {
            return Ok(());
        }
        Err(Cause::Refused(format!(
            "backup.memory of {} MiB is too little for {repositories} repositories with parts of {} MiB: at least {} \
             MiB are needed",
            self.budget.total_bytes() >> 20,
            part_size >> 20,
            least.div_ceil(1 << 20)
        ))
        .into())
    }

    /// A permit for a unit of this length; `None` if there is no unit.
    async fn permit_for(&self, length: Option<u32>, repositories: usize) -> Option<Permit> {
        Some(self.budget.acquire(unit_bytes(length?, repositories as u64)).await)
    }

    async fn permit(&self, length: u32, repositories: usize) -> Result<Permit, Error> {
        tokio::select! {
            permit = self.budget.acquire(unit_bytes(length, repositories as u64)) => Ok(permit),
            () = self.cancel.cancelled() => Err(Cause::Cancelled.into()),
        }
    }

    fn start(
        &self,
        files: &Arc<[SourceFile]>,
        unit: Unit,
        version: OneVersion,
        buffers: &Buffers,
        patience: &Arc<Patience>,
        permit: Permit,
    ) -> tokio::task::JoinHandle<Result<(EncodedUnit, Permit), Error>> {
        let (pgdata, files, buffers) = (self.pgdata.clone(), Arc::clone(files), Arc::clone(buffers));
        let (crew, encoding, patience) = (self.crew.clone(), self.encoding.clone(), Arc::clone(patience));
        tokio::spawn(async move {
            let read = tokio::task::spawn_blocking(move || {
                let buffer = buffers.lock().pop().unwrap_or_default();
                read_unit(&pgdata, &files, &unit, &version, buffer).map(|read| (pgdata, files, read))
            });
            let (pgdata, files, read) =
                read.await.map_err(|e| Cause::Internal(format!("a reading thread failed: {e}")))??;
            let encoded =
                crew.run(move || encode_unit(Path::new(&pgdata), &files, read, &encoding, &patience)).await??;
            Ok((encoded, permit))
        })
    }
}

/// The memory for a unit: the raw bytes once, and at most as many compressed bytes for each repository.
fn unit_bytes(length: u32, repositories: u64) -> u64 {
    u64::from(length) * (1 + repositories)
}

/// The path of a file that is gone and would be missed, relative to the data directory.
type MissingPath = Box<[u8]>;

/// Lists files that have changed, as they are now. Files that have become links are listed as links; those that are
/// gone, or are neither, are only counted. Also gives the paths of those that are gone and would be missed.
fn list_again(pgdata: &Path, files: Vec<SourceFile>) -> Result<(Scan, Vec<MissingPath>), Error> {
    let (mut scan, mut missing) = (Scan::default(), Vec::new());
    for file in files {
        let path = path_of(pgdata, &file);
        let Some(Standing { metadata: now, target }) = inspect(&path)? else {
            scan.removed += 1;
            missing.extend(is_missed(&file).then_some(file.path));
            continue;
        };
        if now.is_file() {
            let identity = Some(Identity::from(&now));
            let mode = now.mode() & 0o7777;
            scan.files.push(SourceFile { size_bytes: now.len(), mtime: now.mtime(), mode, identity, ..file });
        } else if holds_data(&file.path) {
            return Err(no_file_any_more(&path));
        } else if let Some(target) = target {
            links::list(pgdata, Link { path: file.path, target, mtime: now.mtime() }, &mut scan)?;
        } else {
            scan.removed += 1;
        }
    }
    Ok((scan, missing))
}

impl Copied {
    fn add(&mut self, more: Self) {
        self.file_count += more.file_count;
        self.removed_count += more.removed_count;
        self.missing.extend(more.missing);
        self.size_bytes += more.size_bytes;
        self.resumed_bytes += more.resumed_bytes;
        self.bad_pages.merge(more.bad_pages);
        self.link_warnings.extend(more.link_warnings);
    }
}

/// Puts encoded units together into files, in order.
struct Commit<'a> {
    files: &'a [SourceFile],
    extent_size: u64,
    base: Option<&'a Base>,
    current: Option<Current>,
    copied: Copied,
    /// Files that were not stored because they had grown too much or were replaced.
    changed: Vec<SourceFile>,
}

/// The file of several extents that is being put together.
struct Current {
    file: usize,
    size_bytes: u64,
    /// Bytes of it that a killed run had stored.
    resumed_bytes: u64,
    /// `None` if not all of it was read.
    crc32c: Option<u32>,
    /// Its position in the parent's manifest; `None` if the parent does not have it, or before it is looked up.
    parent: Option<u32>,
    /// Whether only parts of it are read.
    in_parts: bool,
    /// After the file was removed, changed, or ended before its planned size, further chunks are ignored.
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Growing,
    Ended,
    Removed,
    Postponed,
}

impl<'a> Commit<'a> {
    fn new(files: &'a [SourceFile], start_lsn: Lsn, encoding: &'a Encoding) -> Self {
        let bad_pages = BadPages::new(start_lsn);
        let (size_bytes, resumed_bytes, link_warnings) = (0, 0, Vec::new());
        let (file_count, removed_count, missing) = (0, 0, Vec::new());
        let copied = Copied { file_count, removed_count, missing, size_bytes, resumed_bytes, bad_pages, link_warnings };
        let (extent_size, base) = (u64::from(encoding.extent_size_bytes), encoding.base.as_deref());
        Self { files, extent_size, base, current: None, copied, changed: Vec::new() }
    }

    async fn unit(&mut self, encoded: EncodedUnit, permit: Permit, sinks: &mut Sinks<'_>) -> Result<(), Error> {
        let EncodedUnit { chunks, frame, bad_pages, parts, .. } = encoded;
        for bad in bad_pages {
            if let Some(file) = self.files.get(bad.file) {
                self.copied.bad_pages.add(&file.path, bad);
            }
        }
        let places = match frame {
            Some(frame) => sinks.frame(frame, &chunks, self.files, permit).await?,
            None => FrameLocations::new(),
        };
        for chunk in chunks {
            self.chunk(&chunk, parts, &places, sinks).await?;
        }
        Ok(())
    }

    async fn chunk(
        &mut self,
        chunk: &EncodedChunk,
        in_parts: bool,
        places: &FrameLocations,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), Error> {
        let piece = chunk.piece;
        if self.current.as_ref().is_none_or(|current| current.file != piece.file) {
            self.finish_current(sinks).await?;
            let (file, state) = (piece.file, State::Growing);
            let (size_bytes, resumed_bytes, crc32c, parent) = (0, 0, Some(0), None);
            self.current = Some(Current { file, size_bytes, resumed_bytes, crc32c, parent, in_parts, state });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        match piece.found {
            FileState::Read => {}
            FileState::Removed => current.state = State::Removed,
            FileState::Changed => current.state = State::Postponed,
        }
        let extent_start = piece.offset - piece.offset % self.extent_size;
        if current.state == State::Growing {
            if in_parts {
                // The extents before this part were not read: they are the parent's.
                current.keep_up_to(extent_start, self.extent_size, self.files, self.base, sinks)?;
            }
            // A file that was shortened and extended again while we read has a hole, which WAL replay fills. The data
            // after the hole must not move into it.
            let is_next = match chunk.form {
                Form::Patch => current.size_bytes >= extent_start,
                Form::Extent | Form::Kept { .. } => piece.offset == current.size_bytes,
            };
            if !is_next {
                current.state = State::Ended;
            }
        }
        if current.state != State::Growing || piece.length == 0 {
            return Ok(());
        }
        let length = piece.length as u32;
        let extent = |sink: &mut Sink, place: Option<&(u32, FrameLocation)>| match (chunk.offset_in_frame, place) {
            _ if chunk.stored_earlier => sink.stored_earlier(chunk.hash, length),
            (Some(offset), Some((pack, location))) => Ok(Extent::stored(chunk.hash, *pack, *location, offset, length)),
            (None, _) => Ok(Extent::hole(chunk.hash, length)),
            // Data without a place must never be recorded as zeros.
            (Some(_), None) => Err(Cause::Internal("an extent has data and no place".to_owned()).into()),
        };
        if chunk.stored_earlier {
            current.resumed_bytes += u64::from(length);
        }
        match chunk.form {
            Form::Extent => {
                sinks.extent(places, extent)?;
                current.add_crc(chunk.crc32c, piece.length);
                current.size_bytes += piece.length as u64;
            }
            Form::Kept { exact } => {
                current.keep_up_to(
                    piece.offset + piece.length as u64,
                    self.extent_size,
                    self.files,
                    self.base,
                    sinks,
                )?;
                if exact { current.add_crc(chunk.crc32c, piece.length) } else { current.crc32c = None }
            }
            Form::Patch => {
                if current.size_bytes == extent_start {
                    current.keep_up_to(piece.offset + 1, self.extent_size, self.files, self.base, sinks)?;
                }
                current.crc32c = None;
                let (number, at) = ((extent_start / self.extent_size) as u32, (piece.offset - extent_start) as u32);
                sinks.patch(places, number, at, extent)?;
            }
        }
        Ok(())
    }

    async fn finish_current(&mut self, sinks: &mut Sinks<'_>) -> Result<(), Error> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let Some(file) = self.files.get(current.file) else { return Ok(()) };
        if current.in_parts && current.state == State::Growing {
            current.keep_up_to(file.size_bytes, self.extent_size, self.files, self.base, sinks)?;
            current.crc32c = None;
        }
        match current.state {
            State::Growing | State::Ended => {}
            State::Removed => {
                self.copied.removed_count += 1;
                self.copied.missing.extend(is_missed(file).then(|| file.path.clone()));
                sinks.drop_file();
                return Ok(());
            }
            State::Postponed => {
                self.changed.push(file.clone());
                sinks.drop_file();
                return Ok(());
            }
        }
        let parent = current.parent.or_else(|| self.base?.find(&file.path));
        sinks.finish_file(file, current.size_bytes, current.crc32c, parent).await?;
        self.copied.file_count += 1;
        self.copied.size_bytes += current.size_bytes;
        self.copied.resumed_bytes += current.resumed_bytes;
        Ok(())
    }
}

impl Current {
    /// Takes the parent's extents until the file has at least this many bytes.
    fn keep_up_to(
        &mut self,
        bytes: u64,
        extent_size: u64,
        files: &[SourceFile],
        base: Option<&Base>,
        sinks: &mut Sinks<'_>,
    ) -> Result<(), Error> {
        while self.size_bytes < bytes {
            let unknown = || Cause::Internal("an extent should be in the parent and is not".to_owned());
            let base = base.ok_or_else(unknown)?;
            if self.parent.is_none() {
                self.parent = files.get(self.file).and_then(|file| base.find(&file.path));
            }
            let position = self.parent.ok_or_else(unknown)?;
            let number = (self.size_bytes / extent_size) as u32;
            let parent = base.file(position).ok_or_else(unknown)?;
            let extent = parent.extents().get(number as usize).ok_or_else(unknown)?;
            sinks.kept_extent(position, number)?;
            self.size_bytes += u64::from(extent.length);
        }
        Ok(())
    }

    fn add_crc(&mut self, crc32c: u32, length: usize) {
        self.crc32c = self.crc32c.map(|before| crc32c::crc32c_combine(before, crc32c, length));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::fs::symlink;

    use super::*;
    use crate::backup::listing::PageCheck;

    /// A file that became a link during the copy is stored as a link. If it is data of PostgreSQL, the backup fails.
    #[test]
    fn a_file_that_became_a_link_is_not_lost() {
        let pgdata = tempfile::tempdir().unwrap();
        std::fs::create_dir(pgdata.path().join("pg_xact")).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(outside.path(), "port = 1").unwrap();
        let linked = |path: &str, target: &Path| {
            symlink(target, pgdata.path().join(path)).unwrap();
            let path = path.as_bytes().into();
            SourceFile { path, size_bytes: 6, mtime: 0, mode: 0o600, check: PageCheck::None, identity: None }
        };
        let nowhere = Path::new("/elsewhere");
        let gone = SourceFile { path: b"gone"[..].into(), ..linked("other.log", nowhere) };
        let changed = vec![linked("postgresql.conf", outside.path()), linked("server.log", nowhere), gone];
        let (again, missing) = list_again(pgdata.path(), changed).unwrap();
        assert_eq!(missing.len(), 0);
        let files: Vec<(&[u8], u64)> = again.files.iter().map(|file| (&*file.path, file.size_bytes)).collect();
        assert_eq!(files, [(&b"postgresql.conf"[..], 8)]);
        let links: Vec<(&[u8], &[u8])> = again.links.iter().map(|link| (&*link.path, &*link.target)).collect();
        assert_eq!(links, [(&b"server.log"[..], &b"/elsewhere"[..])]);
        assert_eq!((again.removed, again.link_warnings.len()), (1, 2));
        let error = list_again(pgdata.path(), vec![linked("pg_xact/0000", nowhere)]).unwrap_err();
        assert!(error.to_string().contains("was a file when the backup listed it"), "{error}");
    }
}
