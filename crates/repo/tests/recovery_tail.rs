//! The planner and the tail of an archive: pieces of segments that are not whole.

#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{HistoryFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::name::ClaimNumber;
use holdfast_repo::recovery::{
    Beginning, BeginningKind, Hole, NeededTail, RecoveryPath, RecoveryPlan, RecoveryRequest, RecoveryWorld,
    TargetFacts, Unreachable,
};

const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn segment(on: u32, number: u64) -> SegmentName {
    SegmentName::from_number(number, timeline(on), SIZE).unwrap()
}

/// An LSN by segment and bytes after its start.
fn at(number: u64, offset: u64) -> Lsn {
    Lsn::new((number << 24) + offset)
}

/// A backup in segment 2, and these whole segments.
fn plan(
    whole: &[SegmentName],
    tails: &[(SegmentName, Lsn)],
    histories: &BTreeMap<TimelineId, HistoryFile>,
    target: RecoveryTarget,
) -> Result<RecoveryPlan, Unreachable> {
    let mut wal = WalInventory::from_files(SIZE, whole.iter().copied().map(WalFileName::Segment));
    for history in histories.keys() {
        wal.add(WalFileName::History(*history));
    }
    for (first, end) in tails {
        wal.add_tail(*first, *end);
    }
    let backups = [Beginning {
        kind: BeginningKind::Backup,
        backup_id: "20260822T101500Z".parse().unwrap(),
        claim: ClaimNumber::FIRST,
        timeline: timeline(1),
        start_lsn: at(2, 40),
        stop_lsn: at(2, 400),
        start_segment: segment(1, 2),
        stop_segment: segment(1, 2),
        stop_time: "2026-08-22T10:16:00Z".parse().unwrap(),
    }];
    let world = RecoveryWorld { claim: ClaimNumber::FIRST, backups: &backups, histories, wal: &wal };
    let request = RecoveryRequest { target, timeline: TargetTimeline::Latest, ..RecoveryRequest::default() };
    RecoveryPath::find(&request, &world)?.decide(&TargetFacts::default())
}

fn promoted(switch_lsn: Lsn) -> BTreeMap<TimelineId, HistoryFile> {
    let text = format!("1\t{switch_lsn}\tpromoted\n");
    BTreeMap::from([(timeline(2), HistoryFile::parse(timeline(2), text.as_bytes()).unwrap())])
}

#[test]
fn a_target_in_the_tail_can_be_reached_and_one_after_it_cannot() {
    let whole = [segment(1, 2), segment(1, 3)];
    let tail = [(segment(1, 4), at(5, 1000))];
    let none = BTreeMap::new();
    let latest = plan(&whole, &tail, &none, RecoveryTarget::Latest).unwrap();
    assert_eq!((latest.tail_lsn, latest.window.to_lsn), (Some(at(5, 1000)), at(5, 1000)));
    assert_eq!(latest.segment_count, 4, "segments 2 to 5: {latest:?}");
    assert!(plan(&whole, &tail, &none, RecoveryTarget::Lsn(at(5, 999))).is_ok());
    let beyond = plan(&whole, &tail, &none, RecoveryTarget::Lsn(at(5, 1000)));
    assert!(matches!(beyond, Err(Unreachable::BeyondArchive { .. })), "{beyond:?}");
    let without = plan(&whole, &[], &none, RecoveryTarget::Latest).unwrap();
    assert_eq!((without.tail_lsn, without.window.to_lsn), (None, at(4, 0)));
}

#[test]
fn a_tail_after_a_hole_does_not_close_it() {
    let found = plan(&[segment(1, 2)], &[(segment(1, 4), at(4, 1000))], &BTreeMap::new(), RecoveryTarget::Latest);
    assert!(matches!(found, Err(Unreachable::Hole { .. })), "{found:?}");
}

