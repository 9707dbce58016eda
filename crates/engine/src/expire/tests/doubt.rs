//! In doubt, everything stays.

use super::bench::{Bench, first_segment};
use crate::error::Cause;
use crate::expire::ExpireOptions;
use chrono::TimeDelta;
use holdfast_repo::name::{self, LedgerTime};

#[tokio::test]
async fn what_cannot_be_read_keeps_what_it_may_need() {
    for (what, days, packs) in [("summary", &[1, 2][..], 6), ("manifest", &[1, 2], 6)] {
        let bench = Bench::with_days(false, 4).await;
        let newest = bench.id(3);
        match what {
            "summary" => bench.put(&name::backup_summary(&bench.cluster, &newest)).await,
            _ => bench.put(&name::manifest(&bench.cluster, &newest)).await,
        }
        let report = bench.expire(&bench.last(2)).await.unwrap();
        assert!(!report.warnings.is_empty(), "{what}");
        let listed = bench.names("backups/").await;
        for day in days {
            assert!(listed.contains(&name::backup_summary(&bench.cluster, &bench.id(*day))), "{what}: day {day}");
        }
        assert!(listed.contains(&name::backup_summary(&bench.cluster, &newest)), "{what}");
        assert!(bench.names("packs/").await.len() >= packs, "{what}");
        assert!(bench.segments().await.contains(&first_segment(2)), "{what}");
    }
}

/// The manifest of the newest backup is unreadable, so no manifest is read. The backup before it lost its pack, so an
/// earlier one is the last sound one, and nobody notices. Earlier decisions stay, and no time is announced.
#[tokio::test]
async fn wal_stays_while_no_manifest_is_read() {
    let bench = Bench::with_days(false, 4).await;
    let waits = ExpireOptions { grace: std::time::Duration::from_hours(1), ..bench.last(2) };
    let report = bench.expire(&waits).await.unwrap();
    assert!(report.next_removal.is_some() && report.backups[0].not_before.is_some());
    bench.put(&name::manifest(&bench.cluster, &bench.id(3))).await;
    bench.remove(&name::pack(&bench.cluster, &bench.id(2), 1)).await;
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.segments().await, (1..first_segment(4)).collect());
    assert_eq!((report.next_removal, report.backups[0].not_before), (None, None));
    assert!(report.warnings.iter().any(|warning| warning.ends_with("so nothing goes")), "{:?}", report.warnings);
}

#[tokio::test]
async fn an_unreadable_claim_keeps_its_backups_and_wal() {
    let bench = Bench::with_days(false, 3).await;
    bench.put(&name::claim(&bench.cluster, bench.claim.number)).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    assert_eq!(bench.segments().await.len(), 30);
}

#[tokio::test]
async fn missing_wal_makes_the_next_older_backup_the_last() {
    let bench = Bench::with_days(false, 3).await;
    let bad = first_segment(2);
    for name in bench.names("wal/").await {
        if name.contains(&format!("/0000000100000000000000{bad:02X}")) {
            bench.remove(&name).await;
        }
    }
    let segments = bench.segments().await;
    assert!(!segments.contains(&bad), "{segments:?}");
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert!(report.backups[1].kept && report.backups[2].kept, "{:?}", report.backups);
    assert!(bench.segments().await.contains(&first_segment(1)));
}

#[tokio::test]
async fn nothing_is_removed_while_a_hold_cannot_be_read() {
    let bench = Bench::with_days(true, 3).await;
    let time = LedgerTime::new(bench.now).unwrap();
    bench.put(&name::ledger(&bench.cluster, time, name::LedgerKind::Hold)).await;
    let error = bench.expire(&bench.last(1)).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Record(_)), "{error}");
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    assert_eq!(bench.names("leases/").await.len(), 0);
}

#[tokio::test]
async fn a_decision_that_cannot_be_read_is_ignored() {
    let bench = Bench::with_days(false, 3).await;
    let time = LedgerTime::new(bench.now - TimeDelta::days(3)).unwrap();
    bench.put(&name::ledger(&bench.cluster, time, name::LedgerKind::Deletion)).await;
    let options = ExpireOptions { grace: std::time::Duration::from_hours(1), ..bench.last(1) };
    let report = bench.expire(&options).await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("is ignored")), "{:?}", report.warnings);
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
}

#[tokio::test]
async fn a_later_release_can_forbid_the_removal() {
    let bench = Bench::with_days(false, 3).await;
    bench.put("features/remove-shared-packs").await;
    let repository = crate::repository::Repository::open(&bench.target).await.unwrap();
    let error = bench.expire_through(&repository, &bench.last(1), &crate::progress::Silent).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NewerFeature { .. }), "{error}");
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
}

/// This host's clock is a month ahead: the store's clock is used.
#[tokio::test]
async fn a_clock_that_is_ahead_makes_nothing_old() {
    let bench = Bench::with_days(false, 4).await;
    let policy = crate::expire::Policy { window: Some(TimeDelta::days(40)), ..crate::expire::Policy::default() };
    let ahead = bench.now + TimeDelta::days(30);
    let options = ExpireOptions { policy, now: ahead, ..bench.last(0) };
    let report = bench.expire(&options).await.unwrap();
    assert!(report.now < bench.now + TimeDelta::hours(1), "{}", report.now);
    assert_eq!(bench.sound_days().await, [0, 1, 2, 3]);
}
