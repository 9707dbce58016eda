//! The throw-away directory: a drill makes it, and the same drill removes it.
//!
//! It contains everything of a drill: the data directory, tablespaces, the socket, the spool, the server's log. The
//! first file in it is a mark with the drill that made it, so that the remains of a killed drill can be recognized.
//! Only the drill that made a directory removes it. A later drill only reports it, since a server may still run there,
//! and somebody may want to look at it.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, lchown};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use holdfast_contract::report::drill::LeftBehind;
use serde::{Deserialize, Serialize};

use super::plain;
use crate::error::{Cause, Error};
use crate::repository::machine::{Life, Machine, life_of};
use crate::server::running::server_in;

/// The beginning of the directory's name.
const PREFIX: &str = "holdfast-drill-";

/// The file name of the mark.
const MARK: &str = "holdfast.drill";

/// The longest mark that is read, in bytes.
const LONGEST_MARK: u64 = 64 << 10;

/// The maximum length of a socket's path: `UNIXSOCK_PATH_BUFLEN` on Linux without the final zero byte.
const LONGEST_SOCKET: usize = 107;

/// The port. It is only a part of the socket's name.
pub(super) const PORT: u16 = 5432;

/// The drill that made a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    cluster: String,
    host: String,
    boot: Option<String>,
    /// The PID namespace in which `pid` is valid. Each container has its own.
    #[serde(default)]
    pid_namespace: Option<String>,
    pid: u32,
    /// The name of the process, since process ids are reused.
    program: String,
    started: DateTime<Utc>,
    kept: bool,
}

impl Mark {
    fn read(directory: &Path) -> Option<Self> {
        // The owner of the directory may have put anything in its place.
        let file = plain::open(&directory.join(MARK)).ok()?;
        let mut text = Vec::new();
        file.take(LONGEST_MARK).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(MARK);
        let text = serde_json::to_vec(self).map_err(|e| Cause::Internal(format!("the mark of a drill: {e}")))?;
        // Never write through a link: the server's user may have written into the directory, and root may be the
        // caller.
        let mut file = File::create_new(&path).map_err(|e| Error::file("create", &path, e))?;
        file.write_all(&text).map_err(|e| Error::file("write", &path, e))
    }

    /// Whether the drill is still running. Then its directory is not a remnant.
    fn is_at_work(&self, host: &str) -> bool {
        self.host == host
            && self.boot == Machine::here().boot
            && !self.is_of_another_container()
            && match program_of(&self.pid.to_string()) {
                Some(program) => program == self.program,
                // `/proc` may hide the processes of other users.
                None => life_of(self.pid) == Life::OfAnotherUser,
            }
    }

    fn is_of_another_container(&self) -> bool {
        let here = Machine::here();
        // Marks of earlier releases do not have the namespace.
        self.boot == here.boot && self.pid_namespace.is_some() && self.pid_namespace != here.pid_namespace
    }

    /// The host or container whose processes cannot be seen from here, as text for people.
    fn elsewhere(&self, host: &str) -> Option<String> {
        if self.host != host {
            return Some(format!("host {}", self.host));
        }
        self.is_of_another_container().then(|| "another container of this host".to_owned())
    }
}

fn program_of(process: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{process}/comm")).ok().map(|name| name.trim().to_owned())
}

/// The directories in `parent` that killed drills left, and those that were kept on purpose.
pub(super) fn left_behind(parent: &Path, host: &str) -> Vec<LeftBehind> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)));
    let mut found: Vec<LeftBehind> = ours
        .filter_map(|entry| {
            let directory = entry.path();
            let mark = Mark::read(&directory).filter(|mark| !mark.is_at_work(host))?;
            let server_pid = server_in(&directory.join("data"));
            let elsewhere = mark.elsewhere(host);
            Some(LeftBehind { directory, started: mark.started, server_pid, kept: mark.kept, elsewhere })
        })
        .collect();
    found.sort_by(|one, other| one.directory.cmp(&other.directory));
    found
}

