//! `WalFileName`: the four kinds of names that PostgreSQL passes to `archive_command` and `restore_command`.
//!
//! They are segments, partial segments (the last one of a timeline after a promotion), timeline history files and
//! backup history files. The rules are `IsXLogFileName`, `IsPartialXLogFileName`, `IsTLHistoryFileName` and
//! `IsBackupHistoryFileName` of `xlog_internal.h`, upper-case digits only. Everything else is refused, so a name parsed
//! here is safe in a path.

use std::fmt;
use std::str::FromStr;

use crate::parse_error::{ParseError, serde_as_text, upper_hex_u32};
use crate::segment::SegmentName;
use crate::timeline::TimelineId;

/// A file of the WAL archive, identified by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFileName {
    /// `000000010000000A000000FF`
    Segment(SegmentName),
    /// `000000010000000A000000FF.partial`
    Partial(SegmentName),
    /// `00000002.history`
    History(TimelineId),
    /// `000000010000000A000000FF.00000028.backup`: written at the end of a backup, named for its start LSN.
    BackupHistory {
        /// The segment that contains the backup's start LSN.
        segment: SegmentName,
        /// The start LSN's offset in that segment, in bytes.
        offset: u32,
    },
}

serde_as_text!(WalFileName, "the name of a WAL archive file");

impl WalFileName {
    /// The timeline in the name.
    pub const fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupHistory { segment, .. } => segment.timeline(),
            Self::History(timeline) => timeline,
        }
    }

    /// The segment in the name, if it has one.
    pub const fn segment(self) -> Option<SegmentName> {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupHistory { segment, .. } => Some(segment),
            Self::History(_) => None,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::History(timeline) => write!(f, "{:08X}.history", timeline.get()),
            Self::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let Some((stem, ending)) = text.split_once('.') else {
                return text.parse().ok().map(Self::Segment);
            };
            match ending {
                "partial" => stem.parse().ok().map(Self::Partial),
                "history" => TimelineId::from_hex(stem).ok().map(Self::History),
                _ => {
                    let offset = ending.strip_suffix(".backup").filter(|digits| digits.len() == 8)?;
                    Some(Self::BackupHistory { segment: stem.parse().ok()?, offset: upper_hex_u32(offset)? })
                }
            }
        };
        parse().ok_or_else(|| ParseError::new("the name of a WAL archive file", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_four_kinds() {
        let segment: SegmentName = "000000010000000A000000FF".parse().unwrap();
        for (text, name) in [
            ("000000010000000A000000FF", WalFileName::Segment(segment)),
            ("000000010000000A000000FF.partial", WalFileName::Partial(segment)),
            ("00000002.history", WalFileName::History(TimelineId::new(2).unwrap())),
            ("000000010000000A000000FF.00000028.backup", WalFileName::BackupHistory { segment, offset: 0x28 }),
        ] {
            assert_eq!(text.parse::<WalFileName>().unwrap(), name);
            assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            ".",
            "..",
            "RECOVERYXLOG",
            "../000000010000000A000000FF",
            "000000010000000A000000FF.gz",
            "000000010000000A000000FF.partial.partial",
            "000000010000000A000000FF.0000028.backup",
            "000000010000000A000000FF..backup",
            "2.history",
            "00000000.history",
            "00000002.HISTORY",
            "000000010000000A000000FF\n",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(
            text in "[0-9A-F]{24}(\\.partial|\\.[0-9A-F]{8}\\.backup)?|[0-9A-F]{8}\\.history|.*",
        ) {
            if let Ok(name) = text.parse::<WalFileName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
