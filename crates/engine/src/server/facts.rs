//! The facts about the server that a backup needs, read at once before it starts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use holdfast_pgtypes::{PgVersion, SegmentName, SystemIdentifier};
use serde::{Deserialize, Serialize};

use super::{Connection, RawText};
use crate::error::{Cause, Error, ResultExt, ServerSetting};

/// `DEFAULTTABLESPACE_OID` (`pg_tablespace.dat`): its files are in `base`.
const DEFAULT_TABLESPACE: u32 = 1663;

/// Facts of a running server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// The major version.
    pub version: PgVersion,
    /// The full text, such as "18.6".
    pub version_text: String,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// `wal_level`.
    pub wal_level: String,
    /// `archive_mode`.
    pub archive_mode: String,
    /// `archive_command`; empty if not set or not visible to this role.
    pub archive_command: String,
    /// `archive_library`, from version 15.
    pub archive_library: String,
    /// `data_directory`, if the role may see it.
    pub data_directory: Option<PathBuf>,
    /// The system identifier, if the role may see it.
    pub system_identifier: Option<SystemIdentifier>,
    /// All databases of the cluster.
    pub databases: Vec<Database>,
}

/// A row of `pg_database`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// `pg_database.oid`, the name of its directory.
    pub oid: u32,
    /// `datname`; bytes that are not UTF-8 are replaced by marks.
    pub name: String,
}

/// Where a database keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePlace {
    /// `pg_database.oid`
    pub oid: u32,
    /// `datname`; bytes that are not UTF-8 are replaced by marks.
    pub name: String,
    /// `dattablespace`
    pub tablespace: u32,
}

impl DatabasePlace {
    /// Its directory, relative to the data directory, as `GetDatabasePath` (`relpath.c`) has it.
    pub fn directory(&self, version: PgVersion) -> String {
        let Self { oid, tablespace, .. } = self;
        if *tablespace == DEFAULT_TABLESPACE {
            format!("base/{oid}")
        } else {
            format!("pg_tblspc/{tablespace}/{}/{oid}", version.tablespace_directory())
        }
    }
}

impl ServerFacts {
    /// Asks the server.
    ///
    /// # Errors
    /// [`Cause::UnsupportedVersion`] for another major than 13 to 19; [`Cause::Postgres`] if a query fails. A role that
    /// may not see the system identifier does not cause an error.
    pub async fn ask(connection: &Connection) -> Result<Self, Error> {
        Self::ask_inner(connection).await.doing(|| "asking the server for its settings".to_owned())
    }

