//! Whether a program listens on a socket in the file system.
//!
//! The connection is tried without waiting. A program that is stopped takes no connections, and once its queue is full,
//! a connect that waits would wait for ever. The kernel answers `EAGAIN` then, which shows that somebody listens. Only
//! `ECONNREFUSED` shows that nobody does: a server that has ended leaves its socket in the file system.
//!
//! The socket is named by an open descriptor, because the path in an address has at most 108 bytes.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// What is known about a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listening {
    Yes,
    No,
    /// It may not be asked.
    Unknown,
}

/// Asks the kernel whether a program listens on this socket. Does not wait.
pub(super) fn on(path: &Path) -> Listening {
    match try_connect(path) {
        // A socket of another type answers that the type is wrong, but only if a program holds it.
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS | Errno::PROTOTYPE) => Listening::Yes,
        Err(Errno::CONNREFUSED | Errno::NOENT) => Listening::No,
        Err(_) => Listening::Unknown,
    }
}

fn try_connect(path: &Path) -> Result<(), Errno> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::os::unix::net::{UnixDatagram, UnixListener};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn sockets_with_and_without_a_program_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.5432");
        assert_eq!(on(&path), Listening::No);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(on(&path), Listening::Yes);
        drop(listener);
        assert_eq!(on(&path), Listening::No);
        let datagrams = folder.path().join("datagrams");
        let bound = UnixDatagram::bind(&datagrams).unwrap();
        assert_eq!(on(&datagrams), Listening::Yes);
        drop(bound);
        assert_eq!(on(&datagrams), Listening::No);
    }

    /// A stopped program: nobody takes the connections. The answer must come at once, also when the queue is full.
    #[test]
    fn a_full_queue_is_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let address = SocketAddrUnix::new(&path).unwrap();
        let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let flags = SocketFlags::NONBLOCK;
            let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
            match connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(error) => {
                    assert_eq!(error, Errno::AGAIN);
                    break;
                }
            }
            assert!(waiting.len() < 100, "the queue is never full");
        }
        let began = Instant::now();
        assert_eq!(on(&path), Listening::Yes);
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_path_that_is_too_long_for_an_address_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let (short, path) = (folder.path().join("s"), deep.join("s"));
        let _listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, &path).unwrap();
        assert_eq!(on(&path), Listening::Yes);
    }
}
