//! The names of what is planned: claims, backups and packs.
//!
//! They mean what the repository format means by them and print in the same way. They are types of their own, because
//! the crate of the format brings compression and ciphers along, and the planner needs neither.

use chrono::{DateTime, Utc};
use std::fmt;
use std::num::NonZeroU32;

/// Number of a claim on an archive, from 1: `pg_upgrade` and `initdb` make a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimNumber(NonZeroU32);

impl ClaimNumber {
    /// The first claim of an archive.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The claim with this number; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, at least 1.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for ClaimNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identity of a backup: the UTC second of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(DateTime<Utc>);

impl BackupId {
    /// The backup that started in this second; fractions are dropped.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self(DateTime::from_timestamp(start.timestamp(), 0).unwrap_or(start))
    }

    /// The second of its start, by the clock of the host that took it.
    pub const fn time(self) -> DateTime<Utc> {
        self.0
    }
}

impl fmt::Display for BackupId {
    /// `20260822T101500Z`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format("%Y%m%dT%H%M%SZ").fmt(formatter)
    }
}

/// Identity of a pack: the backup that wrote it, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId {
    /// The backup that wrote it. Later backups may name it as well.
    pub backup: BackupId,
    /// Its number among the packs of that backup, from 1.
    pub number: u32,
}

impl fmt::Display for PackId {
    /// `20260822T101500Z/000001`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{:06}", self.backup, self.number)
    }
}
