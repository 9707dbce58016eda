//! Timeline history files, and which timeline owns which range of WAL.
//!
//! A history file lists the ancestors of a timeline, oldest first, each with the LSN at which the next one branched
//! off. Reading follows `readTimeLineHistory` of `timeline.c`: empty lines and lines that begin with `#` are skipped.
//! An entry is the parent's number, the switch LSN and a reason in words. Numbers must grow, and stay below the file's
//! own timeline. `Ancestry` turns the list into spans, as `tliOfPointInHistory` and `tliSwitchPoint` see them: a
//! timeline owns the WAL from the switch LSN of its parent up to, and not including, its own.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::parse_error::decimal;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::timeline::TimelineId;

/// One ancestor in a history file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: TimelineId,
    /// The first LSN that no longer belongs to it.
    pub switch_lsn: Lsn,
    /// Why the server left the timeline, in its own words; one line.
    pub reason: String,
}

/// The contents of `<timeline>.history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryFile {
    timeline: TimelineId,
    entries: Vec<HistoryEntry>,
}

/// Why the bytes are not the history of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryFileError {
    /// A line is neither an entry nor a comment.
    #[error("history file of timeline {timeline} has a line that is not an entry: {line:?}")]
    InvalidLine {
        /// From the name of the file.
        timeline: TimelineId,
        /// The text of the line.
        line: String,
    },
    /// An ancestor's number does not grow, or is not below the timeline's own.
    #[error("history file of timeline {timeline} lists timeline {ancestor} out of order")]
    OutOfOrder {
        /// The timeline of the history file.
        timeline: TimelineId,
        /// The ancestor in the line that is out of order.
        ancestor: TimelineId,
    },
}

impl HistoryFile {
    /// A history from its parts, checked as a file is.
    ///
    /// # Errors
    /// [`HistoryFileError::OutOfOrder`] if the ancestors do not ascend, or are not all below `timeline`.
    pub fn new(timeline: TimelineId, entries: Vec<HistoryEntry>) -> Result<Self, HistoryFileError> {
        let mut last = None;
        for entry in &entries {
            if last.is_some_and(|last| entry.timeline <= last) || entry.timeline >= timeline {
                return Err(HistoryFileError::OutOfOrder { timeline, ancestor: entry.timeline });
            }
            last = Some(entry.timeline);
        }
        Ok(Self { timeline, entries })
    }

    /// Reads the history file of `timeline`. The reasons may contain names of restore points in another encoding: bytes
    /// that are not UTF-8 are replaced by a mark.
    ///
    /// # Errors
    /// [`HistoryFileError::InvalidLine`], with the line, if one is neither an entry nor a comment;
    /// [`HistoryFileError::OutOfOrder`] as [`HistoryFile::new`].
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self, HistoryFileError> {
        let text = String::from_utf8_lossy(bytes);
        let entries = text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                parse_entry(line)
                    .ok_or_else(|| HistoryFileError::InvalidLine { timeline, line: line.chars().take(200).collect() })
            })
            .collect::<Result<_, _>>()?;
        Self::new(timeline, entries)
    }

    /// The timeline whose history this is.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The ancestors, oldest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The timeline from which this one branched off, and where.
    pub fn parent(&self) -> Option<&HistoryEntry> {
        self.entries.last()
    }
}

/// As `sscanf` with `"%u\t%X/%X"`: any white space between the two is accepted, and any text after them.
fn parse_entry(line: &str) -> Option<HistoryEntry> {
    let (timeline, rest) = line.split_once([' ', '\t'])?;
    let rest = rest.trim_start();
    let (lsn, reason) = rest.split_once([' ', '\t']).unwrap_or((rest.trim_end(), ""));
    Some(HistoryEntry {
        timeline: TimelineId::new(decimal(timeline)?)?,
        switch_lsn: lsn.parse().ok()?,
        reason: reason.trim().to_owned(),
    })
}

impl fmt::Display for HistoryFile {
    /// Prints the text as `writeTimeLineHistory` does, with an empty line before each entry but the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.entries.iter().enumerate() {
            let before = if i == 0 { "" } else { "\n" };
            writeln!(f, "{before}{}\t{}\t{}", entry.timeline, entry.switch_lsn, entry.reason)?;
        }
        Ok(())
    }
}

