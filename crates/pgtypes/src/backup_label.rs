//! `BackupLabel`: the file that names where recovery of a base backup begins, as `build_backup_content` writes it.
//!
//! It has one `KEY: value` on each line, in a fixed order. A label may contain anything except a zero byte, even line
//! ends. So the parser lets it reach up to the last `START TIMELINE` line. The values of the file are kept exactly. The
//! `START TIME` is text in the server's `log_timezone` and stays text.

use std::fmt;

use crate::lsn::Lsn;
use crate::parse_error::ParseError;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;

/// The kind of server from which the backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFrom {
    /// A primary; 13 calls it `master`.
    Primary,
    /// A standby: recovery takes the end of the backup from its `pg_control`.
    Standby,
}

/// Where an incremental backup of PostgreSQL 17 and later continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncrementalFrom {
    /// Start LSN of the earlier backup.
    pub lsn: Lsn,
    /// Timeline of the earlier backup.
    pub timeline: TimelineId,
}

/// The contents of `backup_label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// The segment of the start LSN; its timeline is the backup's.
    pub start_segment: SegmentName,
    /// Where the record of the backup's checkpoint is.
    pub checkpoint_lsn: Lsn,
    /// `streamed`, or `pg_start_backup` for the exclusive backups of 13 and 14.
    pub method: String,
    /// Primary or standby.
    pub from: BackupFrom,
    /// When the backup began, in the server's time zone: `2026-08-22 10:15:00 UTC`.
    pub start_time: String,
    /// The label that the user gave the backup.
    pub label: String,
    /// The timeline of the start LSN.
    pub start_timeline: TimelineId,
    /// The earlier backup, if this one is incremental.
    pub incremental_from: Option<IncrementalFrom>,
}

/// Why the text is not a backup label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is missing, or is in the wrong place.
    #[error("backup_label has no line {key:?} where it belongs")]
    MissingLine {
        /// The key at the beginning of the line.
        key: &'static str,
    },
    /// A line has a value that cannot be read.
    #[error("backup_label has an invalid line {key:?}")]
    InvalidLine {
        /// The key at the beginning of the line.
        key: &'static str,
        /// Why the value cannot be read.
        source: ParseError,
    },
    /// The timeline in the name of the start segment is not the one of the `START TIMELINE` line.
    #[error("backup_label contradicts itself: start segment {segment} is not on timeline {timeline}")]
    TimelinesDiffer {
        /// The name of the start segment.
        segment: SegmentName,
        /// The value of `START TIMELINE`.
        timeline: TimelineId,
    },
}

const START: &str = "START WAL LOCATION: ";
const CHECKPOINT: &str = "CHECKPOINT LOCATION: ";
const METHOD: &str = "BACKUP METHOD: ";
const FROM: &str = "BACKUP FROM: ";
const TIME: &str = "START TIME: ";
const LABEL: &str = "LABEL: ";
const TIMELINE: &str = "START TIMELINE: ";
const INCREMENTAL_LSN: &str = "INCREMENTAL FROM LSN: ";
const INCREMENTAL_TLI: &str = "INCREMENTAL FROM TLI: ";

impl BackupLabel {
    /// The file's name in the data directory.
    pub const FILE_NAME: &'static str = "backup_label";

