//! Holds, restores, running backups and snapshots.

use crate::archive::{Archive, day, id, pack};
use holdfast_retention::*;

#[test]
fn a_held_backup_stays_with_its_own_wal() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.find(1).hold = Some(Hold { until: None });
    assert_eq!(archive.going(), [10]);
    assert_eq!(archive.reasons(1), [BackupKept::Held]);
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 199)]);
    assert_eq!(archive.going_packs(), [pack(10, 1)]);
    // A hold keeps nothing else, and it ends.
    archive.find(1).hold = Some(Hold { until: Some(day(31)) });
    assert_eq!(archive.going(), [10]);
    archive.find(1).hold = Some(Hold { until: Some(day(30)) });
    assert_eq!(archive.going(), [1, 10]);
}

/// A server that was restored from it continues to fetch WAL.
#[test]
fn a_backup_that_is_held_with_wal_keeps_every_moment_since() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.find(1).hold_with_wal = Some(Hold { until: Some(day(31)) });
    assert_eq!(archive.going(), [10, 20]);
    assert_eq!(archive.reasons(1), [BackupKept::HeldWithWal]);
    assert_eq!(archive.going_wal(), [(1, 1, 9)]);
    // It ends, and the hold of the backup alone continues.
    archive.find(1).hold = Some(Hold { until: None });
    archive.find(1).hold_with_wal = Some(Hold { until: Some(day(30)) });
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 289)]);
    let (short, long, endless) = (Hold { until: Some(day(1)) }, Hold { until: Some(day(2)) }, Hold { until: None });
    assert_eq!((short.longer(None), short.longer(Some(long)), long.longer(Some(endless))), (short, long, endless));
}

/// A backup that is being restored stays with all WAL after it, however old it is.
#[test]
fn a_running_restore_keeps_its_backup() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.catalog.restores.push(RunningRestore { backup: Some(id(1)), lease_until: day(32) });
    assert_eq!(archive.going(), [10]);
    assert_eq!(archive.going_wal(), [(1, 1, 9)]);
    // A lease that ended a moment ago still counts, because a clock may be ahead.
    archive.catalog.restores[0].lease_until = day(31) - chrono::Duration::minutes(10);
    assert_eq!(archive.going(), [10]);
    archive.catalog.restores[0].lease_until = day(30);
    assert_eq!(archive.going(), [1, 10]);
    // If it names no backup, or one that does not exist, it may read any backup.
    for backup in [None, Some(id(5))] {
        archive.catalog.restores[0] = RunningRestore { backup, lease_until: day(32) };
        assert!(archive.plan().going().is_empty(), "{backup:?}");
    }
}

#[test]
fn a_running_backup_keeps_its_parent() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.unfinished(31).parent = Parent::Backup(id(10));
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(10), [BackupKept::ParentOf(id(31))]);
    assert_eq!(archive.going_packs(), [pack(1, 1)]);
    assert_eq!(archive.reasons(31), [BackupKept::Unfinished]);
}

/// A standby that lags far behind begins its backup at an old LSN: the run records from where it needs WAL.
#[test]
fn a_running_backup_keeps_wal_from_its_start() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.unfinished(31).start_lsn = Some(crate::archive::lsn(150));
    assert_eq!(archive.going_wal(), [(1, 1, 149)]);
    archive.catalog.unfinished[0].start_lsn = None;
    assert_eq!(archive.going_wal(), []);
}

/// A run of an old release has no lease and names no parent. What it may need stays for the longest time of a backup.
#[test]
fn a_run_of_an_old_release_counts_as_alive_for_a_week() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    let old = archive.unfinished(30);
    (old.lease_until, old.parent, old.start_lsn) = (None, Parent::Unknown, None);
    archive.catalog.packs.push(Pack { id: pack(30, 1), size_bytes: 1 });
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!((archive.going_packs(), archive.going_wal()), (vec![], vec![]));
    assert!(archive.warns(&Warning::MayRun(id(30))));
    archive.today = 38;
    // The run is dead. Its own packs are left for the next backup on its host.
    assert_eq!(archive.going_packs(), [pack(1, 1), pack(10, 1), pack(20, 1)]);
    assert!(!archive.warns(&Warning::MayRun(id(30))));
}

#[test]
fn a_missing_parent_keeps_every_pack() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.unfinished(31).parent = Parent::Backup(id(5));
    assert_eq!(archive.going_packs(), []);
    assert!(archive.warns(&Warning::ParentIsGone(id(31))));
}

/// It is not known whether a snapshot still exists: it does not fill a count, and its WAL stays as long as its record.
#[test]
fn a_snapshot_does_not_count_and_keeps_its_wal() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.find(29).place = Place::Snapshot;
    archive.find(1).place = Place::Snapshot;
    assert_eq!(archive.going(), [10]);
    assert_eq!(archive.reasons(29), [BackupKept::Snapshot]);
    assert_eq!(archive.reasons(20), [BackupKept::Last, BackupKept::LastRestorable]);
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 199)]);
}
