//! Names of relation files, and of their directories.
//!
//! A relation's file is named by its number, followed by the fork and the number of the 1 GiB segment: `16384`,
//! `16384.1`, `16384_fsm`, `16384_vm.2`. A temporary relation has the prefix `t<backend>_`. The rules are those of
//! `parse_filename_for_nontemp_relation` (`reinit.c`) and `looks_like_temp_rel_name` (`fd.c`), in the strict form of
//! PostgreSQL 17: no leading zeros.
//!
//! Only these files have page checksums. The other files in `base` and `global` (`pg_control`, `pg_filenode.map`,
//! `pg_internal.init`, `PG_VERSION`) do not match the names, so no list of exceptions is needed.

use std::fmt;

use crate::parse_error::decimal;
use crate::version::PgVersion;

/// A fork of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// The data itself.
    Main,
    /// The free space map.
    FreeSpaceMap,
    /// The visibility map.
    VisibilityMap,
    /// The content to which an unlogged relation is reset after a crash.
    Init,
}

impl Fork {
    fn suffix(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::FreeSpaceMap => "_fsm",
            Self::VisibilityMap => "_vm",
            Self::Init => "_init",
        }
    }
}

/// The name of a relation's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFileName {
    /// The relation's number (`relfilenode`).
    pub number: u32,
    /// The part of the relation that the file holds.
    pub fork: Fork,
    /// The number of the segment file, from 0.
    pub segment: u32,
    /// The backend to which a temporary relation belongs; `None` for any other.
    pub temporary_backend: Option<u32>,
}

impl RelationFileName {
    /// Parses a file name; `None` if it is not a relation's.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (temporary_backend, name) = match name.strip_prefix('t') {
            Some(rest) => {
                let (backend, rest) = rest.split_once('_')?;
                (Some(decimal(backend)?), rest)
            }
            None => (None, name),
        };
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, positive(segment)?),
            None => (name, 0),
        };
        let (number, fork) = match name.split_once('_') {
            None => (name, Fork::Main),
            Some((number, "fsm")) => (number, Fork::FreeSpaceMap),
            Some((number, "vm")) => (number, Fork::VisibilityMap),
            Some((number, "init")) => (number, Fork::Init),
            Some(_) => return None,
        };
        Some(Self { number: positive(number)?, fork, segment, temporary_backend })
    }

    /// The block number of the file's first page, which is an input of the page checksums.
    ///
    /// `segment_pages` is `relation_segment_pages` of the control file. `None` if no relation is that long.
    pub fn first_block(&self, segment_pages: u32) -> Option<u32> {
        self.segment.checked_mul(segment_pages)
    }
}

/// A decimal number greater than 0, without leading zeros.
fn positive(text: &str) -> Option<u32> {
    if text.starts_with('0') { None } else { decimal(text) }
}

impl fmt::Display for RelationFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.temporary_backend {
            write!(f, "t{backend}_")?;
        }
        write!(f, "{}{}", self.number, self.fork.suffix())?;
        if self.segment > 0 {
            write!(f, ".{}", self.segment)?;
        }
        Ok(())
    }
}

/// A directory with relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelationDirectory {
    /// `global`: the relations all databases share.
    Global,
    /// A database's directory, in `base` or in a tablespace.
    Database {
        /// The OID of the database.
        database: u32,
        /// The OID of the tablespace; `None` for `base`.
        tablespace: Option<u32>,
    },
}

impl RelationDirectory {
    /// Recognises a directory by its path relative to the data directory: `global`, `base/<database>` or
    /// `pg_tblspc/<tablespace>/PG_<major>_<catalog version>/<database>`.
    pub fn parse(path: &[u8], version: PgVersion) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?;
        let mut parts = path.split('/');
        let (first, second, third, fourth) = (parts.next(), parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        match (first?, second, third, fourth) {
            ("global", None, None, None) => Some(Self::Global),
            ("base", Some(database), None, None) => {
                Some(Self::Database { database: decimal(database)?, tablespace: None })
            }
            ("pg_tblspc", Some(tablespace), Some(directory), Some(database))
                if directory == version.tablespace_directory() =>
            {
                Some(Self::Database { database: decimal(database)?, tablespace: Some(decimal(tablespace)?) })
            }
            _ => None,
        }
    }
}

