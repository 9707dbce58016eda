//! Checks where the links of a directory filled from a snapshot lead, and what a recovery would remove there.
//!
//! A copy has the links of its original: `pg_wal`, tablespaces, perhaps more. On the original's host they lead to the
//! original itself. So before the first change, everything that the recovery empties is checked, and every link through
//! which the started server would write. [`Removal`] lists what is removed; [`refuse_foreign`] refuses files of a
//! running server or of Holdfast; [`refuse_lost_wal`] refuses WAL that is in no archive. Only [`Removal::run`] changes
//! anything.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use holdfast_pgtypes::exclude::{ExcludedAs, Exclusions, Verdict, wal_subdirectories};
use holdfast_pgtypes::wal::page::WalPageHeader;
use holdfast_pgtypes::{ControlFile, PgVersion, SegmentName, SystemIdentifier, WalFileName};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::record::SnapshotRecord;

use super::layout::Layout;
use super::{durable, foreign};
use crate::error::{Cause, Error, ResultExt};
use crate::path_overlap::{Identity, Place, Resolved, refuse_overlap};
use crate::server::running::RunningServer;

/// The first bytes of a segment, enough for its long header.
const HEADER_BYTES: u64 = 40;

/// What a base backup leaves out and the started server would take as its own: files of the original server,
/// replication slots that would hold WAL for ever, and `pg_wal`. All WAL of the copy up to the stop LSN is in the
/// archive; otherwise there would be no record. Its `archive_status` is about the original's archive.
///
/// Every start of a server removes temporary files, relation caches and unlogged relations.
#[derive(Debug)]
pub(super) struct Removal {
    /// `pg_wal`: a directory, or a link to one on another volume. The link stays.
    wal: PathBuf,
    files: Vec<PathBuf>,
    /// Directories that are emptied and stay; `pg_wal` is one of them.
    emptied: Vec<PathBuf>,
    /// Links in place of such directories. As in a base backup, a directory replaces the link. The target of the link
    /// is not changed, because others may use it.
    links: Vec<PathBuf>,
    version: PgVersion,
}

impl Removal {
    pub(super) fn of(pgdata: &Path, version: PgVersion) -> Result<Self, Error> {
        let names = list(pgdata)?;
        let rules = Exclusions::for_directory(version, b"", names.iter().map(|name| name.as_bytes()));
        let wal = pgdata.join("pg_wal");
        let mut removal = Self { wal: wal.clone(), files: Vec::new(), emptied: Vec::new(), links: Vec::new(), version };
        for name in &names {
            let path = pgdata.join(name);
            match rules.verdict(name.as_bytes()) {
                Verdict::Excluded(ExcludedAs::ServerFile) => removal.files.push(path),
                Verdict::ContentsExcluded if path != wal && is_link(&path)? => removal.links.push(path),
                Verdict::ContentsExcluded => removal.emptied.push(path),
                Verdict::Excluded(_) | Verdict::Include | Verdict::ControlFile => {}
            }
        }
        Ok(removal)
    }

    /// Removes all of this, and returns the number of removed entries.
    pub(super) fn run(&self) -> Result<u64, Error> {
        let mut removed = 0;
        for path in &self.files {
            durable::remove_if_there(path)?;
            removed += 1;
        }
        for path in &self.links {
            durable::remove_if_there(path)?;
            make_directory(path)?;
            removed += 1;
        }
        for directory in &self.emptied {
            removed += empty(directory)?;
        }
        for directory in wal_subdirectories(self.version) {
            make_directory(&self.wal.join(directory))?;
        }
        Ok(removed)
    }

    /// What happens to links, as text for people.
    pub(super) fn notes(&self) -> Vec<String> {
        let note = |link: &PathBuf| {
            let name = link.file_name().unwrap_or_default().display();
            let target = fs::read_link(link).unwrap_or_default();
            format!(
                "{name} was a link to {}: that directory is not changed, and {name} becomes a directory",
                target.display()
            )
        };
        self.links.iter().map(note).collect()
    }

    fn takes(&self, path: &Path) -> bool {
        [&self.files, &self.emptied, &self.links].iter().any(|paths| paths.iter().any(|taken| taken == path))
    }
}