    /// Reads a backup label.
    ///
    /// # Errors
    /// [`BackupLabelError::MissingLine`] if a line is missing or not in its place, [`BackupLabelError::InvalidLine`] if
    /// the value of a line cannot be read, [`BackupLabelError::TimelinesDiffer`] if the start segment is not on the
    /// start timeline.
    pub fn parse(bytes: &[u8]) -> Result<Self, BackupLabelError> {
        let text = String::from_utf8_lossy(bytes);
        let mut rest = &*text;
        let start = take_line(&mut rest, START)?;
        let (start_lsn, file) = start
            .split_once(" (file ")
            .and_then(|(lsn, file)| Some((lsn, file.strip_suffix(')')?)))
            .ok_or_else(|| invalid(START)(ParseError::new("an LSN and a file name", start)))?;
        let start_lsn = start_lsn.parse().map_err(invalid(START))?;
        let start_segment: SegmentName = file.parse().map_err(invalid(START))?;
        let checkpoint_lsn = take_line(&mut rest, CHECKPOINT)?.parse().map_err(invalid(CHECKPOINT))?;
        let method = take_line(&mut rest, METHOD)?.to_owned();
        let from = match take_line(&mut rest, FROM)? {
            "primary" | "master" => BackupFrom::Primary,
            "standby" => BackupFrom::Standby,
            other => return Err(invalid(FROM)(ParseError::new("primary or standby", other))),
        };
        let start_time = take_line(&mut rest, TIME)?.to_owned();

        let rest = rest.strip_prefix(LABEL).ok_or(BackupLabelError::MissingLine { key: LABEL })?;
        let (label, after) =
            rest.rsplit_once("\nSTART TIMELINE: ").ok_or(BackupLabelError::MissingLine { key: TIMELINE })?;
        let (timeline, mut rest) = split_line(after);
        let start_timeline: TimelineId = timeline.parse().map_err(invalid(TIMELINE))?;
        if start_segment.timeline() != start_timeline {
            return Err(BackupLabelError::TimelinesDiffer { segment: start_segment, timeline: start_timeline });
        }
        let incremental_from = if rest.starts_with(INCREMENTAL_LSN) {
            let lsn = take_line(&mut rest, INCREMENTAL_LSN)?.parse().map_err(invalid(INCREMENTAL_LSN))?;
            let timeline = take_line(&mut rest, INCREMENTAL_TLI)?.parse().map_err(invalid(INCREMENTAL_TLI))?;
            Some(IncrementalFrom { lsn, timeline })
        } else {
            None
        };
        Ok(Self {
            start_lsn,
            start_segment,
            checkpoint_lsn,
            method,
            from,
            start_time,
            label: label.to_owned(),
            start_timeline,
            incremental_from,
        })
    }
}

fn invalid(key: &'static str) -> impl Fn(ParseError) -> BackupLabelError {
    move |source| BackupLabelError::InvalidLine { key, source }
}

fn split_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

fn take_line<'a>(rest: &mut &'a str, key: &'static str) -> Result<&'a str, BackupLabelError> {
    let (line, after) = split_line(rest);
    let value = line.strip_prefix(key).ok_or(BackupLabelError::MissingLine { key })?;
    *rest = after;
    Ok(value)
}

