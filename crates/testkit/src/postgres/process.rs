//! One postmaster as a child of this process.
//!
//! `postgres` is started directly and not by `pg_ctl`, for two reasons. The exit status of a server that ends by itself
//! (a recovery that misses its target) can be read. And the server stays in the process group of the test, so that a
//! test runner that kills the group after a timeout leaves nothing running.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{KitError, Result, describe};

/// The postmaster's own status in `postmaster.pid`, line 8 (`LOCK_FILE_LINE_PM_STATUS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Starting,
    /// Standby mode, not yet consistent: no connections.
    Standby,
    Ready,
    Stopping,
    Unknown,
}

#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    exited: Option<ExitStatus>,
}

impl Postmaster {
    pub(super) fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(KitError::io(format!("open {}", log.display())))?;
        let errors = output.try_clone().map_err(KitError::io(format!("open {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().map_err(KitError::io(format!("start `{}`", describe(&command))))?;
        Ok(Self { child, exited: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if the postmaster has ended.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
        }
        self.exited
    }

    /// Sends a signal. It is not an error if the postmaster has ended already.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.exited().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    pub(super) async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            if start.elapsed() > limit {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the server at once and waits for it. Used by drop, which cannot await.
    pub(super) fn end(&mut self) {
        self.signal(Signal::QUIT);
        let start = Instant::now();
        while self.exited().is_none() {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The status of the server with this process id over a data directory; `Unknown` until the server has written one.
pub(super) fn status(data: &Path, pid: u32) -> Status {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return Status::Unknown };
    let mut lines = text.lines();
    if lines.next().and_then(|line| line.trim().parse().ok()) != Some(pid) {
        return Status::Unknown;
    }
    match lines.nth(6).map(str::trim) {
        Some("starting") => Status::Starting,
        Some("standby") => Status::Standby,
        Some("ready") => Status::Ready,
        Some("stopping") => Status::Stopping,
        _ => Status::Unknown,
    }
}

/// Waits until the children of a killed postmaster have ended: they hold the shared memory that the next start needs.
///
/// They end by themselves when they notice the loss (`PostmasterIsAlive`). The kit recognises a child by its name and
/// by its working directory, which is the data directory.
pub(super) async fn orphans_gone(data: &Path, limit: Duration) -> bool {
    let Ok(data) = data.canonicalize() else { return true };
    let start = Instant::now();
    loop {
        let alive = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            .any(|entry| {
                fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data)
                    && fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "postgres")
            });
        if !alive {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
