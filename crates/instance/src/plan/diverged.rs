//! Whether an instance's WAL went another way than the primary's. Pure.

use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, TimelineId};

/// Where an instance's WAL ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The timeline it is on.
    pub timeline: TimelineId,
    /// Its end.
    pub lsn: Lsn,
}

/// Whether an instance whose WAL ends at `mine` cannot follow a primary on `timeline` with this history file. An instance
/// ahead of the primary on the primary's own timeline is not judged: the primary's position may be older news.
pub fn has_diverged(mine: Position, timeline: TimelineId, history: Option<&str>) -> bool {
    if mine.timeline == timeline {
        return false;
    }
    let Some(history) = history.and_then(|text| HistoryFile::parse(timeline, text.as_bytes()).ok()) else {
        // Timeline 1 has no history, and nothing on another timeline can follow it. Without the file of another one
        // nothing is known.
        return timeline == TimelineId::FIRST;
    };
    match Ancestry::from_history(&history).span(mine.timeline) {
        // A timeline that the primary never was on.
        None => true,
        Some(span) => span.end.is_some_and(|end| mine.lsn > end),
    }
}
