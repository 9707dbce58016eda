//! Where receiving begins. Pure.
//!
//! It begins at the beginning of a segment: the first one that is not whole in every repository. The server then sends
//! the stored part of it once more, and both are compared. The slot keeps that WAL: a server removes whole segments
//! only.

use std::collections::BTreeMap;

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::catalog::WalInventory;

/// The WAL of one repository.
#[derive(Debug, Clone)]
pub(super) struct StoredWal {
    /// Its redacted URL.
    pub(super) store: String,
    /// The whole segments.
    pub(super) inventory: WalInventory,
    /// The end of the pieces of each segment that has some, counted from the segment's beginning.
    pub(super) tail: BTreeMap<SegmentName, u32>,
}

/// The server, as far as it decides where to begin.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// The path of its timeline.
    pub(super) ancestry: Ancestry,
    pub(super) size: WalSegmentSize,
    /// The end of its durable WAL.
    pub(super) flushed: Lsn,
    /// Whether it is a standby, which may lag.
    pub(super) in_recovery: bool,
    /// The oldest WAL that the slot keeps.
    pub(super) slot: Option<Lsn>,
    /// Whether the slot was made a moment ago, so that it says nothing about what this side has.
    pub(super) slot_is_new: bool,
}

/// A repository has WAL of the server's own timeline that the server does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerLags {
    /// The repository's redacted URL.
    pub(super) store: String,
    /// The end of the WAL in the repository.
    pub(super) stored: Lsn,
}

impl StoredWal {
    /// The end of its whole segments along the path, else the beginning of its oldest pieces; `None` without any.
    fn end(&self, server: &Server) -> Option<Lsn> {
        let size = server.size;
        let whole = server.ancestry.path().iter().rev().find_map(|span| {
            let ranges = self.inventory.ranges(span.timeline);
            let is_on = |number: u64| span.end.is_none_or(|end| number.saturating_mul(size.as_u64()) < end.as_u64());
            let numbers = ranges.iter().map(|range| (range.first.number(size), range.last.number(size)));
            let last = numbers.rev().find(|(first, _)| is_on(*first)).map(|(_, last)| last)?;
            let end = Lsn::new((last + 1).saturating_mul(size.as_u64()));
            Some(span.end.map_or(end, |limit| end.min(limit)))
        });
        whole.or_else(|| {
            let on_path = |segment: &&SegmentName| {
                let start = segment.start_lsn(size);
                server.ancestry.span(segment.timeline()).is_some_and(|span| span.end.is_none_or(|end| start < end))
            };
            self.tail.keys().filter(on_path).map(|segment| segment.start_lsn(size)).min()
        })
    }

    /// The end of everything that it has of the server's own timeline.
    fn furthest(&self, server: &Server) -> Option<Lsn> {
        let timeline = server.ancestry.timeline();
        let whole = self.inventory.ranges(timeline).last().map(|range| range.last.end_lsn(server.size));
        let tail = self.tail.iter().filter(|(segment, _)| segment.timeline() == timeline);
        let tail = tail.map(|(segment, end)| segment.start_lsn(server.size).saturating_add(u64::from(*end))).max();
        whole.max(tail)
    }
}

