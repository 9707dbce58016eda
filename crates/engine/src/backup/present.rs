//! What must be in a data directory. A backup without the files of a database, a tablespace or the commit log is
//! useless. A volume that is not mounted leaves an empty directory, and the server may not notice for hours.
//!
//! The databases that the server knew before the files were listed must be in the list, unless they were dropped or
//! moved since.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use holdfast_pgtypes::PgVersion;
use holdfast_repo::record::TablespaceEntry;
use tokio::time::Instant;

use super::listing::{Scan, tablespace_oid};
use crate::error::{Cause, Error};
use crate::server::{Connection, DatabasePlace, ServerFacts};

/// If a database or tablespace has no files, it may be one that is being dropped: DROP DATABASE and DROP TABLESPACE
/// remove the files before they commit. It must be gone from the server within this time. (Minor releases since August
/// 2023 mark the database first.)
const DROPPED_WITHIN: Duration = Duration::from_secs(10);

/// The interval at which the server is asked until then.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Files that `initdb` makes and every server needs.
const FILES: [&str; 2] = ["PG_VERSION", "global/pg_filenode.map"];

/// Directories that are never empty: PostgreSQL keeps the last segment of each log.
const FILLED: [&str; 3] = ["pg_xact", "pg_multixact/offsets", "pg_multixact/members"];

/// Files of every database. The server refuses connections to a database without them.
const OF_DATABASE: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// A server, and its databases before its files were listed.
pub(super) struct AskedServer<'a> {
    connection: &'a Connection,
    pgdata: &'a Path,
    version: PgVersion,
    databases: Vec<DatabasePlace>,
}

impl<'a> AskedServer<'a> {
    /// Asks for the databases. WAL replay creates those that are created later.
    pub(super) async fn before_listing(
        connection: &'a Connection,
        pgdata: &'a Path,
        version: PgVersion,
    ) -> Result<Self, Error> {
        let databases = ServerFacts::database_places(connection).await?;
        Ok(Self { connection, pgdata, version, databases })
    }

