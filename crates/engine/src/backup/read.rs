//! Reads one unit of work from the data directory. Blocking: it runs on reader threads, never on the async workers.
//!
//! PostgreSQL keeps writing meanwhile. WAL replay repairs relations: a relation that grows is read to its planned size,
//! one that shrinks gives fewer bytes, and one that was removed is counted. Nothing repairs half a configuration file,
//! so a small file that is not a relation is read to its end. If it has grown beyond the room of its unit, it gets its
//! own units later. If a file cannot be read for any other reason, the backup fails.
//!
//! A file that is not a relation is often replaced by renaming a new one over it, and half of each would be useless. So
//! all extents of a large one are read through one descriptor ([`OneVersion`]), which must be that of the listed file.
//! The size of another file is not known, so that file is listed again.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::links;
use super::listing::SourceFile;
use super::plan::{Part, Unit};
use crate::error::{Cause, Error};
use crate::path_overlap::Identity;

/// The spare room with which the standard library can find the end of a file without growing the buffer.
const PROBE_BYTES: usize = 32;

/// The bytes of one unit.
#[derive(Debug)]
pub(super) struct ReadUnit {
    /// All pieces, one after the other.
    pub raw: Vec<u8>,
    /// The pieces, in the order of `raw`.
    pub pieces: Vec<Piece>,
    /// Whether the pieces are parts of files, of which the parent backup has the rest.
    pub parts: bool,
}

/// What was found of one file, or of one extent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Index into the list of files.
    pub file: usize,
    /// The offset of the piece in the file, in bytes.
    pub offset: u64,
    /// The number of bytes found; fewer than planned if the file shrank.
    pub length: usize,
    /// What became of the file while it was read.
    pub found: FileState,
}

/// The state of a file when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    Read,
    /// The file did not exist any more.
    Removed,
    /// The file has grown beyond the room of its unit, was replaced by another file, or is shorter than the wanted
    /// part. Nothing of it is used.
    Changed,
}

/// The path of a file of the plan.
pub(super) fn path_of(pgdata: &Path, file: &SourceFile) -> PathBuf {
    pgdata.join(std::ffi::OsStr::from_bytes(&file.path))
}

/// The open file that all units of one large file that is not a relation read from. The first unit opens it.
#[derive(Debug, Clone, Default)]
pub(super) struct OneVersion(Arc<Mutex<Option<Listed>>>);

/// The state of a listed file when it was opened.
#[derive(Debug, Clone)]
enum Listed {
    Same(Arc<File>),
    Other,
    Gone,
}

impl OneVersion {
    fn open(&self, pgdata: &Path, path: &Path, file: &SourceFile) -> Result<Listed, Error> {
        let mut opened = self.0.lock();
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
    // Reserved at once and exactly: a growing buffer can be twice as large, and leaves smaller buffers to the
    // allocator.
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
                // One byte more shows whether this was the whole file.
                let mut piece = read_piece(pgdata, files, index, 0, limit + 1, &mut raw)?;
                if piece.length as u64 > limit {
                    raw.truncate(before);
                    piece = Piece { length: 0, found: FileState::Changed, ..piece };
                }
                spare -= (piece.length as u64).saturating_sub(file.size_bytes);
                pieces.push(piece);
            }
        }
        Unit::Parts { parts, .. } => read_parts(pgdata, files, parts, &mut raw, &mut pieces)?,
    }
    Ok(ReadUnit { raw, pieces, parts: matches!(unit, Unit::Parts { .. }) })
}

/// Reads parts of files. If a file has become shorter than one of its parts, it is listed again, because the parent's
/// part of it may be longer than the file is now.
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
        let mut piece = Piece { file: index, offset, length: 0, found: FileState::Removed };
        match &opened {
            Some((_, path, Opened::File(open))) => {
                let before = raw.len();
                piece.length = read_at(open, path, offset, u64::from(length), raw)?;
                piece.found = FileState::Read;
                if piece.length < length as usize {
                    raw.truncate(before);
                    piece = Piece { length: 0, found: FileState::Changed, ..piece };
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
    let removed = Piece { file: index, offset, length: 0, found: FileState::Removed };
    let Some(file) = files.get(index) else { return Ok(removed) };
    let path = path_of(pgdata, file);
    let open = match open_listed(pgdata, &path, file)? {
        Opened::File(open) => open,
        Opened::Gone => return Ok(removed),
        Opened::Other if file.check.is_relation() => return Err(no_file_any_more(&path)),
        Opened::Other => return Ok(Piece { found: FileState::Changed, ..removed }),
    };
    let length = read_at(&open, &path, offset, limit, raw)?;
    Ok(Piece { file: index, offset, length, found: FileState::Read })
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
        Listed::Same(open) => (read_at(&open, &path, offset, limit, raw)?, FileState::Read),
        Listed::Other => (0, FileState::Changed),
        Listed::Gone => (0, FileState::Removed),
    };
    Ok(Piece { file: index, offset, length, found })
}

fn read_at(open: &File, path: &Path, offset: u64, limit: u64, raw: &mut Vec<u8>) -> Result<usize, Error> {
    let mut at = PositionedReader { file: open, offset };
    at.by_ref().take(limit).read_to_end(raw).map_err(|e| Error::file("read", path, e))
}

/// What is now at the path of a listed file.
enum Opened {
    File(File),
    Gone,
    /// A link, a pipe or the like. It is listed again.
    Other,
}

/// Opens what was listed as a file, through a link if the file was listed through one. A new link, or a link that now
/// leads to another file, is listed again.
fn open_listed(pgdata: &Path, path: &Path, file: &SourceFile) -> Result<Opened, Error> {
    match open(path)? {
        Opened::Other if links::may_follow(&file.path) => {
            let is_listed = |found: &Metadata| found.is_file() && file.identity == Some(Identity::from(found));
            let target = links::open(pgdata, path)?.filter(|(_, found)| is_listed(found));
            Ok(target.map_or(Opened::Other, |(opened, _)| Opened::File(opened)))
        }
        opened => Ok(opened),
    }
}

/// Opens the file at a path. It must not follow a link out of the data directory, and must not wait for a pipe.
fn open(path: &Path) -> Result<Opened, Error> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(open) => {
            let kind = open.metadata().map_err(|e| Error::file("look at", path, e))?.file_type();
            Ok(if kind.is_file() || kind.is_dir() { Opened::File(open) } else { Opened::Other })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Opened::Gone),
        // A link or a socket.
        Err(e) if [Errno::LOOP, Errno::NXIO].iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error())) => {
            Ok(Opened::Other)
        }
        Err(e) => Err(Error::file("open", path, e)),
    }
}

