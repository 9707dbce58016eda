//! Clocks that are wrong, and hosts that sleep.

use super::bench::{Bench, first_segment};
use super::users::{Meanwhile, lease};
use crate::error::Cause;
use crate::expire::{ExpireOptions, Run};
use crate::repository::leases::Clock;
use chrono::TimeDelta;
use futures::FutureExt as _;
use holdfast_contract::report::expire::Amount;
use holdfast_repo::name::{self, BackupId, LedgerTime};
use holdfast_repo::record::{LeasePurpose, LeaseRecord, LedgerEntry, RunIdentity, StartRecord};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The run decides, then its host sleeps for two hours. When the run continues, others may be at work.
#[tokio::test]
async fn a_run_whose_host_slept_removes_nothing_more() {
    let bench = Bench::with_days(true, 3).await;
    let clock = Clock::starting(bench.now);
    let own = lease(&bench, LeasePurpose::Expire, Vec::new()).await;
    let sleeps = Meanwhile::new(|| own.sleep(Duration::from_hours(2)));
    let (options, cancel) = (bench.last(1), CancellationToken::new());
    let run = Run {
        repository: &bench.repository,
        options: &options,
        lease: &own,
        clock,
        progress: &sleeps,
        cancel: &cancel,
    };
    let error = run.expire().await.unwrap_err();
    assert!(matches!(*error.what, Cause::LeaseEnded { .. }), "{error}");
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    assert_eq!((bench.ledger("removing").await, bench.ledger("removal").await), (0, 0));
    own.release().await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
}

/// An expired lease that is renewed counts as a new user.
#[tokio::test]
async fn a_restore_that_continues_after_its_host_slept_is_seen() {
    let bench = Bench::with_days(false, 3).await;
    let restoring = lease(&bench, LeasePurpose::Restore, vec![bench.id(0)]).await;
    restoring.sleep(Duration::from_hours(3));
    bench.memory.age(Duration::from_hours(3));
    // The expired lease is not deleted: a run does that at its beginning, and this run has begun.
    let own = lease(&bench, LeasePurpose::Expire, Vec::new()).await;
    let wakes = Meanwhile::new(|| restoring.take_again().now_or_never().unwrap().unwrap());
    let (options, cancel) = (bench.last(1), CancellationToken::new());
    let clock = Clock::starting(bench.now);
    let run =
        Run { repository: &bench.repository, options: &options, lease: &own, clock, progress: &wakes, cancel: &cancel };
    let report = run.expire().await.unwrap();
    assert!(report.backups.iter().all(|backup| backup.why != ["a restore is reading it"]), "{:?}", report.backups);
    assert_eq!(report.removed, Amount::default());
    assert!(report.warnings.iter().any(|warning| warning.contains("during the removal")), "{:?}", report.warnings);
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
}

/// A clock that was a year ahead decided this: it waits one grace time from now, and not a year.
#[tokio::test]
async fn a_decision_of_the_far_future_waits_from_now_on() {
    let bench = Bench::with_days(false, 3).await;
    let now = bench.now - TimeDelta::days(5);
    let at =
        |hours| ExpireOptions { grace: Duration::from_hours(24), now: now + TimeDelta::hours(hours), ..bench.last(1) };
    let ahead = ExpireOptions { now: now + TimeDelta::days(365), ..bench.last(1) };
    let entry = LedgerEntry::Deletion {
        backups: vec![bench.id(0), bench.id(1)],
        packs: Vec::new(),
        wal: Vec::new(),
        decided: None,
        object_count: 2,
        size_bytes: 0,
        not_before: ahead.now,
        reason: "no rule keeps it".to_owned(),
    };
    bench.repository.write_ledger(&bench.cluster, "db2", ahead.now, entry).await.unwrap();
    let report = bench.expire(&at(0)).await.unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("in the future")), "{:?}", report.warnings);
    assert_eq!(report.decided.backups, [bench.id(0), bench.id(1)]);
    assert!(report.next_removal.unwrap() < now + TimeDelta::hours(25));
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    let report = bench.expire(&at(25)).await.unwrap();
    assert_eq!(report.removed.backups, [bench.id(0), bench.id(1)]);
    assert_eq!(bench.sound_days().await, [2]);
}

async fn write_lease(bench: &Bench, backup: BackupId, ends: TimeDelta) {
    let expires = LedgerTime::new(bench.now + ends).unwrap();
    let record = LeaseRecord {
        run: "r1".parse().unwrap(),
        cluster: bench.cluster.clone(),
        purpose: LeasePurpose::Restore,
        backups: vec![backup],
        since: bench.now,
        expires: expires.time(),
        host: "db9".to_owned(),
        machine: None,
        boot: None,
        pid_namespace: None,
        pid: 1,
        software_version: "0.1.0".to_owned(),
    };
    bench.repository.create_record(&name::lease(&bench.cluster, expires, &record.run), &record).await.unwrap();
}

/// If the clock of its host is wrong, the store's clock decides when a lease ends.
#[tokio::test]
async fn a_wrong_clock_ends_a_lease_neither_late_nor_early() {
    for hours in [-30, 24 * 365] {
        let bench = Bench::with_days(false, 3).await;
        write_lease(&bench, bench.id(0), TimeDelta::hours(hours)).await;
        bench.expire(&bench.last(1)).await.unwrap();
        assert_eq!(bench.sound_days().await, [0, 2], "{hours}");
        bench.memory.age(Duration::from_mins(150));
        bench.expire(&bench.last(1)).await.unwrap();
        assert_eq!(bench.sound_days().await, [2], "{hours}");
        assert_eq!(bench.names("leases/").await, [""; 0], "{hours}");
    }
}

/// A backup with a lease in force is running, however long ago it began. Without the lease, it is dead at once.
#[tokio::test]
async fn a_backup_runs_while_its_lease_is_in_force() {
    let bench = Bench::with_days(false, 3).await;
    let running = BackupId::new(bench.now - TimeDelta::days(20)).unwrap();
    let own = lease(&bench, LeasePurpose::Backup, vec![bench.id(0)]).await;
    let run = RunIdentity {
        id: own.run().to_string(),
        machine: None,
        boot: None,
        pid_namespace: None,
        removes: Vec::new(),
        leased: true,
    };
    let start = StartRecord { parent: Some(bench.id(0)), run: Some(run), ..bench.start(running) };
    bench.repository.create_record(&name::backup_start(&bench.cluster, &running), &start).await.unwrap();
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 2]);
    assert_eq!(report.backups[0].why, [format!("the running backup {running} builds on it")]);
    assert_eq!(bench.segments().await, (1..first_segment(3)).collect());
    own.release().await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
    assert_eq!(bench.segments().await, (first_segment(2)..first_segment(3)).collect());
}

/// Early releases take no lease, and sometimes none can be taken: then the age of the backup decides.
#[tokio::test]
async fn the_age_of_a_backup_without_a_lease_decides_whether_it_runs() {
    for (days, removed) in [(6, false), (8, true)] {
        let bench = Bench::with_days(false, 3).await;
        let running = BackupId::new(bench.now - TimeDelta::days(days)).unwrap();
        let run = RunIdentity {
            id: "r1".to_owned(),
            machine: None,
            boot: None,
            pid_namespace: None,
            removes: Vec::new(),
            leased: false,
        };
        let start = StartRecord { run: Some(run), ..bench.start(running) };
        bench.repository.create_record(&name::backup_start(&bench.cluster, &running), &start).await.unwrap();
        let report = bench.expire(&bench.last(1)).await.unwrap();
        assert_eq!(report.removed.wal_files > 0, removed, "{days}");
    }
}
