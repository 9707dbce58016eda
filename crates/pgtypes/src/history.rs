//! Timeline history files, and which timeline owns which stretch of WAL.
//!
//! A history file lists the ancestors of a timeline, oldest first, each with the LSN at which the next one branched off
//! it. Reading follows `readTimeLineHistory` of `timeline.c`: empty lines and lines that begin with `#` are skipped, an
//! entry is the parent's number, the switch LSN and a reason in words; numbers must grow, and stay below the timeline
//! the file is for. `Ancestry` turns the list into spans as `tliOfPointInHistory` and `tliSwitchPoint` see them: a
//! timeline owns from the switch LSN of its parent up to, and not including, its own.

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
    /// Why the timeline was left, in the server's words; one line.
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
    /// The bytes are not text.
    #[error("history file of timeline {timeline} is not UTF-8")]
    NotText {
        /// The timeline the file is for.
        timeline: TimelineId,
    },
    /// A line is neither an entry nor a comment.
    #[error("history file of timeline {timeline} has a line that is no entry: {line:?}")]
    InvalidLine {
        /// The timeline the file is for.
        timeline: TimelineId,
        /// The line.
        line: String,
    },
    /// An ancestor's number does not grow, or is not below the timeline's own.
    #[error("history file of timeline {timeline} lists timeline {ancestor} out of order")]
    OutOfOrder {
        /// The timeline the file is for.
        timeline: TimelineId,
        /// The ancestor.
        ancestor: TimelineId,
    },
}

impl HistoryFile {
    /// A history from its parts, checked as a file is.
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

    /// Reads the history file of `timeline`.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self, HistoryFileError> {
        let text = std::str::from_utf8(bytes).map_err(|_| HistoryFileError::NotText { timeline })?;
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

    /// The timeline this one branched off, and where.
    pub fn parent(&self) -> Option<&HistoryEntry> {
        self.entries.last()
    }
}

/// `sscanf` with `"%u\t%X/%X"`: the white space between the two may be any, and anything may follow.
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
    /// The text as `writeTimeLineHistory` writes it, which puts an empty line before each entry but the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.entries.iter().enumerate() {
            let before = if i == 0 { "" } else { "\n" };
            writeln!(f, "{before}{}\t{}\t{}", entry.timeline, entry.switch_lsn, entry.reason)?;
        }
        Ok(())
    }
}

/// A stretch of WAL that belongs to one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineSpan {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its first LSN; 0 for the first timeline.
    pub start: Lsn,
    /// The first LSN that is no longer its own; `None` for the last timeline, which is still open.
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

    /// The timelines with what they own, oldest first; the last one is open.
    pub fn path(&self) -> &[TimelineSpan] {
        &self.spans
    }

    /// The span of a timeline, if it is an ancestor or the timeline itself; as `tliInHistory`.
    pub fn span(&self, timeline: TimelineId) -> Option<&TimelineSpan> {
        self.spans.iter().find(|span| span.timeline == timeline)
    }

    /// The timeline that owns the byte at `lsn`; as `tliOfPointInHistory`. Histories with switch LSNs that go backwards
    /// give the timeline that ends last.
    pub fn owner(&self, lsn: Lsn) -> TimelineId {
        self.spans.iter().find(|span| span.contains(lsn)).map_or(self.timeline, |span| span.timeline)
    }

    /// Whether a cluster at `lsn` of `timeline` can follow this ancestry: the position is on the path, or on its end.
    pub fn passes(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.span(timeline).is_some_and(|span| span.start <= lsn && span.end.is_none_or(|end| lsn <= end))
    }

    /// The name under which recovery reads the segment that contains `lsn`: the newest timeline that has begun within
    /// it or before, as `XLogFileReadAnyTLI`. A segment in which the timeline switches exists on both timelines, and
    /// the newer one holds the whole path.
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