/// A relation's file with its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationPath {
    /// `global`, or the directory of a database.
    pub directory: RelationDirectory,
    /// Its name in that directory.
    pub file: RelationFileName,
}

impl RelationPath {
    /// Recognises a relation's file by its path relative to the data directory. The pages of these files have
    /// checksums, in a cluster with checksums.
    pub fn parse(path: &[u8], version: PgVersion) -> Option<Self> {
        let slash = path.iter().rposition(|byte| *byte == b'/')?;
        let (directory, name) = path.split_at_checked(slash)?;
        Some(Self {
            directory: RelationDirectory::parse(directory, version)?,
            file: RelationFileName::parse(name.strip_prefix(b"/")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_names() {
        let plain = RelationFileName { number: 16384, fork: Fork::Main, segment: 0, temporary_backend: None };
        for (text, name) in [
            ("16384", plain),
            ("16384.3", RelationFileName { segment: 3, ..plain }),
            ("16384_fsm", RelationFileName { fork: Fork::FreeSpaceMap, ..plain }),
            ("16384_vm.2", RelationFileName { fork: Fork::VisibilityMap, segment: 2, ..plain }),
            ("16384_init", RelationFileName { fork: Fork::Init, ..plain }),
            ("t3_16384", RelationFileName { temporary_backend: Some(3), ..plain }),
            (
                "t0_16384_fsm.1",
                RelationFileName { temporary_backend: Some(0), fork: Fork::FreeSpaceMap, segment: 1, ..plain },
            ),
        ] {
            assert_eq!(RelationFileName::parse(text.as_bytes()), Some(name), "{text}");
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn refuses_other_names() {
        for text in [
            "",
            "0",
            "016384",
            "16384.0",
            "16384.01",
            "16384.",
            "16384_",
            "16384_main",
            "16384_fsm_vm",
            "16384.1_fsm",
            "pg_control",
            "pg_filenode.map",
            "PG_VERSION",
            "pg_internal.init",
            "4294967296",
            "t_1",
            "t1",
            "tt1_2",
            "1 ",
        ] {
            assert_eq!(RelationFileName::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(RelationFileName::parse(b"1\xff"), None);
    }

    #[test]
    fn recognises_directories() {
        let at = |path: &str| RelationDirectory::parse(path.as_bytes(), PgVersion::V15);
        assert_eq!(at("global"), Some(RelationDirectory::Global));
        assert_eq!(at("base/5"), Some(RelationDirectory::Database { database: 5, tablespace: None }));
        assert_eq!(
            at("pg_tblspc/16400/PG_15_202209061/5"),
            Some(RelationDirectory::Database { database: 5, tablespace: Some(16400) })
        );
        for other in [
            "",
            "base",
            "base/5/6",
            "base/pgsql_tmp",
            "pg_tblspc/16400/PG_14_202107181/5",
            "pg_tblspc/16400/5",
            "global/5",
            "pg_wal",
        ] {
            assert_eq!(at(other), None, "{other}");
        }
    }

    #[test]
    fn checksummed_files_are_relations_only() {
        let is_relation = |path: &str| RelationPath::parse(path.as_bytes(), PgVersion::V18).is_some();
        assert!(is_relation("base/5/1259_vm"));
        assert!(is_relation("global/1262"));
        for path in ["global/pg_control", "base/5/PG_VERSION", "base/5/pg_filenode.map", "pg_xact/0000", "1259"] {
            assert!(!is_relation(path), "{path}");
        }
        let file = RelationPath::parse(b"base/5/16384.2", PgVersion::V18).unwrap().file;
        assert_eq!(file.first_block(131_072), Some(262_144));
        assert_eq!(RelationFileName { segment: u32::MAX, ..file }.first_block(131_072), None);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(name in "(t[0-9]{1,3}_)?[0-9]{1,10}(_fsm|_vm|_init)?(\\.[0-9]{1,3})?|.*") {
            if let Some(parsed) = RelationFileName::parse(name.as_bytes()) {
                let written = parsed.to_string();
                prop_assert_eq!(RelationFileName::parse(written.as_bytes()), Some(parsed));
            }
        }

        #[test]
        fn never_panics(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = RelationPath::parse(&path, PgVersion::V17);
            let _ = RelationDirectory::parse(&path, PgVersion::V17);
        }
    }
}
