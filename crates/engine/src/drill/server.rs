//! The server over the restored directory: it is started as a child, queried through its own socket, and always
//! stopped.
//!
//! It has its own process group, so that a signal from the terminal does not stop it before the drill does. If its
//! value is dropped without a clean shutdown, the server is stopped immediately.

use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::Bounds;
use super::directory::{PORT, ThrowAway};
use super::programs::Programs;
use super::settings;
use crate::error::{Cause, Error};

/// The interval at which the server is checked. It is part of the measured durations.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The time limit for a fast shutdown: its checkpoint writes at most the shared buffers.
const STOP_WITHIN: Duration = Duration::from_mins(5);

/// The time limit for an immediate shutdown. The server kills its own processes after 5 seconds.
const END_WITHIN: Duration = Duration::from_secs(15);

/// The number of log lines in a finding.
const LOG_LINES: usize = 12;

/// PostgreSQL's words for the end of `restore_command`, as in `wait_result_to_str`.
const COMMAND_ENDED: &str = "child process exited with exit code ";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

/// Why there is no server.
#[derive(Debug)]
pub(super) enum Down {
    /// It ended by itself.
    Ended {
        /// Its exit status or signal, and the end of its log.
        what: String,
        /// The status of a `restore_command` that stopped recovery.
        command: Option<u8>,
    },
    /// The time limit is over.
    TooLong,
    /// The drill was cancelled, or the server refuses this role.
    Failed(Error),
}

/// How to connect to the server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) socket: PathBuf,
    pub(super) role: String,
}

impl Access {
    /// Opens a session in a database.
    pub(super) async fn connect(&self, database: &str, read_only: bool) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket).port(PORT).user(&self.role).dbname(database).application_name("holdfast");
        config.options(settings::session(read_only)).connect_timeout(Duration::from_secs(10));
        let (client, connection) = config.connect(NoTls).await?;
        // The task ends with the client. If the connection fails, the next query fails.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session of the drill ended");
            }
        });
        Ok(client)
    }
}

impl Server {
    /// Starts the server as a child process.
    pub(super) fn start(
        programs: &Programs,
        directory: &ThrowAway,
        settings: &[(String, String)],
        environment: &[(String, String)],
        owner: Option<(u32, u32)>,
    ) -> Result<Self, Error> {
        let log = directory.file("server.log");
        let output =
            OpenOptions::new().create_new(true).append(true).open(&log).map_err(|e| Error::file("create", &log, e))?;
        let errors = output.try_clone().map_err(|e| Error::file("create", &log, e))?;
        let mut command = programs.command("postgres");
        command.arg("-D").arg(directory.pgdata());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(output).stderr(errors).process_group(0);
        as_owner(&mut command, owner);
        let child = command.spawn().map_err(|e| Error::file("run", &programs.folder().join("postgres"), e))?;
        Ok(Self { child, ended: None, log })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    fn signal(&mut self, signal: Signal) {
        // Before the child is waited for, no other process can have its process id.
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::warn!(?signal, %error, "the server of the drill could not be signalled");
        }
    }

    /// Waits until recovery has ended and a session is open.
    pub(super) async fn ready(&mut self, access: &Access, database: &str, bounds: &Bounds) -> Result<Client, Down> {
        loop {
            if let Some(status) = self.ended() {
                return Err(self.why(status));
            }
            if bounds.is_cancelled() {
                return Err(Down::Failed(Cause::Cancelled.into()));
            }
            if bounds.is_over() {
                return Err(Down::TooLong);
            }
            match access.connect(database, true).await {
                Ok(client) => return Ok(client),
                // Recovery is not over, or the server is shutting down.
                Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) || error.as_db_error().is_none() => {}
                Err(error) => {
                    let role = &access.role;
                    let phrase = format!("connecting to the restored server as {role} in the database {database}");
                    return Err(Down::Failed(Error::from(error).doing(phrase)));
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The reason why the server ended, with the end of its log.
    fn why(&self, status: ExitStatus) -> Down {
        let log = self.log_end();
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with status {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        Down::Ended { command: command_status(&log), what: format!("{end}; its log ends with:\n{log}") }
    }

    /// The reason why the server has ended by itself; `None` if it is running.
    pub(super) fn gone(&mut self) -> Option<String> {
        let status = self.ended()?;
        match self.why(status) {
            Down::Ended { what, .. } => Some(what),
            Down::TooLong | Down::Failed(_) => None,
        }
    }

    /// As [`Self::gone`], but waits for a server that seems to be ending.
    pub(super) async fn gone_soon(&mut self) -> Option<String> {
        self.wait(END_WITHIN).await;
        self.gone()
    }

    /// The last lines of its log.
    fn log_end(&self) -> String {
        last_lines(&self.log, LOG_LINES)
    }

    /// Stops the server with a fast shutdown, and immediately if that takes too long. The error is the reason why the
    /// shutdown was not clean.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::INT);
        match self.wait(STOP_WITHIN).await {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.gone().unwrap_or_default()),
            None => {
                self.signal(Signal::QUIT);
                self.wait(END_WITHIN).await;
                Err(format!("it did not stop within {STOP_WITHIN:?}; its log ends with:\n{}", self.log_end()))
            }
        }
    }

    /// Stops the server immediately: its data is no longer needed.
    pub(super) async fn end(mut self) {
        self.signal(Signal::QUIT);
        self.wait(END_WITHIN).await;
    }

    async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        while self.ended().is_none() && began.elapsed() < limit {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.ended
    }
}

impl Drop for Server {
    /// Stops the server of an interrupted drill. It waits for the end, since the directory is removed next.
    fn drop(&mut self) {
        self.signal(Signal::QUIT);
        let began = std::time::Instant::now();
        while self.ended().is_none() && began.elapsed() < END_WITHIN {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Makes a command run as the owner of the directory: PostgreSQL refuses to run as root.
pub(super) fn as_owner(command: &mut std::process::Command, owner: Option<(u32, u32)>) {
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
}

/// The last lines of a file.
pub(super) fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}

/// The status of the `restore_command` that stopped recovery, minus the 128 by which it stops recovery.
fn command_status(log: &str) -> Option<u8> {
    let after = log.rsplit_once(COMMAND_ENDED)?.1;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<u8>().ok()?.checked_sub(128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_the_command_is_found_in_the_log() {
        let log = "FATAL:  could not restore file \"000000010000000000000005\" from archive: child process exited with \
                   exit code 152\nLOG:  startup process (PID 7) exited with exit code 1";
        assert_eq!(command_status(log), Some(24));
        assert_eq!(command_status("child process exited with exit code 1"), None);
        assert_eq!(command_status("LOG:  shutting down"), None);
    }
}
