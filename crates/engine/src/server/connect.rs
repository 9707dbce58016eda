//! Opening a connection: by the configured parameters, or found through `postmaster.pid`; and detecting its end.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Socket};
use tokio_util::sync::CancellationToken;

use super::PostmasterPid;
use super::libpq::{Attempt, ConnectionRequest, Environment, LocalServer, SessionAttributes, TlsMode};
use super::tls::{Encrypted, Tls};
use crate::error::{Cause, Error, ResultExt, postgres_text};

/// How often an idle session sends something: a proxy between Holdfast and the server (HAProxy, a cloud's load
/// balancer) ends idle connections, whatever the server's own limits are.
const SPEAK_EVERY: Duration = Duration::from_secs(30);

/// How to reach the server.
#[derive(Debug, Clone)]
pub struct ConnectionSettings<'a> {
    /// A connection string as libpq takes it. Without a host in it, the server's `postmaster.pid` gives port and socket
    /// directory. Without a string, the user is `postgres`.
    pub connection: Option<&'a str>,
    /// The configuration key that contains the string.
    pub subject: &'static str,
    /// The values that libpq would take from the environment.
    pub environment: &'a Environment,
    /// The data directory; `None` if the server belongs to another one.
    pub pgdata: Option<PathBuf>,
}

/// An open connection; when it closes, the server itself ends a running backup.
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    /// Cancelled when the connection has ended, for whatever reason.
    ended: CancellationToken,
    /// Why it has ended; empty if it was closed from this side.
    reason: Arc<OnceLock<String>>,
    tls: Option<Tls>,
}

type Driver = tokio_postgres::Connection<Socket, Encrypted>;

impl Connection {
    /// Connects and prepares the session for hours of silence.
    ///
    /// # Errors
    /// [`Cause::ConnectionParameters`] or [`Cause::File`] if the parameters, or a file that they name, cannot be used.
    /// [`Cause::Connection`] if they name no server, no server runs in the data directory, or none is of the kind that
    /// `target_session_attrs` asks for; [`Cause::PostmasterPid`] if `postmaster.pid` is not what a server writes.
    /// [`Cause::Postgres`] from a server that refuses: of several, from the last one that did.
    pub async fn open(settings: &ConnectionSettings<'_>) -> Result<Self, Error> {
        let (wanted, described) = settings.wanted(None)?;
        let connecting = || format!("connecting to PostgreSQL ({described})");
        let needs_tls = wanted.attempts.iter().any(|attempt| attempt.tls != TlsMode::Disable);
        let tls = if needs_tls { Some(Tls::new(&wanted.tls).doing(connecting)?) } else { None };
        let passes: &[SessionAttributes] = match wanted.attributes {
            SessionAttributes::PreferStandby => &[SessionAttributes::Standby, SessionAttributes::Any],
            ref one => std::slice::from_ref(one),
        };
        let mut last = None;
        for attributes in passes {
            for attempt in &wanted.attempts {
                match Self::attempt(attempt, tls.as_ref()).await {
                    Ok(open) if open.is(*attributes).await.doing(connecting)? => {
                        open.prepare().await.doing(|| "preparing the session".to_owned())?;
                        return Ok(open);
                    }
                    Ok(open) => {
                        open.close().await;
                        last.get_or_insert_with(|| {
                            let word = attributes.word();
                            Cause::Connection(format!(
                                "no server of {} is {word}, as target_session_attrs requires",
                                settings.subject
                            ))
                            .into()
                        });
                    }
                    Err(error) => last = Some(Error::from(error)),
                }
            }
        }
        let none = || Cause::Connection(format!("{} names no server", settings.subject)).into();
        Err(last.unwrap_or_else(none)).doing(connecting)
    }

