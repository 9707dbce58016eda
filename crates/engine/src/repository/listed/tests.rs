//! A bad record affects only what it names; an unavailable store is not a bad record.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use bytes::Bytes;
use holdfast_pgtypes::{PgVersion, SystemIdentifier, WalSegmentSize};
use holdfast_repo::codec::Codec;
use holdfast_repo::name::{self, ClaimNumber, ClusterName};
use holdfast_repo::record::StartRecord;
use holdfast_secret::Secret;
use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, PutMode, Store, StoreErrorKind};

use super::*;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget, Unlock, init};

fn main() -> ClusterName {
    "main".parse().unwrap()
}

fn claimant(system_identifier: u64) -> Claimant {
    Claimant {
        identity: Identity {
            system_identifier: SystemIdentifier::new(system_identifier),
            version: PgVersion::new(18).unwrap(),
            wal_segment_size: WalSegmentSize::DEFAULT,
        },
        here: "the data directory /data".to_owned(),
        owner: None,
        wal_codec: Codec::Zstd,
        host: "db1".to_owned(),
        now: "2026-11-29T10:00:00Z".parse().unwrap(),
    }
}

struct Bench {
    store: Arc<dyn Store>,
    target: RepositoryTarget,
    repository: Repository,
}

impl Bench {
    /// An encrypted repository with three claims, of the systems 41, 42 and 43.
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let target = RepositoryTarget { store: Arc::clone(&store), unlock: Unlock::KeyFile(Secret::new([7; 32])) };
        let repository = init::init(&target, claimant(41).now).await.unwrap().repository;
        for system_identifier in 41..=43 {
            repository.take_next_claim(&main(), &claimant(system_identifier)).await.unwrap();
        }
        Self { store, target, repository }
    }

    async fn put(&self, name: &str, content: &'static [u8]) {
        let name = name.parse().unwrap();
        self.store.put(&name, Bytes::from_static(content), PutMode::Overwrite).await.unwrap();
    }

    async fn damage_claim(&self, number: u32) {
        self.put(&name::claim(&main(), ClaimNumber::new(number).unwrap()), b"{ damaged").await;
    }

    async fn system_of(&self, wanted: u64) -> Result<Option<u32>, Error> {
        let claims = self.repository.claims(&main()).await?;
        let chosen = claims.chosen(|claim| claim.system_identifier == SystemIdentifier::new(wanted))?;
        Ok(chosen.map(|claim| claim.number.get()))
    }
}

#[tokio::test]
async fn a_damaged_earlier_claim_stops_only_those_who_need_it() {
    let bench = Bench::new().await;
    bench.damage_claim(1).await;
    for stray in ["README", "01.json", "0.json", "1.json.old", "deep/1.json"] {
        bench.put(&format!("main/claims/{stray}"), b"a stray").await;
    }
    assert_eq!(bench.repository.current_claim(&main()).await.unwrap().number.get(), 3);
    assert_eq!(bench.repository.take_claim(&main(), &claimant(43)).await.unwrap().number.get(), 3);
    let claims = bench.repository.claims(&main()).await.unwrap();
    assert_eq!(claims.records.iter().map(|claim| claim.number.get()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(claims.unreadable.iter().map(|bad| bad.object.as_str()).collect::<Vec<_>>(), ["main/claims/1.json"]);
    assert_eq!(bench.system_of(42).await.unwrap(), Some(2));
    assert_eq!(bench.system_of(43).await.unwrap(), Some(3));
    // Only the damaged claim can be of this system.
    assert!(matches!(*bench.system_of(41).await.unwrap_err().what, Cause::Record(_)));
    // The next claim gets the number after the newest.
    assert_eq!(bench.repository.take_next_claim(&main(), &claimant(44)).await.unwrap().number.get(), 4);
}

#[tokio::test]
async fn a_damaged_newest_claim_is_never_ignored() {
    let bench = Bench::new().await;
    bench.damage_claim(3).await;
    for system_identifier in 41..=43 {
        assert!(bench.repository.current_claim(&main()).await.is_err());
        assert!(bench.repository.take_claim(&main(), &claimant(system_identifier)).await.is_err());
        assert!(bench.repository.take_next_claim(&main(), &claimant(system_identifier)).await.is_err());
        assert!(bench.system_of(system_identifier).await.is_err(), "{system_identifier}");
    }
    assert_eq!(bench.repository.claims(&main()).await.unwrap().records.len(), 2, "they are still listed");
}

#[tokio::test]
async fn an_unavailable_store_is_not_a_bad_record() {
    let bench = Bench::new().await;
    for kind in [StoreErrorKind::Unreachable, StoreErrorKind::PermissionDenied, StoreErrorKind::Throttled] {
        let rule = FaultRule::new(&[Operation::Get], 1.0, Fault::Refuse(kind)).on("main/claims/1");
        let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(&bench.store), 1, vec![rule]));
        let repository = Repository::open(&RepositoryTarget { store, ..bench.target.clone() }).await.unwrap();
        let error = repository.claims(&main()).await.unwrap_err();
        assert!(matches!(&*error.what, Cause::Store(error) if error.kind() == kind), "{error}");
    }
    // After a bit flipped once on the way, the record is read again.
    let rule = FaultRule::new(&[Operation::Get], 1.0, Fault::FlipBit).on("main/claims/1").times(1);
    let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(&bench.store), 1, vec![rule]));
    let repository = Repository::open(&RepositoryTarget { store, ..bench.target.clone() }).await.unwrap();
    assert!(repository.claims(&main()).await.unwrap().unreadable.is_empty());
}

