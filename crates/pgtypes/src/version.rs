//! `PgVersion`: the supported majors, and their differences.
//!
//! All knowledge of the kind "since PostgreSQL 17" is here, so that a new major is one more row. The numbers of a major
//! are fixed once it is released: `PG_CONTROL_VERSION` (`pg_control.h`), `CATALOG_VERSION_NO` (`catversion.h`) and
//! `XLOG_PAGE_MAGIC` (`xlog_internal.h`). Those of 19 are of its first release candidate. `tests/versions.rs` compares
//! all of them with fresh clusters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, decimal};

/// A major version of PostgreSQL from 13 to 19; a number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct PgVersion(u16);

/// The supported majors, for messages. [`PgVersion::ALL`] has them one by one.
pub const SUPPORTED: &str = "13 to 19";

/// A PostgreSQL that is not supported, by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedVersion {
    /// Another major.
    #[error("PostgreSQL {0} is not supported: {SUPPORTED} are")]
    Major(u16),
    /// WAL pages begin with this `XLOG_PAGE_MAGIC`, which no supported major has.
    #[error("PostgreSQL with {0:04X} at the beginning of its WAL pages is not supported: {SUPPORTED} are")]
    WalPageMagic(u16),
    /// `pg_control` has two versions that no supported major has together.
    #[error(
        "PostgreSQL with control version {control_version} and catalog version {catalog_version} is not supported: \
         {SUPPORTED} are"
    )]
    Control {
        /// `PG_CONTROL_VERSION`
        control_version: u32,
        /// `CATALOG_VERSION_NO`
        catalog_version: u32,
    },
    /// The major is supported, but its data directory or its WAL has other numbers than the released one.
    #[error(
        "this build of PostgreSQL {0} is not supported: the released ones of {SUPPORTED} are, on 64-bit little-endian \
         machines"
    )]
    Build(PgVersion),
}

impl UnsupportedVersion {
    /// What a person can do, whatever is known of the version.
    pub const ADVICE: &str = "nothing was written: use a release of Holdfast that supports this PostgreSQL, as its \
                              changelog says, or a released PostgreSQL of 13 to 19";

    /// The same, with what the file `PG_VERSION` of the data directory says.
    #[must_use]
    pub fn in_directory_of(self, pg_version: &str) -> Self {
        match (self, decimal::<u16>(pg_version.trim_end())) {
            (Self::WalPageMagic(_) | Self::Control { .. }, Some(major)) => match PgVersion::new(major) {
                Ok(version) => Self::Build(version),
                Err(unsupported) => unsupported,
            },
            _ => self,
        }
    }
}

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
    /// PostgreSQL 19.
    pub const V19: Self = Self(19);

    /// The oldest supported major.
    pub const OLDEST: Self = Self::V13;
    /// The newest supported major.
    pub const NEWEST: Self = Self::V19;

    /// All supported majors, oldest first.
    pub const ALL: [Self; 7] = [Self::V13, Self::V14, Self::V15, Self::V16, Self::V17, Self::V18, Self::V19];

    /// The major with this number.
    ///
    /// # Errors
    /// [`UnsupportedVersion`] unless the major is one of 13 to 19.
    pub const fn new(major: u16) -> Result<Self, UnsupportedVersion> {
        match major {
            13..=19 => Ok(Self(major)),
            _ => Err(UnsupportedVersion::Major(major)),
        }
    }

    /// The major of a server's `server_version_num`, such as 150014.
    ///
    /// # Errors
    /// [`UnsupportedVersion`] unless the major is one of 13 to 19.
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

    /// The PostgreSQL that writes this `XLOG_PAGE_MAGIC`, if the number looks like one and no supported major has it.
    /// Since 7.1, all of them are between `D058` and `D1FF`.
    pub fn unsupported_wal_page_magic(magic: u16) -> Option<UnsupportedVersion> {
        let is_one = (0xD058..=0xD1FF).contains(&magic) && Self::from_wal_page_magic(magic).is_none();
        is_one.then_some(UnsupportedVersion::WalPageMagic(magic))
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
            18 => 1800,
            _ => 1905,
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
            18 => 202_506_291,
            _ => 202_610_061,
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
            18 => 0xD118,
            _ => 0xD122,
        }
    }

    /// `XLP_FIRST_IS_OVERWRITE_CONTRECORD`, a flag of WAL pages. 19 gave it the bit of a flag that it removed.
    pub const fn wal_overwrite_flag(self) -> u16 {
        if self.0 >= 19 { 0x0004 } else { 0x0008 }
    }

    /// `XLP_ALL_FLAGS`, the flags that a WAL page can have.
    pub const fn wal_page_flags(self) -> u16 {
        if self.0 >= 19 { 0x0007 } else { 0x000F }
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
            .ok_or_else(|| ParseError::new("a PostgreSQL major from 13 to 19", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

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
        assert_eq!(PgVersion::new(12), Err(UnsupportedVersion::Major(12)));
        assert_eq!(PgVersion::from_server_version_num(200_000), Err(UnsupportedVersion::Major(20)));
        assert_eq!(PgVersion::from_server_version_num(u32::MAX), Err(UnsupportedVersion::Major(u16::MAX)));
        assert_eq!(UnsupportedVersion::Major(12).to_string(), "PostgreSQL 12 is not supported: 13 to 19 are");
    }

    #[test]
    fn the_supported_majors_are_those_of_the_messages() {
        let [first, .., last] = PgVersion::ALL;
        assert_eq!((first, last), (PgVersion::OLDEST, PgVersion::NEWEST));
        assert_eq!(SUPPORTED, format!("{first} to {last}"));
        assert!(UnsupportedVersion::ADVICE.contains(SUPPORTED));
        assert!(PgVersion::ALL.is_sorted_by(|one, next| next.major() == one.major() + 1));
    }

    #[test]
    fn an_unknown_version_gets_its_number_from_the_data_directory() {
        let magic = PgVersion::unsupported_wal_page_magic(0xD130).unwrap();
        let control = UnsupportedVersion::Control { control_version: 2000, catalog_version: 202_710_061 };
        for unknown in [magic, control] {
            for (file, message) in [
                ("20\n", "PostgreSQL 20 is not supported: 13 to 19 are"),
                (
                    "19\n",
                    "this build of PostgreSQL 19 is not supported: the released ones of 13 to 19 are, on 64-bit \
                     little-endian machines",
                ),
            ] {
                assert_eq!(unknown.in_directory_of(file).to_string(), message);
            }
            for nonsense in ["", "9.6\n", "99999\n", "x"] {
                assert_eq!(unknown.in_directory_of(nonsense), unknown);
            }
        }
        assert_eq!(
            magic.to_string(),
            "PostgreSQL with D130 at the beginning of its WAL pages is not supported: 13 to 19 are"
        );
        assert_eq!(
            control.to_string(),
            "PostgreSQL with control version 2000 and catalog version 202710061 is not supported: 13 to 19 are"
        );
        for other in [0, 0xD122, 0xD118, 0xD000, 0xD200, 0xFFFF] {
            assert_eq!(PgVersion::unsupported_wal_page_magic(other), None, "{other:04X}");
        }
    }
}
