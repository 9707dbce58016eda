//! The errors of the test kit: mostly about servers, so they carry the servers' output and logs.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The result of the test kit's functions.
pub type Result<T, E = KitError> = std::result::Result<T, E>;

/// A failure of a server, of its installation or of the machine below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KitError {
    /// A file, a folder or a socket could not be handled.
    #[error("{action}: {source}")]
    Io {
        /// What the kit was doing, with the path or address.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A program ended with an exit status other than zero.
    #[error("`{command}` ended with {status}\n{output}")]
    Command {
        /// Program and arguments.
        command: String,
        /// The exit status as the system words it.
        status: String,
        /// Standard output and standard error.
        output: String,
    },
    /// A PostgreSQL or S3 server that this machine does not have.
    #[error("{what} is not installed: run scripts/provision (looked at {looked_at:?})")]
    Missing {
        /// The server that the test needs.
        what: String,
        /// The places where the kit looked for it.
        looked_at: Vec<PathBuf>,
    },
    /// A server ended instead of starting.
    #[error("{server} ended with {status} while it was starting\n{log}")]
    StartFailed {
        /// Which server.
        server: String,
        /// The exit status as the system words it.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {limit:?}\n{log}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long the kit waited.
        limit: Duration,
        /// The end of the server's log, where there is one.
        log: String,
    },
    /// PostgreSQL refused a statement or a connection.
    #[error("{statement}: {message}")]
    Sql {
        /// The statement, or the other request to the server.
        statement: String,
        /// The server's answer with its SQLSTATE.
        message: String,
        /// The driver's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A server's answer did not have the expected shape.
    #[error("{what}: unexpected answer {answer:?}")]
    Unexpected {
        /// The request.
        what: String,
        /// What the server answered.
        answer: String,
    },
    /// The request makes no sense for this server or this machine.
    #[error("{0}")]
    Unsupported(String),
}

impl KitError {
    /// Wraps an I/O error with what was being done, for `map_err`.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Wraps a driver's error with the statement, for `map_err`.
    pub fn sql(statement: &str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let statement = statement.to_owned();
        move |source| Self::Sql {
            statement,
            message: source
                .as_db_error()
                .map_or_else(|| source.to_string(), |db| format!("{} ({})", db.message(), db.code().code())),
            source,
        }
    }

    /// The SQLSTATE of a refused statement; `None` for every other error.
    pub fn sql_state(&self) -> Option<&str> {
        match self {
            Self::Sql { source, .. } => source.code().map(tokio_postgres::error::SqlState::code),
            _ => None,
        }
    }
}

/// A program with its arguments, as a person would type it, for messages.
pub(crate) fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs a program to its end without blocking the runtime, and returns its standard output.
///
/// # Errors
/// [`KitError::Command`] with both outputs if its exit status is not zero.
pub async fn run(command: Command) -> Result<String> {
    let text = describe(&command);
    let output = tokio::process::Command::from(command)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(KitError::io(format!("start `{text}`")))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(KitError::Command {
        command: text,
        status: output.status.to_string(),
        output: stdout + &String::from_utf8_lossy(&output.stderr),
    })
}