/// A lifecycle rule moved one old record, or it was written with a key that is disabled today.
#[tokio::test]
async fn a_record_that_the_store_keeps_back_affects_only_what_it_names() {
    let bench = Bench::new().await;
    for kind in [StoreErrorKind::Archived, StoreErrorKind::KeyRefused] {
        let kept_back = async |name: &str| {
            let rule = FaultRule::new(&[Operation::Get], 1.0, Fault::Refuse(kind)).on(name);
            let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(&bench.store), 1, vec![rule]));
            Repository::open(&RepositoryTarget { store, ..bench.target.clone() }).await.unwrap()
        };
        let claims = kept_back("main/claims/1").await.claims(&main()).await.unwrap();
        assert_eq!(claims.records.iter().map(|claim| claim.number.get()).collect::<Vec<_>>(), [2, 3]);
        let error = &claims.unreadable.first().unwrap().error;
        assert!(matches!(&*error.what, Cause::Store(error) if error.kind() == kind), "{error}");
        // The newest one is still never ignored.
        let newest = kept_back("main/claims/3").await;
        assert!(newest.current_claim(&main()).await.is_err());

        bench.put("main/backups/20260101T000000Z/backup.json", b"{}").await;
        let backups = kept_back("main/backups/").await.backups(&main()).await.unwrap();
        let error = &backups.unreadable.first().unwrap().error;
        assert!(matches!(&*error.what, Cause::Store(error) if error.kind() == kind), "{error}");
    }
}

#[tokio::test]
async fn backups_and_snapshots_that_cannot_be_read_are_named() {
    let bench = Bench::new().await;
    for stray in ["README", "20260101T000000Z.old/backup.json", "20260101T000000Z/backup.json.tmp", "x/start.json"] {
        bench.put(&format!("main/backups/{stray}"), b"a stray").await;
    }
    assert!(bench.repository.backups(&main()).await.unwrap().some().unwrap().records.is_empty());
    bench.put("main/backups/20260101T000000Z/backup.json", b"damaged").await;
    let backups = bench.repository.backups(&main()).await.unwrap();
    assert_eq!(backups.unreadable.first().unwrap().id.to_string(), "20260101T000000Z");
    assert!(backups.some().is_err(), "none is left");

    bench.put("main/snapshots/README", b"a stray").await;
    bench.put("main/snapshots/20260101T000000Z.json", b"damaged").await;
    assert_eq!(bench.repository.snapshots(&main()).await.unwrap().unreadable.len(), 1);

    // The run of this unfinished backup is not known, but it is still listed.
    bench.put("main/backups/20260102T000000Z/start.json", b"damaged").await;
    let start: Option<StartRecord> = None;
    let unfinished = bench.repository.describe_unfinished(&main()).await.unwrap();
    let only = unfinished.first().unwrap();
    assert_eq!((only.backup_id.to_string(), &only.start), ("20260102T000000Z".to_owned(), &start));
    assert!(only.unreadable.is_some());
}

/// An object in place of a record may be huge: no more is received than a record can have.
#[tokio::test]
async fn a_record_that_is_too_large_affects_only_what_it_names() {
    let bench = Bench::new().await;
    let planted = Bytes::from(vec![b' '; (16 << 20) + 1]);
    let put = async |name: &str| {
        bench.store.put(&name.parse().unwrap(), planted.clone(), PutMode::Create).await.unwrap();
    };
    put("main/backups/20260101T000000Z/backup.json").await;
    let backups = bench.repository.backups(&main()).await.unwrap();
    let error = &backups.unreadable.first().unwrap().error;
    assert!(matches!(&*error.what, Cause::Store(error) if error.kind() == StoreErrorKind::TooLarge), "{error}");
    put("main/backups/20260102T000000Z/start.json").await;
    assert!(
        bench.repository.describe_unfinished(&main()).await.unwrap().iter().all(|found| found.unreadable.is_some())
    );
}
