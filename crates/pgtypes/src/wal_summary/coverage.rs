//! Finds the summaries that cover a range of WAL, along the history of a timeline.
//!
//! As `PrepareForIncrementalBackup` and `WalSummariesAreComplete`: the range is cut at the switch LSNs, and each part
//! needs summaries of the timeline that owns it, without a gap from one to the next. Names may overlap. The summaries
//! of an ancestor that a server wrote after our history left it may reach over the switch LSN; they name more changes
//! than happened on our path, never fewer.
//!
//! The server keeps writing and deleting summaries (`wal_summary_keep_time`) while we look. A file that was listed and
//! is gone when it is opened is the same as a gap: the caller lists again, or takes another method.

use std::fmt;

use crate::history::{Ancestry, TimelineSpan};
use crate::lsn::Lsn;
use crate::timeline::TimelineId;
use crate::wal_summary::name::WalSummaryName;

/// A range of WAL for which no summary exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct MissingSummaries {
    /// The timeline of the missing range.
    pub timeline: TimelineId,
    /// The first LSN that no summary covers.
    pub start: Lsn,
    /// Where the next summary starts, or where the range on this timeline ends.
    pub end: Lsn,
}

impl fmt::Display for MissingSummaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, start, end } = self;
        write!(f, "no WAL summary covers {start} to {end} on timeline {timeline}")
    }
}

/// Why a range of WAL has no complete list of summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoverageError {
    /// A part of the range is not summarized.
    #[error(transparent)]
    Missing(#[from] MissingSummaries),
    /// The range begins on another branch of history: the parent is not an ancestor of this cluster's state.
    #[error("{start} on timeline {timeline} is not on the way to timeline {target}")]
    OtherHistory {
        /// The timeline on which the range begins.
        timeline: TimelineId,
        /// The LSN at which it begins.
        start: Lsn,
        /// The timeline at which the range ends.
        target: TimelineId,
    },
}

/// Chooses the summaries that cover the WAL from `start` on `start_timeline` to before `end` on the timeline of
/// `ancestry`. They are in the order of the WAL, each only once, and none is superfluous. An empty range needs none.
///
/// # Errors
/// [`CoverageError::Missing`] with the first range that no summary covers; [`CoverageError::OtherHistory`] if the start
/// is not in the history of `ancestry`.
pub fn covering(
    names: &[WalSummaryName],
    ancestry: &Ancestry,
    start_timeline: TimelineId,
    start: Lsn,
    end: Lsn,
) -> Result<Vec<WalSummaryName>, CoverageError> {
    if !ancestry.passes(start_timeline, start) {
        let target = ancestry.timeline();
        return Err(CoverageError::OtherHistory { timeline: start_timeline, start, target });
    }
    let mut chosen = Vec::new();
    let first = ancestry.path().iter().skip_while(|span| span.timeline != start_timeline);
    for TimelineSpan { timeline, start: span_start, end: span_end } in first {
        let from = start.max(*span_start);
        let to = span_end.map_or(end, |span_end| span_end.min(end));
        cover(names, *timeline, from, to, &mut chosen)?;
    }
    Ok(chosen)
}