/// The directory of this drill.
#[derive(Debug)]
pub(super) struct ThrowAway {
    path: PathBuf,
    mark: Mark,
    /// Whether the directory was made and must be removed.
    is_made: bool,
}

impl ThrowAway {
    /// Chooses a name in `parent`, without making the directory.
    pub(super) fn named(parent: &Path, cluster: &str, host: &str, now: DateTime<Utc>) -> Result<Self, Error> {
        if !parent.is_absolute() {
            return Err(Cause::Refused(format!("the directory {} is not absolute", parent.display())).into());
        }
        match fs::metadata(parent) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::file("list", parent, ErrorKind::NotADirectory.into())),
            Err(error) => return Err(Error::file("list", parent, error)),
        }
        // `SplitDirectoriesString` cuts the setting that names the socket's directory at these.
        if parent.to_str().is_none_or(|path| path.contains([',', '"'])) {
            return Err(Cause::Refused(format!(
                "the directory {} cannot hold a socket: PostgreSQL takes no comma and no quote in its path, and it has to be \
                 UTF-8",
                parent.display()
            ))
            .into());
        }
        let mut bytes = [0; 4];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Cause::Internal("no random bytes".to_owned()))?;
        let path = parent.join(format!("{PREFIX}{}", hex::encode(bytes)));
        let socket = path.join(format!(".s.PGSQL.{PORT}"));
        if socket.as_os_str().len() > LONGEST_SOCKET {
            return Err(Cause::Refused(format!(
                "the directory {} is too long: the path of a socket has at most {LONGEST_SOCKET} bytes",
                parent.display()
            ))
            .into());
        }
        let here = Machine::here();
        let mark = Mark {
            cluster: cluster.to_owned(),
            host: host.to_owned(),
            boot: here.boot,
            pid_namespace: here.pid_namespace,
            pid: std::process::id(),
            program: program_of("self").unwrap_or_default(),
            started: now,
            kept: false,
        };
        Ok(Self { path, mark, is_made: false })
    }

    /// Makes the directory, which must not exist.
    pub(super) fn make(&mut self) -> Result<(), Error> {
        let failed = |path: &Path, error| Error::file("create", path, error);
        let private = |path: &Path| DirBuilder::new().mode(0o700).create(path).map_err(|e| failed(path, e));
        private(&self.path)?;
        self.is_made = true;
        self.mark.write(&self.path)?;
        private(&self.spool())?;
        private(&self.tablespaces())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    pub(super) fn tablespaces(&self) -> PathBuf {
        self.path.join("tablespaces")
    }

    /// The path of a file in the directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Changes the owner of everything in the directory, and of the directory itself last. Until then, only root can
    /// reach its content.
    pub(super) fn give_to(&self, (user, group): (u32, u32)) -> Result<(), Error> {
        let mut waiting = vec![self.path.clone()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).map_err(|e| Error::file("list", &folder, e))? {
                let entry = entry.map_err(|e| Error::file("list", &folder, e))?;
                let path = entry.path();
                let kind = entry.file_type().map_err(|e| Error::file("look at", &path, e))?;
                lchown(&path, Some(user), Some(group)).map_err(|e| Error::file("change the owner of", &path, e))?;
                // Tablespaces are also in this directory, so no link must be followed.
                if kind.is_dir() {
                    waiting.push(path);
                }
            }
        }
        lchown(&self.path, Some(user), Some(group)).map_err(|e| Error::file("change the owner of", &self.path, e))
    }

    /// Keeps the directory, and records in the mark that this is on purpose.
    pub(super) fn keep(mut self) -> Result<(), Error> {
        self.is_made = false;
        self.mark.kept = true;
        let path = self.path.join(MARK);
        fs::remove_file(&path).map_err(|e| Error::file("remove", &path, e))?;
        self.mark.write(&self.path)
    }

    /// Removes the directory with everything in it.
    pub(super) fn remove(mut self) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_made) {
            return Ok(());
        }
        fs::remove_dir_all(&self.path).map_err(|e| Error::file("remove", &self.path, e))
    }
}

