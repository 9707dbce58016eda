//! Reading one unit of work from the data directory. Blocking: runs on reader threads, never on the
//! async workers.
//!
//! PostgreSQL goes on writing meanwhile. That is fine for everything that WAL replay repairs: a
//! relation that grows is read to its planned size, one that shrinks gives fewer bytes, and one
//! that was removed is counted. A small file that is no relation is read to its end, since nothing
//! repairs half a configuration file; when it has grown beyond the room of its unit, it is left for a
//! unit of its own. A file that cannot be read for any other reason fails the backup.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::plan::{SourceFile, Unit};
use crate::error::Error;

/// Room that the standard library wants to see the end of a file without making the buffer grow.
const PROBE_BYTES: usize = 32;

/// The bytes of one unit.
#[derive(Debug)]
pub(super) struct ReadUnit {
    /// All pieces one behind the other.
    pub raw: Vec<u8>,
    /// The pieces, in the order of `raw`.
    pub pieces: Vec<Piece>,
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
    /// It has grown beyond the room of its unit: nothing of it was read.
    Grown,
}

/// The path of a file of the plan.
pub(super) fn path_of(pgdata: &Path, file: &SourceFile) -> PathBuf {
    pgdata.join(std::ffi::OsStr::from_bytes(&file.path))
}

/// Reads a unit into `raw`, a buffer that may come from an earlier unit.
pub(super) fn read_unit(pgdata: &Path, files: &[SourceFile], unit: &Unit, mut raw: Vec<u8>) -> Result<ReadUnit, Error> {
    raw.clear();
    // At once and exactly: a buffer that grows is at times twice as large, and leaves its smaller selves to the allocator.
    raw.reserve_exact(unit.room() as usize + PROBE_BYTES);
    let mut pieces = Vec::new();
    match unit {
        Unit::Extent { file, offset, length, .. } => {
            pieces.push(read_piece(pgdata, files, *file, *offset, u64::from(*length), &mut raw)?);
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
                    piece = Piece { length: 0, found: Found::Grown, ..piece };
                }
                spare -= (piece.length as u64).saturating_sub(file.size_bytes);
                pieces.push(piece);
            }
        }
    }
    Ok(ReadUnit { raw, pieces })
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
    let open = match File::open(&path) {
        Ok(open) => open,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        Err(e) => return Err(Error::file("open", &path, e)),
    };
    let before = raw.len();
    let mut at = At { file: &open, offset };
    let length = at.by_ref().take(limit).read_to_end(raw).map_err(|e| Error::file("read", &path, e))?;
    debug_assert_eq!(raw.len(), before + length);
    Ok(Piece { file: index, offset, length, found: Found::Read })
}

/// Reads one page again, for a page whose checksum did not hold. `None`: the page is gone.
pub(super) fn read_page_again(path: &Path, offset: u64, page: &mut [u8]) -> Result<Option<()>, Error> {
    let open = match File::open(path) {
        Ok(open) => open,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::file("open", path, e)),
    };
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
    use crate::backup::plan::PageCheck;

    fn source(path: &str, size_bytes: u64, check: PageCheck) -> SourceFile {
        SourceFile { path: path.as_bytes().into(), size_bytes, mtime: 0, mode: 0o600, check }
    }

    fn read_group(dir: &Path, files: &[SourceFile], room: u32) -> ReadUnit {
        let length = files.iter().map(|file| file.size_bytes as u32).sum();
        read_unit(dir, files, &Unit::Group { files: 0..files.len(), length, room }, Vec::new()).unwrap()
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
        let (grown, all) = ((0, Found::Grown), Found::Read);
        assert_eq!(found, [(600, all), grown, (400, all), grown, (0, all), grown]);
        assert_eq!(read.raw.len(), 1000);
    }

    #[test]
    fn a_directory_in_place_of_a_file_fails() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("odd")).unwrap();
        let files = [source("odd", 10, PageCheck::None)];
        let error =
            read_unit(dir.path(), &files, &Unit::Group { files: 0..1, length: 10, room: 10 }, Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }
}
