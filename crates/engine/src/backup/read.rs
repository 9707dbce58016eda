//! Reading one unit of work from the data directory. Blocking: runs on reader threads, never on the
//! async workers.
//!
//! PostgreSQL goes on writing meanwhile. That is fine for everything that WAL replay repairs: a
//! relation that grows is read to its planned size, one that shrinks gives fewer bytes, and one
//! that was removed is counted. A small file that is no relation is read to its end, since nothing
//! repairs half a configuration file; when it has grown beyond the room of its unit, it is left for a
//! unit of its own. A file that cannot be read for any other reason fails the backup.
//!
//! A file that is no relation is often replaced by renaming a new one over it, and half of each is neither. The extents of a
//! large one therefore come from one descriptor ([`OneVersion`]), which must be of the file that was listed: of another one
//! the size is not known, and it is left to be listed again.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::links;
use super::listing::SourceFile;
use super::plan::{Part, Unit};
use crate::error::{Cause, Error};
use crate::places::Identity;

/// Room that the standard library wants to see the end of a file without making the buffer grow.
const PROBE_BYTES: usize = 32;

/// The bytes of one unit.
#[derive(Debug)]
pub(super) struct ReadUnit {
    /// All pieces, one after the other.
    pub raw: Vec<u8>,
    /// The pieces, in the order of `raw`.
    pub pieces: Vec<Piece>,
    /// Whether they are parts of files of which the parent backup has the rest.
    pub parts: bool,
}

/// What was found of one file, or of one extent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index into the list of files.
    pub file: usize,
    /// Where the piece begins within the file, in bytes.
    pub offset: u64,
    /// Bytes found; fewer than planned when the file shrank.
    pub length: usize,
    /// What became of the file.
    pub found: Found,
}

/// What became of a file since it was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It was read.
    Read,
    /// It was gone.
    Removed,
    /// It has grown beyond the room of its unit, another file has taken its place, or it is shorter than the part that was
    /// wanted: nothing of it counts.
    Changed,
}

/// The path of a file of the plan.
pub(super) fn path_of(pgdata: &Path, file: &SourceFile) -> PathBuf {
    pgdata.join(std::ffi::OsStr::from_bytes(&file.path))
}

/// What all units of one large file that is no relation read from: opened by the first of them that is read.
#[derive(Debug, Clone, Default)]
pub(super) struct OneVersion(Arc<Mutex<Option<Listed>>>);

/// What became of a listed file when it was opened.
#[derive(Debug, Clone)]
enum Listed {
    Same(Arc<File>),
    Other,
    Gone,
}

impl OneVersion {
    fn open(&self, pgdata: &Path, path: &Path, file: &SourceFile) -> Result<Listed, Error> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = &*opened {
            return Ok(opened.clone());
        }
        let found = match open_listed(pgdata, path, file)? {
            Opened::Gone => Listed::Gone,
            Opened::Other => Listed::Other,
            Opened::File(found) => {
                let metadata = found.metadata().map_err(|e| Error::file("look at", path, e))?;
                let same = file.identity.is_none_or(|listed| listed == Identity::from(&metadata));
                if same { Listed::Same(Arc::new(found)) } else { Listed::Other }
            }
        };
        Ok(opened.insert(found).clone())
    }
}

