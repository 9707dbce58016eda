//! Several claims: `pg_upgrade` starts again with new LSNs and timelines, so backups of two claims can be ordered only
//! by time.

use crate::archive::{Archive, claim, day, id, lsn, timeline};
use holdfast_retention::*;

/// Claim 1 with backups to day 20, on timeline 9; the upgrade is on day 21, and claim 2 begins at segment 1.
fn upgraded(today: i64, new_backups: &[i64]) -> Archive {
    let mut archive = Archive::new(&[], today);
    let wal = archive.wal_of(1).of(timeline(1)).clone();
    archive.branch(9, 1, 1, 1);
    archive.wal_of(1).segments = [(timeline(9), wal.common(&NumberRanges::of(1, 215)))].into();
    archive.wal_of(1).last_stored = [(timeline(9), day(21))].into();
    for on in [1, 10, 20] {
        let backup = archive.backup(on);
        (backup.timeline, backup.stop_timeline) = (timeline(9), timeline(9));
        // After the switch in segment 1.
        backup.start_lsn = lsn(u64::try_from(on).unwrap() * 10 + 1);
    }
    archive.claim(2, 21);
    archive.wal(2, 1, 1, u64::try_from(today - 21).unwrap() * 10 + 9);
    archive.wal_of(2).last_stored.insert(timeline(1), day(today));
    for on in new_backups {
        let backup = archive.backup(*on);
        backup.claim = claim(2);
        let start = u64::try_from(on - 21).unwrap() * 10;
        (backup.start_lsn, backup.stop_lsn) = (lsn(start + 1), lsn(start + 2));
    }
    archive
}

#[test]
fn the_newest_backups_are_those_of_the_new_claim() {
    let archive = upgraded(30, &[22, 25, 29]).keep(Keep { last: 2, ..Keep::default() });
    assert_eq!(archive.going(), [1, 10, 20, 22]);
    let archive = upgraded(30, &[29]).keep(Keep { last: 2, ..Keep::default() });
    assert_eq!(archive.going(), [1, 10]);
}

/// Until the new claim has a backup, only the last backup of the old claim can be restored.
#[test]
fn the_old_claims_last_backup_stays_until_the_new_claim_has_one() {
    let archive = upgraded(300, &[]).window(5);
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.reasons(20), [BackupKept::LastRestorable]);
    assert!(archive.warns(&Warning::CurrentClaimHasNone(claim(2))));
    // The new claim's WAL also stays.
    assert!(archive.plan().going().wal.iter().all(|range| range.claim == claim(1)));
    let archive = upgraded(300, &[22]).window(5);
    assert_eq!(archive.going(), [1, 10, 20]);
    assert_eq!(archive.going_wal(), [(9, 1, 215)]);
}

#[test]
fn the_window_begins_in_the_claim_that_was_current_then() {
    let archive = upgraded(30, &[22, 29]).window(12);
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(10), [BackupKept::WindowStart(timeline(9))]);
    // The window begins after the upgrade: only the new claim's backups are needed.
    let archive = upgraded(40, &[22, 29]).window(15);
    assert_eq!(archive.going(), [1, 10, 20]);
}

/// A damaged backup of the new claim does not count.
#[test]
fn a_damaged_backup_of_the_new_claim_does_not_replace_the_old_claims_last() {
    let mut archive = upgraded(300, &[22]).window(5);
    archive.find(22).verified = Verified::Damaged;
    assert_eq!(archive.going(), [1, 10]);
    assert_eq!(archive.reasons(22), [BackupKept::NothingRestorableInClaim, BackupKept::Unsound]);
}

#[test]
fn a_claim_that_cannot_be_read_keeps_everything_of_its_own() {
    let mut archive = upgraded(300, &[22, 290]).window(5);
    assert_eq!(archive.going(), [1, 10, 20, 22]);
    archive.catalog.claims.get_mut(&claim(1)).unwrap().since = None;
    assert_eq!(archive.going(), [22]);
    assert!(archive.plan().going().wal.iter().all(|range| range.claim == claim(2)));
}

/// In the old claim a history file is missing, so it is not known when its timelines were active. If the window begins
/// after the upgrade, the old claim is not needed, whatever its timelines are.
#[test]
fn an_old_claim_of_unknown_history_is_removed_after_the_window() {
    let mut archive = upgraded(30, &[22, 29]).window(12);
    archive.wal_of(1).histories.clear();
    assert_eq!(archive.going(), [1]);
    archive.today = 40;
    archive.policy.window = Some(chrono::Duration::days(15));
    assert_eq!(archive.going(), [1, 10, 20]);
    assert_eq!(archive.going_wal(), [(9, 1, 215)]);
}

#[test]
fn a_claim_without_any_backup_keeps_its_wal() {
    let archive = Archive::new(&[], 30).window(1);
    assert_eq!(archive.plan().going().wal, []);
    let plan = archive.plan();
    assert_eq!(plan.wal[0].1, WalVerdict::Kept(WalKept::NoBackupYet));
}

#[test]
fn without_a_restorable_backup_no_backup_is_removed() {
    let mut archive = Archive::new(&[1, 2, 3], 300).window(1);
    for backup in &mut archive.catalog.backups {
        backup.verified = Verified::Damaged;
    }
    assert_eq!(archive.going(), [] as [i64; 0]);
    assert!(archive.reasons(1).contains(&BackupKept::NothingRestorable));
    assert_eq!(archive.going_wal(), [(1, 1, 9)]);
    assert_eq!(archive.plan().backups.len(), 3);
    assert!(archive.plan().backups.contains_key(&id(1)));
}
