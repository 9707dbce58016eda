//! A postmaster that outlived its manager.
//!
//! In a pod nothing outlives PID 1. Outside of a pod, and after the manager alone was killed, the old postmaster still
//! writes into the directory. It is ended before anything else happens. A `postmaster.pid` without its postmaster is
//! removed: its number may belong to another process in this container by now, and PostgreSQL would refuse to start.

use crate::error::{Error, Result};
use rustix::process::{Pid, Signal};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A postmaster ends within moments after `SIGQUIT`, and so do its children.
const LIMIT: Duration = Duration::from_secs(30);

/// Ends a postmaster of this data directory that this manager did not start, and removes its files.
///
/// # Errors
/// When it does not end.
pub async fn end_leftover(pgdata: &Path) -> Result<()> {
    let file = pgdata.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&file) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok());
    if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.abs()))
        && works_in(pid, pgdata)
    {
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "stopping a postmaster that outlived its instance manager");
        // The process id was just seen to be a server in this directory.
        let _ = rustix::process::kill_process(pid, Signal::QUIT);
        let started = Instant::now();
        while works_in(pid, pgdata) {
            if started.elapsed() > LIMIT {
                return Err(Error::retry(format!("process {} does not end", pid.as_raw_nonzero()))
                    .doing("stopping a postmaster that outlived its manager"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    match fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", &file, &error)),
        _ => Ok(()),
    }
}

/// Whether a process is a server in this data directory: a server's working directory is its data directory.
fn works_in(pid: Pid, pgdata: &Path) -> bool {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let server = fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim().starts_with("postgres"));
    server && fs::read_link(process.join("cwd")).ok() == fs::canonicalize(pgdata).ok()
}