/// Refuses a copy whose links lead to files of a server of this host, to files that the restore needs, or to another
/// data directory.
pub(super) fn refuse_foreign(
    layout: &Layout,
    removal: &Removal,
    places: &[Place],
    servers: &[RunningServer],
) -> Result<(), Error> {
    let used = |place: &Path| {
        let resolved = Resolved::of(place);
        servers.iter().find(|server| server.uses(&resolved))
    };
    for root in layout.roots() {
        if let Some(server) = used(root) {
            let tablespace = layout.tablespaces().iter().find(|tablespace| tablespace.location == root);
            let in_use = Cause::InUse { place: root.to_owned(), pgdata: server.pgdata.clone(), pid: server.pid };
            return Err(in_use).doing(|| match tablespace {
                Some(tablespace) => format!("looking at the directory of tablespace {}", tablespace.name),
                None => "looking at the data directory".to_owned(),
            });
        }
    }
    let links = links(layout, removal)?;
    for link in &links {
        let target = leads_to(link);
        if let Some(server) = used(&target) {
            return Err(Cause::LinkInUse {
                link: link.clone(),
                target,
                pgdata: server.pgdata.clone(),
                pid: server.pid,
            }
            .into());
        }
    }
    // By a bind mount, a directory to be emptied may be a server's own, and no link shows that.
    if let Some((directory, server)) = removal.emptied.iter().find_map(|path| Some((path, used(path)?))) {
        let (place, pgdata, pid) = (directory.clone(), server.pgdata.clone(), server.pid);
        return Err(Cause::InUse { place, pgdata, pid }.into());
    }
    foreign::refuse_places(layout, places)?;
    let is_of_tablespace = |link: &Path| link.parent().is_some_and(|parent| parent.ends_with("pg_tblspc"));
    let mut others = foreign::roots(layout);
    for link in links.iter().filter(|link| **link == removal.wal || is_of_tablespace(link)) {
        let what = format!("the directory to which {} leads,", link.display());
        let place = Place::new(&what, &leads_to(link));
        for other in others.iter().chain(places) {
            refuse_overlap(&place, other)?;
        }
        others.push(place);
    }
    let own = Identity::of(layout.pgdata());
    for link in &links {
        let target = leads_to(link);
        let mut above = target.ancestors().filter(|above| above.join(ControlFile::PATH).exists());
        if let Some(other) = above.find(|above| Identity::of(above) != own) {
            let what = if *link == removal.wal { "the WAL" } else { "files" };
            let (link, other) = (link.display(), other.display());
            let found = format!("{link}, a link to {what} of another data directory, {other}");
            return Err(Cause::NotOurs { directory: layout.pgdata().to_owned(), found }.into());
        }
    }
    foreign::refuse_emptied(layout.pgdata(), &removal.emptied, places)
}

/// The links through which something would be removed or written: all links in the data directory and the tablespaces.
/// Left out are links that are removed themselves, and links to tablespaces that PostgreSQL makes again from
/// `tablespace_map`.
fn links(layout: &Layout, removal: &Removal) -> Result<Vec<PathBuf>, Error> {
    let mapped: HashSet<PathBuf> = layout
        .tablespaces()
        .iter()
        .map(|tablespace| layout.pgdata().join("pg_tblspc").join(tablespace.oid.to_string()))
        .collect();
    let mut links = Vec::new();
    let mut waiting: Vec<PathBuf> = layout.roots().map(Path::to_owned).collect();
    while let Some(directory) = waiting.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(Error::file("list", &directory, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::file("list", &directory, e))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(|e| Error::file("look at", &path, e))?;
            if kind.is_symlink() && (path == removal.wal || !removal.takes(&path)) && !mapped.contains(&path) {
                links.push(path);
            } else if kind.is_dir() && !removal.takes(&path) {
                waiting.push(path);
            }
        }
    }
    links.sort_unstable();
    Ok(links)
}

/// Refuses to remove WAL of another cluster, or WAL that is not in this archive: what is marked as ready, and segments
/// that are written, whatever their mark. The copy has the files of its original up to the stop LSN, and these were
/// archived before the record was written.
pub(super) fn refuse_lost_wal(
    removal: &Removal,
    record: &SnapshotRecord,
    stored: &WalInventory,
    discard: bool,
) -> Result<(), Error> {
    let wal = &removal.wal;
    let mut missing = Vec::new();
    for name in list(wal)? {
        let Some(file) = name.to_str().and_then(|name| name.parse::<WalFileName>().ok()) else { continue };
        if let Some(found) = owner(&wal.join(&name)).filter(|found| *found != record.system_identifier) {
            let found = format!("WAL of another cluster (system identifier {found}), {}", wal.join(&name).display());
            return Err(Cause::NotOurs { directory: wal.clone(), found }.into());
        }
        let waits = || wal.join("archive_status").join(format!("{file}.ready")).exists();
        if !discard && !is_stored(file, record, stored) && (is_written(&wal.join(&name), file, record) || waits()) {
            missing.push(file.to_string());
        }
    }
    missing.sort_unstable();
    match (missing.first(), missing.last()) {
        (Some(first), Some(last)) => Err(Cause::UnarchivedWal {
            directory: wal.clone(),
            count: missing.len(),
            first: first.clone(),
            last: last.clone(),
        }
        .into()),
        _ => Ok(()),
    }
}

