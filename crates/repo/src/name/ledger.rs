//! The two parts of a ledger object's name: the time and the kind.

use super::NameError;
use chrono::{DateTime, Datelike as _, NaiveDateTime, SubsecRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const FORMAT: &str = "%Y%m%dT%H%M%S%.6fZ";

/// The kind of event that a ledger entry records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LedgerKind {
    /// WAL that should be in the archive is missing.
    Gap,
    /// Missing WAL is in the archive again, or nothing needs it any more.
    GapClosed,
    /// Two different contents were offered for one WAL file name.
    Divergence,
    /// A deletion was decided.
    Deletion,
    /// A decided deletion is being carried out, or the run that did it was killed.
    Removing,
    /// A decided deletion was carried out.
    Removal,
    /// A backup is held.
    Hold,
    /// A verification ran.
    Verification,
    /// Key slots were added, replaced or removed.
    Key,
    /// A restore was tried.
    Drill,
    /// Backups and WAL came here from another repository.
    Copy,
    /// Objects were brought back from another repository.
    Repair,
    /// Packs and WAL were read to their last byte, and were sound.
    Reading,
}

impl LedgerKind {
    /// The word of [`LedgerKind::Verification`].
    pub(super) const VERIFICATION: &'static str = "verification";

    /// The word of [`LedgerKind::Drill`].
    pub(super) const DRILL: &'static str = "drill";

    const ALL: [Self; 13] = [
        Self::Gap,
        Self::GapClosed,
        Self::Divergence,
        Self::Deletion,
        Self::Removing,
        Self::Removal,
        Self::Hold,
        Self::Verification,
        Self::Key,
        Self::Drill,
        Self::Copy,
        Self::Repair,
        Self::Reading,
    ];

    /// The word in the object's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::GapClosed => "gap-closed",
            Self::Divergence => "divergence",
            Self::Deletion => "deletion",
            Self::Removing => "removing",
            Self::Removal => "removal",
            Self::Hold => "hold",
            Self::Verification => Self::VERIFICATION,
            Self::Key => "key",
            Self::Drill => Self::DRILL,
            Self::Copy => "copy",
            Self::Repair => "repair",
            Self::Reading => "reading",
        }
    }
}

impl fmt::Display for LedgerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for LedgerKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            NameError::new(
                "ledger kind",
                text,
                "gap, gap-closed, divergence, deletion, removing, removal, hold, verification, key, drill, copy, repair or \
                 reading",
            )
        })
    }
}

/// Time of a ledger entry, in microseconds, as `20260822T101500.123456Z`. Entries are created conditionally; a writer
/// whose name exists already uses [`next`](Self::next).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LedgerTime(DateTime<Utc>);

impl LedgerTime {
    /// The ledger time of `time`; fractions of a microsecond are dropped.
    ///
    /// # Errors
    /// If the year does not have four digits.
    pub fn new(time: DateTime<Utc>) -> Result<Self, NameError> {
        // A leap second (fraction above 1e9) has no name of its own, so it counts as the last microsecond before it.
        let nanoseconds = time.timestamp_subsec_nanos().min(999_999_999);
        let time = DateTime::from_timestamp(time.timestamp(), nanoseconds).unwrap_or(time).trunc_subsecs(6);
        if (0..=9999).contains(&time.year()) {
            Ok(Self(time))
        } else {
            Err(NameError::new("ledger time", &time.to_rfc3339(), "the year has four digits"))
        }
    }

    /// The time as a date.
    pub fn time(self) -> DateTime<Utc> {
        self.0
    }

    /// One microsecond later.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0 + TimeDelta::microseconds(1)).unwrap_or(self)
    }
}

impl fmt::Display for LedgerTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.format(FORMAT), formatter)
    }
}

impl FromStr for LedgerTime {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let error = || NameError::new("ledger time", text, "a UTC time written as 20260822T101500.123456Z");
        let time = NaiveDateTime::parse_from_str(text, FORMAT).map_err(|_| error())?.and_utc();
        let time = Self::new(time).map_err(|_| error())?;
        if time.to_string() == text { Ok(time) } else { Err(error()) }
    }
}

super::serde_as_text!(LedgerTime);
