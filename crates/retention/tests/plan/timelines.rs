//! Failovers, recoveries to an earlier moment, and branches that are no longer needed.

use crate::archive::{Archive, SIZE, claim, day, id, lsn, timeline};
use holdfast_pgtypes::SegmentName;
use holdfast_retention::*;

/// Backups on timeline 1 at days 1 and 10, a failover at segment 150, backups on timeline 2 at days 20 and 29.
fn failed_over(today: i64) -> Archive {
    let mut archive = Archive::new(&[1, 10], today);
    archive.wal_of(1).segments.clear();
    archive.wal(1, 1, 1, 150);
    archive.branch(2, 1, 150, u64::try_from(today).unwrap() * 10 + 9);
    for on in [20, 29] {
        let backup = archive.backup(on);
        (backup.timeline, backup.stop_timeline) = (timeline(2), timeline(2));
    }
    archive
}

#[test]
fn the_window_reaches_over_a_failover() {
    let archive = failed_over(31).window(15);
    assert_eq!(archive.going(), [1]);
    // The segment of the switch stays under both names.
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    let archive = failed_over(31).window(5);
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.going_wal(), [(1, 1, 150), (2, 150, 199)]);
}

/// The server kept archiving on the old timeline after the switch: moments there can also be restored.
#[test]
fn the_end_of_an_old_timeline_stays_while_a_backup_leads_to_it() {
    let mut archive = failed_over(31).window(15);
    archive.wal(1, 1, 151, 160);
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    let mut archive = failed_over(31).window(5);
    archive.wal(1, 1, 151, 160);
    assert_eq!(archive.going_wal(), [(1, 1, 160), (2, 150, 199)]);
    assert!(archive.plan().wal.iter().any(|(_, verdict)| *verdict == WalVerdict::Goes(WalGoes::Unreachable)));
}

/// A recovery to segment 105 on day 30 makes timeline 2. The backups after segment 105 on timeline 1 do not lead to
/// timeline 2, but inside the window they are needed to restore moments of the abandoned timeline.
#[test]
fn a_recovery_to_an_earlier_moment_leaves_two_lines() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 60).window(35);
    archive.wal_of(1).segments.clear();
    archive.wal(1, 1, 1, 299);
    archive.branch(2, 1, 105, 400);
    archive.wal_of(1).last_stored.insert(timeline(2), day(60));
    // The window begins on day 25. Timeline 1 had WAL until day 29 and needs the backup of day 20. Timeline 2 needs the
    // backup of day 10.
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(10), [BackupKept::WindowStart(timeline(2)), BackupKept::LastRestorable]);
    assert!(archive.reasons(20).contains(&BackupKept::WindowStart(timeline(1))));
    // Later, only timeline 2 is inside the window. The newest backup of all is on the abandoned timeline, and stays
    // until timeline 2 has its own backup.
    archive.today = 90;
    archive.wal_of(1).last_stored.insert(timeline(2), day(90));
    assert_eq!(archive.going(), [1, 20]);
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    let backup = archive.backup(50);
    (backup.timeline, backup.stop_timeline) = (timeline(2), timeline(2));
    (backup.start_lsn, backup.stop_lsn) = (lsn(120), lsn(121));
    assert_eq!(archive.going(), [1, 10, 20, 29]);
    assert_eq!(archive.going_wal(), [(1, 1, 299), (2, 105, 119)]);
}

/// A backup from a standby that followed a switch while it ran: it begins on one timeline and ends on the next.
#[test]
fn a_backup_across_a_switch_keeps_both_timelines() {
    let mut archive = failed_over(31).window(5).keep(Keep { last: 3, ..Keep::default() });
    let backup = archive.find(10);
    (backup.start_lsn, backup.stop_lsn, backup.stop_timeline) = (lsn(149), lsn(152), timeline(2));
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.going_wal(), [(1, 1, 148), (2, 153, 199)]);
}

/// The history file is missing: it is not known which backup leads to the timeline, so everything after the oldest
/// start stays. Older WAL is useless.
#[test]
fn a_timeline_of_unknown_history_is_kept() {
    let mut archive = failed_over(31).window(5);
    archive.wal_of(1).histories.clear();
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    assert!(archive.warns(&Warning::UnknownHistory { claim: claim(1), timeline: timeline(2) }));
}

/// The archive was set up after the promotion, so the first history file was never archived. That must not keep WAL for
/// ever.
#[test]
fn a_history_file_that_was_never_archived_does_not_keep_wal_for_ever() {
    let mut archive = Archive::new(&[1, 10, 20], 300).window(5);
    let all = archive.wal_of(1).of(timeline(1)).clone();
    archive.wal_of(1).segments = [(timeline(3), all)].into();
    archive.wal_of(1).last_stored = [(timeline(3), day(299))].into();
    for backup in &mut archive.catalog.backups {
        (backup.timeline, backup.stop_timeline) = (timeline(3), timeline(3));
    }
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.going_wal(), [(3, 1, 199)]);
}

