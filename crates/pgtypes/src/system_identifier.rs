//! `SystemIdentifier`: the number `initdb` gives a cluster, kept in `pg_control` and in the head of every WAL segment.
//!
//! Two directories with the same number are copies of one cluster. The number type of some JSON readers is too small
//! for it, so in JSON it is a text.

use std::fmt;
use std::str::FromStr;

use crate::parse_error::{ParseError, decimal, serde_as_text};

/// A cluster's system identifier, written in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(u64);

serde_as_text!(SystemIdentifier, "a system identifier in decimal digits");

impl SystemIdentifier {
    /// The identifier with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SystemIdentifier {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text).map(Self).ok_or_else(|| ParseError::new("a system identifier", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(number: u64) {
            let id = SystemIdentifier::new(number);
            prop_assert_eq!(id.to_string().parse::<SystemIdentifier>().unwrap(), id);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<SystemIdentifier>();
        }
    }
}
