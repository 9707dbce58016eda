//! Prepares each database for `pg_amcheck`: no event trigger of the original may fire, and the extension must fit the
//! programs of this host.

use holdfast_pgtypes::PgVersion;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PostgresError};

use super::refused::{self, Refused};
use super::server::Access;
use crate::error::Error;

/// The databases that `pg_amcheck --all` visits, with the versions of their collations. Before 15 the versions are not
/// known. A connection limit of -2 marks the remains of an interrupted `DROP DATABASE`.
const ALL: &str = "SELECT d.datname, d.datcollversion, pg_catalog.pg_database_collation_actual_version(d.oid) \
                   FROM pg_catalog.pg_database d WHERE d.datallowconn AND d.datconnlimit <> -2 ORDER BY 1";
const ALL_BEFORE_15: &str = "SELECT d.datname, NULL::text, NULL::text \
                             FROM pg_catalog.pg_database d WHERE d.datallowconn AND d.datconnlimit <> -2 ORDER BY 1";

/// The event triggers that are not disabled. The server quotes their names.
const TRIGGERS: &str =
    "SELECT pg_catalog.quote_ident(evtname) FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D'";

/// The version of an extension that does not fit this host's programs. After `pg_upgrade` it may be an older one,
/// without the functions that `pg_amcheck` calls.
const OLDER_EXTENSION: &str = "SELECT e.extversion FROM pg_catalog.pg_extension e \
                               JOIN pg_catalog.pg_available_extensions a ON a.name = e.extname \
                               WHERE e.extname = 'amcheck' AND a.default_version <> e.extversion";

const COLLATIONS: &str = "SELECT c.collname::text, c.collversion, pg_catalog.pg_collation_actual_version(c.oid) \
                          FROM pg_catalog.pg_collation c \
                          WHERE c.collversion <> pg_catalog.pg_collation_actual_version(c.oid) ORDER BY 1 LIMIT 1";

/// The result of the preparation.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Databases that accept no session, or whose catalogs are damaged, as text for people.
    pub(super) damaged: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Prepares all databases. Before 17 it also disables their event triggers.
pub(super) async fn prepare(access: &Access, client: &Client) -> Result<Prepared, Error> {
    let mut prepared = Prepared::default();
    let all = if access.version >= PgVersion::V15 { ALL } else { ALL_BEFORE_15 };
    for row in client.query(all, &[]).await? {
        let name: String = row.try_get(0)?;
        let (then, now): (Option<String>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
        let its_own = then.zip(now).filter(|(then, now)| then != now);
        let mut collation = its_own.map(|(then, now)| ("its collation".to_owned(), then, now));
        match one(access, &name, &mut prepared.notes).await {
            Ok(other) => collation = collation.or(other),
            Err(error) => match refused::judge(&error) {
                Refused::Damaged(what) => prepared.damaged.push(format!("database {name}: {what}")),
                Refused::Host(error) => return Err(error),
                Refused::Role | Refused::Ending => {
                    return Err(Error::from(error).doing(format!("preparing the database {name}")));
                }
            },
        }
        if let Some((what, then, now)) = collation {
            prepared.notes.push(format!(
                "database {name}: {what} has version {now} on this host and {then} on the original's: pg_amcheck may name \
                 indexes over text that are sound there"
            ));
        }
    }
    Ok(prepared)
}

/// Prepares one database. Returns a collation of it that has another version on this host, with both versions.
async fn one(
    access: &Access,
    name: &str,
    notes: &mut Vec<String>,
) -> Result<Option<(String, String, String)>, PostgresError> {
    let session = access.connect(name, false).await?;
    if access.version < PgVersion::V17 {
        for row in session.query(TRIGGERS, &[]).await? {
            // This command itself fires no event trigger.
            let trigger: String = row.try_get(0)?;
            session.batch_execute(&format!("ALTER EVENT TRIGGER {trigger} DISABLE")).await?;
        }
    }
    if let Some(row) = session.query(OLDER_EXTENSION, &[]).await?.first() {
        let version: String = row.try_get(0)?;
        if let Err(error) = session.batch_execute("ALTER EXTENSION amcheck UPDATE").await {
            // There may be no update path from a version that is newer than this host's.
            if error.code() != Some(&SqlState::INVALID_PARAMETER_VALUE) {
                return Err(error);
            }
            let why = crate::error::postgres_text(&error);
            notes.push(format!("database {name}: amcheck {version} differs from the version on this host and could not be updated: {why}"));
        }
    }
    let collation = session.query(COLLATIONS, &[]).await?;
    let Some(row) = collation.first() else { return Ok(None) };
    let collation: String = row.try_get(0)?;
    Ok(Some((format!("the collation {collation}"), row.try_get(1)?, row.try_get(2)?)))
}
