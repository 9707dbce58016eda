//! Lists the data directory: what belongs in a backup, by PostgreSQL's own rules (`holdfast_pgtypes::exclude`).
//! Blocking.
//!
//! A file or directory that disappears while it is listed was removed by PostgreSQL, or its volume is away: it is
//! counted, and [`super::present`] looks at it again after the copy. Links that PostgreSQL makes (`pg_tblspc`,
//! `pg_wal`) are followed. The backup warns the user of any other link, and [`super::links`] decides what is stored for
//! it. A link in the place of data that PostgreSQL needs is refused: the backup would be useless without that data.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use holdfast_pgtypes::ControlFile;
use holdfast_pgtypes::exclude::{Exclusions, Verdict, wal_subdirectories};
use holdfast_pgtypes::relation::RelationPath;
use tokio_util::sync::CancellationToken;

use super::links;
use super::listing::{Directory, Link, Scan, tablespace_oid};
use super::listing::{PageCheck, SourceFile};
use super::present::is_missed_path;
use crate::error::{Cause, Error};
use crate::path_overlap::Identity;

/// Whether the pages of relations are checked while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageChecks {
    /// Requested, and the cluster has checksums.
    On,
    /// Not requested, or the cluster has none.
    Off,
}

/// Lists the data directory and its tablespaces.
pub(super) fn scan(
    pgdata: &Path,
    control: &ControlFile,
    checks: PageChecks,
    cancel: &CancellationToken,
) -> Result<Scan, Error> {
    let mut scan = Scan::default();
    let mut waiting = VecDeque::from([Vec::new()]);
    while let Some(directory) = waiting.pop_front() {
        if cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        scan_directory(pgdata, &directory, control, checks, &mut scan, &mut waiting)?;
    }
    Ok(scan)
}

fn scan_directory(
    pgdata: &Path,
    directory: &[u8],
    control: &ControlFile,
    checks: PageChecks,
    scan: &mut Scan,
    waiting: &mut VecDeque<Vec<u8>>,
) -> Result<(), Error> {
    let here = pgdata.join(OsStr::from_bytes(directory));
    let (entries, metadata) = match list(&here) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound && !directory.is_empty() => {
            note_vanished(directory, control, scan);
            return Ok(());
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied && is_lost_and_found(directory) => {
            tracing::warn!(path = %here.display(), "left out of the backup: it belongs to the file system");
            return Ok(());
        }
        Err(e) => return Err(Error::file("list", &here, e)),
    };
    scan.directories.push(Directory {
        path: directory.into(),
        mode: metadata.mode() & 0o7777,
        mtime: metadata.mtime(),
    });
    let version = control.version;
    let rules = Exclusions::for_directory(version, directory, entries.iter().map(|name| name.as_bytes()));
    for name in &entries {
        let verdict = rules.verdict(name.as_bytes());
        if matches!(verdict, Verdict::Excluded(_) | Verdict::ControlFile) {
            continue;
        }
        let path = join(directory, name.as_bytes());
        let full = here.join(name);
        let Some(Standing { metadata, target }) = inspect(&full)? else {
            note_vanished(&path, control, scan);
            continue;
        };
        match verdict {
            Verdict::ContentsExcluded => keep_empty(&path, &full, &metadata, version, scan)?,
            _ if metadata.is_dir() => waiting.push_back(path),
            _ if metadata.is_symlink() && holds_data(&path) => {
                return Err(Cause::Refused(format!(
                    "{} is a symbolic link, and the files that it leads to would be missing from the backup: move them \
                     back into the data directory, or into a tablespace",
                    full.display()
                ))
                .into());
            }
            _ if let Some(target) = target => {
                let link = Link { path: path.clone().into(), target, mtime: metadata.mtime() };
                if tablespace_oid(&path).is_some() {
                    scan.links.push(Link { target: absolute(&full, link.target), ..link });
                    waiting.push_back(path);
                } else {
                    links::list(pgdata, link, scan)?;
                }
            }
            _ if metadata.is_file() => {
                scan.total_bytes += metadata.len();
                let check = page_check(&path, control, checks);
                scan.files.push(SourceFile {
                    path: path.into(),
                    size_bytes: metadata.len(),
                    mtime: metadata.mtime(),
                    mode: metadata.mode() & 0o7777,
                    check,
                    identity: Some(Identity::from(&metadata)),
                });
            }
            // Sockets, pipes and devices are not data; pg_basebackup leaves them out as well.
            _ => tracing::warn!(path = %full.display(), "left out of the backup: it is not a file, a directory or a \
                                                         link"),
        }
    }
    Ok(())
}

/// Counts an entry that disappeared.
fn note_vanished(path: &[u8], control: &ControlFile, scan: &mut Scan) {
    scan.removed += 1;
    if is_missed_path(path, control.version) {
        scan.vanished.push(path.into());
    }
}

/// What is at a path at one moment.
pub(super) struct Standing {
    pub metadata: Metadata,
    /// The target, if it is a link.
    pub target: Option<Box<[u8]>>,
}

