//! The kubelet's probes: `holdfast instance probe ...` asks the manager over its socket.
//!
//! - startup and liveness: the manager answers. A recovery may take hours and must not be killed for that, and neither
//!   must an instance that waits for a person.
//! - readiness: PostgreSQL accepts connections in its role, and a standby has not diverged.

use crate::identity::Paths;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The kinds of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether the manager has started.
    Startup,
    /// Whether the manager answers.
    Liveness,
    /// Whether clients may connect to PostgreSQL here.
    Readiness,
}

impl Probe {
    /// The path of the request on the socket.
    pub fn path(self) -> &'static str {
        match self {
            Self::Startup => "/startup",
            Self::Liveness => "/liveness",
            Self::Readiness => "/readiness",
        }
    }
}

/// Asks the manager.
///
/// # Errors
/// When the answer is no, or there is no answer; the text says why.
pub fn ask(paths: &Paths, probe: Probe) -> Result<(), String> {
    let socket = paths.control_socket();
    let failed =
        |error: std::io::Error| format!("the instance manager does not answer at {}: {error}", socket.display());
    let mut stream = UnixStream::connect(&socket).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).map_err(failed)?;
    let request = format!("GET {} HTTP/1.1\r\nHost: manager\r\nConnection: close\r\n\r\n", probe.path());
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(body.trim().to_owned()) }
}
