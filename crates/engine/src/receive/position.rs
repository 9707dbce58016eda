//! Where receiving begins. Pure.
//!
//! It begins at the beginning of a segment: the first one that is not whole in every repository. The server then sends
//! the stored part of it once more, and both are compared. The slot keeps that WAL: a server removes whole segments
//! only.
//!
//! The segments count from the start of a repository's newest backup or snapshot on: what is before it, no recovery to
//! the present needs. A repository without one has nothing that WAL could be replayed on, so only its newest run
//! counts, and what the slot keeps. `archive_command` stores several segments at the same time, so there can be whole
//! segments after one that is missing, whatever the slot says: nothing after that hole may be reported to the server.

use std::collections::BTreeMap;

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::catalog::WalInventory;

use super::needed::Needed;

/// The WAL of one repository.
#[derive(Debug, Clone)]
pub(super) struct StoredWal {
    /// Its redacted URL.
    pub(super) store: String,
    /// The whole segments.
    pub(super) inventory: WalInventory,
    /// The end of the pieces of each segment that has some, counted from the segment's beginning.
    pub(super) tail: BTreeMap<SegmentName, u32>,
    /// From where on a hole counts, and which ones do not.
    pub(super) needed: Needed,
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
    /// Whether it has the segment in whole, or its absence was accepted.
    pub(super) fn has(&self, segment: SegmentName, size: WalSegmentSize) -> bool {
        self.inventory.contains(segment) || self.needed.is_accepted(segment, size)
    }

    /// The end of what it has without a hole; `None` if it has nothing.
    fn end(&self, server: &Server) -> Option<Lsn> {
        if let Some(from) = self.needed.from {
            return Some(self.first_missing(from, server).start_lsn(server.size));
        }
        let newest = self.end_of_newest_run(server)?;
        let kept = server.slot.map(|slot| self.first_missing(slot, server).start_lsn(server.size));
        kept.into_iter().chain([newest]).min()
    }

    /// The first segment along the path, from an LSN on, that it does not have.
    fn first_missing(&self, from: Lsn, server: &Server) -> SegmentName {
        let mut segment = server.ancestry.segment_containing(from, server.size);
        while self.has(segment, server.size) {
            segment = server.ancestry.segment_containing(segment.end_lsn(server.size), server.size);
        }
        segment
    }

    /// The end of the last run of whole segments along the path, else the beginning of its oldest pieces.
    fn end_of_newest_run(&self, server: &Server) -> Option<Lsn> {
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
    while !stored.is_empty() && stored.iter().all(|one| one.has(segment, server.size)) {
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
            needed: Needed::default(),
        }
    }

    /// The same, with a backup that starts in this segment.
    fn with_backup(number: u64, stored: StoredWal) -> StoredWal {
        StoredWal { needed: Needed::beginning(at(number, 40)), ..stored }
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

    /// `archive_command` has failed for one segment, and had stored later ones already.
    #[test]
    fn a_hole_in_what_is_stored_comes_first_whatever_the_slot_says() {
        let numbers = |numbers: &[u64]| numbers.iter().map(|number| name(1, *number)).collect::<Vec<_>>();
        let holed = || with_backup(3, stored(&numbers(&[2, 3, 4, 5, 7]), &[]));
        let whole = || with_backup(3, stored(&numbers(&[2, 3, 4, 5, 6, 7]), &[]));
        let accepted = |first: u64, last: u64, mut stored: StoredWal| {
            stored.needed.accept(TimelineId::FIRST, first, last);
            stored
        };
        for (what, server, repositories, expected) in [
            ("a new slot", server(Some(at(8, 0)), true), vec![holed()], 6),
            ("a slot that somebody made ahead", server(Some(at(8, 0)), false), vec![holed()], 6),
            ("no slot", server(None, true), vec![holed()], 6),
            ("in one of two repositories", server(Some(at(8, 0)), true), vec![whole(), holed()], 6),
            ("none", server(Some(at(8, 0)), true), vec![whole(), whole()], 8),
            (
                "before the newest backup",
                server(Some(at(8, 0)), true),
                vec![with_backup(7, stored(&numbers(&[2, 3, 4, 5, 7]), &[]))],
                8,
            ),
            (
                "without a backup, before what the slot keeps",
                server(Some(at(7, 0)), true),
                vec![stored(&numbers(&[2, 3, 5, 7]), &[])],
                8,
            ),
            (
                "without a backup, in what the slot keeps",
                server(Some(at(5, 9)), true),
                vec![stored(&numbers(&[2, 3, 5, 7]), &[])],
                6,
            ),
            (
                "several",
                server(Some(at(9, 0)), true),
                vec![with_backup(2, stored(&numbers(&[2, 4, 5, 7]), &[(name(1, 6), 100)]))],
                3,
            ),
            ("an accepted one", server(Some(at(8, 0)), true), vec![accepted(6, 6, holed())], 8),
            (
                "an accepted one, with another after it",
                server(Some(at(8, 0)), true),
                vec![accepted(3, 4, with_backup(2, stored(&numbers(&[2, 5, 7]), &[])))],
                6,
            ),
            ("an accepted one at the end", server(Some(at(8, 0)), false), vec![accepted(8, 8, whole())], 9),
            (
                "accepted in one of two",
                server(Some(at(8, 0)), true),
                vec![accepted(6, 6, holed()), with_backup(3, stored(&numbers(&[3, 4, 5, 7]), &[]))],
                6,
            ),
        ] {
            let first = first_segment(&server, &repositories).unwrap();
            assert_eq!(first.to_string(), name(1, expected), "{what}");
        }
    }

    #[test]
    fn a_hole_before_a_switch_counts_and_a_gap_of_another_timeline_does_not() {
        let files = [name(1, 3), name(2, 5), name(2, 6)];
        let lacks_four = with_backup(3, stored(&files, &[]));
        let server = promoted(Some(at(7, 0)), true);
        assert_eq!(first_segment(&server, std::slice::from_ref(&lacks_four)).unwrap().to_string(), name(1, 4));
        let mut elsewhere = lacks_four;
        elsewhere.needed.accept(TimelineId::new(2).unwrap(), 4, 4);
        assert_eq!(first_segment(&server, &[elsewhere.clone()]).unwrap().to_string(), name(1, 4));
        elsewhere.needed.accept(TimelineId::FIRST, 4, 4);
        assert_eq!(first_segment(&server, &[elsewhere]).unwrap().to_string(), name(2, 7));
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