/// A range of WAL that belongs to one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineSpan {
    /// The timeline to which the range belongs.
    pub timeline: TimelineId,
    /// Its first LSN; 0 for the first timeline.
    pub start: Lsn,
    /// The first LSN after the span; `None` for the last timeline, which is still open.
    pub end: Option<Lsn>,
}

impl TimelineSpan {
    /// Whether the byte at `lsn` belongs to the span.
    pub fn contains(&self, lsn: Lsn) -> bool {
        self.start <= lsn && self.end.is_none_or(|end| lsn < end)
    }
}

/// The path of timelines that leads to one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    spans: Vec<TimelineSpan>,
    timeline: TimelineId,
}

impl Ancestry {
    /// The ancestry of a timeline without a history file: that timeline alone, from the beginning.
    pub fn alone(timeline: TimelineId) -> Self {
        Self { spans: vec![TimelineSpan { timeline, start: Lsn::INVALID, end: None }], timeline }
    }

    /// The ancestry a history file describes.
    pub fn from_history(history: &HistoryFile) -> Self {
        let mut spans = Vec::with_capacity(history.entries.len() + 1);
        let mut start = Lsn::INVALID;
        for entry in &history.entries {
            spans.push(TimelineSpan { timeline: entry.timeline, start, end: Some(entry.switch_lsn) });
            start = entry.switch_lsn;
        }
        spans.push(TimelineSpan { timeline: history.timeline, start, end: None });
        Self { spans, timeline: history.timeline }
    }

    /// The timeline whose ancestry this is.
    pub const fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The timelines with their spans, oldest first; the last one is open.
    pub fn path(&self) -> &[TimelineSpan] {
        &self.spans
    }

    /// The span of a timeline, if it is an ancestor or the timeline itself; as `tliInHistory`.
    pub fn span(&self, timeline: TimelineId) -> Option<&TimelineSpan> {
        self.spans.iter().find(|span| span.timeline == timeline)
    }

    /// The timeline that owns the byte at `lsn`; as `tliOfPointInHistory`. If the switch LSNs of a history go
    /// backwards, it returns the timeline that ends last.
    pub fn owner(&self, lsn: Lsn) -> TimelineId {
        self.spans.iter().find(|span| span.contains(lsn)).map_or(self.timeline, |span| span.timeline)
    }

    /// Whether a cluster at `lsn` of `timeline` can follow this ancestry: the position is on the path, or at its end.
    pub fn passes(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.span(timeline).is_some_and(|span| span.start <= lsn && span.end.is_none_or(|end| lsn <= end))
    }

