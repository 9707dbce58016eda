//! Reading one unit of work from the data directory. Blocking: runs on reader threads, never on the
//! async workers.
//!
//! PostgreSQL goes on writing meanwhile. That is fine for everything that WAL replay repairs: a
//! relation that grows is read to its planned size, one that shrinks gives fewer bytes, and one
//! that was removed is counted. A file that cannot be read for any other reason fails the backup.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::plan::{PageCheck, SourceFile, Unit};
use crate::error::Error;

/// A small file that is not a relation is read to its end even when it grew since it was listed,
/// up to this size, since nothing repairs half a configuration file.
const GROWN_FILE_LIMIT: u64 = 16 * 1024 * 1024;

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
    /// Whether the file was gone.
    pub removed: bool,
}

/// The path of a file of the plan.
pub(super) fn path_of(pgdata: &Path, file: &SourceFile) -> PathBuf {
    pgdata.join(std::ffi::OsStr::from_bytes(&file.path))
}

/// Reads a unit into `raw`, a buffer that may come from an earlier unit.
pub(super) fn read_unit(pgdata: &Path, files: &[SourceFile], unit: &Unit, mut raw: Vec<u8>) -> Result<ReadUnit, Error> {
    raw.clear();
    // At once and exactly: a buffer that grows is at times twice as large, and leaves its smaller selves to the allocator.
    raw.reserve_exact(unit.length() as usize + PROBE_BYTES);
    let mut pieces = Vec::new();
    match unit {
        Unit::Extent { file, offset, length, .. } => {
            pieces.push(read_piece(pgdata, files, *file, *offset, u64::from(*length), &mut raw)?);
        }
        Unit::Group { files: range, .. } => {
            for index in range.clone() {
                let Some(file) = files.get(index) else { continue };
                let limit = match file.check {
                    PageCheck::FromBlock(_) => file.size_bytes,
                    PageCheck::None => GROWN_FILE_LIMIT,
                };
                pieces.push(read_piece(pgdata, files, index, 0, limit, &mut raw)?);
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
    let removed = Piece { file: index, offset, length: 0, removed: true };
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
    Ok(Piece { file: index, offset, length, removed: false })
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

    fn source(path: &str, size_bytes: u64, check: PageCheck) -> SourceFile {
        SourceFile { path: path.as_bytes().into(), size_bytes, mtime: 0, mode: 0o600, check }
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
        let unit = Unit::Group { files: 0..4, length: 21 };
        let read = read_unit(dir.path(), &files, &unit, Vec::new()).unwrap();
        let found: Vec<(usize, bool)> = read.pieces.iter().map(|p| (p.length, p.removed)).collect();
        assert_eq!(found, [(0, true), (2, false), (19, false), (2 * 8192, false)]);
        assert_eq!(read.raw.len(), 2 + 19 + 2 * 8192);
    }

    #[test]
    fn a_directory_in_place_of_a_file_fails() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("odd")).unwrap();
        let files = [source("odd", 10, PageCheck::None)];
        let error = read_unit(dir.path(), &files, &Unit::Group { files: 0..1, length: 10 }, Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }
}
