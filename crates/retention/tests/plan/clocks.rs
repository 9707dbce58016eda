//! Wrong clocks: in doubt everything stays.

use crate::archive::{Archive, day, id, pack};
use holdfast_retention::*;

/// A host with a clock years ahead took one backup. It stays, does not fill a count, and hides no other backup.
#[test]
fn a_backup_from_the_future_does_not_count() {
    let mut archive = Archive::new(&[1, 2, 3], 4).keep(Keep { last: 1, ..Keep::default() });
    archive.wal(1, 1, 4000, 4020);
    archive.backup(400);
    assert_eq!(archive.going(), [1, 2]);
    assert_eq!(archive.reasons(400), [BackupKept::InTheFuture]);
    assert!(archive.warns(&Warning::InTheFuture(id(400))));
    // The same if only one of its times is wrong.
    let mut archive = Archive::new(&[1, 2, 3], 4).keep(Keep { last: 1, ..Keep::default() });
    archive.find(3).stop_time = day(5);
    assert_eq!(archive.going(), [1]);
}

/// The clock of this host stepped back to before all backups.
#[test]
fn a_clock_that_stepped_back_removes_no_backup() {
    let mut archive = Archive::new(&[10, 20, 29], 31).window(5);
    assert_eq!(archive.going(), [10]);
    for today in [5, 15] {
        archive.today = today;
        assert_eq!((archive.going(), archive.going_packs()), (vec![], vec![]));
        // Only WAL from before every backup is removed, which is always useless.
        assert_eq!(archive.going_wal(), [(1, 1, 99)]);
    }
}

#[test]
fn packs_from_the_future_stay() {
    let mut archive = Archive::new(&[1, 2], 4).keep(Keep { last: 1, ..Keep::default() });
    archive.catalog.packs.push(Pack { id: pack(5, 1), size_bytes: 1 });
    assert_eq!(archive.going_packs(), [pack(1, 1)]);
    archive.today = 6;
    assert_eq!(archive.going_packs(), [pack(1, 1), pack(5, 1)]);
}

/// A clock far ahead makes everything look old. Even then, the last restorable backup stays, with all WAL after it.
#[test]
fn a_clock_far_ahead_leaves_the_last_backup() {
    let mut archive = Archive::new(&[1, 2, 3], 4).window(2);
    archive.today = 100_000;
    assert_eq!(archive.going(), [1, 2]);
    assert_eq!(archive.going_wal(), [(1, 1, 29)]);
}
