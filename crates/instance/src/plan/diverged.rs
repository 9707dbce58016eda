//! Whether an instance's WAL has diverged from the primary's. Pure.

use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, TimelineId};

/// The end of an instance's WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The timeline of the end.
    pub timeline: TimelineId,
    /// The LSN of the end.
    pub lsn: Lsn,
}

/// Whether an instance whose WAL ends at `mine` cannot follow a primary on `timeline` with this history file. An
/// instance ahead of the primary on the primary's own timeline has not diverged: the primary's reported position may be
/// older.
pub fn has_diverged(mine: Position, timeline: TimelineId, history: Option<&str>) -> bool {
    if mine.timeline == timeline {
        return false;
    }
    let Some(history) = history.and_then(|text| HistoryFile::parse(timeline, text.as_bytes()).ok()) else {
        // Timeline 1 has no history, and no other timeline can follow it. If the history file of another timeline is
        // missing, nothing is known.
        return timeline == TimelineId::FIRST;
    };
    match Ancestry::from_history(&history).span(mine.timeline) {
        // A timeline on which the primary never was.
        None => true,
        Some(span) => span.end.is_some_and(|end| mine.lsn > end),
    }
}