/// Reads a unit into `raw`, a buffer that may come from an earlier unit. The units of one file share a `version`.
pub(super) fn read_unit(
    pgdata: &Path,
    files: &[SourceFile],
    unit: &Unit,
    version: &OneVersion,
    mut raw: Vec<u8>,
) -> Result<ReadUnit, Error> {
    raw.clear();
    // At once and exactly: a buffer that grows is at times twice as large, and leaves its smaller selves to the allocator.
    raw.reserve_exact(unit.room() as usize + PROBE_BYTES);
    let mut pieces = Vec::new();
    match unit {
        Unit::Extent { file, offset, length, .. } => {
            let (index, limit) = (*file, u64::from(*length));
            pieces.push(match files.get(index) {
                Some(file) if !file.check.is_relation() => {
                    read_of_version(pgdata, file, version, index, *offset, limit, &mut raw)?
                }
                _ => read_piece(pgdata, files, index, *offset, limit, &mut raw)?,
            });
        }
        Unit::Group { files: range, length, room } => {
            let mut spare = u64::from(room - length);
            for index in range.clone() {
                let Some(file) = files.get(index) else { continue };
                if file.check.is_relation() {
                    pieces.push(read_piece(pgdata, files, index, 0, file.size_bytes, &mut raw)?);
                    continue;
                }
                let (before, limit) = (raw.len(), file.size_bytes + spare);
                // One byte more tells whether this was all of it.
                let mut piece = read_piece(pgdata, files, index, 0, limit + 1, &mut raw)?;
                if piece.length as u64 > limit {
                    raw.truncate(before);
                    piece = Piece { length: 0, found: Found::Changed, ..piece };
                }
                spare -= (piece.length as u64).saturating_sub(file.size_bytes);
                pieces.push(piece);
            }
        }
        Unit::Parts { parts, .. } => read_parts(pgdata, files, parts, &mut raw, &mut pieces)?,
    }
    Ok(ReadUnit { raw, pieces, parts: matches!(unit, Unit::Parts { .. }) })
}

/// Reads parts of files. A file that has become shorter than one of its parts is left to be listed again: what the parent has
/// of it may be longer than it is now.
fn read_parts(
    pgdata: &Path,
    files: &[SourceFile],
    parts: &[Part],
    raw: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) -> Result<(), Error> {
    let mut opened: Option<(usize, PathBuf, Opened)> = None;
    for &Part { file: index, offset, length } in parts {
        let Some(file) = files.get(index) else { continue };
        if opened.as_ref().is_none_or(|(of, ..)| *of != index) {
            let path = path_of(pgdata, file);
            let found = open(&path)?;
            opened = Some((index, path, found));
        }
        let mut piece = Piece { file: index, offset, length: 0, found: Found::Removed };
        match &opened {
            Some((_, path, Opened::File(open))) => {
                let before = raw.len();
                piece.length = read_at(open, path, offset, u64::from(length), raw)?;
                piece.found = Found::Read;
                if piece.length < length as usize {
                    raw.truncate(before);
                    piece = Piece { length: 0, found: Found::Changed, ..piece };
                }
            }
            Some((_, path, Opened::Other)) => return Err(no_file_any_more(path)),
            Some((_, _, Opened::Gone)) | None => {}
        }
        pieces.push(piece);
    }
    Ok(())
}

fn read_piece(
    pgdata: &Path,
    files: &[SourceFile],
    index: usize,
    offset: u64,
    limit: u64,
    raw: &mut Vec<u8>,
) -> Result<Piece, Error> {
    let removed = Piece { file: index, offset, length: 0, found: Found::Removed };
    let Some(file) = files.get(index) else { return Ok(removed) };
    let path = path_of(pgdata, file);
    let open = match open_listed(pgdata, &path, file)? {
        Opened::File(open) => open,
        Opened::Gone => return Ok(removed),
        Opened::Other if file.check.is_relation() => return Err(no_file_any_more(&path)),
        Opened::Other => return Ok(Piece { found: Found::Changed, ..removed }),
    };
    let length = read_at(&open, &path, offset, limit, raw)?;
    Ok(Piece { file: index, offset, length, found: Found::Read })
}

fn read_of_version(
    pgdata: &Path,
    file: &SourceFile,
    version: &OneVersion,
    index: usize,
    offset: u64,
    limit: u64,
    raw: &mut Vec<u8>,
) -> Result<Piece, Error> {
    let path = path_of(pgdata, file);
    let (length, found) = match version.open(pgdata, &path, file)? {
        Listed::Same(open) => (read_at(&open, &path, offset, limit, raw)?, Found::Read),
        Listed::Other => (0, Found::Changed),
        Listed::Gone => (0, Found::Removed),
    };
    Ok(Piece { file: index, offset, length, found })
}

fn read_at(open: &File, path: &Path, offset: u64, limit: u64, raw: &mut Vec<u8>) -> Result<usize, Error> {
    let mut at = At { file: open, offset };
    at.by_ref().take(limit).read_to_end(raw).map_err(|e| Error::file("read", path, e))
}

