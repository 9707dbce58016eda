//! The target directory: inspects it, decides whether it may be used, and takes it.
//!
//! [`inspect`] only looks, and refuses a directory that must not be touched; [`take`] acts. In an existing directory it
//! first writes the resume point and removes `global/pg_control`. From then on no server can start there until the
//! restore is done.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use holdfast_contract::report::restore::{TablespacePlace, TargetState};
use holdfast_pgtypes::{ControlFile, SystemIdentifier};

use super::durable::Roots;
use super::foreign;
use super::layout::Layout;
use super::resume::{RESUME_POINT, ResumeLock, ResumePoint, sync_parent};
use super::settings::Archiving;
use crate::error::{Cause, Error};
use crate::path_overlap::{Identity, Place};
use crate::server::{PostmasterPid, refused_control_file, running};

/// The facts for the decision about the target.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetRequest<'a> {
    /// The requested restore.
    pub point: &'a ResumePoint,
    /// The system identifier of the backup.
    pub system_identifier: SystemIdentifier,
    /// The control file of the backup.
    pub control: &'a [u8],
    /// Whether an existing data directory may be used.
    pub delta: bool,
    /// Tablespaces, by name or OID, whose directories may be reused although their data directory was lost.
    pub reuse_tablespaces: &'a [String],
    /// Places that the restore needs; they must not be inside its directories.
    pub places: &'a [Place],
    /// The directories of the original, if this is another data directory.
    pub originals: &'a [Place],
    /// The repository, for messages.
    pub store: &'a str,
}

/// Inspects the directories of the restore and refuses those that hold something else.
///
/// A tablespace directory that is not empty may be used only in two cases: the resume point of the data directory names
/// it; or the data directory is the same cluster's by its control file, and its own link leads there. An empty data
/// directory proves nothing: the tablespace may belong to a healthy server. Neither does the link of a copy: it leads
/// to the tablespace of its original, which is refused even while no server runs there.
pub(super) fn inspect(layout: &Layout, wanted: &TargetRequest<'_>) -> Result<TargetState, Error> {
    for name in wanted.reuse_tablespaces {
        layout.named(name)?;
    }
    let pgdata = layout.pgdata();
    let found = inspect_pgdata(pgdata, wanted)?;
    foreign::refuse_places(layout, wanted.places)?;
    let mut state = found.state;
    for tablespace in layout.tablespaces() {
        match contents(&tablespace.location)? {
            Contents::Absent => check_parent(&tablespace.location)?,
            Contents::Empty => {}
            Contents::Something if found.owns(pgdata, tablespace) => {}
            Contents::Something if wanted.reuse_tablespaces.iter().any(|name| tablespace.is_named(name)) => {
                if state == TargetState::Fresh {
                    state = TargetState::Delta;
                }
            }
            Contents::Something => {
                let (tablespace, directory) = (tablespace.name.clone(), tablespace.location.clone());
                return Err(Cause::TablespaceNotEmpty { tablespace, directory }.into());
            }
        }
    }
    foreign::refuse_originals(layout, wanted.originals, wanted.reuse_tablespaces)?;
    foreign::refuse_servers(layout)?;
    Ok(state)
}

/// The facts in the data directory.
struct DirectoryFacts {
    state: TargetState,
    /// Whether its control file is of the cluster that is restored.
    is_same_cluster: bool,
    /// The tablespace directories of an interrupted restore of the same cluster.
    placed: Vec<TablespacePlace>,
}

impl DirectoryFacts {
    fn of(state: TargetState) -> Self {
        Self { state, is_same_cluster: false, placed: Vec::new() }
    }

    fn owns(&self, pgdata: &Path, tablespace: &TablespacePlace) -> bool {
        let placed = self.placed.iter().any(|p| (p.oid, &p.location) == (tablespace.oid, &tablespace.location));
        let link = pgdata.join("pg_tblspc").join(tablespace.oid.to_string());
        let leads_there = || Identity::of(&link).is_some_and(|there| Identity::of(&tablespace.location) == Some(there));
        placed || (self.is_same_cluster && leads_there())
    }
}

