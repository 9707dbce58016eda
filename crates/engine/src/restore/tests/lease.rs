//! The lease of a restore, and what stops the restore.

use futures::FutureExt as _;
use holdfast_repo::name::LedgerKind;
use holdfast_repo::record::{LeasePurpose, LedgerEntry};
use holdfast_retention::{Keep, Policy};
use holdfast_store::{ObjectName, StoreErrorKind};

use crate::repository::leases::{Clock, Holder, Lease, new_run};

use super::*;

async fn through(sample: &Sample, rule: FaultRule) -> Repository {
    let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(sample.repository.store()), 7, vec![rule]));
    Repository::open(&RepositoryTarget { store, unlock: sample.target.unlock.clone() }).await.unwrap()
}

#[tokio::test]
async fn a_restore_takes_a_lease_for_its_backup_and_gives_it_back() {
    for encrypted in [false, true] {
        let sample = Sample::new(encrypted).await;
        let kept = FaultRule::new(&[Operation::Delete], 1.0, Fault::Refuse(StoreErrorKind::PermissionDenied));
        let repository = through(&sample, kept.on("main/leases/")).await;
        let options = sample.options();
        sample.restore_with(&repository, &options).await.unwrap();
        let leases = sample.repository.leases(&options.cluster).await.unwrap();
        let [lease] = leases.as_slice() else { panic!("{leases:?}") };
        let record = lease.record.as_ref().unwrap();
        assert_eq!(
            (record.purpose, record.backups.as_slice()),
            (LeasePurpose::Restore, &[sample.backup.backup_id][..])
        );
        assert!(record.expires >= options.now + chrono::TimeDelta::minutes(59));
        assert_eq!(lease.named.expires, record.expires);

        let sample = Sample::new(encrypted).await;
        let report = sample.restore().await.unwrap();
        assert_eq!(sample.repository.leases(&options.cluster).await.unwrap().len(), 0);
        assert!(!report.notes.iter().any(|note| note.contains("expire")), "{:?}", report.notes);
    }
}

/// Read-only credentials are enough for a restore.
#[tokio::test]
async fn a_lease_that_cannot_be_taken_is_reported_and_stops_nothing() {
    let sample = Sample::new(false).await;
    let refused = FaultRule::new(&[Operation::Put], 1.0, Fault::Refuse(StoreErrorKind::PermissionDenied));
    let repository = through(&sample, refused).await;
    let report = sample.restore_with(&repository, &sample.options()).await.unwrap();
    sample.check();
    assert!(report.notes.iter().any(|note| note.contains("run no `holdfast expire`")), "{:?}", report.notes);
}

#[tokio::test]
async fn a_restore_says_that_the_removal_of_its_backup_is_decided() {
    let sample = Sample::new(true).await;
    let options = sample.options();
    let entry = LedgerEntry::Deletion {
        backups: vec![sample.backup.backup_id],
        packs: Vec::new(),
        wal: Vec::new(),
        decided: None,
        object_count: 3,
        size_bytes: 1,
        not_before: "2026-09-01T00:00:00Z".parse().unwrap(),
        reason: "no rule keeps it".to_owned(),
    };
    sample.repository.write_ledger(&options.cluster, "db2", options.now, entry).await.unwrap();
    assert_eq!(sample.repository.ledger_names(&options.cluster, LedgerKind::Deletion).await.unwrap().len(), 1);
    let report = sample.restore().await.unwrap();
    let words = format!("`holdfast backup hold {} --with-wal --until 7d`", sample.backup.backup_id);
    assert!(report.notes.iter().any(|note| note.contains(&words)), "{:?}", report.notes);
}

/// The lease ends with the restore, and the restored server continues to fetch WAL that no window keeps.
#[tokio::test]
async fn a_restore_says_that_no_window_keeps_the_wal_of_its_server() {
    let sample = Sample::new(true).await;
    let latest = RecoveryRequest::default();
    let own_end = RecoveryRequest { target: RecoveryTarget::Immediate, ..RecoveryRequest::default() };
    let keep = |last, window: Option<i64>| Policy {
        keep: Keep { last, ..Keep::default() },
        window: window.map(chrono::TimeDelta::days),
        ..Policy::default()
    };
    for (what, retention, request, said) in [
        ("counts alone", Some(keep(1, None)), &latest, true),
        ("a window that begins later", Some(keep(1, Some(1))), &latest, true),
        ("a window that holds it", Some(keep(1, Some(3650))), &latest, false),
        ("nothing is let go", Some(keep(0, None)), &latest, false),
        ("a drill", None, &latest, false),
        ("the end of the backup", Some(keep(1, None)), &own_end, false),
    ] {
        let now = sample.backup.stop_time + chrono::TimeDelta::days(30);
        let pgdata = sample.directory.path().join(what.replace(' ', "-"));
        let mut options =
            RestoreOptions { retention, request: request.clone(), now, pgdata, delta: false, ..sample.options() };
        options.tablespaces[0].directory = sample.directory.path().join(format!("fast-{}", what.replace(' ', "-")));
        let report = sample.restore_with(&sample.repository, &options).await.unwrap();
        let words = format!("`holdfast backup hold {} --with-wal", sample.backup.backup_id);
        assert_eq!(report.notes.iter().any(|note| note.contains(&words)), said, "{what}: {:?}", report.notes);
    }
}