/// What stands where a file was listed.
enum Opened {
    File(File),
    Gone,
    /// A link, a pipe or the like: it is left to be listed again.
    Other,
}

/// Opens what was listed as a file, through a link where this file was listed through one. A link that is new, or leads to
/// another file now, is left to be listed again.
fn open_listed(pgdata: &Path, path: &Path, file: &SourceFile) -> Result<Opened, Error> {
    match open(path)? {
        Opened::Other if links::may_follow(&file.path) => {
            let is_listed = |found: &Metadata| found.is_file() && file.identity == Some(Identity::from(found));
            let behind = links::open(pgdata, path)?.filter(|(_, found)| is_listed(found));
            Ok(behind.map_or(Opened::Other, |(opened, _)| Opened::File(opened)))
        }
        opened => Ok(opened),
    }
}

/// Opens what stands at a path. A link in its place must not be followed out of the data directory, nor a pipe there be
/// waited for.
fn open(path: &Path) -> Result<Opened, Error> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(open) => {
            let kind = open.metadata().map_err(|e| Error::file("look at", path, e))?.file_type();
            Ok(if kind.is_file() || kind.is_dir() { Opened::File(open) } else { Opened::Other })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Opened::Gone),
        // A link, or a socket.
        Err(e) if [Errno::LOOP, Errno::NXIO].iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) => {
            Ok(Opened::Other)
        }
        Err(e) => Err(Error::file("open", path, e)),
    }
}

/// Data of PostgreSQL that has become something else.
pub(super) fn no_file_any_more(path: &Path) -> Error {
    Cause::Refused(format!(
        "{} was a file when the backup listed it, but is not a file any more: what PostgreSQL keeps there would be \
         missing from the backup",
        path.display()
    ))
    .into()
}

/// Reads one page again, for a page whose checksum did not hold. `None`: the page is gone.
pub(super) fn read_page_again(path: &Path, offset: u64, page: &mut [u8]) -> Result<Option<()>, Error> {
    let Opened::File(open) = open(path)? else { return Ok(None) };
    match open.read_exact_at(page, offset) {
        Ok(()) => Ok(Some(())),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(Error::file("read", path, e)),
    }
}