/// Covers a range of one timeline. It always takes the summary that reaches furthest among those that leave no gap.
fn cover(
    names: &[WalSummaryName],
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
    chosen: &mut Vec<WalSummaryName>,
) -> Result<(), MissingSummaries> {
    let mut candidates: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| name.timeline() == timeline && name.end() > from && name.start() < to)
        .collect();
    candidates.sort_unstable();
    let mut candidates = candidates.into_iter().peekable();
    let mut covered = from;
    while covered < to {
        let mut furthest: Option<WalSummaryName> = None;
        while let Some(name) = candidates.next_if(|name| name.start() <= covered) {
            if furthest.is_none_or(|furthest| name.end() > furthest.end()) {
                furthest = Some(name);
            }
        }
        let Some(name) = furthest.filter(|name| name.end() > covered) else {
            let end = candidates.peek().map_or(to, |next| next.start());
            return Err(MissingSummaries { timeline, start: covered, end });
        };
        covered = name.end();
        chosen.push(name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::history::HistoryFile;
    use proptest::prelude::*;

    fn name(timeline: u32, start: u64, end: u64) -> WalSummaryName {
        WalSummaryName::new(TimelineId::new(timeline).unwrap(), Lsn::new(start), Lsn::new(end)).unwrap()
    }

    /// Timeline 1 to 0x100, timeline 2 to 0x200, then timeline 4.
    fn history() -> Ancestry {
        let file = b"1\t0/100\treason\n2\t0/200\treason\n";
        Ancestry::from_history(&HistoryFile::parse(TimelineId::new(4).unwrap(), file).unwrap())
    }

    fn chosen(
        names: &[WalSummaryName],
        timeline: u32,
        start: u64,
        end: u64,
    ) -> Result<Vec<WalSummaryName>, CoverageError> {
        covering(names, &history(), TimelineId::new(timeline).unwrap(), Lsn::new(start), Lsn::new(end))
    }

    #[test]
    fn tables_of_ranges() {
        let all = [
            name(4, 0x200, 0x280),
            name(4, 0x280, 0x300),
            name(2, 0x100, 0x180),
            name(2, 0x180, 0x200),
            name(1, 0x40, 0x80),
            name(1, 0x80, 0x100),
            name(3, 0x200, 0x400),
        ];
        for (case, timeline, start, end, expected) in [
            ("one file", 4, 0x280, 0x300, vec![name(4, 0x280, 0x300)]),
            ("inside a file", 4, 0x290, 0x2A0, vec![name(4, 0x280, 0x300)]),
            ("two files", 4, 0x200, 0x300, vec![name(4, 0x200, 0x280), name(4, 0x280, 0x300)]),
            (
                "over two switches",
                1,
                0x90,
                0x281,
                vec![
                    name(1, 0x80, 0x100),
                    name(2, 0x100, 0x180),
                    name(2, 0x180, 0x200),
                    name(4, 0x200, 0x280),
                    name(4, 0x280, 0x300),
                ],
            ),
            ("from the very switch on the old timeline", 2, 0x200, 0x280, vec![name(4, 0x200, 0x280)]),
            ("empty", 4, 0x290, 0x290, vec![]),
            ("backward", 4, 0x290, 0x210, vec![]),
        ] {
            assert_eq!(chosen(&all, timeline, start, end).unwrap(), expected, "{case}");
        }
    }

    /// The names and the history file of a standby of 18.6 that was promoted.
    #[test]
    fn a_real_promotion_leaves_no_gap() {
        let names: Vec<WalSummaryName> = [
            "000000020000000010086F08000000001009E650.summary",
            "000000010000000009000028000000000F000028.summary",
            "000000020000000010086ED00000000010086F08.summary",
            "00000001000000000F0000280000000010086ED0.summary",
        ]
        .map(|name| name.parse().unwrap())
        .to_vec();
        let history = HistoryFile::parse(TimelineId::new(2).unwrap(), b"1\t0/10086ED0\tno recovery target specified\n");
        let ancestry = Ancestry::from_history(&history.unwrap());
        let (start, end) = (Lsn::new(0xF00_0028), Lsn::new(0x1009_E650));
        let chosen = covering(&names, &ancestry, TimelineId::FIRST, start, end).unwrap();
        let expected: Vec<_> = [3, 2, 0].iter().filter_map(|at| names.get(*at).copied()).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn a_gap_is_named() {
        let whole = [name(1, 0x40, 0x100), name(2, 0x100, 0x200), name(4, 0x200, 0x280), name(4, 0x280, 0x300)];
        let error = |names: &[WalSummaryName], timeline, start, end| chosen(names, timeline, start, end).unwrap_err();
        assert_eq!(
            error(&whole, 1, 0x10, 0x300).to_string(),
            "no WAL summary covers 0/10 to 0/40 on timeline 1",
            "deleted by the server"
        );
        assert_eq!(
            error(&whole, 1, 0x80, 0x400).to_string(),
            "no WAL summary covers 0/300 to 0/400 on timeline 4",
            "the summarizer has not reached it yet"
        );
        for missing in 0..whole.len() {
            let mut rest = whole.to_vec();
            let gone = rest.remove(missing);
            assert_eq!(
                error(&rest, 1, 0x40, 0x300),
                CoverageError::Missing(MissingSummaries {
                    timeline: gone.timeline(),
                    start: gone.start(),
                    end: gone.end()
                })
            );
        }
        assert_eq!(error(&[], 4, 0x250, 0x260).to_string(), "no WAL summary covers 0/250 to 0/260 on timeline 4");
    }

    #[test]
    fn another_branch_is_not_a_parent() {
        let names = [name(3, 0x200, 0x400), name(2, 0x100, 0x400)];
        assert_eq!(
            chosen(&names, 3, 0x250, 0x300).unwrap_err().to_string(),
            "0/250 on timeline 3 is not on the way to timeline 4"
        );
        assert_eq!(
            chosen(&names, 2, 0x250, 0x300).unwrap_err().to_string(),
            "0/250 on timeline 2 is not on the way to timeline 4",
            "timeline 2 after we left it"
        );
    }

    #[test]
    fn overlaps_are_not_a_gap_and_nothing_is_superfluous() {
        let names = [name(4, 0x200, 0x240), name(4, 0x200, 0x280), name(4, 0x220, 0x300), name(4, 0x230, 0x290)];
        assert_eq!(chosen(&names, 4, 0x200, 0x300).unwrap(), [name(4, 0x200, 0x280), name(4, 0x220, 0x300)]);
        // The server wrote a summary of timeline 2 after our history left it, and it reaches over the switch.
        let over = [name(2, 0x100, 0x400), name(4, 0x200, 0x300)];
        assert_eq!(chosen(&over, 2, 0x150, 0x300).unwrap(), over);
    }

    proptest! {
        #[test]
        fn chosen_files_cover_or_the_gap_is_real(
            ranges in proptest::collection::vec((0u64..40, 1u64..12), 0..20),
            start in 0u64..40,
            length in 1u64..20,
        ) {
            let names: Vec<_> = ranges.iter().map(|(start, length)| name(9, *start, start + length)).collect();
            let end = start + length;
            let covers = |names: &[WalSummaryName], at: u64| {
                names.iter().any(|name| (name.start().as_u64()..name.end().as_u64()).contains(&at))
            };
            let timeline = TimelineId::new(9).unwrap();
            match covering(&names, &Ancestry::alone(timeline), timeline, Lsn::new(start), Lsn::new(end)) {
                Ok(chosen) => {
                    prop_assert!((start..end).all(|at| covers(&chosen, at)));
                    for extra in &chosen {
                        let rest: Vec<_> = chosen.iter().filter(|name| *name != extra).copied().collect();
                        prop_assert!(!(start..end).all(|at| covers(&rest, at)), "{extra} is superfluous");
                    }
                }
                Err(CoverageError::Missing(gap)) => {
                    prop_assert!((start..gap.start.as_u64()).all(|at| covers(&names, at)));
                    prop_assert!((gap.start.as_u64()..gap.end.as_u64()).all(|at| !covers(&names, at)));
                    prop_assert!(gap.start < gap.end && gap.end <= Lsn::new(end));
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