fn is_stored(file: WalFileName, record: &SnapshotRecord, stored: &WalInventory) -> bool {
    let (size, last) = (record.wal_segment_size, record.stop_segment);
    let is_of_copy = file.timeline() <= last.timeline()
        && file.segment().is_none_or(|segment| segment.number(size) <= last.number(size));
    is_of_copy
        || match file {
            WalFileName::Segment(segment) => stored.contains(segment),
            WalFileName::Partial(segment) => stored.contains(segment) || stored.partials().any(|it| it == segment),
            WalFileName::History(timeline) => stored.histories().any(|it| it == timeline),
            // The file only says when a backup ended.
            WalFileName::BackupHistory { .. } => true,
        }
}

/// The cluster that wrote a segment, if the file begins with a segment header.
fn owner(path: &Path) -> Option<SystemIdentifier> {
    Some(header(path)?.long?.system_identifier)
}

/// The segments in a `pg_wal` that hold WAL of their names. Blocks.
pub(super) fn written_segments(pg_wal: &Path, record: &SnapshotRecord) -> Result<Vec<SegmentName>, Error> {
    let mut segments = Vec::new();
    for name in list(pg_wal)? {
        if let Some(Ok(WalFileName::Segment(segment))) = name.to_str().map(str::parse)
            && is_written(&pg_wal.join(&name), WalFileName::Segment(segment), record)
        {
            segments.push(segment);
        }
    }
    Ok(segments)
}

/// Whether the file is a segment and holds WAL of its name. A recycled one begins with the header of its old place.
fn is_written(path: &Path, file: WalFileName, record: &SnapshotRecord) -> bool {
    let start = file.segment().map(|segment| segment.start_lsn(record.wal_segment_size));
    start.is_some_and(|start| header(path).is_some_and(|header| header.page_lsn == start))
}

fn header(path: &Path) -> Option<WalPageHeader> {
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(HEADER_BYTES).read_to_end(&mut bytes).ok()?;
    WalPageHeader::parse(&bytes)
}

/// Makes a directory, if it is missing. If root makes it, it gets the owner of its parent.
fn make_directory(path: &Path) -> Result<(), Error> {
    let is_new = fs::symlink_metadata(path).is_err();
    super::prepare::make_directory(path)?;
    let Some(folder) = path.parent().filter(|_| is_new && rustix::process::geteuid().is_root()) else { return Ok(()) };
    let around = fs::metadata(folder).map_err(|e| Error::file("look at", folder, e))?;
    lchown(path, Some(around.uid()), Some(around.gid())).map_err(|e| Error::file("give away", path, e))
}

fn is_link(path: &Path) -> Result<bool, Error> {
    fs::symlink_metadata(path).map(|metadata| metadata.is_symlink()).map_err(|e| Error::file("look at", path, e))
}

/// The final target of a link; the text of the link if nothing is there.
fn leads_to(link: &Path) -> PathBuf {
    let written = || Some(link.parent()?.join(fs::read_link(link).ok()?));
    fs::canonicalize(link).ok().or_else(written).unwrap_or_else(|| link.to_owned())
}

fn list(directory: &Path) -> Result<Vec<OsString>, Error> {
    let failed = |e| Error::file("list", directory, e);
    fs::read_dir(directory).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect()
}

/// Removes everything in a directory. The directory stays, and so does a link to a directory on another volume.
fn empty(directory: &Path) -> Result<u64, Error> {
    let mut removed = 0;
    for name in list(directory)? {
        let path = directory.join(name);
        let kind = fs::symlink_metadata(&path).map_err(|e| Error::file("look at", &path, e))?;
        let gone = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.map_err(|e| Error::file("remove", &path, e))?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