/// A position in a file, read without moving a shared cursor.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;
    use crate::backup::listing::PageCheck;
    use crate::backup::plan::Units;

    fn source(path: &str, size_bytes: u64, check: PageCheck) -> SourceFile {
        SourceFile { path: path.as_bytes().into(), size_bytes, mtime: 0, mode: 0o600, check, identity: None }
    }

    fn read_group(dir: &Path, files: &[SourceFile], room: u32) -> ReadUnit {
        let length = files.iter().map(|file| file.size_bytes as u32).sum();
        read_unit(dir, files, &Unit::Group { files: 0..files.len(), length, room }, &OneVersion::default(), Vec::new())
            .unwrap()
    }

    #[test]
    fn removed_shrunk_and_grown_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("shrunk"), b"ab").unwrap();
        std::fs::write(dir.path().join("grown"), b"longer than planned").unwrap();
        std::fs::write(dir.path().join("relation"), vec![7; 3 * 8192]).unwrap();
        let files = [
            source("removed", 10, PageCheck::None),
            source("shrunk", 10, PageCheck::None),
            source("grown", 1, PageCheck::None),
            source("relation", 2 * 8192, PageCheck::FromBlock(0)),
        ];
        let read = read_group(dir.path(), &files, 65536);
        let found: Vec<(usize, Found)> = read.pieces.iter().map(|p| (p.length, p.found)).collect();
        let expected = [(0, Found::Removed), (2, Found::Read), (19, Found::Read), (2 * 8192, Found::Read)];
        assert_eq!(found, expected);
        assert_eq!(read.raw.len(), 2 + 19 + 2 * 8192);
    }

    /// With checksums or without: WAL replay makes the rest.
    #[test]
    fn a_relation_is_read_to_its_listed_size() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("relation"), vec![7; 5 * 8192]).unwrap();
        for check in [PageCheck::Off, PageCheck::FromBlock(0)] {
            let read = read_group(dir.path(), &[source("relation", 8192, check)], 1 << 20);
            assert_eq!((read.raw.len(), read.pieces[0].length), (8192, 8192), "{check:?}");
        }
    }

    /// However much the files of a group grow, no more is read than it has room for; those that fit are whole.
    #[test]
    fn a_group_never_passes_its_room() {
        let dir = tempfile::tempdir().unwrap();
        for (name, length) in [("a", 600), ("b", 401), ("c", 400), ("d", 5000), ("e", 0), ("f", 50)] {
            std::fs::write(dir.path().join(name), vec![b'x'; length]).unwrap();
        }
        let files: Vec<SourceFile> =
            ["a", "b", "c", "d", "e", "f"].map(|name| source(name, 0, PageCheck::None)).to_vec();
        let read = read_group(dir.path(), &files, 1000);
        let found: Vec<(usize, Found)> = read.pieces.iter().map(|p| (p.length, p.found)).collect();
        let (grown, all) = ((0, Found::Changed), Found::Read);
        assert_eq!(found, [(600, all), grown, (400, all), grown, (0, all), grown]);
        assert_eq!(read.raw.len(), 1000);
    }

    #[test]
    fn a_directory_in_place_of_a_file_fails() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("odd")).unwrap();
        let files = [source("odd", 10, PageCheck::None)];
        let unit = Unit::Group { files: 0..1, length: 10, room: 10 };
        let error = read_unit(dir.path(), &files, &unit, &OneVersion::default(), Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }

    /// A file as it is listed, of ten bytes in extents of four.
    fn listed(path: &Path, check: PageCheck) -> SourceFile {
        let identity = Some(Identity::from(&std::fs::metadata(path).unwrap()));
        SourceFile { identity, ..source("file", 10, check) }
    }

    /// Reads the extents of the file one after the other; `between` is done before the second.
    fn read_extents(dir: &Path, file: SourceFile, between: impl Fn()) -> (Vec<u8>, Vec<Found>) {
        let (files, version) = ([file], OneVersion::default());
        let (mut content, mut found) = (Vec::new(), Vec::new());
        for unit in Units::cut(&files, 4) {
            if matches!(unit, Unit::Extent { number: 1, .. }) {
                between();
            }
            let read = read_unit(dir, &files, &unit, &version, Vec::new()).unwrap();
            content.extend(read.raw);
            found.extend(read.pieces.iter().map(|piece| piece.found));
        }
        (content, found)
    }

    /// Half of the one and half of the other would be neither.
    #[test]
    fn a_file_replaced_while_it_is_read_is_one_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let replace = || {
            std::fs::write(dir.path().join("new"), "newnewnewnewnew").unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
        };
        std::fs::write(&path, "oldoldoldo").unwrap();
        let (content, found) = read_extents(dir.path(), listed(&path, PageCheck::None), replace);
        assert_eq!((content, found), (b"oldoldoldo".to_vec(), vec![Found::Read; 3]));

        // Replaced before its first byte is read: what is there now is longer, and is not cut.
        let was = listed(&path, PageCheck::None);
        replace();
        let (content, found) = read_extents(dir.path(), was, || {});
        assert_eq!((content, found), (Vec::new(), vec![Found::Changed; 3]));

        // Removed while it is read, it is there all the same.
        std::fs::write(&path, "oldoldoldo").unwrap();
        let remove = || std::fs::remove_file(&path).unwrap();
        let (content, _) = read_extents(dir.path(), listed(&path, PageCheck::None), remove);
        assert_eq!(content, b"oldoldoldo");
    }

    #[test]
    fn a_link_in_place_of_a_file_is_listed_again_and_of_a_relation_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("file")).unwrap();
        let read = read_group(dir.path(), &[source("file", 6, PageCheck::None)], 64);
        assert_eq!((read.raw.len(), read.pieces[0].found), (0, Found::Changed));
        let relation = [source("file", 6, PageCheck::Off)];
        let unit = Unit::Group { files: 0..1, length: 6, room: 6 };
        let error = read_unit(dir.path(), &relation, &unit, &OneVersion::default(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is not a file any more"), "{error}");
    }
}
