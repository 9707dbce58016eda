//! The proof that a server writes into a data directory: it makes a temporary file, which must appear there.
//!
//! Everything else that a server says about itself can be equal on two servers. Two standbys that were started together
//! on hosts of the same kind have the same port, path and process id, and the same last restart point. The file is one
//! that every role may make, on a primary and on a standby: the rows of a cursor that outlives its transaction, more of
//! them than fit into `work_mem`. PostgreSQL puts it into `pgsql_tmp` of the database's tablespace, with the number of
//! the backend in its name (`OpenTemporaryFile` in `fd.c`), and removes it with the cursor. It has some 300 kB. Backups
//! leave this directory out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_pgtypes::PgVersion;
use tokio_postgres::error::SqlState;

use super::{Connection, DatabasePlace};
use crate::error::{Cause, Error};

/// Makes the file. `work_mem` counts when the transaction ends.
const MAKE: &str = "BEGIN; SET LOCAL work_mem = '64kB'; \
                    DECLARE holdfast_proof NO SCROLL CURSOR WITH HOLD FOR \
                    SELECT repeat('x', 1000) FROM generate_series(1, 300); \
                    COMMIT";

/// How often the directory is listed: a network file system shows changes late.
const LOOKS: u32 = 15;

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What became of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// It appeared, and went with its cursor.
    Given,
    /// It did not appear in this directory.
    Missing(PathBuf),
    /// The server may not make it (`temp_file_limit`).
    Forbidden(String),
}

/// Lets the server make a temporary file, and looks for it in the data directory.
///
/// # Errors
/// [`Cause::Postgres`] if a query fails for another reason than a limit, [`Cause::File`] if the directory cannot be
/// listed.
pub(super) async fn prove(connection: &Connection, pgdata: &Path) -> Result<Proof, Error> {
    let client = connection.client();
    let row = client
        .query_one(
            "SELECT pg_backend_pid(), dattablespace, oid, current_setting('server_version_num')::int4 \
             FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await?;
    let number: i32 = row.get(3);
    let version = PgVersion::from_server_version_num(number.unsigned_abs()).map_err(Cause::from)?;
    let database = DatabasePlace { oid: row.get(2), name: String::new(), tablespace: row.get(1) };
    let database = PathBuf::from(database.directory(version));
    let folder = pgdata.join(database.parent().unwrap_or(Path::new(""))).join("pgsql_tmp");
    let prefix = format!("pgsql_tmp{}.", row.get::<_, i32>(0));
    if let Err(error) = client.batch_execute(MAKE).await {
        // If the session is gone, this fails as well, and the first error is the one to report.
        drop(client.batch_execute("ROLLBACK").await);
        return match error.as_db_error() {
            Some(refusal) if *refusal.code() == SqlState::CONFIGURATION_LIMIT_EXCEEDED => {
                Ok(Proof::Forbidden(refusal.message().to_owned()))
            }
            _ => Err(error.into()),
        };
    }
    let made = wait_for(&folder, |names| names.iter().any(|name| begins(name, &prefix))).await;
    client.batch_execute("CLOSE holdfast_proof").await?;
    let given = made? && wait_for(&folder, |names| !names.iter().any(|name| begins(name, &prefix))).await?;
    Ok(if given { Proof::Given } else { Proof::Missing(folder) })
}

fn begins(name: &OsString, prefix: &str) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(prefix))
}

/// Whether the names in a directory become as they should be. A directory that does not exist is empty.
async fn wait_for(folder: &Path, holds: impl Fn(&[OsString]) -> bool) -> Result<bool, Error> {
    for look in 1..=LOOKS {
        let names = match std::fs::read_dir(folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.file_name()).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::file("list", folder, error)),
        };
        if holds(&names) {
            return Ok(true);
        }
        if look < LOOKS {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
    Ok(false)
}
