//! Holds: how long they last, what they keep, and a running `expire` at the same time.

use super::bench::{Bench, first_segment};
use super::users::lease;
use crate::error::{Cause, Error};
use crate::expire::{HoldOptions, hold};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, BackupId, LedgerTime};
use holdfast_repo::record::{LeasePurpose, LedgerEntry};

fn of(bench: &Bench, backup: BackupId, until: Option<DateTime<Utc>>) -> HoldOptions {
    HoldOptions {
        cluster: bench.cluster.clone(),
        backup,
        until,
        with_wal: false,
        reason: None,
        host: "db2".to_owned(),
        now: bench.now,
    }
}

async fn held(bench: &Bench, until: Option<DateTime<Utc>>, with_wal: bool) -> Result<Vec<String>, Error> {
    hold(&bench.repository, &HoldOptions { with_wal, ..of(bench, bench.id(0), until) }).await
}

#[tokio::test]
async fn a_hold_ends_by_its_time_and_the_last_one_counts() {
    let bench = Bench::with_days(false, 3).await;
    assert_eq!(held(&bench, Some(bench.now + TimeDelta::minutes(1)), false).await.unwrap(), [""; 0]);
    assert_eq!(held(&bench, Some(bench.now + TimeDelta::days(1)), false).await.unwrap(), [""; 0]);
    assert_eq!(bench.ledger("hold").await, 1, "the later hold replaces the earlier");
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 2]);
    let options = crate::expire::ExpireOptions { now: bench.now + TimeDelta::days(2), ..bench.last(1) };
    // The store's clock has today's time.
    let report = crate::expire::plan(&bench.repository, &options, &crate::progress::Silent).await.unwrap();
    assert!(!report.backups[0].kept, "{:?}", report.backups);
    let error = hold(&bench.repository, &of(&bench, bench.id(1), None)).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NoSuchBackup { .. }), "{error}");
}

/// Such a hold would keep nothing, and would replace a hold without an end.
#[tokio::test]
async fn a_hold_that_is_over_is_refused_and_changes_nothing() {
    let bench = Bench::with_days(false, 3).await;
    held(&bench, None, false).await.unwrap();
    for until in [bench.now, bench.now - TimeDelta::days(1)] {
        let error = held(&bench, Some(until), false).await.unwrap_err();
        assert!(matches!(*error.what, Cause::Refused(_)), "{error}");
    }
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 2]);
}

#[tokio::test]
async fn a_hold_that_keeps_less_than_an_earlier_one_says_so() {
    let bench = Bench::with_days(false, 3).await;
    held(&bench, None, true).await.unwrap();
    let notes = held(&bench, Some(bench.now + TimeDelta::days(1)), false).await.unwrap();
    assert!(notes[0].contains("longer one (until it is released)"), "{notes:?}");
    assert!(notes[1].contains("kept the WAL after the backup as well"), "{notes:?}");
    let notes = held(&bench, None, true).await.unwrap();
    assert_eq!(notes, [""; 0]);
}

/// A server that was restored from it fetches WAL long after the lease of the restore has ended.
#[tokio::test]
async fn a_hold_with_wal_keeps_all_that_a_restored_server_fetches() {
    let bench = Bench::with_days(true, 4).await;
    held(&bench, Some(bench.now + TimeDelta::days(7)), true).await.unwrap();
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(report.backups[0].why, ["held", "held with all WAL after it"]);
    assert_eq!(bench.segments().await, (first_segment(0)..first_segment(4)).collect());
    held(&bench, None, false).await.unwrap();
    bench.expire(&bench.last(1)).await.unwrap();
    assert!(!bench.segments().await.contains(&(first_segment(0) + 2)), "without it the backup alone is held");
    assert_eq!(bench.sound_days().await, [0, 3]);
}

/// An `expire` was killed on another host. Until its lease is over, nobody knows that. The hold stays nevertheless.
#[tokio::test(start_paused = true)]
async fn a_hold_stays_although_an_expire_does_not_end() {
    let bench = Bench::with_days(true, 3).await;
    let other = lease(&bench, LeasePurpose::Expire, Vec::new()).await;
    // This host's clock is hours ahead. By this clock, that lease would be over.
    let ahead = HoldOptions { now: bench.now + TimeDelta::hours(5), ..of(&bench, bench.id(0), None) };
    for options in [of(&bench, bench.id(0), None), ahead] {
        let error = hold(&bench.repository, &options).await.unwrap_err();
        assert!(matches!(*error.what, Cause::HeldInDoubt { .. }), "{error}");
    }
    other.release().await;
    // A lease that cannot be read may also be that of an `expire`.
    let until = LedgerTime::new(bench.now + TimeDelta::minutes(30)).unwrap();
    let name = name::lease(&bench.cluster, until, &"later".parse().unwrap());
    bench.put(&name).await;
    let error = held(&bench, None, false).await.unwrap_err();
    assert!(matches!(*error.what, Cause::HeldInDoubt { .. }), "{error}");
    bench.remove(&name).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 2]);
    held(&bench, None, false).await.unwrap();
    assert_eq!(bench.ledger("hold").await, 1);
}

/// A request to delete failed: the store may still delete what it named.
#[tokio::test]
async fn a_hold_of_what_a_run_was_removing_is_in_doubt() {
    let bench = Bench::with_days(false, 3).await;
    let removing = |backup| LedgerEntry::Removing {
        run: "r1".parse().unwrap(),
        backups: vec![backup],
        packs: Vec::new(),
        wal: Vec::new(),
        pack_bytes: 0,
    };
    bench.repository.write_ledger(&bench.cluster, "db9", bench.now, removing(bench.id(1))).await.unwrap();
    held(&bench, None, false).await.unwrap();
    bench.repository.write_ledger(&bench.cluster, "db9", bench.now, removing(bench.id(0))).await.unwrap();
    let error = held(&bench, None, false).await.unwrap_err();
    assert!(matches!(*error.what, Cause::HeldInDoubt { .. }), "{error}");
    assert_eq!(bench.ledger("hold").await, 2, "it stays");
}

/// Only the record of the backup is left.
#[tokio::test]
async fn a_remnant_cannot_be_held_and_one_that_is_held_stays() {
    for held_before in [true, false] {
        let bench = Bench::with_days(false, 3).await;
        let lost = bench.id(0);
        if held_before {
            held(&bench, None, false).await.unwrap();
        }
        bench.remove(&name::backup_start(&bench.cluster, &lost)).await;
        for number in 1..=2 {
            bench.remove(&name::pack(&bench.cluster, &lost, number)).await;
        }
        let error = held(&bench, None, false).await.unwrap_err();
        assert!(matches!(*error.what, Cause::Remnant { .. }), "{error}");
        let report = bench.expire(&bench.last(1)).await.unwrap();
        assert_eq!(report.backups[0].kept, held_before, "{:?}", report.backups);
        let there = bench.names(&format!("backups/{lost}/")).await;
        assert_eq!(there.contains(&name::backup_summary(&bench.cluster, &lost)), held_before, "{there:?}");
    }
}
