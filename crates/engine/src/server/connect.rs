//! Opening a connection: by the configured string, or found through `postmaster.pid`.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls};

use crate::error::{Doing, Error, What};

/// How to reach the server.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// A connection string as libpq takes it; without one the server's `postmaster.pid` tells port
    /// and socket directory, and the user is `postgres`.
    pub connection: Option<String>,
    /// The data directory.
    pub pgdata: PathBuf,
}

/// An open connection; the server ends a running backup by itself when it closes.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

/// What a running server writes to `postmaster.pid` (`src/include/utils/pidfile.h`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostmasterPid {
    /// The postmaster's process.
    pub pid: i32,
    /// TCP port, which also names the socket.
    pub port: Option<u16>,
    /// Directory of the Unix socket, where there is one.
    pub socket_directory: Option<String>,
}

impl PostmasterPid {
    /// Reads `postmaster.pid` of a data directory; `None` when there is none.
    pub fn read(pgdata: &Path) -> Result<Option<Self>, Error> {
        let path = pgdata.join("postmaster.pid");
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::file("read", &path, e)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        // The pid of a standalone backend is negative.
        let pid = lines.next()?.trim().parse::<i32>().ok()?.checked_abs()?;
        let mut rest = lines.skip(2);
        let port = rest.next().and_then(|line| line.trim().parse().ok());
        let socket_directory = rest.next().map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned);
        Some(Self { pid, port, socket_directory })
    }

    /// Whether that process is alive. A process of another user counts as alive.
    pub fn is_alive(&self) -> bool {
        rustix::process::Pid::from_raw(self.pid)
            .is_some_and(|pid| !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
    }
}

impl Connection {
    /// Connects and prepares the session for hours of silence.
    pub async fn open(settings: &ConnectionSettings) -> Result<Self, Error> {
        let (mut config, described) = settings.resolve()?;
        if matches!(config.get_ssl_mode(), SslMode::Require) {
            return Err(What::Connection(
                "cluster.connection asks for TLS, which is not supported: use the Unix socket".to_owned(),
            )
            .into());
        }
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name("holdfast");
        }
        let (client, connection) =
            config.connect(NoTls).await.doing(|| format!("connecting to PostgreSQL ({described})"))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // The statement that needed the connection reports it; this is for the log.
                tracing::debug!(%error, "the connection to PostgreSQL ended");
            }
        });
        let open = Self { client, driver };
        // A backup's session is idle while files are copied; no time limit may end it meanwhile.
        open.client
            .batch_execute(
                "SET statement_timeout = 0; SET lock_timeout = 0; \
                 SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; \
                 SET client_encoding = 'UTF8'; SET datestyle = 'ISO, MDY'",
            )
            .await
            .doing(|| "preparing the session".to_owned())?;
        Ok(open)
    }

    /// The client, for statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks the server to end the running statement, such as a `pg_backup_start` that waits for a
    /// checkpoint.
    pub async fn cancel_statement(&self) {
        if let Err(error) = self.client.cancel_token().cancel_query(NoTls).await {
            tracing::debug!(%error, "the running statement could not be cancelled");
        }
    }

    /// Closes the connection and waits until it is gone.
    pub async fn close(self) {
        let Self { client, driver } = self;
        drop(client);
        // The driver ends by itself once the client is gone; its outcome was logged there.
        drop(driver.await);
    }
}

impl ConnectionSettings {
    fn resolve(&self) -> Result<(tokio_postgres::Config, String), Error> {
        if let Some(text) = &self.connection {
            let config: tokio_postgres::Config = text
                .parse()
                .map_err(|e: tokio_postgres::Error| What::Connection(format!("cannot use cluster.connection: {e}")))?;
            return Ok((config, "cluster.connection".to_owned()));
        }
        let Some(postmaster) = PostmasterPid::read(&self.pgdata)? else {
            return Err(What::Connection(format!(
                "no server runs in {}: there is no postmaster.pid",
                self.pgdata.display()
            ))
            .into());
        };
        let host = postmaster.socket_directory.unwrap_or_else(|| "127.0.0.1".to_owned());
        let mut config = tokio_postgres::Config::new();
        if host.starts_with('/') {
            config.host_path(&host);
        } else {
            config.host(&host);
        }
        let port = postmaster.port.unwrap_or(5432);
        config.port(port).user("postgres").dbname("postgres");
        Ok((config, format!("{host}, port {port}, found in postmaster.pid")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmaster_pid_gives_port_and_socket() {
        let text = "4711\n/srv/pg\n1795000000\n5433\n/run/postgresql\nlocalhost\n  123 456\nready   \n";
        assert_eq!(
            PostmasterPid::parse(text),
            Some(PostmasterPid { pid: 4711, port: Some(5433), socket_directory: Some("/run/postgresql".to_owned()) })
        );
    }

    #[test]
    fn an_early_postmaster_pid_has_the_process_only() {
        assert_eq!(PostmasterPid::parse("12\n"), Some(PostmasterPid { pid: 12, port: None, socket_directory: None }));
        assert_eq!(PostmasterPid::parse(""), None);
    }
}