    /// The name under which recovery reads the segment that contains `lsn`: that of the newest timeline that has begun
    /// in it or before it, as `XLogFileReadAnyTLI`. A segment in which the timeline switches exists on both timelines,
    /// and the newer one contains the whole path.
    pub fn segment_containing(&self, lsn: Lsn, size: WalSegmentSize) -> SegmentName {
        let number = lsn.as_u64() / size.as_u64();
        let timeline = self
            .spans
            .iter()
            .rev()
            .find(|span| span.start.as_u64() / size.as_u64() <= number)
            .map_or(self.timeline, |span| span.timeline);
        SegmentName::containing(lsn, timeline, size)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    /// The file that PostgreSQL 18 wrote after two promotions.
    const THIRD: &str = "1\t0/16000A0\tno recovery target specified\n\n2\t0/1600220\tno recovery target specified\n";

    #[test]
    fn reads_what_the_server_writes() {
        let history = HistoryFile::parse(timeline(3), THIRD.as_bytes()).unwrap();
        assert_eq!(history.to_string(), THIRD);
        assert_eq!(history.entries().len(), 2);
        assert_eq!(history.parent().unwrap().timeline, timeline(2));
        assert_eq!(history.parent().unwrap().switch_lsn, lsn("0/1600220"));
        assert_eq!(history.parent().unwrap().reason, "no recovery target specified");
    }

    #[test]
    fn reads_comments_and_other_spaces() {
        let history =
            HistoryFile::parse(timeline(9), b"# a comment\r\n  1 0/5000000\r\n\n\t4\t 1/0 before 'x'\n").unwrap();
        assert_eq!(history.entries().first().unwrap().reason, "");
        assert_eq!(history.entries().last().unwrap().reason, "before 'x'");
        assert_eq!(HistoryFile::parse(timeline(2), b"").unwrap().entries(), []);
    }

    #[test]
    fn refuses_other_files() {
        let error = |text: &[u8]| HistoryFile::parse(timeline(3), text).unwrap_err().to_string();
        assert_eq!(
            error(b"1\tx\treason\n"),
            "history file of timeline 3 has a line that is not an entry: \"1\\tx\\treason\""
        );
        assert_eq!(error(b"1\n"), "history file of timeline 3 has a line that is not an entry: \"1\"");
        assert_eq!(error(b"0\t0/1\t\n"), "history file of timeline 3 has a line that is not an entry: \"0\\t0/1\\t\"");
        assert_eq!(error(b"\xff"), "history file of timeline 3 has a line that is not an entry: \"\u{fffd}\"");
        let named = HistoryFile::parse(timeline(3), b"1\t0/3000000\tat restore point \"caf\xe9\"\n").unwrap();
        assert_eq!(named.parent().unwrap().reason, "at restore point \"caf\u{fffd}\"");
        assert_eq!(error(b"2\t0/1\t\n1\t0/2\t\n"), "history file of timeline 3 lists timeline 1 out of order");
        assert_eq!(error(b"3\t0/1\t\n"), "history file of timeline 3 lists timeline 3 out of order");
    }

    #[test]
    fn a_timeline_owns_from_one_switch_to_the_next() {
        let ancestry = Ancestry::from_history(&HistoryFile::parse(timeline(3), THIRD.as_bytes()).unwrap());
        for (position, owner) in
            [("0/0", 1), ("0/160009F", 1), ("0/16000A0", 2), ("0/160021F", 2), ("0/1600220", 3), ("FF/0", 3)]
        {
            assert_eq!(ancestry.owner(lsn(position)), timeline(owner), "{position}");
        }
        assert_eq!(ancestry.path().len(), 3);
        assert_eq!(ancestry.span(timeline(2)).unwrap().end, Some(lsn("0/1600220")));
        assert_eq!(ancestry.span(timeline(4)), None);
        assert_eq!(Ancestry::alone(timeline(5)).owner(lsn("1/0")), timeline(5));
    }

    #[test]
    fn only_positions_on_the_path_can_follow_it() {
        let ancestry = Ancestry::from_history(&HistoryFile::parse(timeline(3), THIRD.as_bytes()).unwrap());
        assert!(ancestry.passes(timeline(1), lsn("0/16000A0")));
        assert!(!ancestry.passes(timeline(1), lsn("0/16000A1")), "timeline 1 continued without us");
        assert!(ancestry.passes(timeline(3), lsn("5/0")));
        assert!(!ancestry.passes(timeline(3), lsn("0/100")));
        assert!(!ancestry.passes(timeline(4), lsn("0/100")));
    }

    #[test]
    fn a_segment_with_a_switch_is_read_on_the_newest_timeline() {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let ancestry = Ancestry::from_history(&HistoryFile::parse(timeline(3), THIRD.as_bytes()).unwrap());
        let name = |text: &str| ancestry.segment_containing(lsn(text), size).to_string();
        assert_eq!(name("0/15FFFFF"), "000000010000000000000015");
        assert_eq!(name("0/1600000"), "000000030000000000000016");
        assert_eq!(name("0/1700000"), "000000030000000000000017");
    }

    proptest! {
        #[test]
        fn round_trips(entries in proptest::collection::btree_map(1u32..100, (any::<u64>(), "[a-z]{0,9}"), 0..6)) {
            let entries = entries
                .into_iter()
                .map(|(number, (switch, reason))| HistoryEntry {
                    timeline: timeline(number),
                    switch_lsn: Lsn::new(switch),
                    reason,
                })
                .collect();
            let history = HistoryFile::new(timeline(100), entries).unwrap();
            let text = history.to_string();
            prop_assert_eq!(HistoryFile::parse(timeline(100), text.as_bytes()).unwrap(), history);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, text in "[0-9]{1,3}[\t ][0-9A-F]{1,3}/[0-9A-F]{1,3}.*", position: u64) {
            let _ = HistoryFile::parse(timeline(7), &bytes);
            if let Ok(history) = HistoryFile::parse(timeline(700), text.as_bytes()) {
                let ancestry = Ancestry::from_history(&history);
                let _ = ancestry.owner(Lsn::new(position));
                let _ = ancestry.segment_containing(Lsn::new(position), WalSegmentSize::DEFAULT);
            }
        }
    }
}
