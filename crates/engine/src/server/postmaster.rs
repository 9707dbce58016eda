//! `postmaster.pid`: what a running server writes into its data directory.

use std::path::Path;

use crate::error::{Cause, Error};

/// The line of `postmaster.pid` with the server's state (`LOCK_FILE_LINE_PM_STATUS`, counted from 0).
const STATUS_LINE: usize = 7;

/// The content of `postmaster.pid`, which a running server writes (`src/include/utils/pidfile.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostmasterPid {
    /// The postmaster's process id, in its own pid namespace.
    pub pid: i32,
    /// When the postmaster started, in seconds since 1970.
    pub start_seconds: Option<i64>,
    /// TCP port, which also names the socket.
    pub port: Option<u16>,
    /// Directory of the Unix socket, if there is one.
    pub socket_directory: Option<String>,
}

impl PostmasterPid {
    /// The path of the file in a data directory.
    pub const PATH: &'static str = "postmaster.pid";

    /// Reads `postmaster.pid` of a data directory; `None` if there is none, or an empty one, which a crashed start
    /// left.
    ///
    /// # Errors
    /// [`Cause::PostmasterPid`] if the file does not begin with a process id, [`Cause::File`] if it is there and cannot
    /// be read.
    pub fn read(pgdata: &Path) -> Result<Option<Self>, Error> {
        match Self::read_bytes(pgdata)? {
            Some(bytes) => Self::parse(&bytes, &pgdata.join(Self::PATH)),
            None => Ok(None),
        }
    }

    /// The bytes of the file: the path of the data directory in it need not be UTF-8.
    pub(super) fn read_bytes(pgdata: &Path) -> Result<Option<Vec<u8>>, Error> {
        let path = pgdata.join(Self::PATH);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::file("read", &path, e)),
        }
    }

    /// Whether the server of a data directory is shutting down, as far as its file says so.
    pub fn is_stopping(pgdata: &Path) -> bool {
        let bytes = Self::read_bytes(pgdata).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().nth(STATUS_LINE).is_some_and(|status| status.trim() == "stopping")
    }

    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Option<Self>, Error> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines().map(str::trim);
        let Some(first) = lines.next().filter(|_| !text.trim().is_empty()) else { return Ok(None) };
        // The pid of a standalone backend is negative.
        let Some(pid) = first.parse::<i32>().ok().and_then(i32::checked_abs).filter(|pid| *pid > 0) else {
            return Err(Cause::PostmasterPid { path: path.to_owned() }.into());
        };
        let mut rest = lines.skip(1);
        let start_seconds = rest.next().and_then(|line| line.parse().ok());
        let port = rest.next().and_then(|line| line.parse().ok());
        let socket_directory = rest.next().filter(|s| !s.is_empty()).map(str::to_owned);
        Ok(Some(Self { pid, start_seconds, port, socket_directory }))
    }

    /// Whether that process is alive, as far as this can be seen from here. A process of another user counts as alive.
    /// A server in another pid namespace (a container with the same volume) cannot be seen, and its number may be that
    /// of another process here; PostgreSQL's own programs have the same limit. So `true` means only that a server may
    /// run. The proof is in its answers ([`super::prove_same`]).
    pub fn is_alive(&self) -> bool {
        rustix::process::Pid::from_raw(self.pid)
            .is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Option<PostmasterPid>, Error> {
        PostmasterPid::parse(text, Path::new("/srv/pg/postmaster.pid"))
    }

    #[test]
    fn postmaster_pid_gives_start_port_and_socket() {
        let text = b"4711\n/srv/p\xfcg\n1795000000\n5433\n/run/postgresql\nlocalhost\n  123 456\nready   \n";
        let expected = PostmasterPid {
            pid: 4711,
            start_seconds: Some(1_795_000_000),
            port: Some(5433),
            socket_directory: Some("/run/postgresql".to_owned()),
        };
        assert_eq!(parse(text).expect("a sound file"), Some(expected));
    }

    #[test]
    fn an_early_postmaster_pid_has_the_process_only() {
        let expected = PostmasterPid { pid: 12, start_seconds: None, port: None, socket_directory: None };
        assert_eq!(parse(b"12\n").expect("a sound file"), Some(expected));
        assert_eq!(parse(b"").expect("an empty file"), None);
    }

    #[test]
    fn what_no_server_writes_is_not_taken_for_a_missing_file() {
        for text in [&b"\xff\xfe\x00\x01"[..], b"ready\n", b"0\n", b"\n12\n"] {
            let refused = parse(text).expect_err("not a postmaster.pid");
            assert_eq!(refused.to_string(), "/srv/pg/postmaster.pid does not begin with a process id");
        }
    }
}
