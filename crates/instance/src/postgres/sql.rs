//! The manager's connection to its server, over the Unix socket.
//!
//! It is opened when it is needed, and kept. Nothing may wait for it without limit: every call has a time limit, and a
//! failed call drops the connection, so that the next one opens a new one.

use crate::error::{Error, Result};
use crate::identity::Paths;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

/// The time limit of the manager's short queries.
const LIMIT: Duration = Duration::from_secs(5);

/// The manager's connection.
#[derive(Debug)]
pub struct Sql {
    paths: Paths,
    client: Mutex<Option<Client>>,
}

impl Sql {
    /// A connection that is opened when it is needed.
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone(), client: Mutex::new(None) }
    }

    /// Opens another connection to a database, as superuser.
    ///
    /// # Errors
    /// When the server does not accept it.
    pub async fn connect(paths: &Paths, database: &str) -> Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&paths.sockets)
            .port(paths.port)
            .user("postgres")
            .dbname(database)
            .application_name("holdfast-instance")
            .connect_timeout(LIMIT);
        let opening = tokio::time::timeout(LIMIT, config.connect(NoTls));
        let (client, connection) = opening
            .await
            .map_err(|_| Error::retry("PostgreSQL does not answer"))?
            .map_err(|error| of_server(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        // The manager's commits must not wait for a standby, and its statements must not depend on a user's settings.
        client
            .batch_execute(
                "SET default_transaction_read_only = off; \
                 SET synchronous_commit = local; SET statement_timeout = 0; SET lock_timeout = 0; \
                 SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; SET datestyle = 'ISO, MDY'",
            )
            .await
            .map_err(|error| of_server(&error))?;
        Ok(client)
    }

    /// Rows of a statement.
    ///
    /// # Errors
    /// When the server does not answer within [`LIMIT`], or answers with an error.
    pub async fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let mut client = self.client.lock().await;
        let open = match client.take().filter(|client| !client.is_closed()) {
            Some(open) => open,
            None => Self::connect(&self.paths, "postgres").await?,
        };
        match tokio::time::timeout(LIMIT, open.query(statement, parameters)).await {
            Ok(Ok(rows)) => {
                *client = Some(open);
                Ok(rows)
            }
            Ok(Err(error)) => {
                if !open.is_closed() {
                    *client = Some(open);
                }
                Err(of_server(&error))
            }
            Err(_) => Err(Error::retry("PostgreSQL does not answer within 5 s")),
        }
    }

    /// Drops the connection, because the server will be stopped.
    pub async fn close(&self) {
        self.client.lock().await.take();
    }
}

/// An error of the server or of the connection.
pub(crate) fn of_server(error: &tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        return Error::retry(format!("the connection to PostgreSQL failed: {error}{cause}"));
    };
    let mut text = format!("PostgreSQL: {}", said.message());
    if let Some(detail) = said.detail() {
        text.push_str(": ");
        text.push_str(detail);
    }
    let error = Error::retry(text);
    match said.hint() {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
