//! Looks for things in or around the directories of a restore that do not belong to it.
//!
//! [`refuse_places`] knows what the restore itself needs (repository, configuration, keys); [`refuse_servers`] asks the
//! kernel for running servers; [`refuse_contents`] walks everything that [`super::reuse::sweep`] would remove and
//! refuses another data directory, a repository, a mounted file system, or a socket on which a program listens. None of
//! them changes anything. WAL that is in no archive is looked for by [`super::last_copies`].

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::FileType;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{ControlFile, SystemIdentifier};
use holdfast_repo::manifest::Manifest;
use holdfast_repo::name::REPOSITORY_OBJECT;

use super::layout::{Layout, PathIndex};
use super::listening::{self, Listening};
use super::reuse::{self, Kept};
use crate::error::{Cause, Error};
use crate::path_overlap::{Identity, Place, Resolved, refuse_overlap};
use crate::server::running::{RunningServer, ServerTablespace};

/// The kernel's list of mounted file systems.
const MOUNTS: &str = "/proc/self/mountinfo";

/// The directories of a restore, each with its name for messages.
pub(super) fn roots(layout: &Layout) -> Vec<Place> {
    let tablespaces = layout.tablespaces().iter();
    let tablespaces = tablespaces.map(|t| Place::new(&format!("the directory of tablespace {}", t.name), &t.location));
    std::iter::once(Place::new("the directory to restore into,", layout.pgdata())).chain(tablespaces).collect()
}

/// Refuses directories that overlap each other or what the restore needs, whatever links lead there.
pub(super) fn refuse_places(layout: &Layout, places: &[Place]) -> Result<(), Error> {
    let roots = roots(layout);
    for (number, root) in roots.iter().enumerate() {
        for other in roots.iter().skip(number + 1).chain(places) {
            refuse_overlap(root, other)?;
        }
    }
    Ok(())
}

/// Refuses directories of the original data directory, whatever links lead there: a copy has the links of its original.
/// A tablespace that the user named for reuse may be the original's.
pub(super) fn refuse_originals(layout: &Layout, originals: &[Place], reused: &[String]) -> Result<(), Error> {
    let is_reused = |path: &Path| {
        let mut tablespaces = layout.tablespaces().iter().filter(|tablespace| tablespace.location == path);
        tablespaces.any(|tablespace| reused.iter().any(|name| tablespace.is_named(name)))
    };
    for root in roots(layout).iter().filter(|root| !is_reused(&root.path)) {
        for original in originals {
            refuse_overlap(root, original)?;
        }
    }
    Ok(())
}

/// Refuses directories that a running server uses, or that are inside one that it uses.
pub(super) fn refuse_servers(layout: &Layout) -> Result<(), Error> {
    let servers = RunningServer::all();
    for root in layout.roots() {
        let resolved = Resolved::of(root);
        if let Some(server) = servers.iter().find(|server| server.uses(&resolved)) {
            return Err(Cause::InUse { place: root.to_owned(), pgdata: server.pgdata.clone(), pid: server.pid }.into());
        }
    }
    Ok(())
}

/// Refuses a sweep that would remove more than old data of this data directory.
pub(super) fn refuse_contents(
    layout: &Layout,
    manifest: &Manifest,
    index: &PathIndex,
    version_directory: &str,
    places: &[Place],
) -> Result<(), Error> {
    let survey = Survey::of(places)?;
    let mut waiting = reuse::starts(layout, version_directory);
    while let Some((directory, path)) = waiting.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(Error::file("list", &directory, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::file("list", &directory, e))?;
            let kind = entry.file_type().map_err(|e| Error::file("look at", &entry.path(), e))?;
            let inside = reuse::join(&path, entry.file_name().as_bytes());
            if reuse::stays(&path, &entry.file_name()) {
                continue;
            }
            match reuse::keep(manifest, index, &inside, &entry, kind.is_dir())? {
                Kept::Leaf => {}
                Kept::Directory => waiting.push((entry.path(), inside)),
                Kept::No => {
                    if let Some(found) = survey.examine(entry.path(), kind)? {
                        return Err(Cause::NotOurs { directory: layout.pgdata().to_owned(), found }.into());
                    }
                }
            }
        }
    }
    Ok(())
}

/// The same, for directories that are emptied.
pub(super) fn refuse_emptied(pgdata: &Path, directories: &[PathBuf], places: &[Place]) -> Result<(), Error> {
    let survey = Survey::of(places)?;
    for directory in directories {
        for entry in std::fs::read_dir(directory).map_err(|e| Error::file("list", directory, e))? {
            let entry = entry.map_err(|e| Error::file("list", directory, e))?;
            let kind = entry.file_type().map_err(|e| Error::file("look at", &entry.path(), e))?;
            if let Some(found) = survey.examine(entry.path(), kind)? {
                return Err(Cause::NotOurs { directory: pgdata.to_owned(), found }.into());
            }
        }
    }
    Ok(())
}

struct Survey {
    mounts: HashSet<PathBuf>,
    /// The places that the restore needs, with all their parent directories: a bind mount may show one of them here.
    needed: HashSet<Identity>,
}

impl Survey {
    fn of(places: &[Place]) -> Result<Self, Error> {
        let needed = places.iter().flat_map(|place| Resolved::of(&place.path).chain().clone()).collect();
        Ok(Self { mounts: mounts()?, needed })
    }

