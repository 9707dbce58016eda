//! Checks the checksums of all pages of a stopped server, as `pg_checksums --check`. Without checksums, it checks the
//! page headers.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::checksum::PAGE_SIZE;
use holdfast_pgtypes::page::{Checksums, PageCheck, check_page};
use holdfast_pgtypes::relation::RelationPath;

use super::plain;
use crate::error::{Cause, Error};

/// The number of pages in one read.
const PAGES_AT_ONCE: usize = 128;

/// The maximum number of bad pages that are named for one file. A few are enough to recognize a file that is bad as a
/// whole.
const NAMED_OF_A_FILE: usize = 5;

/// The result of the checks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CheckedPages {
    pub(super) page_count: u64,
    pub(super) bad_count: u64,
    /// Some of the bad pages, as text for people, in the order of their files.
    pub(super) named: Vec<String>,
}

/// Checks all relations of a data directory. Ends early when `stop` is set.
pub(super) fn check(
    pgdata: &Path,
    control: &ControlFile,
    threads: usize,
    stop: &AtomicBool,
) -> Result<CheckedPages, Error> {
    let files = relations(pgdata, control)?;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some((path, relation)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            found.push((path, check_file(pgdata, path, relation, control)?));
        }
        Ok::<_, Error>(found)
    };
    let of_threads: Vec<Result<Vec<(&PathBuf, CheckedPages)>, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let lost = || Err(Cause::Internal("a thread that checks pages failed".to_owned()).into());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| lost())).collect()
    });
    let of_threads = of_threads.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut of_files: Vec<(&PathBuf, CheckedPages)> = of_threads.into_iter().flatten().collect();
    of_files.sort_by_key(|(path, _)| *path);
    let mut all = CheckedPages::default();
    for (_, found) in of_files {
        all.page_count += found.page_count;
        all.bad_count += found.bad_count;
        all.named.extend(found.named);
    }
    Ok(all)
}

/// The files with pages, with paths relative to the data directory.
fn relations(pgdata: &Path, control: &ControlFile) -> Result<Vec<(PathBuf, RelationPath)>, Error> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = ["global", "base", "pg_tblspc"].map(PathBuf::from).to_vec();
    while let Some(folder) = waiting.pop() {
        let place = pgdata.join(&folder);
        for entry in std::fs::read_dir(&place).map_err(|e| Error::file("list", &place, e))? {
            let entry = entry.map_err(|e| Error::file("list", &place, e))?;
            let path = folder.join(entry.file_name());
            let place = pgdata.join(&path);
            let mut kind = entry.file_type().map_err(|e| Error::file("look at", &place, e))?;
            // Only the links of the tablespaces are followed: root may read more than the owner of the directory.
            if kind.is_symlink() && folder == Path::new("pg_tblspc") {
                kind = std::fs::metadata(&place).map_err(|e| Error::file("look at", &place, e))?.file_type();
            }
            if kind.is_dir() {
                waiting.push(path);
            } else if let Some(relation) = RelationPath::parse(path.as_os_str().as_bytes(), control.version)
                && relation.file.temporary_backend.is_none()
            {
                found.push((path, relation));
            }
        }
    }
    Ok(found)
}

fn check_file(
    pgdata: &Path,
    path: &Path,
    relation: &RelationPath,
    control: &ControlFile,
) -> Result<CheckedPages, Error> {
    let checksums = if control.has_data_checksums() { Checksums::On } else { Checksums::Off };
    let place = pgdata.join(path);
    let mut file = plain::open(&place).map_err(|e| Error::file("read", &place, e))?;
    let mut block = relation.file.first_block(control.relation_segment_pages).unwrap_or_default();
    let mut found = CheckedPages::default();
    let bad = |found: &mut CheckedPages, what: String| {
        found.bad_count += 1;
        if found.named.len() < NAMED_OF_A_FILE {
            found.named.push(format!("{} {what}", path.display()));
        }
    };
    let mut buffer = vec![0; PAGES_AT_ONCE * PAGE_SIZE];
    loop {
        let length = fill(&mut file, &mut buffer).map_err(|e| Error::file("read", &place, e))?;
        let (pages, rest) = buffer.get(..length).unwrap_or_default().as_chunks::<PAGE_SIZE>();
        for page in pages {
            found.page_count += 1;
            match check_page(page, block, checksums) {
                PageCheck::New | PageCheck::Valid => {}
                PageCheck::BadChecksum { expected, found: written } => {
                    bad(
                        &mut found,
                        format!("block {block}: the checksum should be {expected:04x}, and is {written:04x}"),
                    );
                }
                PageCheck::BadHeader => bad(&mut found, format!("block {block}: the header is not valid")),
                PageCheck::NewButNotZero => {
                    bad(&mut found, format!("block {block}: it is marked as new, but it is not empty"));
                }
            }
            block = block.wrapping_add(1);
        }
        if !rest.is_empty() {
            bad(&mut found, format!("block {block}: the file ends in the middle of this block"));
        }
        if length < buffer.len() {
            return Ok(found);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