impl Drop for ThrowAway {
    fn drop(&mut self) {
        if self.is_made
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(directory = %self.path.display(), %error, "the directory of the drill could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn named(parent: &Path) -> ThrowAway {
        ThrowAway::named(parent, "main", "here", Utc::now()).unwrap()
    }

    #[test]
    fn only_a_directory_that_the_drill_made_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let other = parent.path().join("holdfast-drill-other");
        fs::create_dir(&other).unwrap();
        let mut made = named(parent.path());
        made.make().unwrap();
        let path = made.path().to_owned();
        std::os::unix::fs::symlink(&other, made.tablespaces().join("16400")).unwrap();
        drop(made);
        assert!(!path.exists() && other.exists());
        // A directory that already exists is never removed.
        let mut taken = named(parent.path());
        fs::create_dir(taken.path()).unwrap();
        let path = taken.path().to_owned();
        taken.make().unwrap_err();
        drop(taken);
        assert!(path.exists());
    }

    #[test]
    fn the_directory_of_a_dead_drill_is_reported() {
        let parent = tempfile::tempdir().unwrap();
        let mut at_work = named(parent.path());
        at_work.make().unwrap();
        assert_eq!(left_behind(parent.path(), "here"), []);
        let mut dead = named(parent.path());
        dead.mark.program = "another".to_owned();
        dead.make().unwrap();
        let mut kept = named(parent.path());
        kept.mark.pid = u32::MAX;
        kept.make().unwrap();
        let (of_dead, of_kept) = (dead.path().to_owned(), kept.path().to_owned());
        kept.keep().unwrap();
        // A directory without a mark is ignored.
        fs::create_dir(parent.path().join("holdfast-drill-unmarked")).unwrap();
        let found = left_behind(parent.path(), "here");
        let mut places: Vec<(PathBuf, bool)> = found.iter().map(|left| (left.directory.clone(), left.kept)).collect();
        places.sort();
        let mut expected = vec![(of_dead, false), (of_kept, true)];
        expected.sort();
        assert_eq!(places, expected);
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let long = parent.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        let error = ThrowAway::named(&long, "main", "here", Utc::now()).unwrap_err();
        assert!(error.to_string().contains("at most 107 bytes"), "{error}");
    }

    #[test]
    fn a_path_that_would_be_cut_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["a,b", "a\"b"] {
            let place = parent.path().join(name);
            fs::create_dir(&place).unwrap();
            let error = ThrowAway::named(&place, "main", "here", Utc::now()).unwrap_err();
            assert!(error.to_string().contains("no comma and no quote"), "{error}");
        }
    }

    #[test]
    fn what_lies_elsewhere_is_not_said_to_be_unused() {
        let parent = tempfile::tempdir().unwrap();
        let mut of_other = named(parent.path());
        of_other.mark.pid_namespace = Some("pid:[1]".to_owned());
        of_other.make().unwrap();
        let left = |host| left_behind(parent.path(), host).into_iter().map(|left| left.elsewhere).collect::<Vec<_>>();
        assert_eq!(left("here"), [Some("another container of this host".to_owned())]);
        assert_eq!(left("there"), [Some("host here".to_owned())]);
        drop(of_other);
        // A drill of this host that is dead.
        let mut dead = named(parent.path());
        dead.mark.program = "another".to_owned();
        dead.make().unwrap();
        assert_eq!(left("here"), [None]);
    }

    #[test]
    fn no_link_and_no_pipe_is_taken_for_a_mark() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = parent.path().join(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            path.join(MARK)
        };
        let mut dead = named(parent.path());
        dead.mark.program = "another".to_owned();
        dead.make().unwrap();
        std::os::unix::fs::symlink(dead.file(MARK), folder("link")).unwrap();
        let pipe = folder("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(left_behind(parent.path(), "here").len(), 1);
    }
}
