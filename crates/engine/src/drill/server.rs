//! The server of the restored directory. It is started as a child, queried through its own socket, and always stopped.
//!
//! It has its own process group, so that a signal from the terminal does not stop it before the drill does. If its
//! value is dropped without a clean shutdown, the server is stopped immediately.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use holdfast_pgtypes::PgVersion;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls};

use super::bounds::{Bounds, EarlyEnd};
use super::directory::{PORT, ThrowAway};
use super::faults::{self, StoppedBy};
use super::log::Log;
use super::programs::Programs;
use super::refused::{self, Refused};
use super::settings;
use crate::error::Error;

/// The interval at which the server is checked. It is part of the measured durations.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest interval between two checks of a long recovery: the server logs each check.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// An orderly stop may take at least this long: its checkpoint writes at most the shared buffers. After that, the time
/// limit of the drill applies.
const STOP_AT_LEAST: Duration = Duration::from_mins(5);

/// The time limit for an immediate shutdown. The server kills its own processes after 5 seconds.
const END_WITHIN: Duration = Duration::from_secs(15);

/// The number of log lines in a finding.
const LOG_LINES: usize = 12;

/// If memory is short, the kernel ends this server first: the production server may be on the same host.
const OOM_SCORE: &str = "1000";

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    ended: Option<ExitStatus>,
    log: Log,
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Down {
    /// The server ended by itself.
    Ended(Ended),
    /// The server runs, but something that it reads to open a session is damaged.
    Shut(String),
    /// The drill must end now.
    EarlyEnd(EarlyEnd),
    /// The server refuses this role, or the host has no room for a session.
    Failed(Error),
}

/// How a server ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its status and the end of its log, as text for people.
    pub(super) what: String,
    /// The fault of the host that ended it. Then this says nothing about the backup.
    pub(super) fault: Option<Error>,
}

/// How the server was stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// Everything is on disk.
    Orderly,
    /// It ended in another way.
    Ended(Ended),
    /// The time was over. This is the end of its log.
    Late(String),
    /// The drill was cancelled.
    Cancelled,
}

/// How to connect to the server.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) socket: PathBuf,
    pub(super) role: String,
    pub(super) version: PgVersion,
}

impl Access {
    /// Opens a session in a database.
    pub(super) async fn connect(&self, database: &str, read_only: bool) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(&self.socket).port(PORT).user(&self.role).dbname(database).application_name("holdfast");
        config.options(settings::session(self.version, read_only)).connect_timeout(Duration::from_secs(10));
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
        let path = directory.file("server.log");
        let log = Log::create(&path)?;
        let (output, errors) = (log.output(&path)?, log.output(&path)?);
        let mut command = programs.command("postgres");
        command.arg("-D").arg(directory.pgdata());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdout(output).stderr(errors).process_group(0);
        as_owner(&mut command, owner);
        let child = command.spawn().map_err(|e| Error::file("run", &programs.folder().join("postgres"), e))?;
        // The server's processes inherit this. On a kernel without it, there is only no order.
        if let Err(error) = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), OOM_SCORE) {
            tracing::debug!(%error, "the kernel does not let the server of the drill go first");
        }
        Ok(Self { child, ended: None, log })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    fn signal(&mut self, signal: Signal) {
        // Until the child is waited for, no other process can have its process id.
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::warn!(?signal, %error, "the server of the drill could not be signalled");
        }
    }

    /// Waits until recovery has ended and a session is open.
    pub(super) async fn ready(&mut self, access: &Access, database: &str, bounds: &Bounds) -> Result<Client, Down> {
        let began = Instant::now();
        loop {
            if let Some(ended) = self.gone() {
                return Err(Down::Ended(ended));
            }
            let answer = bounds.within(access.connect(database, true)).await.map_err(Down::EarlyEnd)?;
            let error = match answer {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            match refused::judge(&error) {
                // Recovery is not over, or the server is shutting down.
                Refused::Ending => {}
                Refused::Damaged(what) => return Err(Down::Shut(what)),
                Refused::Host(error) => return Err(Down::Failed(error)),
                Refused::Role => {
                    let role = &access.role;
                    let phrase = format!("connecting to the restored server as {role} in the database {database}");
                    return Err(Down::Failed(Error::from(error).doing(phrase)));
                }
            }
            // So the measured time is exact to a hundredth.
            let pause = (began.elapsed() / 100).clamp(LOOK_EVERY, LOOK_AT_LEAST_EVERY);
            bounds.within(tokio::time::sleep(pause)).await.map_err(Down::EarlyEnd)?;
        }
    }

    /// The reason why the server ended, with the end of its log.
    fn why(&self, status: ExitStatus, stopped_by: StoppedBy) -> Ended {
        let log = self.log.last_lines(LOG_LINES);
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with status {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        };
        let fault = faults::of_end(status, &log, stopped_by).map(Error::from);
        Ended { what: format!("{end}; its log ends with:\n{log}"), fault }
    }

    /// How the server ended, if it has ended by itself.
    pub(super) fn gone(&mut self) -> Option<Ended> {
        let status = self.ended()?;
        Some(self.why(status, StoppedBy::Other))
    }

    /// As [`Self::gone`], but waits for a server that seems to be ending.
    pub(super) async fn gone_soon(&mut self) -> Option<Ended> {
        self.wait(END_WITHIN).await;
        self.gone()
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// Stops the server with a checkpoint. If the time is over meanwhile, stops it immediately.
    pub(super) async fn stop(mut self, bounds: &Bounds) -> Stopped {
        self.signal(Signal::INT);
        let began = Instant::now();
        loop {
            match self.ended() {
                Some(status) if status.success() => return Stopped::Orderly,
                Some(status) => return Stopped::Ended(self.why(status, StoppedBy::Drill)),
                None => {}
            }
            let is_late = bounds.is_over() && began.elapsed() >= STOP_AT_LEAST;
            if is_late || bounds.is_cancelled() {
                self.signal(Signal::QUIT);
                self.wait(END_WITHIN).await;
                return if is_late { Stopped::Late(self.log.last_lines(LOG_LINES)) } else { Stopped::Cancelled };
            }
            tokio::time::sleep(LOOK_EVERY).await;
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
