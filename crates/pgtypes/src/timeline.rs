//! `TimelineId`: the branch of a cluster's history to which WAL belongs, as `TimeLineID`.
//!
//! Zero is not a timeline: PostgreSQL uses it for "none", which is `Option<TimelineId>` here. People see a timeline in
//! decimal; file names contain it as eight hexadecimal digits.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::parse_error::{ParseError, decimal, upper_hex_u32};

/// A timeline; written in decimal, and as a number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The first timeline of every cluster.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline with this number; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Eight hexadecimal digits, as in file names.
    pub fn hex(self) -> String {
        format!("{:08X}", self.get())
    }

    /// Reads the eight hexadecimal digits of a file name.
    ///
    /// # Errors
    /// [`ParseError`] unless the text has exactly eight digits, in upper case, and is not zero.
    pub fn from_hex(text: &str) -> Result<Self, ParseError> {
        (text.len() == 8)
            .then(|| upper_hex_u32(text))
            .flatten()
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new("a timeline of 8 hexadecimal digits", text))
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TimelineId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text).and_then(Self::new).ok_or_else(|| ParseError::new("a timeline", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_is_not_a_timeline() {
        assert_eq!(TimelineId::new(0), None);
        assert!("0".parse::<TimelineId>().is_err());
        assert!(TimelineId::from_hex("00000000").is_err());
        assert!("+1".parse::<TimelineId>().is_err());
        assert!(TimelineId::from_hex("0000000a").is_err());
    }

    proptest! {
        #[test]
        fn round_trips(number in 1u32..) {
            let timeline = TimelineId::new(number).unwrap();
            prop_assert_eq!(timeline.to_string().parse::<TimelineId>().unwrap(), timeline);
            prop_assert_eq!(TimelineId::from_hex(&timeline.hex()).unwrap(), timeline);
        }

        #[test]
        fn never_panics(text in ".*") {
            let _ = text.parse::<TimelineId>();
            let _ = TimelineId::from_hex(&text);
        }
    }
}
