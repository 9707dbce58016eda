//! What must be in a data directory. A backup without the files of a database, a tablespace or the commit log is
//! useless. A volume that is not mounted leaves an empty directory, and the server may not notice for hours.
//!
//! The databases that the server knew before the files were listed must be in the list, unless they were dropped or
//! moved since.
//!
//! A volume can also go away while the files are listed or copied. Files that are then missing look like files that
//! PostgreSQL has removed. So everything is asked a second time after the copy: without the files that were missing
//! when they were listed or read, and without those that are missing now. PostgreSQL gives no relation the name of one
//! that it has removed, so one that is there again was away.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::relation::{RelationDirectory, RelationPath};
use holdfast_repo::record::TablespaceEntry;
use tokio::time::Instant;

use super::listing::{Scan, SourceFile, tablespace_oid};
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

/// What the server's catalogs say now.
pub(super) trait Catalogs: Sync {
    /// The databases, as [`ServerFacts::database_places`].
    fn databases(&self) -> impl Future<Output = Result<Vec<DatabasePlace>, Error>> + Send;

    /// The names of the tablespaces by their OIDs, as [`ServerFacts::tablespace_names`].
    fn tablespaces(&self) -> impl Future<Output = Result<HashMap<u32, String>, Error>> + Send;
}

impl Catalogs for Connection {
    fn databases(&self) -> impl Future<Output = Result<Vec<DatabasePlace>, Error>> + Send {
        ServerFacts::database_places(self)
    }

    fn tablespaces(&self) -> impl Future<Output = Result<HashMap<u32, String>, Error>> + Send {
        ServerFacts::tablespace_names(self)
    }
}

/// `FirstNormalObjectId` (`access/transam.h`): the tablespaces that `initdb` makes have lower OIDs, and no directory of
/// their own.
const FIRST_NORMAL_OBJECT_ID: u32 = 16384;

/// A server, and what it had before its files were listed.
pub(super) struct AskedServer<'a, C> {
    catalogs: &'a C,
    pgdata: &'a Path,
    version: PgVersion,
    databases: Vec<DatabasePlace>,
    /// The OIDs of the tablespaces in `pg_tblspc`.
    tablespaces: BTreeSet<u32>,
    dropped_within: Duration,
}

impl<'a, C: Catalogs> AskedServer<'a, C> {
    /// Asks for the databases and tablespaces. WAL replay creates those that are created later.
    pub(super) async fn before_listing(catalogs: &'a C, pgdata: &'a Path, version: PgVersion) -> Result<Self, Error> {
        let databases = catalogs.databases().await?;
        let all = catalogs.tablespaces().await?.into_keys();
        let tablespaces = all.filter(|oid| *oid >= FIRST_NORMAL_OBJECT_ID).collect();
        Ok(Self { catalogs, pgdata, version, databases, tablespaces, dropped_within: DROPPED_WITHIN })
    }

    /// Waits for a shorter time until what has no files is dropped.
    #[cfg(test)]
    pub(super) fn dropped_within(self, dropped_within: Duration) -> Self {
        Self { dropped_within, ..self }
    }

    /// Refuses a list that lacks the files of a database, or files that every data directory has. Gives what was looked
    /// up, for [`Self::check_copied`].
    pub(super) async fn check_databases(&self, scan: &Scan) -> Result<Listed, Error> {
        let listed = Listed::of(scan);
        self.check_listed(&listed).await?;
        Ok(listed)
    }