/// An `expire` is removing objects. A restore that takes its lease meanwhile waits until the `expire` has seen it, and
/// reports if it has not.
#[tokio::test(start_paused = true)]
async fn a_restore_waits_for_an_expire_that_is_removing() {
    for ends in [true, false] {
        let sample = Sample::new(true).await;
        let options = RestoreOptions { now: chrono::Utc::now(), ..sample.options() };
        let holder =
            Holder { cluster: &options.cluster, purpose: LeasePurpose::Expire, backups: Vec::new(), host: "db9" };
        let clock = Clock::starting(options.now);
        let expire = Lease::take(&sample.repository, new_run().unwrap(), holder, clock).await.unwrap();
        let entry = LedgerEntry::Removing {
            run: expire.run().clone(),
            backups: Vec::new(),
            packs: Vec::new(),
            wal: Vec::new(),
            pack_bytes: 0,
        };
        sample.repository.write_ledger(&options.cluster, "db9", options.now, entry).await.unwrap();
        let (began, mut released) = (tokio::time::Instant::now(), Some(expire));
        let ending = async {
            tokio::time::sleep(Duration::from_secs(7)).await;
            if ends && let Some(expire) = released.take() {
                expire.release().await;
            }
        };
        let (restored, ()) = tokio::join!(sample.restore_with(&sample.repository, &options), ending);
        let said = restored.unwrap().notes.iter().any(|note| note.contains("may not have seen this restore"));
        assert_eq!(said, !ends);
        assert!(began.elapsed() >= Duration::from_secs(if ends { 7 } else { 30 }));
    }
}

/// The entry is damaged, or written with a newer key. So it may be about this backup.
#[tokio::test]
async fn what_cannot_be_read_of_the_ledger_may_be_about_this_restore() {
    for (kind, words) in [(LedgerKind::Deletion, "may be decided"), (LedgerKind::Removing, "any of it may be gone")] {
        let sample = Sample::new(true).await;
        let options = sample.options();
        let time = holdfast_repo::name::LedgerTime::new(options.now).unwrap();
        let name = name::ledger(&options.cluster, time, kind).parse().unwrap();
        sample.store.put(&name, bytes::Bytes::from_static(b"x"), PutMode::Create).await.unwrap();
        let report = sample.restore().await.unwrap();
        assert!(report.notes.iter().any(|note| note.contains(words)), "{kind}: {:?}", report.notes);
    }
}

/// An `expire` that did not see the lease has removed WAL between the plan and the lease.
#[tokio::test]
async fn wal_that_was_removed_meanwhile_is_noticed_before_anything_is_written() {
    struct Removes(Arc<dyn Store>, ObjectName);
    impl Progress for Removes {
        fn phase(&self, _name: &str, _total_bytes: Option<u64>) {}
        fn advance(&self, _bytes: u64) {}
        fn note(&self, _text: &str) {}
        /// The restore has been planned.
        fn backup(&self, _id: &str) {
            self.0.delete(std::slice::from_ref(&self.1)).now_or_never().unwrap().unwrap();
        }
    }
    let sample = Sample::new(true).await;
    let options = sample.options();
    let wal = sample.store.list("main/wal/", None).await.unwrap();
    let segment = wal.iter().map(|object| object.name.clone()).rfind(|name| !name.as_ref().contains("history"));
    let entry = LedgerEntry::Removal {
        backups: Vec::new(),
        pack_count: 0,
        wal_file_count: 1,
        size_bytes: 1,
        run: None,
        found_later: false,
        wal: Vec::new(),
    };
    sample.repository.write_ledger(&options.cluster, "db2", options.now, entry).await.unwrap();
    let removes: Arc<dyn Progress> = Arc::new(Removes(Arc::clone(&sample.store), segment.unwrap()));
    let error = restore(&sample.repository, &options, &removes, &CancellationToken::new()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.doing.iter().any(|phrase| phrase.contains("for the WAL once more")), "{:?}", error.doing);
    assert!(!sample.pgdata().exists());
    assert_eq!(sample.repository.leases(&options.cluster).await.unwrap().len(), 0);
}

/// An `expire` removed the backup before the lease existed.
#[tokio::test]
async fn a_backup_that_was_removed_meanwhile_is_noticed_before_anything_is_written() {
    let sample = Sample::new(false).await;
    let options = sample.options();
    let gone = FaultRule::new(&[Operation::Head], 1.0, Fault::Refuse(StoreErrorKind::NotFound));
    let summary = name::backup_summary(&options.cluster, &sample.backup.backup_id);
    let repository = through(&sample, gone.on(&summary)).await;
    let error = sample.restore_with(&repository, &options).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NoSuchBackup { .. }), "{error}");
    assert!(!sample.pgdata().exists());
    assert_eq!(sample.repository.leases(&options.cluster).await.unwrap().len(), 0);
}
