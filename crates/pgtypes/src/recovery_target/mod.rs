//! The recovery settings of PostgreSQL as values: where recovery stops, along which timeline, and what happens then.
//!
//! They are written on a command line, in a Kubernetes manifest, in `postgresql.auto.conf` and in JSON. All of these
//! use the types, the parsers and the printers of this module. [`moment`] reads and writes the time of a target.

pub mod moment;

use crate::{Lsn, ParseError, TimelineId};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where recovery stops, as the `recovery_target*` settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecoveryTarget {
    /// At the end of the archived WAL.
    Latest,
    /// When the backup is consistent.
    Immediate,
    /// Before the first commit or abort after this time.
    Time(DateTime<Utc>),
    /// At the first record that starts at this LSN or later.
    Lsn(Lsn),
    /// At the end of this transaction. The number as the user wrote it; PostgreSQL compares the lower 32 bits.
    Xid(u64),
    /// At the restore point of this name.
    Name(String),
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => formatter.write_str("the end of the archived WAL"),
            Self::Immediate => formatter.write_str("the end of the backup"),
            Self::Time(time) => write!(formatter, "time {}", time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
            Self::Lsn(lsn) => write!(formatter, "LSN {lsn}"),
            Self::Xid(xid) => write!(formatter, "transaction {xid}"),
            Self::Name(name) => write!(formatter, "restore point {name:?}"),
        }
    }
}

/// Which timeline to follow, as `recovery_target_timeline`; written as there: `latest`, `current` or a number, in
/// decimal or, after `0x`, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetTimeline {
    /// The highest one that descends from the backup.
    Latest,
    /// The backup's own; without a named backup, that of the newest backup.
    Current,
    /// This timeline.
    Number(TimelineId),
}

impl FromStr for TargetTimeline {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = match (text, hexadecimal) {
            ("latest", _) => return Ok(Self::Latest),
            ("current", _) => return Ok(Self::Current),
            // `from_str_radix` alone accepts a sign.
            (_, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u32::from_str_radix(digits, 16).ok().and_then(TimelineId::new)
            }
            (_, Some(_)) => None,
            (_, None) => text.parse().ok(),
        };
        number.map(Self::Number).ok_or_else(|| ParseError::new("latest, current or the number of a timeline", text))
    }
}

impl fmt::Display for TargetTimeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => formatter.write_str("latest"),
            Self::Current => formatter.write_str("current"),
            Self::Number(timeline) => timeline.fmt(formatter),
        }
    }
}

/// What the server does when it has reached the target, as `recovery_target_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetAction {
    /// Stay in recovery, open for reading, until `pg_wal_replay_resume()` is called. PostgreSQL's default.
    Pause,
    /// End recovery and open for writing.
    Promote,
    /// Stop the server.
    Shutdown,
}

impl TargetAction {
    /// All actions, PostgreSQL's default first.
    pub const ALL: [Self; 3] = [Self::Pause, Self::Promote, Self::Shutdown];

    /// The value as in `recovery_target_action`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for TargetAction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for TargetAction {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let action = Self::ALL.into_iter().find(|action| action.as_str() == text);
        action.ok_or_else(|| ParseError::new("pause, promote or shutdown", text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn timelines_are_read_as_postgresql_reads_its_setting() {
        let number = |timeline| TimelineId::new(timeline).map(TargetTimeline::Number);
        for (text, expected) in [
            ("latest", Some(TargetTimeline::Latest)),
            ("current", Some(TargetTimeline::Current)),
            ("7", number(7)),
            ("0x1F", number(31)),
            ("0Xff", number(255)),
            ("0xFFFFFFFF", number(u32::MAX)),
            ("newest", None),
            ("Latest", None),
            ("0", None),
            ("0x0", None),
            ("0x", None),
            ("0x+1", None),
            ("+1", None),
            ("1F", None),
            ("0x100000000", None),
            ("4294967296", None),
            ("", None),
        ] {
            let read: Option<TargetTimeline> = text.parse().ok();
            assert_eq!(read, expected, "{text:?}");
            if let Some(timeline) = read {
                assert_eq!(timeline.to_string().parse(), Ok(timeline), "{text:?}");
            }
        }
        assert_eq!(
            "newest".parse::<TargetTimeline>().unwrap_err().to_string(),
            "not latest, current or the number of a timeline: \"newest\""
        );
    }

    #[test]
    fn actions_are_read_as_they_are_written() {
        for action in TargetAction::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        assert_eq!("stop".parse::<TargetAction>().unwrap_err().to_string(), "not pause, promote or shutdown: \"stop\"");
    }

    #[test]
    fn targets_have_one_form_in_json() {
        for (target, json) in [
            (RecoveryTarget::Latest, "\"latest\""),
            (RecoveryTarget::Immediate, "\"immediate\""),
            (
                RecoveryTarget::Time("2026-11-22T10:15:00.25Z".parse().unwrap()),
                "{\"time\":\"2026-11-22T10:15:00.250Z\"}",
            ),
            (RecoveryTarget::Lsn("16/B374D848".parse().unwrap()), "{\"lsn\":\"16/B374D848\"}"),
            (RecoveryTarget::Xid(771), "{\"xid\":771}"),
            (RecoveryTarget::Name("before".to_owned()), "{\"name\":\"before\"}"),
        ] {
            assert_eq!(serde_json::to_string(&target).unwrap(), json);
            assert_eq!(serde_json::from_str::<RecoveryTarget>(json).unwrap(), target);
        }
    }
}