/// The error for data of PostgreSQL that is no longer a file.
pub(super) fn no_file_any_more(path: &Path) -> Error {
    Cause::Refused(format!(
        "{} was a file when the backup listed it, but is not a file any more: PostgreSQL's data there would be missing \
         from the backup",
        path.display()
    ))
    .into()
}

/// Reads a page with a wrong checksum again. `None` if the page is gone.
pub(super) fn read_page_again(path: &Path, offset: u64, page: &mut [u8]) -> Result<Option<()>, Error> {
    let Opened::File(open) = open(path)? else { return Ok(None) };
    match open.read_exact_at(page, offset) {
        Ok(()) => Ok(Some(())),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(Error::file("read", path, e)),
    }
}

/// A position in a file, read without moving a shared cursor.
struct PositionedReader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for PositionedReader<'_> {
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
        let found: Vec<(usize, FileState)> = read.pieces.iter().map(|p| (p.length, p.found)).collect();
        let expected =
            [(0, FileState::Removed), (2, FileState::Read), (19, FileState::Read), (2 * 8192, FileState::Read)];
        assert_eq!(found, expected);
        assert_eq!(read.raw.len(), 2 + 19 + 2 * 8192);
    }

    /// With or without checksums: WAL replay restores the rest.
    #[test]
    fn a_relation_is_read_to_its_listed_size() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("relation"), vec![7; 5 * 8192]).unwrap();
        for check in [PageCheck::Off, PageCheck::FromBlock(0)] {
            let read = read_group(dir.path(), &[source("relation", 8192, check)], 1 << 20);
            assert_eq!((read.raw.len(), read.pieces[0].length), (8192, 8192), "{check:?}");
        }
    }

    /// However much the files of a group grow, it reads no more than its room. Files that fit are whole.
    #[test]
    fn a_group_never_reads_more_than_its_room() {
        let dir = tempfile::tempdir().unwrap();
        for (name, length) in [("a", 600), ("b", 401), ("c", 400), ("d", 5000), ("e", 0), ("f", 50)] {
            std::fs::write(dir.path().join(name), vec![b'x'; length]).unwrap();
        }
        let files: Vec<SourceFile> =
            ["a", "b", "c", "d", "e", "f"].map(|name| source(name, 0, PageCheck::None)).to_vec();
        let read = read_group(dir.path(), &files, 1000);
        let found: Vec<(usize, FileState)> = read.pieces.iter().map(|p| (p.length, p.found)).collect();
        let (grown, all) = ((0, FileState::Changed), FileState::Read);
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

    /// The file at this path as it is listed, with a size of ten bytes.
    fn listed(path: &Path, check: PageCheck) -> SourceFile {
        let identity = Some(Identity::from(&std::fs::metadata(path).unwrap()));
        SourceFile { identity, ..source("file", 10, check) }
    }

    /// Reads the extents of the file, of four bytes each, one after the other; calls `between` before the second one.
    fn read_extents(dir: &Path, file: SourceFile, between: impl Fn()) -> (Vec<u8>, Vec<FileState>) {
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

    /// Half of the old file and half of the new one would be useless.
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
        assert_eq!((content, found), (b"oldoldoldo".to_vec(), vec![FileState::Read; 3]));

        // Replaced before its first byte is read: the new file is longer, and must not be cut.
        let was = listed(&path, PageCheck::None);
        replace();
        let (content, found) = read_extents(dir.path(), was, || {});
        assert_eq!((content, found), (Vec::new(), vec![FileState::Changed; 3]));

        // A file that is removed while it is read is still complete.
        std::fs::write(&path, "oldoldoldo").unwrap();
        let remove = || std::fs::remove_file(&path).unwrap();
        let (content, _) = read_extents(dir.path(), listed(&path, PageCheck::None), remove);
        assert_eq!(content, b"oldoldoldo");
    }

    #[test]
    fn a_link_in_place_of_a_file_is_listed_again_and_in_place_of_a_relation_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), dir.path().join("file")).unwrap();
        let read = read_group(dir.path(), &[source("file", 6, PageCheck::None)], 64);
        assert_eq!((read.raw.len(), read.pieces[0].found), (0, FileState::Changed));
        let relation = [source("file", 6, PageCheck::Off)];
        let unit = Unit::Group { files: 0..1, length: 6, room: 6 };
        let error = read_unit(dir.path(), &relation, &unit, &OneVersion::default(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("is not a file any more"), "{error}");
    }
}