#[test]
fn before_the_new_timeline_has_wal_the_old_tail_is_used_up_to_the_switch() {
    let switch = at(4, 500);
    let histories = promoted(switch);
    let whole = [segment(1, 2), segment(1, 3)];
    let of_old = |end_lsn| vec![NeededTail { timeline: timeline(1), end_lsn, switch_lsn: Some(switch) }];
    // The old timeline went further than the switch, or not as far; into the next segment, too.
    for (old_end, end) in [(at(4, 9000), switch), (switch, switch), (at(4, 300), at(4, 300)), (at(5, 100), switch)] {
        let old = [(segment(1, 4), old_end)];
        let found = plan(&whole, &old, &histories, RecoveryTarget::Latest).unwrap();
        assert_eq!((found.timeline, found.tail_lsn, found.window.to_lsn), (timeline(2), Some(end), end));
        assert_eq!(found.tails, of_old(end));
        assert_eq!(found.segments.last().map(|range| range.last), Some(segment(1, 4)));
        let beyond = plan(&whole, &old, &histories, RecoveryTarget::Lsn(end));
        assert!(matches!(beyond, Err(Unreachable::BeyondArchive { .. })), "{beyond:?}");
        assert!(plan(&whole, &old, &histories, RecoveryTarget::Lsn(at(4, 299))).is_ok());
    }
    // The new one has pieces that do not reach its own beginning: the old one has more.
    for new_end in [at(4, 200), switch] {
        let both = [(segment(1, 4), at(4, 9000)), (segment(2, 4), new_end)];
        let found = plan(&whole, &both, &histories, RecoveryTarget::Latest).unwrap();
        assert_eq!((found.tail_lsn, found.tails), (Some(switch), of_old(switch)));
    }
    // They reach further: nothing of the old one is needed.
    let new = [(segment(1, 4), at(4, 9000)), (segment(2, 4), at(4, 7000))];
    let found = plan(&whole, &new, &histories, RecoveryTarget::Latest).unwrap();
    assert_eq!((found.timeline, found.tail_lsn), (timeline(2), Some(at(4, 7000))));
    let needed = NeededTail { timeline: timeline(2), end_lsn: at(4, 7000), switch_lsn: None };
    assert_eq!(found.tails, [needed]);
}

#[test]
fn old_wal_that_cannot_be_cut_at_the_switch_is_refused_and_so_is_wal_after_the_old_tail() {
    let histories = promoted(at(4, 500));
    let old_whole = [segment(1, 2), segment(1, 3), segment(1, 4)];
    let found = plan(&old_whole, &[(segment(2, 4), at(4, 300))], &histories, RecoveryTarget::Latest);
    assert!(matches!(found, Err(Unreachable::Hole { .. })), "{found:?}");
    let new_later = [segment(1, 2), segment(1, 3), segment(2, 5)];
    let old = [(segment(1, 4), at(4, 9000))];
    let found = plan(&new_later, &old, &histories, RecoveryTarget::Latest);
    let is_hole = matches!(&found, Err(Unreachable::Hole { hole, .. })
        if (hole.first_missing, hole.count) == (segment(2, 4), 1));
    assert!(is_hole, "{found:?}");
    assert!(plan(&new_later, &old, &histories, RecoveryTarget::Lsn(at(4, 499))).is_ok());
}

#[test]
fn the_old_tail_leads_to_a_switch_in_a_later_segment() {
    // Segment 4 of the old timeline is complete, in pieces; the new one begins in segment 5.
    let histories = promoted(at(5, 500));
    let whole = [segment(1, 2), segment(1, 3)];
    let old = (segment(1, 4), at(5, 400));
    let needed = |on: u32, end_lsn, switch_lsn| NeededTail { timeline: timeline(on), end_lsn, switch_lsn };
    let found = plan(&whole, &[old], &histories, RecoveryTarget::Latest).unwrap();
    assert_eq!((found.tail_lsn, found.segment_count), (Some(at(5, 400)), 4), "{found:?}");
    assert_eq!(found.tails, [needed(1, at(5, 400), Some(at(5, 500)))]);
    let both = [old, (segment(2, 5), at(6, 0))];
    let found = plan(&whole, &both, &histories, RecoveryTarget::Latest).unwrap();
    assert_eq!((found.tail_lsn, found.segment_count), (Some(at(6, 0)), 4), "{found:?}");
    assert_eq!(found.tails, [needed(1, at(5, 0), Some(at(5, 500))), needed(2, at(6, 0), None)]);
}

