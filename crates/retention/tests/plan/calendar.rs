//! The counts of `keep`.

use crate::archive::{Archive, day, id};
use chrono::Duration;
use holdfast_retention::*;

fn kept(days: &[i64], today: i64, keep: Keep) -> Vec<i64> {
    let archive = Archive::new(days, today).keep(keep);
    let going = archive.going();
    days.iter().copied().filter(|day| !going.contains(day)).collect()
}

#[test]
fn each_count_takes_the_newest_of_its_periods() {
    let days: Vec<i64> = (0..100).collect();
    for (keep, expected) in [
        (Keep { last: 2, ..Keep::default() }, vec![98, 99]),
        (Keep { daily: 3, ..Keep::default() }, vec![97, 98, 99]),
        // Day 0 is a Thursday, so weeks end on the days 3, 10, ...; day 99 is a Friday.
        (Keep { weekly: 3, ..Keep::default() }, vec![87, 94, 99]),
        // Day 30 is the 31st of January, day 58 the 28th of February, day 89 the 31st of March.
        (Keep { monthly: 3, ..Keep::default() }, vec![58, 89, 99]),
        (Keep { monthly: 9, ..Keep::default() }, vec![30, 58, 89, 99]),
        (Keep { yearly: 5, ..Keep::default() }, vec![99]),
        (Keep { last: 1, weekly: 2, monthly: 2, ..Keep::default() }, vec![89, 94, 99]),
    ] {
        assert_eq!(kept(&days, 100, keep), expected, "{keep:?}");
    }
}

/// Weeks are ISO weeks: the last days of December can belong to the first week of the next year, so one week can have
/// days of two years.
#[test]
fn a_week_across_new_year_is_one_week() {
    // Day 364 is Thursday the 31st of December, day 365 Friday the 1st of January.
    assert_eq!(kept(&[363, 364, 365], 366, Keep { weekly: 5, ..Keep::default() }), [365]);
    assert_eq!(kept(&[363, 364, 365], 366, Keep { yearly: 5, ..Keep::default() }), [364, 365]);
}

#[test]
fn an_hour_belongs_to_its_day() {
    let mut archive = Archive::new(&[1, 2, 3], 4).keep(Keep { hourly: 2, ..Keep::default() });
    assert_eq!(archive.going(), [1]);
    // A later minute of the hour of the backup of day 3.
    archive.find(2).stop_time = day(3) + Duration::minutes(61);
    assert_eq!(archive.going(), [3]);
    archive.find(1).stop_time = day(3) + Duration::minutes(62);
    assert_eq!(archive.going(), [2, 3]);
}

/// If backups stop for a year, nothing is removed during that year: periods without a backup are not counted.
#[test]
fn time_alone_removes_nothing() {
    let keep = Keep { hourly: 1, daily: 2, weekly: 2, monthly: 2, ..Keep::default() };
    let days: Vec<i64> = (0..100).collect();
    assert_eq!(kept(&days, 100, keep), kept(&days, 1000, keep));
}

#[test]
fn every_reason_is_listed() {
    let archive = Archive::new(&[1, 2], 3).keep(Keep { last: 1, daily: 1, yearly: 1, ..Keep::default() });
    assert_eq!(
        archive.reasons(2),
        [BackupKept::Last, BackupKept::Daily, BackupKept::Yearly, BackupKept::LastRestorable]
    );
}

/// A damaged backup does not fill a count in place of a sound one, but it is not removed earlier than a sound one would
/// be.
#[test]
fn a_damaged_backup_does_not_count() {
    let mut archive = Archive::new(&[1, 2, 3, 4], 5).keep(Keep { last: 2, ..Keep::default() });
    archive.find(4).verified = Verified::Damaged;
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(4), [BackupKept::Unsound]);
    archive.find(1).verified = Verified::Damaged;
    assert_eq!(archive.going(), [1]);
}

/// The same is true for a backup whose own WAL is missing: it cannot be restored, however sound its packs are.
#[test]
fn a_backup_without_its_wal_does_not_count() {
    let mut archive = Archive::new(&[1, 2, 3, 4], 5).keep(Keep { last: 2, ..Keep::default() });
    archive.wal_of(1).segments.insert(crate::archive::timeline(1), [(1, 40), (42, 59)].into_iter().collect());
    assert_eq!(archive.going(), [1]);
    assert_eq!(archive.reasons(4), [BackupKept::Unsound]);
    assert!(archive.warns(&Warning::WalMissing(id(4))));
}

#[test]
fn the_newest_verified_backups_stay() {
    let mut archive = Archive::new(&[1, 2, 3, 4, 5], 6).keep(Keep { last: 1, verified: 2, ..Keep::default() });
    assert_eq!(archive.going(), [1, 2, 3, 4]);
    assert!(archive.warns(&Warning::FewVerified { found: 0 }));
    for day in [1, 2, 4] {
        archive.find(day).verified = Verified::Sound;
    }
    assert_eq!(archive.going(), [1, 3]);
    assert_eq!(archive.reasons(2), [BackupKept::Verified]);
}