    /// Refuses a copy of which files were missing, because their volume was away for a while or still is. `missing` are
    /// those that were not there when they were listed or read, as [`is_missed_path`] and [`is_missed`] choose them.
    pub(super) async fn check_copied(
        &self,
        mut listed: Listed,
        missing: Vec<Box<[u8]>>,
        tablespaces: &[TablespaceEntry],
    ) -> Result<(), Error> {
        let pgdata = self.pgdata.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            let is_there = |path: &[u8]| std::fs::symlink_metadata(pgdata.join(OsStr::from_bytes(path))).is_ok();
            let back = came_back(&pgdata, &missing);
            for path in &missing {
                listed.remove(path);
            }
            listed.files.retain(|path| is_there(path));
            (listed, back)
        });
        let looked = looking.await.map_err(|e| Cause::Internal(format!("looking at the data directory: {e}")))?;
        let (listed, back): (Listed, Option<PathBuf>) = looked;
        if let Some(path) = back {
            return Err(Cause::Refused(format!(
                "{} was missing when the backup read it, and is there again: the backup lacks it. If its volume was \
                 away for a while, look for other files; then repeat the backup",
                path.display()
            ))
            .into());
        }
        self.check_listed(&listed).await?;
        for TablespaceEntry { oid, name, .. } in tablespaces {
            let directory = self.version_directory(*oid);
            self.check_tablespace(|| self.pgdata.join(&directory).is_dir(), *oid, name).await?;
        }
        Ok(())
    }

    async fn check_listed(&self, listed: &Listed) -> Result<(), Error> {
        if let Some(missing) = listed.missing_of_cluster() {
            return Err(self.refuse("the data directory", &missing));
        }
        let mut waiting: Vec<(&DatabasePlace, String)> =
            self.databases.iter().filter_map(|place| Some((place, listed.missing_of(place, self.version)?))).collect();
        let until = Instant::now() + self.dropped_within;
        while !waiting.is_empty() {
            let now = self.catalogs.databases().await?;
            waiting.retain(|(before, _)| {
                let still = now.iter().find(|place| place.oid == before.oid);
                still.is_some_and(|place| listed.missing_of(place, self.version).is_some())
            });
            if let Some((place, missing)) = waiting.first().filter(|_| Instant::now() >= until) {
                return Err(self.refuse(&format!("database {}", place.name), missing));
            }
            if !waiting.is_empty() {
                tokio::time::sleep(ASK_EVERY.min(self.dropped_within)).await;
            }
        }
        Ok(())
    }

    /// The tablespaces as they are on disk. One can have been created or dropped since the server was asked, and files
    /// below a link that is not recorded as a tablespace could not be restored. Refuses a list without a tablespace
    /// that the server has all the time.
    pub(super) async fn tablespaces(&self, scan: &Scan) -> Result<Vec<TablespaceEntry>, Error> {
        let names = self.catalogs.tablespaces().await?;
        let paths = tablespace_places(scan);
        for oid in self.tablespaces.iter().filter(|oid| !paths.contains_key(oid)) {
            let name = names.get(oid).cloned().unwrap_or_else(|| oid.to_string());
            self.check_tablespace(|| false, *oid, &name).await?;
        }
        let mut tablespaces = Vec::with_capacity(paths.len());
        for (oid, path) in paths {
            let name = names.get(&oid).cloned().unwrap_or_else(|| oid.to_string());
            let needed = self.version_directory(oid);
            let is_listed = || scan.directories.iter().any(|directory| *directory.path == *needed.as_bytes());
            self.check_tablespace(is_listed, oid, &name).await?;
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
    async fn check_tablespace(&self, is_there: impl Fn() -> bool, oid: u32, name: &str) -> Result<(), Error> {
        if is_there() {
            return Ok(());
        }
        let until = Instant::now() + self.dropped_within;
        while self.catalogs.tablespaces().await?.contains_key(&oid) {
            if Instant::now() >= until {
                let place = self.pgdata.join(self.version_directory(oid));
                return Err(Cause::Refused(format!(
                    "tablespace {name} has no directory {}: is its volume mounted?",
                    place.display()
                ))
                .into());
            }
            tokio::time::sleep(ASK_EVERY.min(self.dropped_within)).await;
        }
        Ok(())
    }

    /// The directory of a tablespace's files, relative to the data directory.
    fn version_directory(&self, oid: u32) -> String {
        format!("pg_tblspc/{oid}/{}", self.version.tablespace_directory())
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

/// The first file that is there again. Blocks.
fn came_back(pgdata: &Path, missing: &[Box<[u8]>]) -> Option<PathBuf> {
    let mut paths = missing.iter().map(|path| pgdata.join(OsStr::from_bytes(path)));
    paths.find(|path| std::fs::symlink_metadata(path).is_ok())
}

/// Whether the backup must not lack this listed file: the server has it, if it has not removed it by itself.
pub(super) fn is_missed(file: &SourceFile) -> bool {
    file.check.is_relation() || is_asked(&file.path) || filled_folder(&file.path).is_some()
}

/// The same of a path that was gone when it should be listed: a file, a database's directory, or all of a tablespace.
pub(super) fn is_missed_path(path: &[u8], version: PgVersion) -> bool {
    RelationPath::parse(path, version).is_some()
        || is_asked(path)
        || filled_folder(path).is_some()
        || RelationDirectory::parse(path, version).is_some()
        || is_of_tablespace(path, version)
}

/// Whether this is the link to a tablespace, or the directory of its files.
fn is_of_tablespace(path: &[u8], version: PgVersion) -> bool {
    let link = path.strip_suffix(version.tablespace_directory().as_bytes()).and_then(|link| link.strip_suffix(b"/"));
    tablespace_oid(link.unwrap_or(path)).is_some()
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn is_asked(path: &[u8]) -> bool {
    OF_DATABASE.iter().any(|file| name_of(path) == file.as_bytes())
}

/// The directory of a file, if it is one of [`FILLED`].
fn filled_folder(path: &[u8]) -> Option<&'static str> {
    let folder = &path[..path.len().saturating_sub(name_of(path).len() + 1)];
    FILLED.into_iter().find(|filled| folder == filled.as_bytes())
}

/// The listed paths that the checks look up.
#[derive(Debug)]
pub(super) struct Listed {
    files: HashSet<Box<[u8]>>,
    /// The files of each of [`FILLED`].
    filled: HashSet<Box<[u8]>>,
}

impl Listed {
    fn of(scan: &Scan) -> Self {
        let paths = || scan.files.iter().map(|file| &file.path);
        Self {
            files: paths().filter(|path| is_asked(path)).cloned().collect(),
            filled: paths().filter(|path| filled_folder(path).is_some()).cloned().collect(),
        }
    }

    fn remove(&mut self, path: &[u8]) {
        self.files.remove(path);
        self.filled.remove(path);
    }

    /// The first missing file outside of the databases. If a directory has no files, it is the directory with `/*`.
    fn missing_of_cluster(&self) -> Option<String> {
        let file = FILES.iter().find(|file| !self.files.contains(file.as_bytes())).map(|file| (*file).to_owned());
        let filled: HashSet<&str> = self.filled.iter().filter_map(|path| filled_folder(path)).collect();
        let empty = || FILLED.iter().find(|folder| !filled.contains(*folder));
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
    fn a_file_that_is_there_again_was_away() {
        let pgdata = tempfile::tempdir().unwrap();
        let missing = ["base/5/16400", "base/5/16401"].map(|path| path.as_bytes().into());
        assert_eq!(came_back(pgdata.path(), &missing), None);
        std::fs::create_dir_all(pgdata.path().join("base/5")).unwrap();
        assert_eq!(came_back(pgdata.path(), &missing), None);
        let path = pgdata.path().join("base/5/16401");
        std::fs::write(&path, "rows").unwrap();
        assert_eq!(came_back(pgdata.path(), &missing), Some(path));
    }

    /// Old segments of a log are removed in normal work, but never the last one.
    #[test]
    fn a_file_that_was_missing_when_it_was_read_is_not_in_the_list() {
        let all = [
            "PG_VERSION",
            "base/5/PG_VERSION",
            "base/5/pg_filenode.map",
            "global/pg_filenode.map",
            "pg_xact/0000",
            "pg_xact/0001",
            "pg_multixact/offsets/0000",
            "pg_multixact/members/0000",
        ];
        let place = DatabasePlace { oid: 5, name: "app".to_owned(), tablespace: 1663 };
        let version = PgVersion::new(18).unwrap();
        let mut listed = Listed::of(&scan(&all));
        listed.remove(b"pg_xact/0000");
        assert_eq!((listed.missing_of_cluster(), listed.missing_of(&place, version)), (None, None));
        listed.remove(b"base/5/pg_filenode.map");
        assert_eq!(listed.missing_of(&place, version).as_deref(), Some("base/5/pg_filenode.map"));
        listed.remove(b"pg_xact/0001");
        assert_eq!(listed.missing_of_cluster().as_deref(), Some("pg_xact/*"));
        for (path, is) in [("base/5/PG_VERSION", true), ("pg_xact/0000", true), ("log/server.log", false)] {
            assert_eq!(is_missed(&scan(&[path]).files[0]), is, "{path}");
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
