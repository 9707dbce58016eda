//! The identity of a backup: the second in which it started.

use super::NameError;
use chrono::{DateTime, Datelike as _, NaiveDateTime, Utc};
use std::fmt;
use std::str::FromStr;

const FORMAT: &str = "%Y%m%dT%H%M%SZ";
const TEXT_LENGTH: usize = "20260822T101500Z".len();

/// Identity of a backup: the UTC second of its start, as `20260822T101500Z`. Sorting the texts sorts by time.
///
/// It is unique within a cluster because `start.json` is created conditionally: a second backup in the same second
/// finds that the name exists and waits for the next second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(DateTime<Utc>);

impl BackupId {
    /// The identity of a backup that starts at `time`; fractions of a second are dropped.
    ///
    /// # Errors
    /// If the year does not have four digits.
    pub fn new(time: DateTime<Utc>) -> Result<Self, NameError> {
        // Chrono keeps a leap second as second 59 with a fraction above 1e9; this makes it second 59.
        let time = DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time);
        if (0..=9999).contains(&time.year()) {
            Ok(Self(time))
        } else {
            Err(NameError::new("backup id", &time.to_rfc3339(), "the year has four digits"))
        }
    }

    /// The second of the backup's start.
    pub fn time(self) -> DateTime<Utc> {
        self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.format(FORMAT), formatter)
    }
}

impl FromStr for BackupId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::new("backup id", text, "a UTC time written as 20260822T101500Z");
        let digits_only = text.len() == TEXT_LENGTH
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        if !digits_only {
            return Err(error());
        }
        let time = NaiveDateTime::parse_from_str(text, FORMAT).map_err(|_| error())?.and_utc();
        let id = Self::new(time).map_err(|_| error())?;
        // Second 60 parses as a leap second and would print as 59.
        if id.to_string() == text { Ok(id) } else { Err(error()) }
    }
}

super::serde_as_text!(BackupId);
