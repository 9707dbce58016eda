//! `RelationFile`: a relation's files as WAL names them, `RelFileLocator` (`RelFileNode` before 16).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::bytes::u32_at;
use crate::parse_error::{ParseError, decimal};

/// The tablespace in which the databases are by default, `DEFAULTTABLESPACE_OID`: `base`.
const DEFAULT_TABLESPACE: u32 = 1663;
/// The tablespace of the relations that all databases share, `GLOBALTABLESPACE_OID`: `global`.
const GLOBAL_TABLESPACE: u32 = 1664;

/// All files of a relation, whatever the fork and segment. As text: `tablespace/database/number`, the form of
/// `pg_waldump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelationFile {
    /// The OID of the tablespace.
    pub tablespace: u32,
    /// The OID of the database; 0 for a relation that all databases share.
    pub database: u32,
    /// The number in the names of the files, `relfilenode`.
    pub number: u32,
}

impl RelationFile {
    /// The number of its bytes in a record.
    pub(crate) const SIZE: usize = 12;

    /// Reads the one at an offset of a record; `None` if there are too few bytes.
    pub(crate) fn at(bytes: &[u8], offset: usize) -> Option<Self> {
        let at = |field: usize| u32_at(bytes, offset.checked_add(field)?);
        Some(Self { tablespace: at(0)?, database: at(4)?, number: at(8)? })
    }

    /// The path of its first file, relative to the data directory. The directory of a major within a tablespace is
    /// left out: `pg_tblspc/16400/5/16384`.
    pub fn path(&self) -> String {
        let Self { tablespace, database, number } = self;
        match *tablespace {
            DEFAULT_TABLESPACE => format!("base/{database}/{number}"),
            GLOBAL_TABLESPACE => format!("global/{number}"),
            _ => format!("pg_tblspc/{tablespace}/{database}/{number}"),
        }
    }
}

impl fmt::Display for RelationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.number)
    }
}

impl FromStr for RelationFile {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let mut parts = text.split('/');
            let mut next = || decimal(parts.next()?);
            let file = Self { tablespace: next()?, database: next()?, number: next()? };
            parts.next().is_none().then_some(file)
        };
        parse().ok_or_else(|| ParseError::new("tablespace/database/number", text))
    }
}

impl Serialize for RelationFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn is_written_as_pg_waldump_writes_it() {
        for (text, path) in [
            ("1663/5/16384", "base/5/16384"),
            ("1664/0/1262", "global/1262"),
            ("16400/5/16500", "pg_tblspc/16400/5/16500"),
        ] {
            let file: RelationFile = text.parse().unwrap();
            assert_eq!((file.to_string().as_str(), file.path().as_str()), (text, path));
        }
        for other in ["", "1663", "1663/5", "1663/5/16384/1", "1663/5/x", "1663//5", "1663/5/4294967296"] {
            assert!(other.parse::<RelationFile>().is_err(), "{other}");
        }
    }
}
