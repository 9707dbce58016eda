//! The server while only the manager may connect: on the Unix socket, without archiving.

use super::Bootstrap;
use crate::error::{Error, Result};
use crate::logs;
use crate::postgres::{Postmaster, Sql, end_leftover};
use crate::settings::{access, postgresql};
use crate::state::StartedServer;
use crate::volume::{protect, write_if_changed};
use holdfast_kube_api::status_port::Role;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The time between two checks.
const POLL: Duration = Duration::from_millis(50);
/// An orderly stop of a server without users writes one checkpoint, which may be large after a recovery.
const STOP_WITHIN: Duration = Duration::from_mins(10);

impl Bootstrap<'_> {
    /// Writes settings and access rules for an isolated start.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn write_isolated_files(&self) -> Result<()> {
        let pgdata = &self.paths.pgdata;
        protect(pgdata)?;
        let text = postgresql::text(&self.cluster.spec, &self.identity.instance, self.paths, &self.wire()?);
        write_if_changed(&pgdata.join("postgresql.conf"), text.as_bytes(), 0o600)?;
        let hba = access::isolated_hba(self.operating_user);
        write_if_changed(&pgdata.join("pg_hba.conf"), hba.as_bytes(), 0o600)?;
        let ident = access::ident(&self.cluster.spec, self.operating_user);
        write_if_changed(&pgdata.join("pg_ident.conf"), ident.as_bytes(), 0o600)?;
        Ok(())
    }

    /// Starts the server with these additional settings.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_isolated(&self, more: &[(&str, String)]) -> Result<StartedServer> {
        end_leftover(&self.paths.pgdata).await?;
        let mut settings: Vec<(&str, String)> = vec![
            ("listen_addresses", String::new()),
            ("archive_mode", "off".to_owned()),
            ("ssl", "off".to_owned()),
            // No code of the application runs before its database exists: a library may need the database.
            ("max_logical_replication_workers", "0".to_owned()),
            ("synchronous_standby_names", String::new()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, value.clone())));
        let (postmaster, stderr) = Postmaster::start(self.programs, self.paths, &settings)?;
        let served = StartedServer {
            postmaster,
            started_as: Role::Primary,
            isolated: true,
            last_fatal: Arc::new(Mutex::new(None)),
        };
        tokio::spawn(logs::follow(stderr, self.state.errors.clone(), Arc::clone(&served.last_fatal)));
        self.state.set_server(Some(served.clone()));
        Ok(served)
    }

    /// Waits until it accepts connections.
    ///
    /// # Errors
    /// When it ends before that; the error has its last messages.
    pub async fn isolated_ready(&self, served: &StartedServer) -> Result<()> {
        loop {
            if let Some(exit) = served.postmaster.exited() {
                // Another task reads the log, and may be a little late.
                tokio::time::sleep(POLL).await;
                return Err(ended(served, exit.0));
            }
            if self.stop.is_cancelled() {
                self.stop_isolated(served).await;
                return Err(Error::cancelled());
            }
            if Sql::connect(self.paths, "postgres").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops it in order.
    pub async fn stop_isolated(&self, served: &StartedServer) {
        served.postmaster.stop_within(STOP_WITHIN).await;
        self.state.set_server(None);
    }
}

/// The error of a server that ended by itself.
pub(crate) fn ended(served: &StartedServer, status: std::process::ExitStatus) -> Error {
    let said = served.last_fatal.lock().clone();
    match said {
        Some(said) => Error::stuck(format!("PostgreSQL ended: {said}")),
        None => Error::stuck(format!("PostgreSQL ended with {status}")),
    }
    .hint("see PostgreSQL's messages in the log of the pod")
}
