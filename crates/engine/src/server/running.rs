//! The PostgreSQL servers that run on this host, as the kernel sees them.
//!
//! A server's working directory is its data directory, from its start to its end. So `/proc/PID/cwd` shows where it is
//! even if `postmaster.pid` was deleted or names another process. What cannot be seen from here: processes of another
//! user unless this process runs as root, processes of another pid namespace (another container with the same volume),
//! and processes on another host.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Utc};
use holdfast_pgtypes::exclude::{Exclusions, Verdict};
use holdfast_pgtypes::{ControlFile, PgVersion, SystemIdentifier};

use crate::error::{Cause, Error};
use crate::path_overlap::{Identity, Resolved};

/// A PostgreSQL server that runs on this host.
#[derive(Debug, Clone)]
pub(crate) struct RunningServer {
    /// One of its processes.
    pub(crate) pid: i32,
    /// Its data directory, as the kernel names it.
    pub(crate) pgdata: PathBuf,
    /// Where its tablespaces are.
    pub(crate) tablespaces: Vec<ServerTablespace>,
    /// The system identifier of its cluster, if its control file can be read.
    pub(crate) system_identifier: Option<SystemIdentifier>,
    /// Its data directory and its folders elsewhere.
    places: Vec<Resolved>,
}

/// A tablespace of a running server, as its link in `pg_tblspc` shows it.
#[derive(Debug, Clone)]
pub(crate) struct ServerTablespace {
    /// Its OID, as the link to it is named.
    pub(crate) oid: OsString,
    /// Its directory, under the name that the server uses.
    pub(crate) place: PathBuf,
    /// When the link was made, if that can be read: the tablespace was created no later than this.
    pub(crate) linked: Option<DateTime<Utc>>,
}

impl RunningServer {
    /// The visible servers, each once.
    pub(crate) fn all() -> Vec<Self> {
        let mut seen = HashSet::new();
        let mut servers = Vec::new();
        // Another program with such a name can have any working directory.
        for (pid, cwd) in processes().filter(|(_, cwd)| cwd.join("PG_VERSION").exists()) {
            if Identity::of(&cwd).is_some_and(|identity| seen.insert(identity)) {
                servers.push(Self::of_process(pid, &cwd));
            }
        }
        servers
    }

    /// The server of a process with this working directory.
    pub(crate) fn of_process(pid: i32, cwd: &Path) -> Self {
        // Its links are paths in its own view of the file system, which may differ from ours.
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let tablespace = |(oid, place): (OsString, PathBuf)| {
            let link = std::fs::symlink_metadata(cwd.join("pg_tblspc").join(&oid));
            ServerTablespace { oid, place, linked: link.and_then(|link| link.modified()).ok().map(DateTime::from) }
        };
        let tablespaces: Vec<_> = crate::path_overlap::tablespaces(cwd).into_iter().map(tablespace).collect();
        let mut links: Vec<PathBuf> = tablespaces.iter().map(|tablespace| tablespace.place.clone()).collect();
        // Directories of these names count by themselves: they may be mounted in another place too.
        for name in emptied_directories(cwd) {
            links.push(std::fs::read_link(cwd.join(&name)).unwrap_or_else(|_| PathBuf::from(name)));
        }
        let elsewhere = links.iter().map(|link| {
            let inside: PathBuf = link.components().filter(|part| *part != Component::RootDir).collect();
            if link.is_absolute() { root.join(inside) } else { cwd.join(link) }
        });
        let all = std::iter::once(cwd.to_owned()).chain(elsewhere);
        let places = all.filter_map(|place| Resolved::of_kernel_path(&place)).collect();
        let pgdata = std::fs::read_link(cwd).unwrap_or_else(|_| cwd.to_owned());
        let control = std::fs::read(cwd.join(ControlFile::PATH)).ok();
        let control = control.and_then(|bytes| ControlFile::parse(&bytes).ok());
        Self { pid, pgdata, tablespaces, system_identifier: control.map(|control| control.system_identifier), places }
    }

    /// Whether the server uses this place, something in it, or a folder that contains it.
    pub(crate) fn uses(&self, place: &Resolved) -> bool {
        self.places.iter().any(|used| used.is_in(place) || place.is_in(used))
    }
}

/// The directories of a data directory that a recovery of a copy empties: `pg_wal`, `pg_replslot` and the like.
fn emptied_directories(pgdata: &Path) -> Vec<OsString> {
    let names = std::fs::read_dir(pgdata).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let rules = Exclusions::for_directory(PgVersion::V18, b"", []);
    names.filter(|name| rules.verdict(name.as_bytes()) == Verdict::ContentsExcluded).collect()
}

/// The process id of a server whose data directory is exactly this one.
pub(crate) fn server_in(pgdata: &Path) -> Option<i32> {
    let here = Identity::of(pgdata)?;
    processes().find(|(_, cwd)| Identity::of(cwd) == Some(here)).map(|(pid, _)| pid)
}

/// The first pid namespace, in which all processes of a host are (`PROC_PID_INIT_INO` of the kernel).
const ALL_PROCESSES: &str = "pid:[4026531836]";

/// Whether the processes of the whole host can be seen from here: not in a container.
pub(crate) fn sees_all_processes() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace == Path::new(ALL_PROCESSES))
}

/// Processes of PostgreSQL, each with the path of its working directory.
fn processes() -> impl Iterator<Item = (i32, PathBuf)> {
    std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        is_postgres(pid).then(|| (pid, entry.path().join("cwd")))
    })
}

/// Checks the name of the process, which PostgreSQL keeps, or of its program.
fn is_postgres(pid: i32) -> bool {
    let named = |name: &str| name.contains("postgres") || name.contains("postmaster");
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    program.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).is_some_and(named)
        || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| named(&name))
}

/// Refuses a lock file that does not name its owner, as PostgreSQL itself does (`CreateLockFile`): a server that is
/// just starting may have written only a part of it.
pub(crate) fn refuse_unclear_lock_file(pgdata: &Path) -> Result<(), Error> {
    let path = pgdata.join("postmaster.pid");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(Error::file("read", &path, e)),
    };
    let number = bytes.split(|byte| *byte == b'\n').next().map(<[u8]>::trim_ascii).unwrap_or_default();
    match std::str::from_utf8(number).ok().and_then(|number| number.parse::<i32>().ok()) {
        Some(_) if std::str::from_utf8(&bytes).is_ok() => Ok(()),
        _ => Err(Cause::UnclearLockFile { path }.into()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_lock_file_without_a_process_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        refuse_unclear_lock_file(directory.path()).unwrap();
        for (content, clear) in [
            (&b"4711\n/srv/pg\n"[..], true),
            (b"-4711\n", true),
            (b"12", true),
            (b"", false),
            (b"\n", false),
            (b"nothing\n", false),
            (b"\xff\xfe4\x007\x00", false),
            (b"12\n\xff", false),
        ] {
            std::fs::write(directory.path().join("postmaster.pid"), content).unwrap();
            assert_eq!(refuse_unclear_lock_file(directory.path()).is_ok(), clear, "{content:?}");
        }
    }

    #[test]
    fn other_programs_in_a_directory_are_not_servers() {
        // This test's working directory is that of its package.
        assert_eq!(server_in(&std::env::current_dir().unwrap()), None);
    }
}
