//! Lines that are not followed: a drill that was promoted into the archive of its production, and repeated failovers.

use super::{World, backup, half, id, minute, start_of, timeline, with, world};
use crate::recovery::{Newer, Unreachable};
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};

/// Production on timeline 1, from which a drill parted at 4.5 as timeline 2: backup A, the drill, segments 5 to 10,
/// backup B.
fn drill() -> World {
    with(world(), |w| {
        w.backups.truncate(2);
        w.histories.clear();
        w.segments.clear();
        w.add(1, 1..=10);
        w.add(2, 4..=5);
        w.history(2, &[(1, half(4))]);
        w.stored = [(1, 30), (2, 15)].into();
    })
}

fn refused() -> &'static str {
    "error: the newest timeline that a backup leads to is 2, but backup 20260822T102000Z of timeline 1 is newer and does not \
     lead there"
}

#[test]
fn a_newer_backup_elsewhere_wants_the_timeline_named() {
    let named = |on: u32| with(drill(), |w| w.request.timeline = TargetTimeline::Number(timeline(on)));
    super::check(&[
        ("left to us", drill(), refused()),
        ("production", named(1), "B along 1: 1:6-10"),
        ("the drill", named(2), "A along 2: 1:2-3 2:4-5"),
        ("of the newest backup", with(drill(), |w| w.request.timeline = TargetTimeline::Current), "B along 1: 1:6-10"),
        ("the newest backup by its id", with(drill(), |w| w.request.backup = Some(id(20))), "B along 1: 1:6-10"),
        (
            "the older one by its id: it leads to the newest timeline",
            with(drill(), |w| w.request.backup = Some(id(10))),
            "A along 2: 1:2-3 2:4-5",
        ),
        ("the end of the newest backup", with(drill(), |w| w.request.target = RecoveryTarget::Immediate), refused()),
        (
            "an LSN that only production has",
            with(drill(), |w| w.request.target = RecoveryTarget::Lsn(half(8))),
            refused(),
        ),
        (
            "an LSN that both have, and not with the same WAL",
            with(drill(), |w| w.request.target = RecoveryTarget::Lsn(start_of(5))),
            refused(),
        ),
        ("the LSN at which they part", with(drill(), |w| w.request.target = RecoveryTarget::Lsn(half(4))), refused()),
        (
            "before they part it is the same history",
            with(drill(), |w| w.request.target = RecoveryTarget::Lsn(start_of(4))),
            "A along 2: 1:2-3 2:4-5",
        ),
        (
            "before any backup no line helps",
            with(drill(), |w| w.request.target = RecoveryTarget::Lsn(start_of(1))),
            "error: LSN 0/1000000 is before the end of the oldest backup",
        ),
        ("a time after the drill", with(drill(), |w| w.request.target = RecoveryTarget::Time(minute(55))), refused()),
        (
            "the drill has the newer backup",
            with(drill(), |w| {
                w.backups.push(backup(2, 5, 5, 30, 32));
                w.backups.last_mut().unwrap().start_lsn = start_of(5);
            }),
            "C along 2: 2:5-5",
        ),
    ]);
}

#[test]
fn what_is_not_followed_is_named() {
    type Row<'a> = (&'a str, World, &'a [(u32, Newer)]);
    let without_b = || {
        with(drill(), |w| {
            w.backups.pop();
        })
    };
    let table: [Row<'_>; 8] = [
        ("newer WAL alone", without_b(), &[(1, Newer::Wal)]),
        ("older WAL", with(without_b(), |w| w.stored = [(1, 30), (2, 45)].into()), &[(1, Newer::Nothing)]),
        ("without times, the longer one", with(without_b(), |w| w.stored.clear()), &[(1, Newer::Wal)]),
        (
            "the drill beside a chosen production",
            with(drill(), |w| w.request.timeline = TargetTimeline::Number(timeline(1))),
            &[(2, Newer::Nothing)],
        ),
        (
            "the drill is chosen",
            with(drill(), |w| w.request.timeline = TargetTimeline::Number(timeline(2))),
            &[(1, Newer::Backup)],
        ),
        ("abandoned ends, after two failovers", world(), &[(1, Newer::Nothing), (2, Newer::Nothing)]),
        (
            "nothing after the place where it parts",
            with(world(), |w| {
                (9..=10).for_each(|segment| w.remove(1, segment));
                w.remove(2, 14);
            }),
            &[],
        ),
        (
            "a branch of the first timeline, beside two failovers",
            with(world(), |w| {
                w.history(4, &[(1, half(1))]);
                w.add(4, 1..=4);
                w.stored = [(3, 50), (4, 55)].into();
            }),
            &[(1, Newer::Nothing), (2, Newer::Nothing), (4, Newer::Wal)],
        ),
    ];
    for (name, world, expected) in table {
        let path = world.path().unwrap();
        let found: Vec<(u32, Newer)> =
            path.other_lines().iter().map(|line| (line.timeline.get(), line.newer)).collect();
        assert_eq!(found, expected, "{name}");
    }
    let line = drill().path().unwrap().other_lines()[0].to_string();
    assert_eq!(
        line,
        "timeline 1 separates from it at 0/4800000 and has backup 20260822T102000Z and WAL to 0/B000000, last stored \
         2026-08-22T10:30:00Z"
    );
}

/// A copy was promoted in the very segment in which its backup ended, and has archived nothing but its history.
#[test]
fn a_timeline_that_has_only_begun_names_the_one_before() {
    let begun = with(drill(), |w| {
        w.backups.truncate(1);
        (4..=5).for_each(|segment| w.remove(2, segment));
        w.remove(1, 4);
        w.history(2, &[(1, half(3))]);
    });
    let error = begun.plan().unwrap_err();
    let Unreachable::Hole { follows, .. } = &error else { panic!("{error}") };
    assert_eq!(*follows, Some(timeline(1)), "{error}");
}

#[test]
fn what_cannot_be_reached_names_the_other_lines() {
    let beyond = with(drill(), |w| {
        w.backups.pop();
        w.request.target = RecoveryTarget::Lsn(half(8));
    });
    let error = beyond.plan().unwrap_err();
    assert!(matches!(error, Unreachable::BeyondArchive { .. }), "{error}");
    assert_eq!(error.other_lines().iter().map(|line| line.timeline).collect::<Vec<_>>(), [timeline(1)]);
}