    /// Refuses a list that lacks the files of a database, or files that every data directory has.
    pub(super) async fn check_databases(&self, scan: &Scan) -> Result<(), Error> {
        let listed = Listed::of(scan);
        if let Some(missing) = listed.missing_of_cluster() {
            return Err(self.refuse("the data directory", &missing));
        }
        let mut waiting: Vec<(&DatabasePlace, String)> =
            self.databases.iter().filter_map(|place| Some((place, listed.missing_of(place, self.version)?))).collect();
        let until = Instant::now() + DROPPED_WITHIN;
        while !waiting.is_empty() {
            let now = ServerFacts::database_places(self.connection).await?;
            waiting.retain(|(before, _)| {
                let still = now.iter().find(|place| place.oid == before.oid);
                still.is_some_and(|place| listed.missing_of(place, self.version).is_some())
            });
            if let Some((place, missing)) = waiting.first().filter(|_| Instant::now() >= until) {
                return Err(self.refuse(&format!("database {}", place.name), missing));
            }
            if !waiting.is_empty() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
        Ok(())
    }

    /// The tablespaces as they are on disk. One can have been created or dropped since the server was asked, and files
    /// below a link that is not recorded as a tablespace could not be restored.
    pub(super) async fn tablespaces(&self, scan: &Scan) -> Result<Vec<TablespaceEntry>, Error> {
        let names = ServerFacts::tablespace_names(self.connection).await?;
        let paths = tablespace_places(scan);
        let mut tablespaces = Vec::with_capacity(paths.len());
        for (oid, path) in paths {
            let name = names.get(&oid).cloned().unwrap_or_else(|| oid.to_string());
            self.check_tablespace(scan, oid, &name).await?;
            // `backup.json` has only text, and a restore needs the exact path.
            let path = String::from_utf8(path.to_vec()).map_err(|_| {
                let shown = String::from_utf8_lossy(path);
                Cause::Refused(format!("tablespace {name} is in {shown}, whose name is not UTF-8: move it elsewhere"))
            })?;
            tablespaces.push(TablespaceEntry { oid, name, path });
        }
        Ok(tablespaces)
    }

    /// Refuses a tablespace that the server knows but whose files are missing. Every tablespace has the directory of
    /// its version from its creation on.
    async fn check_tablespace(&self, scan: &Scan, oid: u32, name: &str) -> Result<(), Error> {
        let needed = format!("pg_tblspc/{oid}/{}", self.version.tablespace_directory());
        if scan.directories.iter().any(|directory| *directory.path == *needed.as_bytes()) {
            return Ok(());
        }
        let until = Instant::now() + DROPPED_WITHIN;
        while ServerFacts::tablespace_names(self.connection).await?.contains_key(&oid) {
            if Instant::now() >= until {
                let place = self.pgdata.join(&needed);
                return Err(Cause::Refused(format!(
                    "tablespace {name} has no directory {}: is its volume mounted?",
                    place.display()
                ))
                .into());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    fn refuse(&self, what: &str, missing: &str) -> Error {
        let place = self.pgdata.join(missing);
        Cause::Refused(format!(
            "{what} has no {}: is its volume mounted? If it was moved to another tablespace meanwhile, repeat the backup",
            place.display()
        ))
        .into()
    }
}

/// The listed paths that the checks look up.
struct Listed<'a> {
    files: HashSet<&'a [u8]>,
    filled: HashSet<&'a [u8]>,
}

impl<'a> Listed<'a> {
    fn of(scan: &'a Scan) -> Self {
        let paths = || scan.files.iter().map(|file| &*file.path);
        let name = |path: &'a [u8]| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let asked = |path: &&'a [u8]| OF_DATABASE.iter().any(|file| name(path) == file.as_bytes());
        let folder = |path: &'a [u8]| {
            let folder = &path[..path.len().saturating_sub(name(path).len() + 1)];
            FILLED.iter().any(|filled| folder == filled.as_bytes()).then_some(folder)
        };
        Self { files: paths().filter(asked).collect(), filled: paths().filter_map(folder).collect() }
    }

    /// The first missing file outside of the databases. If a directory has no files, it is the directory with `/*`.
    fn missing_of_cluster(&self) -> Option<String> {
        let file = FILES.iter().find(|file| !self.files.contains(file.as_bytes())).map(|file| (*file).to_owned());
        let empty = || FILLED.iter().find(|folder| !self.filled.contains(folder.as_bytes()));
        file.or_else(|| empty().map(|folder| format!("{folder}/*")))
    }

    /// The first missing file of a database.
    fn missing_of(&self, place: &DatabasePlace, version: PgVersion) -> Option<String> {
        let directory = place.directory(version);
        let paths = OF_DATABASE.iter().map(|file| format!("{directory}/{file}"));
        paths.into_iter().find(|path| !self.files.contains(path.as_bytes()))
    }
}

/// The paths of the tablespaces, by OID.
pub(super) fn tablespace_places(scan: &Scan) -> BTreeMap<u32, &[u8]> {
    let mut places: BTreeMap<u32, &[u8]> = BTreeMap::new();
    // First the "in-place" tablespaces, which are directories. All others have a link.
    places.extend(scan.directories.iter().filter_map(|found| Some((tablespace_oid(&found.path)?, &*found.path))));
    places.extend(scan.links.iter().filter_map(|link| Some((tablespace_oid(&link.path)?, &*link.target))));
    places
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::super::listing::{PageCheck, SourceFile};
    use super::*;

    fn scan(paths: &[&str]) -> Scan {
        let file = |path: &&str| SourceFile {
            path: path.as_bytes().into(),
            size_bytes: 1,
            mtime: 0,
            mode: 0o600,
            check: PageCheck::None,
            identity: None,
        };
        Scan { files: paths.iter().map(file).collect(), ..Scan::default() }
    }

    #[test]
    fn what_every_data_directory_has_is_missed() {
        let all = [
            "PG_VERSION",
            "global/pg_filenode.map",
            "pg_xact/0000",
            "pg_multixact/offsets/0000",
            "pg_multixact/members/0000",
        ];
        assert_eq!(Listed::of(&scan(&all)).missing_of_cluster(), None);
        for (at, missing) in
            ["PG_VERSION", "global/pg_filenode.map", "pg_xact/*", "pg_multixact/offsets/*", "pg_multixact/members/*"]
                .iter()
                .enumerate()
        {
            let mut some = all.to_vec();
            some.remove(at);
            some.push("pg_xact_old/0000");
            assert_eq!(Listed::of(&scan(&some)).missing_of_cluster().as_deref(), Some(*missing));
        }
    }

    #[test]
    fn a_database_is_looked_for_in_its_tablespace() {
        let version = PgVersion::new(18).unwrap();
        let place = |oid, tablespace| DatabasePlace { oid, name: "app".to_owned(), tablespace };
        let far = format!("pg_tblspc/16400/{}/5", version.tablespace_directory());
        let paths = ["base/5/PG_VERSION".to_owned(), "base/5/pg_filenode.map".to_owned(), format!("{far}/PG_VERSION")];
        let scan = scan(&paths.each_ref().map(String::as_str));
        let listed = Listed::of(&scan);
        assert_eq!(listed.missing_of(&place(5, 1663), version), None);
        assert_eq!(listed.missing_of(&place(5, 16400), version), Some(format!("{far}/pg_filenode.map")));
        assert_eq!(listed.missing_of(&place(6, 1663), version).as_deref(), Some("base/6/PG_VERSION"));
    }
}
