//! Whether the history files of an archive fit each other and the WAL.
//!
//! A server copies the history of its parent timeline into its own. So all files that name a timeline must say the same
//! about how that timeline came to be. If two disagree, one of them is of another cluster, or was changed.

use std::collections::BTreeMap;

use holdfast_pgtypes::history::HistoryEntry;
use holdfast_pgtypes::{HistoryFile, TimelineId};
use holdfast_repo::catalog::WalInventory;

/// A history file that contradicts something, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contradiction {
    pub(super) timeline: TimelineId,
    pub(super) problem: String,
}

/// Every contradiction, by timeline.
pub(super) fn contradictions(histories: &BTreeMap<TimelineId, HistoryFile>, wal: &WalInventory) -> Vec<Contradiction> {
    let mut found = Vec::new();
    for (timeline, history) in histories {
        let problem = goes_back(history)
            .or_else(|| histories.values().find_map(|other| disagreement(history, other)))
            .or_else(|| wal_before_it(history, wal));
        found.extend(problem.map(|problem| Contradiction { timeline: *timeline, problem }));
    }
    found
}

/// A history whose switches do not ascend.
fn goes_back(history: &HistoryFile) -> Option<String> {
    history.entries().windows(2).find_map(|pair| {
        let [earlier, later] = pair else { return None };
        (later.switch_lsn < earlier.switch_lsn).then(|| {
            format!(
                "it says that timeline {} ended at {}, before timeline {}, which ended at {}",
                later.timeline, later.switch_lsn, earlier.timeline, earlier.switch_lsn
            )
        })
    })
}

/// How a history disagrees with that of one of its ancestors.
pub(super) fn disagreement(history: &HistoryFile, other: &HistoryFile) -> Option<String> {
    let place = history.entries().iter().position(|entry| entry.timeline == other.timeline())?;
    let before = history.entries().get(..place)?;
    let same = |(a, b): (&HistoryEntry, &HistoryEntry)| (a.timeline, a.switch_lsn) == (b.timeline, b.switch_lsn);
    if before.len() == other.entries().len() && before.iter().zip(other.entries()).all(same) {
        return None;
    }
    let described = |entries: &[HistoryEntry]| match entries.last() {
        Some(entry) => format!("left timeline {} at {}", entry.timeline, entry.switch_lsn),
        None => "has no parent".to_owned(),
    };
    let of = other.timeline();
    Some(format!(
        "it says that timeline {of} {}, and the history of timeline {of} says that it {}",
        described(before),
        described(other.entries())
    ))
}

/// WAL of the timeline before the segment in which it begins.
fn wal_before_it(history: &HistoryFile, wal: &WalInventory) -> Option<String> {
    let (timeline, size) = (history.timeline(), wal.segment_size());
    let parent = history.parent()?;
    let begins = parent.switch_lsn.as_u64() / size.as_u64();
    let first = wal.ranges(timeline).first()?.first;
    (first.number(size) < begins).then(|| {
        format!(
            "it says that timeline {timeline} begins at {}, but {first} is there, which is before that",
            parent.switch_lsn
        )
    })
}
