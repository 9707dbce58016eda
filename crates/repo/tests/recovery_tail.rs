//! The planner and the tail of an archive: pieces of segments that are not whole.

#![expect(clippy::unwrap_used, clippy::unwrap_in_result, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{HistoryFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::WalInventory;
use holdfast_repo::name::ClaimNumber;
use holdfast_repo::recovery::{
    Beginning, BeginningKind, RecoveryPath, RecoveryPlan, RecoveryRequest, RecoveryWorld, TargetFacts, Unreachable,
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
fn only_the_timeline_that_is_followed_has_a_tail() {
    let histories = promoted(at(4, 500));
    let whole = [segment(1, 2), segment(1, 3)];
    // The old timeline went further than the switch, and nothing of the new one is stored.
    let old = [(segment(1, 4), at(4, 9000))];
    let found = plan(&whole, &old, &histories, RecoveryTarget::Latest).unwrap();
    assert_eq!((found.timeline, found.tail_lsn, found.window.to_lsn), (timeline(2), None, at(4, 0)));
    // The new one begins in the middle of a segment, of which only pieces are stored.
    let new = [(segment(1, 4), at(4, 9000)), (segment(2, 4), at(4, 7000))];
    let found = plan(&whole, &new, &histories, RecoveryTarget::Latest).unwrap();
    assert_eq!((found.timeline, found.tail_lsn), (timeline(2), Some(at(4, 7000))));
}