    async fn ask_inner(connection: &Connection) -> Result<Self, Error> {
        let client = connection.client();
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
                 pg_is_in_recovery(), current_setting('wal_level'), current_setting('archive_mode'), \
                 coalesce((SELECT setting FROM pg_settings WHERE name = 'archive_command'), ''), \
                 coalesce((SELECT setting FROM pg_settings WHERE name = 'archive_library'), ''), \
                 (SELECT setting FROM pg_settings WHERE name = 'data_directory')",
                &[],
            )
            .await?;
        let number: i32 = row.get(0);
        let text = |column: usize| row.get::<_, RawText>(column).lossy();
        let version_text = text(1);
        let version = PgVersion::from_server_version_num(number.unsigned_abs()).map_err(Cause::from)?;
        let archive_command = text(5);
        let databases = client
            .query("SELECT oid, datname::text FROM pg_database ORDER BY oid", &[])
            .await?
            .iter()
            .map(|row| Database { oid: row.get(0), name: row.get::<_, RawText>(1).lossy() })
            .collect();
        // A role without pg_monitor may not call this. Then only the data directory identifies the cluster.
        let system_identifier =
            match client.query_one("SELECT system_identifier::text FROM pg_control_system()", &[]).await {
                Ok(row) => row.get::<_, String>(0).parse().ok(),
                Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) => None,
                Err(error) => return Err(error.into()),
            };
        Ok(Self {
            version,
            version_text,
            in_recovery: row.get(2),
            wal_level: text(3),
            archive_mode: text(4),
            // The value that pg_settings shows for an unset command.
            archive_command: if archive_command == "(disabled)" { String::new() } else { archive_command },
            archive_library: text(6),
            data_directory: row.get::<_, Option<RawText>>(7).map(RawText::into_path),
            system_identifier,
            databases,
        })
    }

    /// The present OIDs and names of the tablespaces. Their places are not read, because `pg_tablespace_location` fails
    /// for one that is being dropped.
    ///
    /// # Errors
    /// [`Cause::Postgres`] if the query fails.
    pub async fn tablespace_names(connection: &Connection) -> Result<HashMap<u32, String>, Error> {
        let asking = || "asking the server for its tablespaces".to_owned();
        let rows =
            connection.client().query("SELECT oid, spcname::text FROM pg_tablespace", &[]).await.doing(asking)?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, RawText>(1).lossy())).collect())
    }

    /// The databases that can be connected to now, with their default tablespaces. One whose removal was interrupted is
    /// left out (`datconnlimit` = -2, 11 and later with the minor releases of August 2023): its files may be gone.
    ///
    /// # Errors
    /// [`Cause::Postgres`] if the query fails.
    pub async fn database_places(connection: &Connection) -> Result<Vec<DatabasePlace>, Error> {
        let asking = || "asking the server for its databases".to_owned();
        let query = "SELECT oid, datname::text, dattablespace FROM pg_database WHERE datconnlimit <> -2 ORDER BY oid";
        let rows = connection.client().query(query, &[]).await.doing(asking)?;
        let place = |row: &tokio_postgres::Row| DatabasePlace {
            oid: row.get(0),
            name: row.get::<_, RawText>(1).lossy(),
            tablespace: row.get(2),
        };
        Ok(rows.iter().map(place).collect())
    }

    /// Checks that this data directory belongs to the server, if the role may see the system identifier.
    ///
    /// # Errors
    /// [`Cause::ServerSetting`] with [`ServerSetting::OtherServer`] if the two system identifiers differ.
    pub fn check_is_of(&self, pgdata: &Path, identifier: SystemIdentifier) -> Result<(), Error> {
        match self.system_identifier {
            Some(server) if server != identifier => Err(Cause::ServerSetting(ServerSetting::OtherServer {
                server,
                directory: pgdata.to_owned(),
                directory_identifier: identifier,
            })
            .into()),
            _ => Ok(()),
        }
    }

    /// The segment at which the archiver's last attempt failed; `None` while it succeeds.
    ///
    /// # Errors
    /// [`Cause::Postgres`] if the query fails.
    pub async fn archiver_failure(connection: &Connection) -> Result<Option<String>, Error> {
        let rows = connection
            .client()
            .query(
                "SELECT last_failed_wal FROM pg_stat_archiver \
                 WHERE last_failed_time > coalesce(last_archived_time, '-infinity')",
                &[],
            )
            .await
            .doing(|| "asking for the state of the archiver".to_owned())?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<RawText>>(0)).map(|name| name.lossy()))
    }

    /// Whether the archiver has reported this segment, or a later one of its timeline, as archived.
    ///
    /// # Errors
    /// [`Cause::Postgres`] if the query fails.
    pub async fn counts_as_archived(connection: &Connection, segment: SegmentName) -> Result<bool, Error> {
        let row = connection
            .client()
            .query_opt("SELECT last_archived_wal FROM pg_stat_archiver", &[])
            .await
            .doing(|| "asking for the state of the archiver".to_owned())?;
        let last = row.and_then(|row| row.get::<_, Option<RawText>>(0)).map(|name| name.lossy());
        // A backup history file begins with its segment's name.
        let last = last.and_then(|name| name.get(..24)?.parse::<SegmentName>().ok());
        Ok(last.is_some_and(|last| last.timeline() == segment.timeline() && last >= segment))
    }

    /// Whether the server archives its WAL.
    pub fn archives(&self) -> bool {
        (self.archive_mode == "always" || (self.archive_mode == "on" && !self.in_recovery))
            && !(self.archive_command.is_empty() && self.archive_library.is_empty())
    }
}