/// The segment with which to begin, under the name of the timeline that is streamed for it.
pub(super) fn first_segment(server: &Server, stored: &[StoredWal]) -> Result<SegmentName, ServerLags> {
    for one in stored {
        if let Some(end) = one.furthest(server).filter(|end| *end > server.flushed) {
            return Err(ServerLags { store: one.store.clone(), stored: end });
        }
    }
    let repositories = stored.iter().filter_map(|one| one.end(server)).min();
    let slot = server.slot.filter(|_| !server.slot_is_new || repositories.is_none());
    // The earlier one: what is between them may be missing.
    let from = repositories.into_iter().chain(slot).min().unwrap_or(server.flushed);
    let mut segment = server.ancestry.segment_containing(from, server.size);
    while !stored.is_empty() && stored.iter().all(|one| one.inventory.contains(segment)) {
        segment = server.ancestry.segment_containing(segment.end_lsn(server.size), server.size);
    }
    Ok(segment)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_pgtypes::{HistoryFile, TimelineId, WalFileName};

    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn segment(text: &str) -> SegmentName {
        text.parse().unwrap()
    }

    fn at(number: u64, offset: u64) -> Lsn {
        Lsn::new(number * SIZE.as_u64() + offset)
    }

    fn name(timeline: u32, number: u64) -> String {
        SegmentName::from_number(number, TimelineId::new(timeline).unwrap(), SIZE).unwrap().to_string()
    }

    fn stored(files: &[String], tail: &[(String, u32)]) -> StoredWal {
        let files = files.iter().map(|file| file.parse::<WalFileName>().unwrap());
        StoredWal {
            store: "s3://one".to_owned(),
            inventory: WalInventory::from_files(SIZE, files),
            tail: tail.iter().map(|(name, end)| (segment(name), *end)).collect(),
        }
    }

    fn server(slot: Option<Lsn>, slot_is_new: bool) -> Server {
        let ancestry = Ancestry::alone(TimelineId::FIRST);
        Server { ancestry, size: SIZE, flushed: at(9, 500), in_recovery: false, slot, slot_is_new }
    }

    /// On timeline 2, which began in the middle of segment 5.
    fn promoted(slot: Option<Lsn>, slot_is_new: bool) -> Server {
        let history = format!("1\t{}\tpromoted\n", at(5, 1000));
        let history = HistoryFile::parse(TimelineId::new(2).unwrap(), history.as_bytes()).unwrap();
        Server { ancestry: Ancestry::from_history(&history), ..server(slot, slot_is_new) }
    }

    #[test]
    fn receiving_begins_with_the_first_segment_that_is_not_whole_everywhere() {
        let whole = |numbers: std::ops::Range<u64>| numbers.map(|number| name(1, number)).collect::<Vec<_>>();
        for (what, server, repositories, expected) in [
            ("nothing stored, a new slot", server(Some(at(4, 40)), true), vec![stored(&[], &[])], name(1, 4)),
            ("nothing at all", server(None, true), vec![stored(&[], &[])], name(1, 9)),
            (
                "a repository knows more than a new slot",
                server(Some(at(8, 0)), true),
                vec![stored(&whole(2..6), &[])],
                name(1, 6),
            ),
            (
                "a slot that lags, all is stored",
                server(Some(at(3, 7)), false),
                vec![stored(&whole(2..6), &[])],
                name(1, 6),
            ),
            (
                "a slot that is ahead of the repository",
                server(Some(at(8, 7)), false),
                vec![stored(&whole(2..6), &[])],
                name(1, 6),
            ),
            (
                "a hole after the slot's position",
                server(Some(at(3, 7)), false),
                vec![stored(&[name(1, 3), name(1, 5)], &[])],
                name(1, 4),
            ),
            ("only a tail", server(Some(at(8, 7)), true), vec![stored(&[], &[(name(1, 7), 100)])], name(1, 7)),
            (
                "a tail after whole segments",
                server(Some(at(6, 7)), false),
                vec![stored(&whole(2..6), &[(name(1, 6), 100)])],
                name(1, 6),
            ),
            (
                "the slower of two",
                server(None, true),
                vec![stored(&whole(2..8), &[]), stored(&whole(2..5), &[])],
                name(1, 5),
            ),
            ("a new repository", server(None, true), vec![stored(&whole(2..8), &[]), stored(&[], &[])], name(1, 8)),
            ("the timeline before", promoted(None, true), vec![stored(&whole(2..4), &[])], name(1, 4)),
            (
                "the segment with the switch",
                promoted(None, true),
                vec![stored(&whole(2..5), &[(name(1, 5), 900)])],
                name(2, 5),
            ),
            (
                "after the switch",
                promoted(Some(at(5, 900)), false),
                vec![stored(&[name(1, 4), name(2, 5)], &[])],
                name(2, 6),
            ),
            (
                "WAL of the old timeline after the switch",
                promoted(None, true),
                vec![stored(&whole(2..9), &[])],
                name(2, 5),
            ),
        ] {
            assert_eq!(first_segment(&server, &repositories).unwrap().to_string(), expected, "{what}");
        }
    }

    #[test]
    fn a_server_that_ends_before_the_repository_is_refused() {
        let short = server(None, true);
        for one in [stored(&[name(1, 9)], &[]), stored(&[name(1, 8)], &[(name(1, 9), 501)])] {
            let error = first_segment(&short, &[stored(&[], &[]), one]).unwrap_err();
            assert!(error.stored > short.flushed, "{error:?}");
        }
        assert!(first_segment(&short, &[stored(&[name(1, 8)], &[(name(1, 9), 500)])]).is_ok());
        // The old timeline may continue: its end is not on the server's path.
        assert!(first_segment(&promoted(None, true), &[stored(&[name(1, 12)], &[(name(1, 13), 5)])]).is_ok());
    }
}