impl fmt::Display for BackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{START}{} (file {})", self.start_lsn, self.start_segment)?;
        writeln!(f, "{CHECKPOINT}{}", self.checkpoint_lsn)?;
        writeln!(f, "{METHOD}{}", self.method)?;
        let from = match self.from {
            BackupFrom::Primary => "primary",
            BackupFrom::Standby => "standby",
        };
        writeln!(f, "{FROM}{from}")?;
        writeln!(f, "{TIME}{}", self.start_time)?;
        writeln!(f, "{LABEL}{}", self.label)?;
        writeln!(f, "{TIMELINE}{}", self.start_timeline)?;
        if let Some(from) = self.incremental_from {
            writeln!(f, "{INCREMENTAL_LSN}{}", from.lsn)?;
            writeln!(f, "{INCREMENTAL_TLI}{}", from.timeline)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    const FULL: &str = "\
START WAL LOCATION: 0/1300028 (file 000000010000000000000013)
CHECKPOINT LOCATION: 0/1300060
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 08:53:47 UTC
LABEL: a label
START TIMELINE: 1
";

    #[test]
    fn reads_a_label_of_15() {
        let label = BackupLabel::parse(FULL.as_bytes()).unwrap();
        assert_eq!(label.start_lsn.to_string(), "0/1300028");
        assert_eq!(label.start_segment.to_string(), "000000010000000000000013");
        assert_eq!(label.checkpoint_lsn.to_string(), "0/1300060");
        assert_eq!(label.method, "streamed");
        assert_eq!(label.from, BackupFrom::Primary);
        assert_eq!(label.start_time, "2026-11-22 08:53:47 UTC");
        assert_eq!(label.label, "a label");
        assert_eq!(label.start_timeline, TimelineId::FIRST);
        assert_eq!(label.incremental_from, None);
        assert_eq!(label.to_string(), FULL);
    }

    #[test]
    fn reads_an_incremental_label_of_18() {
        let text = format!("{FULL}INCREMENTAL FROM LSN: 0/1300028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        let from = label.incremental_from.unwrap();
        assert_eq!((from.lsn.to_string().as_str(), from.timeline), ("0/1300028", TimelineId::FIRST));
        assert_eq!(label.to_string(), text);
    }

    #[test]
    fn a_label_may_look_like_a_line() {
        let text = FULL.replace("a label", "x\nSTART TIMELINE: 7\ny");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(label.label, "x\nSTART TIMELINE: 7\ny");
        assert_eq!(label.start_timeline, TimelineId::FIRST);
    }

    #[test]
    fn knows_the_master_of_13_and_standbys() {
        let from = |word: &str| BackupLabel::parse(FULL.replace("primary", word).as_bytes()).map(|label| label.from);
        assert_eq!(from("master"), Ok(BackupFrom::Primary));
        assert_eq!(from("standby"), Ok(BackupFrom::Standby));
        assert!(from("elsewhere").is_err());
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        let error = |text: &str| BackupLabel::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(""), "backup_label has no line \"START WAL LOCATION: \" where it belongs");
        assert_eq!(
            error(&FULL.replace("BACKUP METHOD", "METHOD")),
            "backup_label has no line \"BACKUP METHOD: \" where it belongs"
        );
        assert_eq!(
            error(&FULL.replace("0/1300060", "here")),
            "backup_label has an invalid line \"CHECKPOINT LOCATION: \""
        );
        assert_eq!(
            error(&FULL.replace("START TIMELINE: 1", "START TIMELINE: 2")),
            "backup_label contradicts itself: start segment 000000010000000000000013 is not on timeline 2"
        );
        BackupLabel::parse(b"\xff").unwrap_err();
    }

    /// The user chooses the label, in the encoding of the database in which the backup was started.
    #[test]
    fn a_label_need_not_be_utf8() {
        let bytes = FULL.replace("LABEL: ", "LABEL: caf\u{e9} ").replace('\u{e9}', "\u{1}").into_bytes();
        let bytes: Vec<u8> = bytes.into_iter().map(|byte| if byte == 1 { 0xe9 } else { byte }).collect();
        let label = BackupLabel::parse(&bytes).unwrap();
        assert!(label.label.starts_with("caf\u{fffd} "), "{label:?}");
    }

    proptest! {
        #[test]
        fn round_trips(start: u64, checkpoint: u64, number in 1u32.., label in "[^\u{0}]{0,40}", incremental: bool) {
            let timeline = TimelineId::new(number).unwrap();
            let size = crate::segment::WalSegmentSize::DEFAULT;
            let label = BackupLabel {
                start_lsn: Lsn::new(start),
                start_segment: SegmentName::containing(Lsn::new(start), timeline, size),
                checkpoint_lsn: Lsn::new(checkpoint),
                method: "streamed".to_owned(),
                from: BackupFrom::Standby,
                start_time: "2026-11-22 08:53:47 UTC".to_owned(),
                label,
                start_timeline: timeline,
                incremental_from: incremental.then_some(IncrementalFrom { lsn: Lsn::new(checkpoint), timeline }),
            };
            prop_assert_eq!(BackupLabel::parse(label.to_string().as_bytes()).unwrap(), label);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, cut in 0..FULL.len()) {
            let _ = BackupLabel::parse(&bytes);
            let _ = BackupLabel::parse(FULL.get(..cut).unwrap().as_bytes());
        }
    }
}
