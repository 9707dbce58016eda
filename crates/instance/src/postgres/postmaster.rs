//! The server as a child of the manager.
//!
//! A task waits for its end and reports it through a channel, so that every reader knows at once whether it runs.
//! Signals are sent only until it was waited for: until then its process id cannot belong to another process.

use super::Programs;
use crate::error::{Error, Result};
use crate::identity::Paths;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::ChildStderr;
use tokio::sync::watch;

/// How to stop the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Accept no new sessions, and wait until those that exist have ended (`SIGTERM`).
    Smart,
    /// Roll back, checkpoint, archive and stream everything (`SIGINT`).
    Fast,
    /// At once, as after a crash (`SIGQUIT`).
    Immediate,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub ExitStatus);

/// A running server.
#[derive(Debug, Clone)]
pub struct Postmaster {
    pid: Arc<Mutex<Option<Pid>>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Postmaster {
    /// Starts the server on the data directory with these additional settings, and returns its stderr.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn start(programs: &Programs, paths: &Paths, settings: &[(&str, String)]) -> Result<(Self, ChildStderr)> {
        let mut command = programs.command("postgres");
        command.arg("-D").arg(&paths.pgdata);
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // The server must continue when the manager's handle is dropped: only signals end it.
        command.kill_on_drop(false).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A process group of its own: a signal to the manager's group must not end the server.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| Error::retry(format!("cannot run postgres: {error}")))?;
        let number = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let stderr = child.stderr.take().ok_or_else(|| Error::retry("the server has no stderr"))?;
        let pid = Arc::new(Mutex::new(number));
        let (sender, exit) = watch::channel(None);
        let reaped = Arc::clone(&pid);
        tokio::spawn(async move {
            let status = child.wait().await;
            *reaped.lock() = None;
            if let Ok(status) = status {
                sender.send_replace(Some(Exit(status)));
            }
        });
        Ok((Self { pid, exit }, stderr))
    }

    /// Its exit status, if it has ended.
    pub fn exited(&self) -> Option<Exit> {
        match self.exit.has_changed() {
            // The waiting task is gone, so the server is too.
            Err(_) => Some(self.exit.borrow().unwrap_or(Exit(ExitStatus::default()))),
            Ok(_) => *self.exit.borrow(),
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let pid = *self.pid.lock();
        pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok())
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid.lock();
        if let Some(pid) = *pid
            && let Err(errno) = rustix::process::kill_process(pid, signal)
        {
            tracing::warn!(?signal, %errno, "a signal could not be sent to the server");
        }
    }

    /// Makes the server read its settings again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Requests the server to stop.
    pub fn stop(&self, mode: StopMode) {
        self.signal(match mode {
            StopMode::Smart => Signal::TERM,
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        });
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit(ExitStatus::default())),
            Err(_) => Exit(ExitStatus::default()),
        }
    }

    /// Stops it in order, and immediately if that takes longer than the limit.
    pub async fn stop_within(&self, limit: Duration) -> Exit {
        self.stop(StopMode::Fast);
        if let Ok(exit) = tokio::time::timeout(limit, self.ended()).await {
            return exit;
        }
        tracing::warn!(seconds = limit.as_secs(), "the server did not stop in time: stopping it immediately");
        self.stop(StopMode::Immediate);
        self.ended().await
    }
}