/// A descendant's history file also contains the history of its parents.
#[test]
fn the_history_of_a_descendant_is_enough() {
    let mut archive = failed_over(31).window(15);
    archive.branch(3, 2, 305, 310);
    archive.wal_of(1).histories.remove(&timeline(2));
    assert_eq!(archive.going(), [1]);
    assert!(!archive.warns(&Warning::UnknownHistory { claim: claim(1), timeline: timeline(2) }));
}

/// A partial segment has the verdict of the segment with its number, even if the whole segment does not exist.
#[test]
fn partial_segments_follow_their_number() {
    let mut archive = failed_over(31).window(5);
    archive.wal_of(1).segments.insert(timeline(1), NumberRanges::of(1, 149));
    let partial = SegmentName::from_number(150, timeline(1), SIZE).unwrap();
    archive.wal_of(1).partials.insert(partial);
    assert_eq!(archive.going_wal(), [(1, 1, 150), (2, 150, 199)]);
    archive.policy.window = Some(chrono::Duration::days(15));
    assert_eq!(archive.going_wal(), [(1, 1, 99)]);
}

/// A promoted copy archives into the same archive. The backup that leads to the timeline with the latest activity
/// stays, and so does the newest backup.
#[test]
fn a_foreign_branch_does_not_take_the_last_backup_away() {
    let mut archive = Archive::new(&[1, 10, 20], 300).keep(Keep { last: 1, ..Keep::default() });
    archive.branch(2, 1, 105, 160);
    archive.wal_of(1).last_stored.insert(timeline(2), day(31));
    let backup = archive.backup(31);
    (backup.timeline, backup.stop_timeline) = (timeline(2), timeline(2));
    (backup.start_lsn, backup.stop_lsn) = (lsn(150), lsn(151));
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.reasons(20), [BackupKept::LastRestorable]);
    assert_eq!(archive.reasons(31), [BackupKept::Last, BackupKept::LastRestorable]);
    assert!(archive.plan().backups.contains_key(&id(31)));
}

/// Counts know nothing of timelines: a branch with many backups does not push out the only one of a line that was in
/// use a moment ago.
#[test]
fn without_a_window_a_line_in_use_keeps_its_newest_backup() {
    let mut archive = Archive::new(&[1, 10, 20], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.branch(2, 1, 105, 319);
    archive.branch(3, 1, 205, 319);
    for (on, line) in [(28, 2), (30, 3)] {
        let backup = archive.backup(on);
        (backup.timeline, backup.stop_timeline) = (timeline(line), timeline(line));
    }
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.reasons(28), [BackupKept::Line(timeline(2))]);
    assert_eq!(archive.reasons(20), [BackupKept::Line(timeline(1))]);
    // A week after its last segment nobody uses it.
    for line in [1, 2] {
        archive.wal_of(1).last_stored.insert(timeline(line), day(23));
    }
    archive.find(28).stop_time = day(23);
    assert_eq!(archive.going(), [1, 10, 20, 28]);
}

/// The switch is exactly on a segment boundary: the parent owns nothing of the segment that begins there.
#[test]
fn a_switch_on_a_border_leaves_the_parents_next_segment() {
    let archive = failed_over(31).window(5).keep(Keep { last: 3, ..Keep::default() });
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.going_wal(), [(1, 1, 99), (1, 102, 150), (2, 150, 199)]);
}

/// After a recovery to an earlier moment, the server has not written WAL yet: only the history file is there. Only the
/// backup from which it was restored leads to the current timeline.
#[test]
fn a_line_that_has_only_a_history_file_is_alive() {
    for (archive, going) in [
        (Archive::new(&[1, 10, 20, 29], 31).window(5), vec![1]),
        (Archive::new(&[1, 10, 20, 29], 31).keep(Keep { last: 1, ..Keep::default() }), vec![1, 20]),
    ] {
        let mut archive = archive;
        archive.branch(2, 1, 150, 150);
        archive.wal_of(1).segments.remove(&timeline(2));
        archive.wal_of(1).last_stored.insert(timeline(2), day(31) + chrono::Duration::hours(1));
        assert_eq!(archive.going(), going);
        // Without the time of the file, the timeline counts as active.
        archive.wal_of(1).last_stored.remove(&timeline(2));
        assert!(archive.policy.window.is_none() || archive.going() == going);
    }
}
