//! What a base backup leaves out, as `sendDir` of `basebackup.c` decides for `pg_basebackup`.
//!
//! A walker reads one directory at a time, passes its path and its names to `Exclusions::for_directory`, and asks for
//! each name. The rules are applied in the server's order, because a name can match several of them.
//!
//! Differences between the majors: 17 and later keep `pg_wal/summaries` beside `pg_wal/archive_status`, and look for
//! unlogged relations in `global` too (there are none, so here all majors do). 13 and 14 can have a
//! `stats_temp_directory` other than `pg_stat_tmp` inside the data directory. Its files disappear at the next start and
//! do no harm in a backup. The walker handles tablespaces inside the data directory and special files (sockets, pipes),
//! because it knows links and file types.

use std::collections::HashSet;

use crate::control::ControlFile;
use crate::relation::{Fork, RelationDirectory, RelationFileName};
use crate::version::PgVersion;

/// Directories that are kept and emptied, wherever they are: `excludeDirContents`.
const EMPTIED_DIRECTORIES: [&[u8]; 7] =
    [b"pg_stat_tmp", b"pg_replslot", b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans"];

/// Files that are left out wherever they are: `excludeFiles` without the prefixes.
const EXCLUDED_FILES: [&[u8]; 8] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    b".DS_Store",
];

/// `RELCACHE_INIT_FILENAME`, with or without the process id of a writer after it.
const RELATION_CACHE_PREFIX: &[u8] = b"pg_internal.init";

/// `PG_TEMP_FILE_PREFIX`, of files and of the directories that contain them.
const TEMPORARY_PREFIX: &[u8] = b"pgsql_tmp";

/// What the backup does with an entry of the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Include it with its content.
    Include,
    /// Keep the directory without its content. A link to a directory becomes a directory. In `pg_wal`,
    /// `wal_subdirectories` are kept too.
    ContentsExcluded,
    /// This is `global/pg_control`: copy it after everything else.
    ControlFile,
    /// Leave it out.
    Excluded(ExcludedAs),
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExcludedAs {
    /// A temporary file, or a directory of temporary files.
    TemporaryFile,
    /// A file of the running server, or one that the backup replaces with its own.
    ServerFile,
    /// The cache of system relations, rebuilt at start.
    RelationCache,
    /// A fork of an unlogged relation other than the one it is reset to.
    UnloggedRelation,
    /// A relation of one session.
    TemporaryRelation,
    /// The directory of another major in a shared tablespace.
    OtherVersion,
}

/// Directories inside `pg_wal` that are kept, empty.
pub const fn wal_subdirectories(version: PgVersion) -> &'static [&'static str] {
    if version.has_wal_summaries() { &["archive_status", "summaries"] } else { &["archive_status"] }
}

/// The rules for the entries of one directory.
#[derive(Debug, Clone)]
pub struct Exclusions {
    path: Vec<u8>,
    version: PgVersion,
    relations: Option<RelationDirectory>,
    unlogged: HashSet<u32>,
    own_tablespace_directory: Option<String>,
}

