//! The window, and the WAL that it needs.

use crate::archive::{Archive, claim, day, id, lsn, timeline};
use chrono::Duration;
use holdfast_retention::*;

#[test]
fn an_empty_policy_removes_nothing() {
    let archive = Archive::new(&[1, 2, 3], 400);
    assert!(archive.plan().going().is_empty());
    assert_eq!(archive.reasons(1), [BackupKept::NoPolicy]);
}

#[test]
fn the_window_begins_with_the_newest_backup_before_it() {
    for (today, days, going) in [
        // The window begins at noon of day 20, an hour before the backup of that day is complete.
        (30, 10, vec![1]),
        (31, 10, vec![1, 10]),
        (300, 10, vec![1, 10, 20]),
        (30, 29, vec![]),
        (30, 400, vec![]),
        (30, 0, vec![1, 10, 20]),
    ] {
        let archive = Archive::new(&[1, 10, 20, 29], today).window(days);
        assert_eq!(archive.going(), going, "day {today}, window of {days} days");
    }
}

/// A backup that begins before the window and ends inside it cannot restore a moment before its end.
#[test]
fn the_window_does_not_begin_with_a_backup_across_its_beginning() {
    let mut archive = Archive::new(&[1, 10, 20], 30).window(10);
    archive.find(20).stop_time = day(20) + Duration::hours(30);
    archive.find(20).stop_lsn = lsn(212);
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(10), [BackupKept::WindowStart(timeline(1))]);
}

#[test]
fn a_window_longer_than_time_keeps_everything() {
    let mut archive = Archive::new(&[1, 2], 30);
    archive.policy.window = Some(Duration::MAX);
    assert_eq!(archive.going(), [] as [i64; 0]);
    assert_eq!(archive.going_wal(), [(1, 1, 9)]);
}

#[test]
fn all_wal_from_the_windows_first_backup_on_stays() {
    let archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.going_wal(), [(1, 1, 199)]);
    let plan = archive.plan();
    let last = plan.wal.last().unwrap();
    assert_eq!(last.1, WalVerdict::Kept(WalKept::EveryMomentSince(id(20))));
    assert_eq!((last.0.first, last.0.last), (200, 319));
}

/// Beyond the window, only the backups themselves can be restored.
#[test]
fn a_backup_beyond_the_window_keeps_only_its_own_wal() {
    let archive = Archive::new(&[1, 10, 20, 29], 31).window(5).keep(Keep { last: 4, ..Keep::default() });
    assert_eq!(archive.going(), [0; 0]);
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 99), (1, 102, 199)]);
    let verdicts: Vec<WalVerdict> = archive.plan().wal.iter().map(|(_, verdict)| *verdict).collect();
    assert_eq!(
        verdicts,
        [
            WalVerdict::Goes(WalGoes::BeforeAllBackups),
            WalVerdict::Kept(WalKept::ConsistencyOf(id(1))),
            WalVerdict::Goes(WalGoes::BetweenBackups),
            WalVerdict::Kept(WalKept::ConsistencyOf(id(10))),
            WalVerdict::Goes(WalGoes::BetweenBackups),
            WalVerdict::Kept(WalKept::EveryMomentSince(id(20))),
        ]
    );
}

/// Without a window, `keep.last` is a window that is counted in backups.
#[test]
fn without_a_window_every_moment_since_the_oldest_of_the_last_backups_stays() {
    let archive = Archive::new(&[1, 10, 20, 29], 31).keep(Keep { last: 2, ..Keep::default() });
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.going_wal(), [(1, 1, 199)]);
}

#[test]
fn a_stop_on_a_segment_boundary_needs_the_segment_that_ends_there() {
    let mut archive = Archive::new(&[1, 20], 31).window(5).keep(Keep { last: 2, ..Keep::default() });
    archive.find(1).stop_lsn = (12 * crate::archive::SIZE.as_u64()).into();
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 199)]);
}

#[test]
fn the_windows_before_and_after_are_reported() {
    let archive = Archive::new(&[1, 10, 20, 29], 31).window(5).keep(Keep { last: 3, ..Keep::default() });
    let plan = archive.plan();
    let summary = |windows: &[RecoverableWindow]| {
        let size = crate::archive::SIZE.as_u64();
        windows
            .iter()
            .map(|one| (one.backup, one.backup_count, one.start.as_u64() / size, one.end.as_u64() / size))
            .collect::<Vec<_>>()
    };
    assert_eq!(summary(&plan.before), [(id(1), 4, 11, 320)]);
    assert_eq!(summary(&plan.after), [(id(10), 1, 101, 102), (id(20), 2, 201, 320)]);
}

/// Missing WAL in the middle splits the restorable window. The planner must not treat it as removed.
#[test]
fn a_hole_in_the_wal_changes_no_verdict() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(15);
    archive.wal_of(1).segments.insert(timeline(1), [(1, 149), (152, 319)].into_iter().collect());
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    assert_eq!(archive.plan().before.len(), 2);
}

#[test]
fn a_window_that_is_not_full_yet_is_reported() {
    let archive = Archive::new(&[20], 30).window(20);
    assert!(archive.warns(&Warning::WindowNotReached { from: Some(day(20) + Duration::hours(1)) }));
    assert!(!Archive::new(&[5], 30).window(20).warns(&Warning::WindowNotReached { from: None }));
}

/// Segments with gaps between them get the same verdicts as segments without gaps, only in more ranges.
#[test]
fn single_segments_are_judged_one_by_one() {
    let mut archive = Archive::new(&[1, 20], 31).window(5);
    let lone = (1..300).filter(|number| number % 2 == 0 || [200, 201].contains(number) || (10..12).contains(number));
    archive.wal_of(1).segments.insert(timeline(1), lone.map(|number| (number, number)).collect());
    let wal = archive.plan().going().wal;
    assert!(wal.iter().all(|range| range.claim == claim(1) && range.last < 200));
    assert_eq!(wal.iter().map(WalRange::count).sum::<u64>(), 99 + 1);
}

/// The example in `docs/retention.md`: backups on Sundays, and today is the 28th of April.
#[test]
fn the_example_of_the_document() {
    let sundays: Vec<i64> = (59..=115).step_by(7).collect();
    let archive = Archive::new(&sundays, 117).window(14).keep(Keep { monthly: 3, ..Keep::default() });
    assert_eq!(archive.going(), [59, 66, 73, 80, 94]);
    assert_eq!(archive.reasons(87), [BackupKept::Monthly]);
    assert_eq!(archive.reasons(101), [BackupKept::WindowStart(timeline(1))]);
    assert_eq!(archive.reasons(108), [BackupKept::Window]);
    assert_eq!(archive.reasons(115), [BackupKept::Window, BackupKept::Monthly, BackupKept::LastRestorable]);
    assert_eq!(archive.going_wal(), [(1, 1, 869), (1, 872, 1009)]);
    let starts = |windows: &[RecoverableWindow]| windows.iter().map(|one| one.backup).collect::<Vec<_>>();
    assert_eq!(starts(&archive.plan().before), [id(59)]);
    assert_eq!(starts(&archive.plan().after), [id(87), id(101)]);
}
