//! The agent's socket, in the cluster's folder of the spool, which is closed to other users.
//!
//! The socket is made beside its place and renamed, so that a client finds a listening one or none. A lock on a file
//! beside it, which ends with the process, keeps two agents apart. A socket on standard input is used instead: systemd
//! gives one (`StandardInput=socket`), and so does an agent to the program that replaces it, so that no client finds the
//! socket closed meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use holdfast_engine::archive::Spool;

/// The name of the socket.
const SOCKET: &str = "agent.sock";

/// The name of the lock.
const LOCK: &str = "agent.lock";

/// Why an agent cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent of this cluster runs.
    #[error("another agent of this cluster runs on this machine: it holds the lock on {}", .0.display())]
    Taken(PathBuf),
    /// A file cannot be made.
    #[error("cannot make {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// A listening socket, and the lock that belongs to it.
#[derive(Debug)]
pub struct Listening {
    pub(crate) listener: UnixListener,
    /// Where it is.
    pub path: PathBuf,
    _lock: File,
}

/// The path of the socket of a cluster's agent.
pub(crate) fn socket_path(spool: &Spool) -> PathBuf {
    spool.folder().join(SOCKET)
}

/// Listens for this cluster. Blocks.
///
/// # Errors
/// If another agent runs, or the files cannot be made.
pub fn listen(spool: &Spool) -> Result<Listening, SocketError> {
    let lock_path = spool.folder().join(LOCK);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::Io { path, source }
    };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&lock_path).map_err(io(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(SocketError::Taken(lock_path)),
        Err(std::fs::TryLockError::Error(source)) => return Err(io(&lock_path)(source)),
    }
    let path = socket_path(spool);
    let listener = match inherited() {
        Some(listener) => listener,
        None => bind(&path).map_err(io(&path))?,
    };
    listener.set_nonblocking(true).map_err(io(&path))?;
    Ok(Listening { listener, path, _lock: lock })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let aside = path.with_extension("new");
    drop(std::fs::remove_file(&aside));
    let listener = UnixListener::bind(&aside)?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

/// The listening socket on standard input, if there is one.
fn inherited() -> Option<UnixListener> {
    let stdin = io::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false);
    listens.then(|| stdin.as_fd().try_clone_to_owned().ok().map(UnixListener::from)).flatten()
}