    /// What an entry holds that must not be removed, as text for people.
    fn examine(&self, path: PathBuf, kind: FileType) -> Result<Option<String>, Error> {
        let mut waiting = vec![(path, kind)];
        while let Some((path, kind)) = waiting.pop() {
            if kind.is_socket() {
                let what = match listening::on(&path) {
                    Listening::No => continue,
                    Listening::Yes => "on which a program listens",
                    Listening::Unknown => "on which a program may listen",
                };
                return Ok(Some(format!("the socket {}, {what}", path.display())));
            }
            if !kind.is_dir() {
                continue;
            }
            if let Some(what) = self.of_directory(&path) {
                return Ok(Some(format!("{what} {}", path.display())));
            }
            for entry in std::fs::read_dir(&path).map_err(|e| Error::file("list", &path, e))? {
                let entry = entry.map_err(|e| Error::file("list", &path, e))?;
                let kind = entry.file_type().map_err(|e| Error::file("look at", &entry.path(), e))?;
                waiting.push((entry.path(), kind));
            }
        }
        Ok(None)
    }

    fn of_directory(&self, path: &Path) -> Option<&'static str> {
        let is_mounted = || std::fs::canonicalize(path).is_ok_and(|path| self.mounts.contains(&path));
        if is_mounted() {
            Some("another file system, mounted on")
        } else if path.join(ControlFile::PATH).exists() {
            Some("another data directory,")
        } else if path.join(REPOSITORY_OBJECT).exists() {
            Some("a Holdfast repository,")
        } else if Identity::of(path).is_some_and(|identity| self.needed.contains(&identity)) {
            Some("something that this restore needs,")
        } else {
            None
        }
    }
}

/// The mount points. The kernel writes blanks and backslashes as three octal digits.
fn mounts() -> Result<HashSet<PathBuf>, Error> {
    let text = std::fs::read(MOUNTS).map_err(|e| Error::file("read", Path::new(MOUNTS), e))?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(plain)
        .collect())
}

fn plain(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..3).filter(|_| *first == b'\\');
        let octal = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = tail.get(3..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

/// What happens to links that the sweep removes, and the risks for servers of this host, as text for people.
pub(super) fn notes(layout: &Layout, of: SystemIdentifier) -> Vec<String> {
    let wal = layout.pgdata().join("pg_wal");
    let target = std::fs::read_link(&wal).ok();
    let note = |target: PathBuf| {
        format!(
            "pg_wal was a link to {}: that directory and its WAL are not changed, and pg_wal becomes a directory",
            target.display()
        )
    };
    target.map(note).into_iter().chain(replay_notes(&tablespaces(layout), of, &RunningServer::all())).collect()
}

/// The tablespaces of a running server of the same cluster that are not in the restored data. WAL replay creates them
/// again in the same directories, and then two servers write there.
fn made_again<'a>(
    server: &'a RunningServer,
    known: &'a [OsString],
    of: SystemIdentifier,
) -> impl Iterator<Item = &'a ServerTablespace> {
    let same = server.system_identifier == Some(of);
    // Other links there were made by a person: no server makes them.
    let is_tablespace = |oid: &OsString| oid.to_str().is_some_and(|oid| oid.parse::<u32>().is_ok());
    let all = server.tablespaces.iter().filter(move |tablespace| same && is_tablespace(&tablespace.oid));
    all.filter(|tablespace| !known.contains(&tablespace.oid))
}

/// Refuses a recovery that certainly creates a running server's tablespace again. This is known without reading the WAL
/// if the target is the end of the WAL, or a time at which the server already had the tablespace.
pub(super) fn refuse_replay(
    known: &[OsString],
    of: SystemIdentifier,
    target: &RecoveryTarget,
    servers: &[RunningServer],
) -> Result<(), Error> {
    let reaches = |tablespace: &ServerTablespace| match target {
        RecoveryTarget::Latest => true,
        RecoveryTarget::Time(time) => tablespace.linked.is_some_and(|linked| linked < *time),
        RecoveryTarget::Immediate | RecoveryTarget::Lsn(_) | RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => false,
    };
    for server in servers {
        if let Some(tablespace) = made_again(server, known, of).find(|tablespace| reaches(tablespace)) {
            let (place, pgdata, pid) = (tablespace.place.clone(), server.pgdata.clone(), server.pid);
            return Err(Cause::ReplayInUse { place, pgdata, pid }.into());
        }
    }
    Ok(())
}

/// Refuses every recovery, whatever its target, if a running server of the same cluster has tablespaces that are not in
/// the restored data.
pub(crate) fn refuse_made_again(known: &[OsString], of: SystemIdentifier) -> Result<(), Error> {
    for server in RunningServer::all() {
        if let Some(tablespace) = made_again(&server, known, of).next() {
            let (place, pgdata, pid) = (tablespace.place.clone(), server.pgdata.clone(), server.pid);
            return Err(Cause::ReplayInUse { place, pgdata, pid }.into());
        }
    }
    Ok(())
}

/// What a recovery to another target may do to tablespaces of a running server, as text for people.
pub(super) fn replay_notes(known: &[OsString], of: SystemIdentifier, servers: &[RunningServer]) -> Vec<String> {
    let note = |server: &RunningServer| {
        let places: Vec<String> = made_again(server, known, of).map(|new| new.place.display().to_string()).collect();
        (!places.is_empty()).then(|| {
            format!(
                "the PostgreSQL server of {} has tablespaces that are not in this backup, in {}: a recovery past their \
                 creation makes them again in the same directories and damages them; start the copy on another host, or \
                 recover to a target before their creation",
                server.pgdata.display(),
                places.join(", ")
            )
        })
    };
    servers.iter().filter_map(note).collect()
}

/// The names of the links to the tablespaces of a backup: their OIDs.
pub(super) fn tablespaces(layout: &Layout) -> Vec<OsString> {
    layout.tablespaces().iter().map(|tablespace| tablespace.oid.to_string().into()).collect()
}

#[cfg(test)]
mod tests;
