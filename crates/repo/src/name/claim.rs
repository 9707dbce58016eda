//! The number of a claim on a cluster's archive.

use super::NameError;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Number of a claim, from 1. Each `initdb` or `pg_upgrade` under one cluster name gets the next number, so WAL of two
/// system identifiers is never in one folder. Prints as plain decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimNumber(NonZeroU32);

impl ClaimNumber {
    /// The first claim of a cluster.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The claim with this number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number, at least 1.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The claim after this one; `None` after 4294967295.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for ClaimNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl FromStr for ClaimNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::new("claim number", text, "decimal digits, from 1, without leading zeros");
        if text.starts_with(['0', '+']) {
            return Err(error());
        }
        text.parse().map(Self).map_err(|_| error())
    }
}

impl serde::Serialize for ClaimNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.get())
    }
}

impl<'de> serde::Deserialize<'de> for ClaimNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        NonZeroU32::deserialize(deserializer).map(Self)
    }
}
