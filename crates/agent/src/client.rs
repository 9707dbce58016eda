//! The thin client: one question to the agent, without a runtime, a store or a key.
//!
//! The agent is asked only over a socket in a folder that belongs to this user alone, and only if this user or root
//! listens there: its answers are believed. If there is no agent, if it is silent for [`SILENT_FOR`], or if it
//! declines, the caller does the work itself. A silent agent (stopped, or out of memory) is not asked again for
//! [`NOT_ASKED_FOR`].

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use holdfast_contract::agent::{Answer, Ask, PROTOCOL, Request};
use holdfast_engine::archive::Spool;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::socket::socket_path;

/// How long an agent may be silent: five times the interval of [`Answer::Working`].
const SILENT_FOR: Duration = Duration::from_secs(5);

/// How long a silent agent is not asked again: PostgreSQL would wait for each segment.
const NOT_ASKED_FOR: Duration = Duration::from_mins(1);

/// The note that the agent was silent.
const SILENT: &str = "agent.silent";

/// What became of a question.
#[derive(Debug)]
pub enum Reply {
    /// The agent answered. It keeps what the answer names until this value is dropped.
    Answered(Box<Conversation>),
    /// The caller does it itself, for this reason; `None` if there is no agent.
    Alone(Option<String>),
}

/// An answer, with the connection that it came over.
#[derive(Debug)]
pub struct Conversation {
    /// The answer: never `Working` or `Declined`.
    pub answer: Answer,
    _stream: BufReader<UnixStream>,
}

/// Asks the agent of a cluster. With `patience` the caller does the work itself if there is no answer after this time,
/// although the agent works on it.
pub fn ask(spool: &Spool, settings: String, request: Request, patience: Option<Duration>) -> Reply {
    let silent = spool.folder().join(SILENT);
    if is_recent(&silent) {
        return Reply::Alone(Some("the agent was silent a short time ago".to_owned()));
    }
    match converse(&socket_path(spool), &Ask { protocol: PROTOCOL, settings, request }, patience) {
        Ok(conversation) => match conversation.answer {
            Answer::Declined(reason) => Reply::Alone(Some(reason)),
            _ => Reply::Answered(Box::new(conversation)),
        },
        Err(error) if is_away(&error) => Reply::Alone(None),
        Err(error) => {
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                note_silence(&silent);
            }
            Reply::Alone(Some(format!("the agent did not answer: {error}")))
        }
    }
}

/// There is no agent, or it has just ended.
fn is_away(error: &io::Error) -> bool {
    // A path that is too long for a socket has no agent either.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
    )
}

fn converse(socket: &Path, ask: &Ask, patience: Option<Duration>) -> io::Result<Conversation> {
    let began = Instant::now();
    let stream = connect(socket)?;
    let mut line = serde_json::to_vec(ask)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(SILENT_FOR))?;
    stream.set_read_timeout(Some(SILENT_FOR))?;
    (&stream).write_all(&line)?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
        }
        match serde_json::from_str(&line)? {
            Answer::Working if patience.is_some_and(|patience| began.elapsed() > patience) => {
                return Err(io::Error::other("it takes too long"));
            }
            Answer::Working => {}
            answer => return Ok(Conversation { answer, _stream: stream }),
        }
    }
}

/// Connects without waiting: the queue of a stopped agent may be full.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket_fd: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket_fd, &SocketAddrUnix::new(socket)?)?;
    if !is_trusted(&socket_fd)? {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user listens there"));
    }
    let stream = UnixStream::from(socket_fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether the process at the other end belongs to this user, or to root. Root, who asks only how an agent is, trusts
/// every one.
pub(crate) fn is_trusted(socket: &impl AsFd) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?.uid;
    let own = rustix::process::geteuid();
    Ok(peer.is_root() || peer == own || own.is_root())
}

fn is_recent(note: &Path) -> bool {
    let written = std::fs::metadata(note).and_then(|metadata| metadata.modified());
    // A note from the future counts as old: the clock was set.
    written.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).is_some_and(|age| age < NOT_ASKED_FOR)
}

fn note_silence(note: &PathBuf) {
    // Without the note, the next call waits again.
    drop(std::fs::remove_file(note));
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(note));
}

/// Removes the note that an earlier agent was silent.
pub(crate) fn forget_silence(spool: &Spool) {
    drop(std::fs::remove_file(spool.folder().join(SILENT)));
}
