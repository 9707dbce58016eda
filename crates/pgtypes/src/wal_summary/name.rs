//! `WalSummaryName`: the name of a WAL summary file.
//!
//! Forty upper-case hexadecimal digits and `.summary`, as `IsWalSummaryFilename`: eight of the timeline, sixteen of the
//! start LSN, sixteen of the end LSN. PostgreSQL also accepts timeline 0 and an end before the start, but it never
//! writes them, and such a name says nothing about coverage. So they are refused here. The server writes a file as
//! `temp.summary` and renames it, so that a file with such a name is complete.

use std::fmt;
use std::str::FromStr;

use crate::lsn::Lsn;
use crate::parse_error::{ParseError, serde_as_text, upper_hex_u32};
use crate::timeline::TimelineId;

/// The name of a file in `pg_wal/summaries`: it describes the records that begin from `start` to before `end`.
///
/// The order is that of the text: by timeline, then by start LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSummaryName {
    timeline: TimelineId,
    start: Lsn,
    end: Lsn,
}

serde_as_text!(WalSummaryName, "the name of a WAL summary file");

impl WalSummaryName {
    /// The directory of the summaries, relative to the data directory.
    pub const DIRECTORY: &str = "pg_wal/summaries";

    /// The name for a range; `None` if the range is empty.
    pub fn new(timeline: TimelineId, start: Lsn, end: Lsn) -> Option<Self> {
        (start < end).then_some(Self { timeline, start, end })
    }

    /// The timeline of the WAL.
    pub const fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The first LSN of the range.
    pub const fn start(self) -> Lsn {
        self.start
    }

    /// The first LSN after the range.
    pub const fn end(self) -> Lsn {
        self.end
    }
}

impl fmt::Display for WalSummaryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:016X}{:016X}.summary", self.timeline.get(), self.start.as_u64(), self.end.as_u64())
    }
}

impl FromStr for WalSummaryName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let digits = text.strip_suffix(".summary").filter(|digits| digits.len() == 40)?;
            let number = |from: usize| upper_hex_u32(digits.get(from..from + 8)?);
            let lsn = |from: usize| Some(Lsn::new(u64::from(number(from)?) << 32 | u64::from(number(from + 8)?)));
            Self::new(TimelineId::new(number(0)?)?, lsn(8)?, lsn(24)?)
        };
        parse().ok_or_else(|| ParseError::new("the name of a WAL summary file", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_the_servers_names() {
        let text = "0000000100000000015078D00000000001523A98.summary";
        let name: WalSummaryName = text.parse().unwrap();
        assert_eq!(name.timeline(), TimelineId::FIRST);
        assert_eq!(name.start().to_string(), "0/15078D0");
        assert_eq!(name.end().to_string(), "0/1523A98");
        assert_eq!(name.to_string(), text);
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "temp.summary",
            ".summary",
            "0000000100000000015078D00000000001523A98",
            "0000000100000000015078D00000000001523A98.summary.tmp",
            "0000000100000000015078d00000000001523A98.summary",
            "000000010000000001507BD0000000001523A98.summary",
            "+000000100000000015078D00000000001523A98.summary",
            // timeline 0, and an empty or a backward range
            "0000000000000000015078D00000000001523A98.summary",
            "000000010000000001523A980000000001523A98.summary",
            "000000010000000001523A9800000000015078D0.summary",
            "é0000010000000001507BD00000000001523A9.summary",
        ] {
            let error = text.parse::<WalSummaryName>().unwrap_err();
            assert_eq!(error.to_string(), format!("not the name of a WAL summary file: {text:?}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "[0-9A-F]{40}\\.summary|.*") {
            if let Ok(name) = text.parse::<WalSummaryName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
