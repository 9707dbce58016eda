//! `PgVersion`: the supported majors, and their differences.
//!
//! All knowledge of the kind "since PostgreSQL 17" is here, so that a new major is one more row. The numbers of a major
//! are fixed once it is released: `PG_CONTROL_VERSION` (`pg_control.h`), `CATALOG_VERSION_NO` (`catversion.h`) and
//! `XLOG_PAGE_MAGIC` (`xlog_internal.h`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, decimal};

/// A major version of PostgreSQL from 13 to 18; a number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PgVersion(u16);

/// A version of PostgreSQL that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {0} is not supported: 13 to 18 are")]
pub struct UnsupportedVersion(pub u16);

impl PgVersion {
    /// PostgreSQL 13.
    pub const V13: Self = Self(13);
    /// PostgreSQL 14.
    pub const V14: Self = Self(14);
    /// PostgreSQL 15.
    pub const V15: Self = Self(15);
    /// PostgreSQL 16.
    pub const V16: Self = Self(16);
    /// PostgreSQL 17.
    pub const V17: Self = Self(17);
    /// PostgreSQL 18.
    pub const V18: Self = Self(18);

    /// All supported majors, oldest first.
    pub const ALL: [Self; 6] = [Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18];

    /// The major with this number.
    ///
    /// # Errors
    /// [`UnsupportedVersion`] unless the major is one of 13 to 18.
    pub const fn new(major: u16) -> Result<Self, UnsupportedVersion> {
        match major {
            13..=18 => Ok(Self(major)),
            _ => Err(UnsupportedVersion(major)),
        }
    }

    /// The major of a server's `server_version_num`, such as 150014.
    ///
    /// # Errors
    /// [`UnsupportedVersion`] unless the major is one of 13 to 18.
    pub fn from_server_version_num(number: u32) -> Result<Self, UnsupportedVersion> {
        Self::new(u16::try_from(number / 10_000).unwrap_or(u16::MAX))
    }

    /// The released major with this `CATALOG_VERSION_NO`; `None` for other majors and for development builds.
    pub fn from_catalog_version(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.catalog_version() == number)
    }

    /// The major whose WAL pages have this `XLOG_PAGE_MAGIC`.
    pub fn from_wal_page_magic(magic: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.wal_page_magic() == magic)
    }

    /// The number of the major.
    pub const fn major(self) -> u16 {
        self.0
    }

    /// `PG_CONTROL_VERSION`; several majors share one.
    pub const fn control_version(self) -> u32 {
        match self.0 {
            ..=16 => 1300,
            17 => 1700,
            _ => 1800,
        }
    }

    /// `CATALOG_VERSION_NO`; also a part of the names of tablespace directories.
    pub const fn catalog_version(self) -> u32 {
        match self.0 {
            ..=13 => 202_007_201,
            14 => 202_107_181,
            15 => 202_209_061,
            16 => 202_307_071,
            17 => 202_406_281,
            _ => 202_506_291,
        }
    }

    /// `XLOG_PAGE_MAGIC`, the first two bytes of every WAL page.
    pub const fn wal_page_magic(self) -> u16 {
        match self.0 {
            ..=13 => 0xD106,
            14 => 0xD10D,
            15 => 0xD110,
            16 => 0xD113,
            17 => 0xD116,
            _ => 0xD118,
        }
    }

    /// The directory of this major within a tablespace, as `TABLESPACE_VERSION_DIRECTORY`: `PG_15_202209061`.
    pub fn tablespace_directory(self) -> String {
        format!("PG_{}_{}", self.major(), self.catalog_version())
    }

    /// The SQL function that begins an online backup.
    pub const fn backup_start_function(self) -> &'static str {
        if self.has_backup_start_names() { "pg_backup_start" } else { "pg_start_backup" }
    }

    /// The SQL function that ends an online backup.
    pub const fn backup_stop_function(self) -> &'static str {
        if self.has_backup_start_names() { "pg_backup_stop" } else { "pg_stop_backup" }
    }

    /// Whether online backups use `pg_backup_start` and `pg_backup_stop`, without the exclusive mode.
    pub const fn has_backup_start_names(self) -> bool {
        self.0 >= 15
    }

    /// Whether the server can write WAL summaries (`pg_wal/summaries`).
    pub const fn has_wal_summaries(self) -> bool {
        self.0 >= 17
    }

    /// `PostgreSQL-Backup-Manifest-Version` of this major's backup manifests.
    pub const fn backup_manifest_version(self) -> u32 {
        if self.0 >= 17 { 2 } else { 1 }
    }
}

impl TryFrom<u16> for PgVersion {
    type Error = UnsupportedVersion;

    fn try_from(major: u16) -> Result<Self, Self::Error> {
        Self::new(major)
    }
}

impl From<PgVersion> for u16 {
    fn from(version: PgVersion) -> Self {
        version.0
    }
}

impl fmt::Display for PgVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PgVersion {
    type Err = ParseError;

    /// Parses the major alone, as in the file `PG_VERSION` without its line end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text)
            .and_then(|major| Self::new(major).ok())
            .ok_or_else(|| ParseError::new("a PostgreSQL major from 13 to 18", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_major() {
        for version in PgVersion::ALL {
            assert_eq!(PgVersion::from_catalog_version(version.catalog_version()), Some(version));
            assert_eq!(PgVersion::from_wal_page_magic(version.wal_page_magic()), Some(version));
            assert_eq!(PgVersion::from_server_version_num(u32::from(version.major()) * 10_000 + 7), Ok(version));
            assert_eq!(version.to_string().parse(), Ok(version));
        }
    }

    #[test]
    fn other_majors_are_refused() {
        assert_eq!(PgVersion::new(12), Err(UnsupportedVersion(12)));
        assert_eq!(PgVersion::from_server_version_num(190_000), Err(UnsupportedVersion(19)));
        assert_eq!(PgVersion::from_server_version_num(u32::MAX), Err(UnsupportedVersion(u16::MAX)));
        assert_eq!(UnsupportedVersion(12).to_string(), "PostgreSQL 12 is not supported: 13 to 18 are");
    }
}