    /// Tries one server, encrypted or not as `sslmode` allows.
    async fn attempt(attempt: &Attempt, tls: Option<&Tls>) -> Result<Self, tokio_postgres::Error> {
        let Some(tls) = tls.filter(|_| attempt.tls != TlsMode::Disable) else {
            return Self::over(&attempt.config, SslMode::Disable, None).await;
        };
        let (first, second) = match attempt.tls {
            TlsMode::Disable | TlsMode::Require => (SslMode::Require, None),
            TlsMode::Prefer => (SslMode::Prefer, Some(SslMode::Disable)),
            TlsMode::Allow => (SslMode::Disable, Some(SslMode::Require)),
        };
        let error = match Self::over(&attempt.config, first, Some(tls)).await {
            Ok(open) => return Ok(open),
            Err(error) => error,
        };
        // pg_hba.conf refuses this kind of connection, or the handshake fails: the other kind may work.
        let other_way = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION) || is_handshake(&error);
        match second.filter(|_| other_way) {
            Some(second) => Self::over(&attempt.config, second, Some(tls)).await.map_err(|_| error),
            None => Err(error),
        }
    }

    async fn over(
        config: &tokio_postgres::Config,
        mode: SslMode,
        tls: Option<&Tls>,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut config = config.clone();
        config.ssl_mode(mode);
        let used = tls.filter(|_| mode != SslMode::Disable);
        let (ended, reason) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        let (client, driver) = if let Some(tls) = used {
            let (client, connection) = config.connect(tls.clone()).await?;
            (client, tokio::spawn(Box::pin(drive(Encryptable::Tls(connection), ended.clone(), reason.clone()))))
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            (client, tokio::spawn(Box::pin(drive(Encryptable::Plain(connection), ended.clone(), reason.clone()))))
        };
        Ok(Self { client, driver, ended, reason, tls: used.cloned() })
    }

    /// Whether the server is of the kind that `target_session_attrs` requires.
    async fn is(&self, attributes: SessionAttributes) -> Result<bool, Error> {
        let query = match attributes {
            SessionAttributes::Any | SessionAttributes::PreferStandby => return Ok(true),
            SessionAttributes::ReadWrite => "SELECT current_setting('transaction_read_only') = 'off'",
            SessionAttributes::ReadOnly => "SELECT current_setting('transaction_read_only') = 'on'",
            SessionAttributes::Primary => "SELECT NOT pg_catalog.pg_is_in_recovery()",
            SessionAttributes::Standby => "SELECT pg_catalog.pg_is_in_recovery()",
        };
        Ok(self.client.query_one(query, &[]).await?.get(0))
    }

    /// Resets settings that `ALTER ROLE`, `ALTER DATABASE` or the configuration may have changed for ordinary sessions.
    async fn prepare(&self) -> Result<(), Error> {
        // First the settings that would make the next statements fail: under "serializable" a standby answers no query
        // at all. Text is not converted, because a name that does not fit the encoding would fail the statement (see
        // `RawText`).
        self.client
            .batch_execute(
                "SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0; SET lock_timeout = 0; \
                 SET idle_in_transaction_session_timeout = 0; SET search_path = pg_catalog; \
                 SET client_encoding = 'SQL_ASCII'; SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'",
            )
            .await?;
        // A backup's session is idle while files are copied. No time limit of any version may end it meanwhile.
        self.client
            .batch_execute(
                "SELECT set_config(name, '0', false) FROM pg_settings \
                 WHERE name IN ('idle_session_timeout', 'transaction_timeout')",
            )
            .await?;
        Ok(())
    }

    /// The client, for statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when the session is lost, with the reason. Until then it keeps the session from looking idle.
    pub async fn lost(&self) -> Error {
        loop {
            tokio::select! {
                () = self.ended.cancelled() => break,
                () = tokio::time::sleep(SPEAK_EVERY) => {}
            }
            tokio::select! {
                () = self.ended.cancelled() => break,
                spoken = self.client.batch_execute("") => if let Err(error) = spoken {
                    tracing::debug!(%error, "the session of the backup does not answer");
                    // The driver knows the reason.
                    self.ended.cancelled().await;
                    break;
                },
            }
        }
        self.loss()
    }

    /// The error of a statement, or the reason why the session had already ended.
    pub fn statement_error(&self, error: tokio_postgres::Error) -> Error {
        if error.is_closed() && self.reason.get().is_some() { self.loss() } else { error.into() }
    }

    fn loss(&self) -> Error {
        let reason = self.reason.get().cloned().unwrap_or_else(|| "the connection was closed".to_owned());
        Cause::SessionLost { reason }.into()
    }

    /// Asks the server to cancel the running statement, such as a `pg_backup_start` that waits for a checkpoint.
    pub async fn cancel_statement(&self) {
        let token = self.client.cancel_token();
        let cancelled = match &self.tls {
            Some(tls) => token.cancel_query(tls.clone()).await,
            None => token.cancel_query(NoTls).await,
        };
        if let Err(error) = cancelled {
            tracing::debug!(%error, "the running statement could not be cancelled");
        }
    }

    /// Closes the connection and waits until it is gone.
    pub async fn close(self) {
        let Self { client, driver, .. } = self;
        drop(client);
        // The driver ends by itself once the client is gone. It has logged its result.
        drop(driver.await);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ended", &self.ended.is_cancelled()).finish_non_exhaustive()
    }
}

enum Encryptable {
    Plain(tokio_postgres::Connection<Socket, tokio_postgres::tls::NoTlsStream>),
    Tls(Driver),
}

/// Transfers bytes until the connection ends.
async fn drive(connection: Encryptable, ended: CancellationToken, reason: Arc<OnceLock<String>>) {
    // Also if this task is dropped or fails.
    let ended = ended.drop_guard();
    let outcome = match connection {
        Encryptable::Plain(connection) => connection.await,
        Encryptable::Tls(connection) => connection.await,
    };
    if let Err(error) = outcome {
        // The statement that needed the connection reports it, or the caller of [`Connection::lost`]; this line is for
        // the log.
        tracing::debug!(%error, "the connection to PostgreSQL ended");
        drop(reason.set(postgres_text(&error)));
    }
    drop(ended);
}

/// Whether TLS could not be started; the client library says so only in its text.
fn is_handshake(error: &tokio_postgres::Error) -> bool {
    error.to_string().starts_with("error performing TLS handshake")
}

impl ConnectionSettings<'_> {
    /// The parameters in their parsed form, and what they are in messages. `password_of` is the database of the line in
    /// the password file, if it is not that of the parameters.
    pub(super) fn wanted(&self, password_of: Option<&str>) -> Result<(ConnectionRequest, String), Error> {
        let mut described = self.subject.to_owned();
        let wanted = ConnectionRequest::new(self.connection, self.subject, self.environment, password_of, || {
            let found = self.found()?;
            if self.connection.is_none() {
                described = format!("{}, port {}, found in postmaster.pid", found.host, found.port);
            }
            Ok(found)
        })?;
        Ok((wanted, described))
    }

    /// The address at which the server of the data directory listens.
    fn found(&self) -> Result<LocalServer, Error> {
        let Some(pgdata) = &self.pgdata else {
            return Err(Cause::ConnectionParameters(format!("{} names no host", self.subject)).into());
        };
        let Some(postmaster) = PostmasterPid::read(pgdata)? else {
            return Err(Cause::Connection(format!(
                "no server runs in {}: there is no postmaster.pid",
                pgdata.display()
            ))
            .into());
        };
        Ok(LocalServer {
            host: postmaster.socket_directory.unwrap_or_else(|| "127.0.0.1".to_owned()),
            port: postmaster.port.unwrap_or(5432),
        })
    }
}