fn inspect_pgdata(pgdata: &Path, wanted: &TargetRequest<'_>) -> Result<DirectoryFacts, Error> {
    match contents(pgdata)? {
        Contents::Absent => {
            check_parent(pgdata)?;
            return Ok(DirectoryFacts::of(TargetState::Fresh));
        }
        Contents::Empty => return Ok(DirectoryFacts::of(TargetState::Fresh)),
        Contents::Something => {}
    }
    refuse_server(pgdata)?;
    refuse_linked_control(pgdata)?;
    let control_path = pgdata.join(ControlFile::PATH);
    let control = match std::fs::read(&control_path) {
        Ok(bytes) => Some(bytes),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
        Err(e) => return Err(Error::file("read", &control_path, e)),
    };
    let resume_point_there = exists(&pgdata.join(RESUME_POINT))?;
    let mut found = DirectoryFacts::of(TargetState::Delta);
    if let Some(point) = ResumePoint::read(pgdata)? {
        // If the control file is not the backup's, a server may have run here since: it is no longer ours.
        let untouched = control.as_deref().is_none_or(|control| control == wanted.control);
        if point.is_same_restore(wanted.point) && untouched {
            return Ok(DirectoryFacts { placed: point.tablespaces, ..DirectoryFacts::of(TargetState::Resumed) });
        }
        if !wanted.delta {
            return Err(refuse_resume(pgdata, &point, wanted.point, untouched));
        }
        if (point.repository, &point.cluster) == (wanted.point.repository, &wanted.point.cluster) {
            found.placed = point.tablespaces;
        }
    }
    if !wanted.delta {
        return Err(Cause::NotEmpty { directory: pgdata.to_owned() }.into());
    }
    if !resume_point_there && !exists(&pgdata.join("PG_VERSION"))? {
        return Err(Cause::Refused(format!(
            "{} is neither a data directory (it has no PG_VERSION) nor an interrupted restore",
            pgdata.display()
        ))
        .into());
    }
    if let Some(control) = control {
        let control =
            ControlFile::parse(&control).map_err(|source| refused_control_file(control_path.clone(), source))?;
        if control.system_identifier != wanted.system_identifier {
            return Err(Cause::WrongCluster {
                store: wanted.store.to_owned(),
                cluster: wanted.point.cluster.to_string(),
                claimed: wanted.system_identifier,
                here: format!("the data directory {}", pgdata.display()),
                found: control.system_identifier,
            }
            .into());
        }
        found.is_same_cluster = true;
    }
    Ok(found)
}

/// Refuses a data directory whose `global` is a link: the control file there is another directory's, perhaps that of a
/// server, and it must be neither read nor removed. PostgreSQL never makes such a link. The other links of a data
/// directory are replaced, and what they lead to is left alone.
pub(super) fn refuse_linked_control(pgdata: &Path) -> Result<(), Error> {
    let folder = pgdata.join("global");
    match std::fs::symlink_metadata(&folder) {
        Ok(metadata) if metadata.is_symlink() => {
            let target = std::fs::read_link(&folder).unwrap_or_default();
            let found = format!("{}, a link to {}", folder.display(), target.display());
            Err(Cause::NotOurs { directory: pgdata.to_owned(), found }.into())
        }
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(e) => Err(Error::file("look at", &folder, e)),
    }
}

/// Refuses a directory in which a server runs, by its lock file and by the kernel's list of processes. In a container
/// the number in the lock file proves nothing: the server may run in another container or on the host.
fn refuse_server(pgdata: &Path) -> Result<(), Error> {
    running::refuse_unclear_lock_file(pgdata)?;
    let locked = PostmasterPid::read(pgdata)?;
    let is_here =
        |postmaster: &&PostmasterPid| postmaster.pid.cast_unsigned() != std::process::id() && postmaster.is_alive();
    let by_file = locked.as_ref().filter(is_here).map(|postmaster| postmaster.pid);
    let directory = || pgdata.to_owned();
    match (by_file.or_else(|| running::server_in(pgdata)), locked) {
        (Some(pid), _) => Err(Cause::ServerRunning { directory: directory(), pid }.into()),
        (None, Some(postmaster)) if !running::sees_all_processes() => {
            Err(Cause::UnseenServer { directory: directory(), pid: postmaster.pid }.into())
        }
        (None, _) => Ok(()),
    }
}

