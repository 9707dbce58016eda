//! `Lsn`: a position in the WAL, as `XLogRecPtr`.
//!
//! A position is a count of bytes since the beginning of the WAL; 0 means "none" wherever PostgreSQL stores one
//! (`InvalidXLogRecPtr`). The text is PostgreSQL's: two hexadecimal halves with a slash between them. Printing uses the
//! form of PostgreSQL up to 18, `0/174FF18`, which all versions read. Parsing also accepts that of 19, `0/0174FF18`,
//! and lower case.

use std::fmt;
use std::str::FromStr;

use crate::parse_error::{ParseError, serde_as_text};

/// A position in the WAL in bytes, written `16/B374D848`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

serde_as_text!(Lsn, "an LSN such as \"16/B374D848\"");

impl Lsn {
    /// The position that means "none", as `InvalidXLogRecPtr`.
    pub const INVALID: Self = Self(0);

    /// The largest position.
    pub const MAX: Self = Self(u64::MAX);

    /// The position `bytes` after the beginning of the WAL.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes since the beginning of the WAL.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Whether this is a position at all: the negation of `XLogRecPtrIsInvalid`.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The position, or `None` if it is the "none" of PostgreSQL's structures.
    pub const fn valid(self) -> Option<Self> {
        if self.is_valid() { Some(self) } else { None }
    }

    /// The position `bytes` later; `None` if that is past the end of all WAL.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The position `bytes` later, or at most [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position `bytes` earlier, or at least 0.
    #[must_use]
    pub const fn saturating_sub(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// Bytes from `earlier` to this position; 0 if `earlier` is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<u64> for Lsn {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({self})")
    }
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let valid = matches!(digits.len(), 1..=8) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if valid { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseError::new("an LSN", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_postgresql_text() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.as_u64(), 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("00000000/0300A0C8".parse::<Lsn>().unwrap().to_string(), "0/300A0C8");
        assert_eq!("a/b".parse::<Lsn>().unwrap(), Lsn::new(0xA_0000_000B));
    }

    #[test]
    fn refuses_what_is_not_an_lsn() {
        for text in
            ["", "/", "1/", "/1", "1", "+1/0", "1/-1", "123456789/0", "0/123456789", "1/2/3", " 1/2", "g/1", "é/1"]
        {
            let error = text.parse::<Lsn>().unwrap_err();
            assert_eq!(error.to_string(), format!("not an LSN: {text:?}"));
        }
    }

    #[test]
    fn arithmetic_stops_at_both_ends() {
        assert_eq!(Lsn::MAX.checked_add(1), None);
        assert_eq!(Lsn::MAX.saturating_add(1), Lsn::MAX);
        assert_eq!(Lsn::new(5).bytes_since(Lsn::new(9)), 0);
        assert_eq!(Lsn::new(9).bytes_since(Lsn::new(5)), 4);
        assert_eq!(Lsn::new(9).saturating_sub(10), Lsn::INVALID);
        assert_eq!(Lsn::INVALID.valid(), None);
    }

    proptest! {
        #[test]
        fn round_trips(bytes: u64) {
            let lsn = Lsn::new(bytes);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<Lsn>();
        }
    }
}