/// Looks at a path; `None` if nothing is there. If a link is removed or replaced by a file before its target is read,
/// the path is looked at again, so that nothing is missed.
pub(super) fn inspect(path: &Path) -> Result<Option<Standing>, Error> {
    loop {
        let metadata = match std::fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::file("look at", path, e)),
        };
        if !metadata.is_symlink() {
            return Ok(Some(Standing { metadata, target: None }));
        }
        match std::fs::read_link(path) {
            Ok(target) => {
                return Ok(Some(Standing { metadata, target: Some(target.into_os_string().into_vec().into()) }));
            }
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {}
            Err(e) => return Err(Error::file("read the link", path, e)),
        }
    }
}

/// The absolute target of a tablespace's link. PostgreSQL writes absolute targets, but follows a relative one that
/// somebody made. In the record of a backup a relative path means a directory in `pg_tblspc`.
fn absolute(link: &Path, target: Box<[u8]>) -> Box<[u8]> {
    if target.starts_with(b"/") {
        return target;
    }
    let bytes = |path: PathBuf| path.into_os_string().into_vec().into_boxed_slice();
    let written = || link.parent().map(|folder| bytes(folder.join(OsStr::from_bytes(&target))));
    std::fs::canonicalize(link).ok().map(bytes).or_else(written).unwrap_or(target)
}

/// Whether PostgreSQL needs what is at this path: all directories that `initdb` makes, except those whose contents are
/// not in a backup. In `pg_tblspc`, where links are normal, it is the version directory of a tablespace and everything
/// in it.
pub(super) fn holds_data(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    let top = parts.next().unwrap_or_default();
    if top == b"pg_tblspc" {
        return path == top || parts.nth(1).is_some_and(|part| part.starts_with(b"PG_"));
    }
    [
        b"base".as_slice(),
        b"global",
        b"pg_commit_ts",
        b"pg_logical",
        b"pg_multixact",
        b"pg_stat",
        b"pg_twophase",
        b"pg_xact",
        b"PG_VERSION",
    ]
    .contains(&top)
}

/// Whether this is the directory that `fsck` keeps at the top of a file system. It belongs to root. A data directory or
/// a tablespace can be the top of a file system.
fn is_lost_and_found(directory: &[u8]) -> bool {
    match directory.strip_suffix(b"lost+found") {
        Some(b"") => true,
        Some(parent) => parent.strip_suffix(b"/").is_some_and(|parent| tablespace_oid(parent).is_some()),
        None => false,
    }
}

/// Adds an empty directory, whose contents PostgreSQL creates again. If it is a link (`pg_wal` on another disk), a
/// plain directory is added, as `pg_basebackup` does.
fn keep_empty(
    path: &[u8],
    full: &Path,
    metadata: &Metadata,
    version: holdfast_pgtypes::PgVersion,
    scan: &mut Scan,
) -> Result<(), Error> {
    let metadata = if metadata.is_symlink() {
        std::fs::metadata(full).map_err(|e| Error::file("follow the link", full, e))?
    } else {
        metadata.clone()
    };
    if !metadata.is_dir() {
        return Ok(());
    }
    let mode = metadata.mode() & 0o7777;
    scan.directories.push(Directory { path: path.into(), mode, mtime: metadata.mtime() });
    if path == b"pg_wal" {
        for name in wal_subdirectories(version) {
            scan.directories.push(Directory {
                path: join(path, name.as_bytes()).into(),
                mode,
                mtime: metadata.mtime(),
            });
        }
    }
    Ok(())
}

fn page_check(path: &[u8], control: &ControlFile, checks: PageChecks) -> PageCheck {
    match RelationPath::parse(path, control.version) {
        None => PageCheck::None,
        Some(_) if checks == PageChecks::Off => PageCheck::Off,
        Some(relation) => {
            relation.file.first_block(control.relation_segment_pages).map_or(PageCheck::Off, PageCheck::FromBlock)
        }
    }
}

fn list(directory: &Path) -> std::io::Result<(Vec<OsString>, Metadata)> {
    let metadata = std::fs::metadata(directory)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok((names, metadata))
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_a_backup_must_have_cannot_be_a_link() {
        for (path, needed) in [
            ("base", true),
            ("base/16384", true),
            ("base/16384/1259", true),
            ("global/1262", true),
            ("pg_xact", true),
            ("pg_multixact/members", true),
            ("pg_log", false),
            ("log", false),
            ("postgresql.conf", false),
            ("pg_hba.conf", false),
            ("pg_tblspc/16400", false),
            ("basement", false),
        ] {
            assert_eq!(holds_data(path.as_bytes()), needed, "{path}");
        }
    }

    #[test]
    fn lost_and_found_is_recognized_only_at_the_top_of_a_file_system() {
        for (path, known) in [
            ("lost+found", true),
            ("pg_tblspc/16400/lost+found", true),
            ("base/lost+found", false),
            ("pg_tblspc/x/lost+found", false),
            ("not-lost+found", false),
        ] {
            assert_eq!(is_lost_and_found(path.as_bytes()), known, "{path}");
        }
    }
}