#[test]
fn complete_pieces_close_a_hole_between_whole_segments() {
    let whole = [segment(1, 2), segment(1, 4)];
    let none = BTreeMap::new();
    let closed = plan(&whole, &[(segment(1, 3), at(4, 0))], &none, RecoveryTarget::Latest).unwrap();
    assert_eq!((closed.tail_lsn, closed.window.to_lsn, closed.segment_count), (None, at(5, 0), 3));
    assert_eq!(closed.tails, [NeededTail { timeline: timeline(1), end_lsn: at(4, 0), switch_lsn: None }]);
    // The archive's end in pieces, too.
    let tails = [(segment(1, 5), at(5, 700)), (segment(1, 3), at(4, 0))];
    let both = plan(&whole, &tails, &none, RecoveryTarget::Latest).unwrap();
    assert_eq!((both.tail_lsn, both.segment_count), (Some(at(5, 700)), 4));
    assert_eq!(both.tails, [NeededTail { timeline: timeline(1), end_lsn: at(5, 700), switch_lsn: None }]);
}

/// Several segments were on their way when the machine died, and the receiver lagged: segment 3 is in pieces.
#[test]
fn what_was_acknowledged_before_a_hole_is_restored() {
    let none = BTreeMap::new();
    let end = at(3, 9000);
    let tail = [(segment(1, 3), end)];
    let hole = |count| Some(Hole { timeline: timeline(1), first_missing: segment(1, 3), count });
    for (after, count) in [(vec![4], 1), (vec![5, 6, 8], 2), (vec![259], 256)] {
        let whole: Vec<_> = [2].iter().chain(&after).map(|number| segment(1, *number)).collect();
        let found = plan(&whole, &tail, &none, RecoveryTarget::Latest).unwrap();
        assert_eq!((found.tail_lsn, found.window.to_lsn, found.segment_count), (Some(end), end, 2), "{after:?}");
        assert_eq!(found.tails, [NeededTail { timeline: timeline(1), end_lsn: end, switch_lsn: None }]);
        assert_eq!(found.ends_at, hole(count), "the rest is named");
        // Nothing after the pieces can be reached, and nobody gets there by chance.
        let found = plan(&whole, &tail, &none, RecoveryTarget::Lsn(at(3, 8999))).unwrap();
        assert_eq!((found.tail_lsn, found.ends_at), (Some(end), None));
        for target in [end, at(4, 100), at(5, 100)] {
            let beyond = plan(&whole, &tail, &none, RecoveryTarget::Lsn(target));
            let is_hole = matches!(&beyond, Err(Unreachable::Hole { hole: found, .. }) if Some(*found) == hole(count));
            assert!(is_hole, "{beyond:?}");
        }
    }
    // The pieces reach the end of segment 3, and the next one is missing.
    let found = plan(&[segment(1, 2), segment(1, 5)], &[(segment(1, 3), at(4, 0))], &none, RecoveryTarget::Latest);
    let found = found.unwrap();
    assert_eq!((found.tail_lsn, found.window.to_lsn), (Some(at(4, 0)), at(4, 0)));
    assert_eq!(found.ends_at.map(|hole| hole.first_missing), Some(segment(1, 4)));
}

#[test]
fn much_wal_after_a_hole_is_never_left_out_by_chance() {
    let none = BTreeMap::new();
    let tail = [(segment(1, 3), at(3, 9000))];
    // More than archiving can have had on its way: a segment was lost in another way.
    let far = plan(&[segment(1, 2), segment(1, 260)], &tail, &none, RecoveryTarget::Latest);
    let windows = match &far {
        Err(error @ Unreachable::Hole { .. }) => error.windows(),
        found => unreachable!("{found:?}"),
    };
    assert_eq!(windows.last().map(|window| window.to_lsn), Some(at(3, 9000)), "what can be reached is said");
    // A hole without any piece.
    let open = plan(&[segment(1, 2), segment(1, 4)], &[], &none, RecoveryTarget::Latest);
    assert!(matches!(open, Err(Unreachable::Hole { .. })), "{open:?}");
}
