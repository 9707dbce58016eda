//! Failures during the wait for WAL: which are reported at once, and which concern only one repository.
#![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

use std::sync::Arc;

use holdfast_pgtypes::{PgVersion, SystemIdentifier, WalSegmentSize};
use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, PutMode, StoreErrorKind};

use super::*;
use crate::progress::Silent;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{RepositoryTarget, Unlock, init};

/// The time limit for WAL that never arrives.
const PATIENCE: Duration = Duration::from_hours(1);

/// A repository with a claim and without WAL.
async fn repository(faults: Vec<FaultRule>) -> (Repository, ClaimRecord) {
    let store = Faulty::new(Arc::new(MemoryStore::new()), 1, faults);
    store.set_active(false);
    let target = RepositoryTarget { store: Arc::new(store.clone()), unlock: Unlock::NotEncrypted };
    let now = "2026-11-29T11:00:00Z".parse().unwrap();
    let repository = init::init(&target, now).await.unwrap().repository;
    let claimant = Claimant {
        identity: Identity {
            system_identifier: SystemIdentifier::new(7_710_912_426_042_727_162),
            version: PgVersion::V18,
            wal_segment_size: WalSegmentSize::new(1 << 20).unwrap(),
        },
        here: "a test".to_owned(),
        owner: None,
        wal_codec: Compression::default().codec(),
        host: "db1".to_owned(),
        now,
    };
    let claim = repository.take_claim(&"main".parse().unwrap(), &claimant).await.unwrap();
    store.set_active(true);
    (repository, claim)
}

/// A repository that refuses every listing, such as a bucket with a changed policy.
async fn refusing() -> (Repository, ClaimRecord) {
    let denied = Fault::Refuse(StoreErrorKind::PermissionDenied);
    repository(vec![FaultRule::new(&[Operation::List], 1.0, denied)]).await
}

struct Bench {
    repositories: Vec<(Repository, ClaimRecord)>,
    cluster: ClusterName,
    pg_wal: tempfile::TempDir,
}

impl Bench {
    fn new(repositories: Vec<(Repository, ClaimRecord)>) -> Self {
        Self { repositories, cluster: "main".parse().unwrap(), pg_wal: tempfile::tempdir().unwrap() }
    }

    /// The wait for one segment, which the server has finished.
    fn wait(&self) -> WalWait<'_> {
        let segment: SegmentName = "000000010000000000000003".parse().unwrap();
        WalWait {
            repositories: self.repositories.iter().map(|(repository, claim)| (repository, claim)).collect(),
            cluster: &self.cluster,
            ranges: vec![(segment, segment)],
            history: None,
            pg_wal: self.pg_wal.path().to_owned(),
            finished: Some(segment),
            archives: false,
            compression: Compression::default(),
            crew: Crew::new(1),
            timeout: PATIENCE,
            backup: "20261129T110000Z".to_owned(),
            own: None,
        }
    }
}

fn is_denied(error: &Error) -> bool {
    matches!(&*error.what, Cause::Store(error) if error.kind() == StoreErrorKind::PermissionDenied)
}

/// The user must not wait an hour for the error of a repository that refuses.
#[tokio::test(start_paused = true)]
async fn if_all_repositories_are_needed_the_first_failure_is_reported_at_once() {
    let bench = Bench::new(vec![repository(Vec::new()).await, refusing().await]);
    let began = Instant::now();
    let error = bench.wait().run(&Silent, &CancellationToken::new()).await.unwrap_err();
    assert!(is_denied(&error), "{error}");
    assert!(began.elapsed() < Duration::from_mins(1), "it took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_repository_that_fails_does_not_end_the_wait_of_another() {
    let bench = Bench::new(vec![repository(Vec::new()).await, refusing().await]);
    let began = Instant::now();
    let waited = bench.wait().each(&Silent, &CancellationToken::new()).await.unwrap();
    let [first, second] = waited.try_into().unwrap();
    let first = first.unwrap_err();
    assert!(matches!(&*first.what, Cause::NotArchived { .. }), "{first}");
    assert!(is_denied(&second.unwrap_err()));
    assert!(began.elapsed() >= PATIENCE);
}

/// A bad file in `pg_wal` is an error for every repository to which it must be sent, and is reported at once. The
/// archiver has already sent it to the first one.
#[tokio::test]
async fn a_segment_that_is_not_whole_does_not_fail_a_repository_that_has_it() {
    let has = repository(Vec::new()).await;
    let segment = WalFileName::Segment("000000010000000000000003".parse().unwrap());
    let name = name::wal_file(&"main".parse().unwrap(), has.1.number, &segment, has.1.wal_codec, false);
    has.0.store().put(&object_name(&name).unwrap(), vec![b'x'; 128].into(), PutMode::Create).await.unwrap();
    let bench = Bench::new(vec![has, repository(Vec::new()).await, repository(Vec::new()).await]);
    std::fs::write(bench.pg_wal.path().join("000000010000000000000003"), b"cut short").unwrap();
    let (wait, cancel) = (bench.wait(), CancellationToken::new());
    let ended = tokio::time::timeout(Duration::from_mins(2), wait.each(&Silent, &cancel)).await.unwrap();
    let [first, others @ ..] = <[_; 3]>::try_from(ended.unwrap()).unwrap();
    first.unwrap();
    for waited in others {
        let error = waited.unwrap_err();
        assert!(matches!(&*error.what, Cause::SegmentMismatch { .. } | Cause::SegmentSize { .. }), "{error}");
        assert!(!error.is_of_repository());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_wait() {
    let bench = Bench::new(vec![repository(Vec::new()).await, repository(Vec::new()).await]);
    let cancel = CancellationToken::new();
    let later = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        later.cancel();
    });
    let began = Instant::now();
    let error = bench.wait().each(&Silent, &cancel).await.unwrap_err();
    assert!(matches!(&*error.what, Cause::Cancelled), "{error}");
    assert!(began.elapsed() < Duration::from_mins(1), "it took {:?}", began.elapsed());
}
