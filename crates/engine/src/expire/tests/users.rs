//! Restores, backups, holds and other runs at the same time as an `expire`.

use super::bench::{Bench, first_segment};
use crate::expire::ExpireOptions;
use crate::progress::{Progress, Silent};
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::repository::{Repository, RepositoryTarget};
use chrono::TimeDelta;
use futures::FutureExt as _;
use holdfast_contract::report::expire::Amount;
use holdfast_repo::name::{self, BackupId, LedgerTime};
use holdfast_repo::record::{LeasePurpose, LeaseRecord, LedgerEntry};
use holdfast_store::{Fault, FaultRule, Faulty, Operation, Store};
use parking_lot::Mutex;
use std::sync::Arc;

pub(super) async fn lease(bench: &Bench, purpose: LeasePurpose, backups: Vec<BackupId>) -> Lease {
    let holder = Holder { cluster: &bench.cluster, purpose, backups, host: "db2" };
    Lease::take(&bench.repository, new_run().unwrap(), holder, Clock::starting(bench.now)).await.unwrap()
}

#[tokio::test]
async fn a_running_restore_keeps_its_backup_and_the_wal_after_it() {
    let bench = Bench::with_days(false, 4).await;
    let restoring = lease(&bench, LeasePurpose::Restore, vec![bench.id(1)]).await;
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [1, 3]);
    assert_eq!(report.backups[1].why, ["a restore is reading it"]);
    assert_eq!(bench.segments().await, (first_segment(1)..first_segment(4)).collect());
    restoring.release().await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [3]);
}

#[tokio::test]
async fn a_restore_that_does_not_say_what_it_reads_keeps_everything() {
    let bench = Bench::with_days(true, 3).await;
    let restoring = lease(&bench, LeasePurpose::Restore, Vec::new()).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    restoring.release().await;
    // An unreadable lease has the same effect. Its name says how long it is in force.
    let until = LedgerTime::new(bench.now + TimeDelta::minutes(30)).unwrap();
    let name = name::lease(&bench.cluster, until, &"later".parse().unwrap());
    bench.put(&name).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    bench.remove(&name).await;
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn the_later_of_two_runs_gives_up_unless_the_first_ends_or_is_dead() {
    let bench = Bench::with_days(false, 3).await;
    let other = lease(&bench, LeasePurpose::Expire, Vec::new()).await;
    let error = bench.expire(&bench.last(1)).await.unwrap_err();
    assert_eq!(error.what.to_string(), "another expire of main on db2 is running");
    assert_eq!(bench.names("leases/").await.len(), 1);
    other.release().await;

    // A process of this host that is gone, and a run of another host that ended long ago.
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap().to_str().unwrap().to_owned();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned();
    for (host, pid, ends, boot) in [("db1", i32::MAX.unsigned_abs(), 10, Some(boot)), ("db9", 1, -121, None)] {
        let expires = LedgerTime::new(bench.now + TimeDelta::minutes(ends)).unwrap();
        let record = LeaseRecord {
            run: host.parse().unwrap(),
            cluster: bench.cluster.clone(),
            purpose: LeasePurpose::Expire,
            backups: Vec::new(),
            since: bench.now,
            expires: expires.time(),
            host: host.to_owned(),
            machine: None,
            boot,
            pid_namespace: Some(namespace.clone()),
            pid,
            software_version: "0.1.0".to_owned(),
        };
        bench.repository.create_record(&name::lease(&bench.cluster, expires, &record.run), &record).await.unwrap();
    }
    bench.memory.age(std::time::Duration::from_hours(3));
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [2]);
    assert_eq!(bench.names("leases/").await, [""; 0]);
}

/// Two hosts with the same timer, on a store that takes half a second for each listing: each sees the other's lease.
#[tokio::test(start_paused = true)]
async fn two_runs_at_the_same_moment_both_finish() {
    let bench = Bench::with_days(false, 3).await;
    let slow = FaultRule::new(&[Operation::List], 1.0, Fault::Delay(std::time::Duration::from_millis(500)));
    let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(&bench.store), 1, vec![slow]));
    let target = RepositoryTarget { store, unlock: bench.target.unlock.clone() };
    let repository = Repository::open(&target).await.unwrap();
    let (here, there) = (bench.last(1), ExpireOptions { host: "db2".to_owned(), ..bench.last(1) });
    let (first, second) = tokio::join!(
        bench.expire_through(&repository, &here, &Silent),
        bench.expire_through(&repository, &there, &Silent)
    );
    let removed = first.unwrap().removed.backups.len() + second.unwrap().removed.backups.len();
    assert_eq!((removed, bench.ledger("removal").await), (2, 1));
    assert_eq!(bench.sound_days().await, [2]);
    assert_eq!(bench.names("leases/").await, [""; 0]);
}

#[tokio::test]
async fn a_running_backup_keeps_the_wal_of_its_claim_and_its_packs() {
    let bench = Bench::with_days(false, 3).await;
    let running = BackupId::new(bench.now - TimeDelta::hours(1)).unwrap();
    bench.repository.create_record(&name::backup_start(&bench.cluster, &running), &bench.start(running)).await.unwrap();
    let pack = name::pack(&bench.cluster, &running, 1);
    bench.put(&pack).await;
    let report = bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(report.removed.wal_files, 0);
    assert_eq!(bench.sound_days().await, [2]);
    assert!(bench.names("packs/").await.contains(&pack));
    assert_eq!(bench.segments().await, (1..first_segment(3)).collect());
}

/// Calls a function once, when the removal begins.
pub(super) struct Meanwhile<F>(Mutex<Option<F>>);

impl<F> Meanwhile<F> {
    pub(super) fn new(happens: F) -> Self {
        Self(Mutex::new(Some(happens)))
    }
}

impl<F: FnOnce() + Send> Progress for Meanwhile<F> {
    fn phase(&self, name: &str, _total_bytes: Option<u64>) {
        if name == "removing backups"
            && let Some(happens) = self.0.lock().take()
        {
            happens();
        }
    }
    fn advance(&self, _bytes: u64) {}
    fn note(&self, _text: &str) {}
}

/// The last check is just before the first object is deleted.
#[tokio::test]
async fn a_hold_at_the_last_moment_keeps_its_backup() {
    let bench = Bench::with_days(true, 3).await;
    let holding = LedgerEntry::Hold { backup: bench.id(0), until: None, reason: None, with_wal: false };
    let meanwhile = Meanwhile::new(|| {
        let written = bench.repository.write_ledger(&bench.cluster, "db2", bench.now, holding);
        written.now_or_never().unwrap().unwrap();
    });
    let report = bench.expire_through(&bench.repository, &bench.last(1), &meanwhile).await.unwrap();
    assert_eq!(report.removed, Amount::default());
    assert!(report.warnings.iter().any(|warning| warning.contains("during the removal")), "{:?}", report.warnings);
    assert_eq!(bench.sound_days().await, [0, 1, 2]);
    bench.expire(&bench.last(1)).await.unwrap();
    assert_eq!(bench.sound_days().await, [0, 2]);
}

#[tokio::test]
async fn a_new_backup_can_see_what_is_decided() {
    let bench = Bench::with_days(true, 3).await;
    let options = ExpireOptions { grace: std::time::Duration::from_hours(1), ..bench.last(1) };
    bench.expire(&options).await.unwrap();
    let decided = bench.repository.decided_backups(&bench.cluster).await.unwrap();
    assert_eq!(decided, [bench.id(0), bench.id(1)].into());
}
