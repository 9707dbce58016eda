//! The agent's socket, in the cluster's folder of the spool, which is closed to other users.
//!
//! The socket is made beside its place and renamed, so that a client finds a listening one or none. A lock on a file
//! beside it, which ends with the process, keeps two agents apart. A socket on standard input is used instead: systemd
//! gives one (`StandardInput=socket`), and so does an agent to the program that replaces it, so that no client finds
//! the socket closed meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use holdfast_engine::archive::Spool;

/// The name of the socket.
const SOCKET: &str = "agent.sock";

/// The ending of the socket's name until it listens.
const ASIDE: &str = "new";

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
        Some((_, at)) if at.as_deref() != Some(&path) => {
            let at = at.unwrap_or_default();
            tracing::warn!(socket = %at.display(), wanted = %path.display(), "the socket on standard input is not where \
                the commands of this configuration look for it: another one is made; correct `ListenStream`");
            bind(&path).map_err(io(&path))?
        }
        Some((listener, _)) => listener,
        None => bind(&path).map_err(io(&path))?,
    };
    listener.set_nonblocking(true).map_err(io(&path))?;
    Ok(Listening { listener, path, _lock: lock })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let aside = path.with_extension(ASIDE);
    drop(std::fs::remove_file(&aside));
    let listener = UnixListener::bind(&aside)?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

/// The listening socket on standard input, if there is one, and its path.
fn inherited() -> Option<(UnixListener, Option<PathBuf>)> {
    let stdin = io::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false);
    let listener = listens.then(|| stdin.as_fd().try_clone_to_owned().ok().map(UnixListener::from)).flatten()?;
    let at = listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
    // An agent makes its socket beside its place and renames it.
    let at = at.map(|at| if at.extension().is_some_and(|end| end == ASIDE) { at.with_extension("sock") } else { at });
    Some((listener, at))
}