fn refuse_resume(pgdata: &Path, there: &ResumePoint, wanted: &ResumePoint, untouched: bool) -> Error {
    let directory = pgdata.display();
    let why = if !untouched {
        format!(
            "{directory} holds a control file and an interrupted restore, and a server may have written there since: \
             restore into an empty directory, or pass --delta to replace what is there with the state of backup {}",
            wanted.backup
        )
    } else if (ResumePoint { archiving: wanted.archiving, ..there.clone() }).is_same_restore(wanted) {
        format!(
            "{directory} holds an interrupted restore of backup {} that was begun {} --no-archiving: to continue it, \
             begin it the same way, or restore into an empty directory",
            there.backup,
            if there.archiving == Archiving::Off { "with" } else { "without" }
        )
    } else if (there.repository, &there.cluster, there.backup) == (wanted.repository, &wanted.cluster, wanted.backup) {
        format!(
            "{directory} holds an interrupted restore of backup {} with other directories for its tablespaces: to \
             continue it, give the same directories, or restore into an empty directory",
            there.backup
        )
    } else {
        format!(
            "{directory} holds an interrupted restore of backup {} of {}, but backup {} of {} would be restored now: pass \
             --backup {} to continue it, --delta to use what is there, or restore into an empty directory",
            there.backup, there.cluster, wanted.backup, wanted.cluster, there.backup
        )
    };
    Cause::Refused(why).into()
}

/// Takes the directory: makes what is missing, locks it, and ensures that no server can start there. `wanted` is
/// checked again under the lock.
pub(super) fn acquire(layout: &Layout, wanted: &TargetRequest<'_>) -> Result<Taken, Error> {
    let pgdata = layout.pgdata();
    let before = inspect(layout, wanted)?;
    make_directory(pgdata)?;
    let mut lock = ResumeLock::acquire(pgdata)?;
    let state = if before == TargetState::Fresh {
        // Another process may have come in between; our own empty resume point does not count.
        if inspect(layout, wanted)? != TargetState::Fresh {
            return Err(Cause::NotEmpty { directory: pgdata.to_owned() }.into());
        }
        before
    } else {
        inspect(layout, wanted)?
    };
    lock.record(wanted.point)?;
    if state.reuses() {
        refuse_linked_control(pgdata)?;
        let control = pgdata.join(ControlFile::PATH);
        match std::fs::remove_file(&control) {
            Ok(()) => sync_parent(&control)?,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::file("remove", &control, e)),
        }
    }
    for tablespace in layout.tablespaces() {
        make_directory(&tablespace.location)?;
    }
    let roots = Roots::open(layout)?;
    Ok(Taken { state, lock, roots })
}

/// A directory that is ours until the restore is done.
#[derive(Debug)]
pub(super) struct Taken {
    pub state: TargetState,
    pub lock: ResumeLock,
    /// Opened before the first byte of data is written.
    pub roots: Roots,
}

enum Contents {
    Absent,
    Empty,
    Something,
}

/// What a directory holds. A resume point that was not written in full counts as nothing.
fn contents(directory: &Path) -> Result<Contents, Error> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Contents::Absent),
        Err(e) => return Err(Error::file("list", directory, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::file("list", directory, e))?;
        if entry.file_name() != RESUME_POINT || ResumePoint::read(directory)?.is_some() {
            return Ok(Contents::Something);
        }
    }
    Ok(Contents::Empty)
}

fn exists(path: &Path) -> Result<bool, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(Error::file("look at", path, e)),
    }
}

fn check_parent(directory: &Path) -> Result<(), Error> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    match std::fs::metadata(parent) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::file("create", directory, ErrorKind::NotADirectory.into())),
        Err(e) => Err(Error::file("look at", parent, e)),
    }
}

/// Makes a directory that only its owner may enter, as initdb does. An existing one is not changed.
pub(super) fn make_directory(directory: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::file("create", directory, e)),
    }
}

#[cfg(test)]
mod tests;
