//! Unreadable objects stay, and keep everything that they may need.

use crate::archive::{Archive, claim, id, pack};
use holdfast_retention::*;

fn unknown(reason: UnknownReason, of: Option<u32>) -> Archive {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.catalog.packs.push(Pack { id: pack(15, 1), size_bytes: 1 });
    archive.catalog.unknown.push(UnknownBackup { id: id(15), claim: of.map(claim), reason });
    archive
}

#[test]
fn a_backup_that_cannot_be_read_keeps_every_pack_and_the_wal() {
    for reason in [UnknownReason::Newer, UnknownReason::Unreadable("bad digest".to_owned())] {
        for of in [None, Some(1)] {
            let archive = unknown(reason.clone(), of);
            assert_eq!(archive.going(), [1, 10], "backups that can be judged go");
            assert_eq!((archive.going_packs(), archive.going_wal()), (vec![], vec![]));
            assert!(archive.plan().is_blocked);
            assert_eq!(archive.reasons(15), [BackupKept::Unknown(reason.clone())]);
            assert!(archive.warns(&Warning::BlockedBy(id(15))));
        }
        // It needs WAL of its own claim only, but no manifest is read: another backup may be the last sound one.
        assert_eq!(unknown(reason, Some(2)).going_wal(), []);
    }
}

#[test]
fn a_manifest_that_cannot_be_read_keeps_every_pack() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.find(1).verified = Verified::ManifestUnreadable("bad tag".to_owned());
    assert_eq!(archive.going(), [10]);
    assert_eq!(archive.going_packs(), []);
    // Its record tells which WAL it needs, but nobody sees which other backup has lost a pack.
    assert_eq!(archive.going_wal(), []);
}

/// The newest backup has lost its pack, which is seen only in its manifest, and no manifest is read.
#[test]
fn wal_of_the_last_sound_backup_stays_while_no_manifest_is_read() {
    let mut archive = Archive::new(&[1, 10, 20], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.find(1).hold = Some(Hold { until: None });
    archive.catalog.packs.retain(|pack| pack.id != crate::archive::pack(20, 1));
    archive.find(1).verified = Verified::ManifestUnreadable("bad tag".to_owned());
    assert_eq!(archive.going_wal(), []);
    archive.find(1).verified = Verified::Never;
    assert_eq!(archive.reasons(10), [BackupKept::Last, BackupKept::LastRestorable]);
    assert_eq!(archive.going_wal(), [(1, 1, 9), (1, 12, 99)]);
}

/// The newest backup cannot be read, so it must not count as the last restorable one.
#[test]
fn an_unreadable_backup_is_not_the_last_restorable() {
    let mut archive = Archive::new(&[1, 29], 300).keep(Keep { last: 1, ..Keep::default() });
    archive.find(29).verified = Verified::ManifestUnreadable("bad tag".to_owned());
    assert_eq!(archive.going(), [] as [i64; 0]);
    assert_eq!(archive.reasons(1), [BackupKept::Last, BackupKept::LastRestorable]);
}

/// While nothing is known to be restorable, what looks like a remnant may be a backup that is seen wrongly.
#[test]
fn no_remnant_goes_while_nothing_is_restorable() {
    let mut archive = Archive::new(&[1], 31).keep(Keep { last: 1, ..Keep::default() });
    archive.catalog.remnants.insert(id(10));
    assert_eq!(archive.going(), [10]);
    archive.find(1).verified = Verified::Damaged;
    assert_eq!(archive.going(), Vec::<i64>::new());
    assert_eq!(archive.reasons(10), [BackupKept::NothingRestorable]);
}

#[test]
fn no_verdict_without_every_manifest() {
    let mut archive = Archive::new(&[1, 10, 20, 29], 31).window(5);
    archive.manifests.remove(&id(1));
    assert_eq!(archive.going(), [1, 10], "the manifest of a backup that goes is not needed");
    archive.manifests.remove(&id(20));
    let error = decide(&archive.catalog, &archive.manifests, &archive.policy, crate::archive::day(31)).unwrap_err();
    assert_eq!(error, CannotPlan::NotRead(vec![id(20)]));
    assert_eq!(error.to_string(), format!("the manifests of 1 kept backups were not read, the first is {}", id(20)));
}

/// Two conditions at once: with an empty policy, doubts do not matter.
#[test]
fn an_empty_policy_gives_no_warnings() {
    let mut archive = unknown(UnknownReason::Newer, None);
    archive.policy = Policy::default();
    assert!(archive.plan().going().is_empty());
    assert!(archive.plan().warnings.is_empty());
}