impl Exclusions {
    /// The rules for the directory at `path`, relative to the data directory with `/` between the parts, and empty for
    /// the data directory itself. The content of a tablespace is at `pg_tblspc/<oid>/...`.
    ///
    /// `names` are all names in the directory, because an unlogged relation is recognised by its init fork.
    pub fn for_directory<'n>(version: PgVersion, path: &[u8], names: impl IntoIterator<Item = &'n [u8]>) -> Self {
        let relations = RelationDirectory::parse(path, version);
        let unlogged = names
            .into_iter()
            .filter(|_| relations.is_some())
            .filter_map(RelationFileName::parse)
            .filter(|file| file.fork == Fork::Init && file.segment == 0 && file.temporary_backend.is_none())
            .map(|file| file.number)
            .collect();
        let in_tablespace = path.strip_prefix(b"pg_tblspc/").is_some_and(|rest| !rest.contains(&b'/'));
        Self {
            path: path.to_vec(),
            version,
            relations,
            unlogged,
            own_tablespace_directory: in_tablespace.then(|| version.tablespace_directory()),
        }
    }

    /// The major to which the rules apply.
    pub const fn version(&self) -> PgVersion {
        self.version
    }

    /// What to do with the entry of this name.
    pub fn verdict(&self, name: &[u8]) -> Verdict {
        if name.starts_with(TEMPORARY_PREFIX) {
            return Verdict::Excluded(ExcludedAs::TemporaryFile);
        }
        if EXCLUDED_FILES.contains(&name) {
            return Verdict::Excluded(ExcludedAs::ServerFile);
        }
        if name.starts_with(RELATION_CACHE_PREFIX) {
            return Verdict::Excluded(ExcludedAs::RelationCache);
        }
        if let Some(excluded) = self.excluded_relation(name) {
            return Verdict::Excluded(excluded);
        }
        if self.path_is(name, ControlFile::PATH.as_bytes()) {
            return Verdict::ControlFile;
        }
        if EMPTIED_DIRECTORIES.contains(&name) || (self.path.is_empty() && name == b"pg_wal") {
            return Verdict::ContentsExcluded;
        }
        if self.own_tablespace_directory.as_ref().is_some_and(|own| own.as_bytes() != name) {
            return Verdict::Excluded(ExcludedAs::OtherVersion);
        }
        Verdict::Include
    }

    fn excluded_relation(&self, name: &[u8]) -> Option<ExcludedAs> {
        let directory = self.relations?;
        let file = RelationFileName::parse(name)?;
        if file.temporary_backend.is_some() {
            return matches!(directory, RelationDirectory::Database { .. }).then_some(ExcludedAs::TemporaryRelation);
        }
        (file.fork != Fork::Init && self.unlogged.contains(&file.number)).then_some(ExcludedAs::UnloggedRelation)
    }

    /// Whether the entry's path is this one.
    fn path_is(&self, name: &[u8], path: &[u8]) -> bool {
        path.strip_prefix(self.path.as_slice()).and_then(|rest| rest.strip_prefix(b"/")) == Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn verdict(path: &str, name: &str) -> Verdict {
        Exclusions::for_directory(PgVersion::V18, path.as_bytes(), []).verdict(name.as_bytes())
    }

    #[test]
    fn follows_the_servers_lists() {
        use ExcludedAs as As;
        for (path, name, expected) in [
            ("", "base", Verdict::Include),
            ("", "PG_VERSION", Verdict::Include),
            ("", "backup_label.old", Verdict::Include),
            ("", "backup_label", Verdict::Excluded(As::ServerFile)),
            ("", "tablespace_map", Verdict::Excluded(As::ServerFile)),
            ("", "backup_manifest", Verdict::Excluded(As::ServerFile)),
            ("", "postmaster.pid", Verdict::Excluded(As::ServerFile)),
            ("", "postmaster.opts", Verdict::Excluded(As::ServerFile)),
            ("", "postgresql.auto.conf", Verdict::Include),
            ("", "postgresql.auto.conf.tmp", Verdict::Excluded(As::ServerFile)),
            ("", "current_logfiles.tmp", Verdict::Excluded(As::ServerFile)),
            ("", "pg_wal", Verdict::ContentsExcluded),
            ("", "pg_stat_tmp", Verdict::ContentsExcluded),
            ("", "pg_replslot", Verdict::ContentsExcluded),
            ("", "pg_dynshmem", Verdict::ContentsExcluded),
            ("", "pg_notify", Verdict::ContentsExcluded),
            ("", "pg_serial", Verdict::ContentsExcluded),
            ("", "pg_snapshots", Verdict::ContentsExcluded),
            ("", "pg_subtrans", Verdict::ContentsExcluded),
            ("", "pg_stat", Verdict::Include),
            ("", "pg_logical", Verdict::Include),
            ("global", "pg_control", Verdict::ControlFile),
            ("base", "pg_control", Verdict::Include),
            ("global", "pg_internal.init", Verdict::Excluded(As::RelationCache)),
            ("base/5", "pg_internal.init.4711", Verdict::Excluded(As::RelationCache)),
            ("base/5", "pg_filenode.map", Verdict::Include),
            ("base", "pgsql_tmp", Verdict::Excluded(As::TemporaryFile)),
            ("base/pgsql_tmp", "pgsql_tmp4711.0", Verdict::Excluded(As::TemporaryFile)),
            ("base/5", "t3_16384", Verdict::Excluded(As::TemporaryRelation)),
            ("base/5", "t3_16384_fsm.1", Verdict::Excluded(As::TemporaryRelation)),
            ("base/5", "t_16384", Verdict::Include),
            ("base", "t3_16384", Verdict::Include),
            ("pg_tblspc", "16400", Verdict::Include),
            ("pg_tblspc/16400", "PG_18_202506291", Verdict::Include),
            ("pg_tblspc/16400", "PG_17_202406281", Verdict::Excluded(As::OtherVersion)),
            ("pg_tblspc/16400/PG_18_202506291/5", "t1_2", Verdict::Excluded(As::TemporaryRelation)),
        ] {
            assert_eq!(verdict(path, name), expected, "{path}/{name}");
        }
    }

    #[test]
    fn unlogged_relations_keep_only_their_init_fork() {
        let names: [&[u8]; 5] = [b"16384", b"16384_init", b"16384_fsm", b"16384.1", b"16385"];
        let rules = Exclusions::for_directory(PgVersion::V13, b"base/5", names);
        for name in [b"16384".as_slice(), b"16384_fsm", b"16384.1"] {
            assert_eq!(rules.verdict(name), Verdict::Excluded(ExcludedAs::UnloggedRelation));
        }
        assert_eq!(rules.verdict(b"16384_init"), Verdict::Include);
        assert_eq!(rules.verdict(b"16385"), Verdict::Include);
        // In other directories the names have no meaning.
        let rules = Exclusions::for_directory(PgVersion::V13, b"pg_xact", names);
        assert_eq!(rules.verdict(b"16384"), Verdict::Include);
    }

    #[test]
    fn summaries_exist_since_17() {
        assert_eq!(wal_subdirectories(PgVersion::V16), ["archive_status"]);
        assert_eq!(wal_subdirectories(PgVersion::V17), ["archive_status", "summaries"]);
    }

    proptest! {
        #[test]
        fn never_panics(path in proptest::collection::vec(any::<u8>(), 0..40), name: Vec<u8>) {
            let rules = Exclusions::for_directory(PgVersion::V16, &path, [name.as_slice()]);
            let _ = rules.verdict(&name);
        }
    }
}
