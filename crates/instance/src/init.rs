//! PID 1: passes signals on to its only child, the manager, and reaps orphaned processes.
//!
//! The manager waits for its children by their ids (`tokio::process`), so it cannot also reap every process: that would
//! take the exit status of a postmaster from its parent. So PID 1 is this loop, and the manager is its child. When the
//! manager ends, PID 1 ends with its status, and the kernel ends the rest of the container. When the manager hangs
//! while PostgreSQL could take writes, PID 1 ends too: see [`crate::watchdog`].

use crate::error::{Error, Result};
use crate::watchdog::{Feed, Watchdog};
use holdfast_contract::exit_code;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use std::ffi::OsString;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Environment variable that tells the child that it is the manager.
const CHILD: &str = "HOLDFAST_INSTANCE_CHILD";
/// A stopping manager must report at least this often; it reports about every two seconds.
const SPEAKS_WITHIN: Duration = Duration::from_secs(20);

/// Whether this process must act as the init of its container.
pub fn is_init() -> bool {
    rustix::process::getpid().is_init() && std::env::var_os(CHILD).is_none()
}

/// The connection to the watchdog in PID 1; one without effect if this process is not its child.
///
/// # Errors
/// When the file descriptors cannot be created.
pub fn feed() -> Result<Feed> {
    if std::env::var_os(CHILD).is_none() {
        return Ok(Feed::default());
    }
    Feed::of_stdin().map_err(|error| Error::stuck(format!("cannot reach the watchdog in PID 1: {error}")))
}

/// Runs the same command again as a child and looks after it; returns the exit code for the container.
///
/// # Errors
/// When the child cannot be started, or signals cannot be received.
pub fn run(words: &[OsString]) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::stuck(format!("the runtime cannot be started: {error}")))?;
    runtime.block_on(look_after(words))
}

async fn look_after(words: &[OsString]) -> Result<u8> {
    let listen = |kind| signal(kind).map_err(|error| Error::stuck(format!("cannot listen for signals: {error}")));
    let mut children = listen(SignalKind::child())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let program = std::env::current_exe()
        .map_err(|error| Error::stuck(format!("the path of this program cannot be found: {error}")))?;
    let (mut watchdog, stdin) =
        Watchdog::new().map_err(|error| Error::stuck(format!("the watchdog cannot be started: {error}")))?;
    // From the standard library and not from tokio: this process reaps it itself.
    let child = Command::new(program)
        .args(words)
        .env(CHILD, "1")
        .stdin(stdin)
        .spawn()
        .map_err(|error| Error::stuck(format!("the instance manager cannot be started: {error}")))?;
    let manager = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    loop {
        let passed_on = tokio::select! {
            _ = children.recv() => None,
            _ = terminate.recv() => Some(Signal::TERM),
            _ = interrupt.recv() => Some(Signal::TERM),
            _ = hangup.recv() => Some(Signal::HUP),
            () = watchdog.silence() => {
                tracing::error!(
                    "the instance manager hangs: PID 1 did not hear in time that the manager is alive and that \
                     PostgreSQL may keep running; it ends this container now"
                );
                return Ok(exit_code::CONTAINER_FAILED);
            }
        };
        if passed_on == Some(Signal::TERM) {
            watchdog.expect_words(SPEAKS_WITHIN);
        }
        if let (Some(signal), Some(manager)) = (passed_on, manager) {
            // It has not been reaped yet, or the loop would have ended: so the process id is still its own.
            let _ = kill_process(manager, signal);
        }
        if let Some(status) = reap(manager) {
            return Ok(status);
        }
    }
}

/// Reaps everything that has ended; returns the manager's exit code if it has ended too.
fn reap(manager: Option<Pid>) -> Option<u8> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == manager => {
                use std::os::unix::process::ExitStatusExt as _;
                let status = ExitStatus::from_raw(status.as_raw());
                return Some(exit_code::of_process(status.code(), status.signal()));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}
