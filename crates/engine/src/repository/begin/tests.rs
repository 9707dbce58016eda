#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::repository::Unlock;
use crate::repository::claim::Identity;
use bytes::Bytes;
use holdfast_pgtypes::{PgVersion, SystemIdentifier, WalSegmentSize};
use holdfast_repo::codec::Codec;
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode};
use std::sync::Arc;

const OWNER: &str = "production/shop/4c1f6a52";
const OTHER: &str = "production/shop/90aa17f3";

fn target(unlock: Unlock) -> RepositoryTarget {
    RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock }
}

fn now() -> DateTime<Utc> {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

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
        host: "shop-1".to_owned(),
        now: now(),
    }
}

async fn look(target: &RepositoryTarget, owner: &str) -> Result<Prepared, Error> {
    prepare(target, &main(), "the cluster that will be created", owner, now()).await
}

async fn put(target: &RepositoryTarget, name: &str) {
    target.store.put(&name.parse().unwrap(), Bytes::from_static(b"x"), PutMode::Create).await.unwrap();
}

fn what(result: Result<(ClaimRecord, bool), Error>) -> String {
    result.err().unwrap().what.to_string()
}

#[tokio::test]
async fn an_empty_archive_is_made_checked_and_claimed_and_this_can_be_repeated() {
    let target = target(Unlock::KeyFile(Secret::new([7; 32])));
    let first = look(&target, OWNER).await.unwrap();
    assert!(first.made && first.claim.is_none());
    let again = look(&target, OWNER).await.unwrap();
    assert!(!again.made && again.claim.is_none());
    // Another owner may prepare it as well, while nobody has claimed it.
    assert!(look(&target, OTHER).await.unwrap().claim.is_none());
    let (claim, new) = first.repository.claim_for_owner(&main(), &claimant(42), OWNER).await.unwrap();
    assert!(new);
    assert_eq!((claim.number, claim.owner.as_deref()), (ClaimNumber::FIRST, Some(OWNER)));
    let (same, new) = first.repository.claim_for_owner(&main(), &claimant(42), OWNER).await.unwrap();
    assert!(!new);
    assert_eq!(same, claim);
    assert_eq!(look(&target, OWNER).await.unwrap().claim, Some(claim));
}

#[tokio::test]
async fn what_others_have_stored_is_refused_before_anything_is_written() {
    let of_a_directory = target(Unlock::NotEncrypted);
    put(&of_a_directory, "main/base/20260101T000000/data.tar").await;
    put(&of_a_directory, "main/wals/0000000100000000/000000010000000000000001").await;
    let error = look(&of_a_directory, OWNER).await.err().unwrap();
    assert_eq!(
        error.what.to_string(),
        "the archive main in memory: is not empty: it holds base/, wals/, which looks like an archive of Barman, and \
         nobody has claimed it; the cluster that will be created is production/shop/4c1f6a52"
    );
    assert_eq!(of_a_directory.store.list("", None).await.unwrap().len(), 2, "nothing was written");

    // An archive with a similar name is not ours; a stray object below our own name counts.
    let target = target(Unlock::NotEncrypted);
    put(&target, "main-2/base/x").await;
    let prepared = look(&target, OWNER).await.unwrap();
    put(&target, "main/note.txt").await;
    assert!(matches!(*look(&target, OWNER).await.err().unwrap().what, Cause::ArchiveNotEmpty { .. }));
    let refused = what(prepared.repository.claim_for_owner(&main(), &claimant(42), OWNER).await);
    assert!(refused.contains("it holds note.txt, and nobody has claimed it"), "{refused}");
}

#[tokio::test]
async fn a_copy_of_the_cluster_does_not_get_its_archive() {
    let target = target(Unlock::NotEncrypted);
    let repository = look(&target, OWNER).await.unwrap().repository;
    repository.claim_for_owner(&main(), &claimant(42), OWNER).await.unwrap();
    let refused = "the archive main in memory: is claimed by production/shop/4c1f6a52 (system identifier 42), but ";
    assert_eq!(
        look(&target, OTHER).await.err().unwrap().what.to_string(),
        format!("{refused}the cluster that will be created is {OTHER}")
    );
    assert_eq!(
        what(repository.claim_for_owner(&main(), &claimant(42), OTHER).await),
        format!("{refused}the data directory /data is {OTHER}")
    );
    // Its first push or backup does not get it either. Without an owner only the system identifier decides, as before.
    let copy = Claimant { owner: Some(OTHER.to_owned()), ..claimant(42) };
    let error = repository.take_claim(&main(), &copy).await.err().unwrap();
    assert!(matches!(*error.what, Cause::WrongOwner { .. }), "{error}");
    let original = Claimant { owner: Some(OWNER.to_owned()), ..claimant(42) };
    repository.take_claim(&main(), &original).await.unwrap();
    repository.take_claim(&main(), &claimant(42)).await.unwrap();
}

#[tokio::test]
async fn a_claim_without_an_owner_cannot_be_taken_for_an_owner() {
    let target = target(Unlock::NotEncrypted);
    let repository = look(&target, OWNER).await.unwrap().repository;
    repository.take_claim(&main(), &claimant(42)).await.unwrap();
    let refused = "the archive main in memory: is claimed for system identifier 42, without an owner, but ";
    assert_eq!(
        what(repository.claim_for_owner(&main(), &claimant(42), OWNER).await),
        format!("{refused}the data directory /data is {OWNER}")
    );
    assert!(look(&target, OWNER).await.is_err());
    // A cluster that archived there before there were owners continues.
    let owned = Claimant { owner: Some(OWNER.to_owned()), ..claimant(42) };
    repository.take_claim(&main(), &owned).await.unwrap();
}

#[tokio::test]
async fn a_repeated_initdb_follows_its_unused_claim_but_not_a_used_one() {
    let target = target(Unlock::NotEncrypted);
    let repository = look(&target, OWNER).await.unwrap().repository;
    repository.claim_for_owner(&main(), &claimant(42), OWNER).await.unwrap();
    assert!(look(&target, OWNER).await.is_ok());
    let (claim, new) = repository.claim_for_owner(&main(), &claimant(43), OWNER).await.unwrap();
    assert!(new);
    assert_eq!(claim.number.to_string(), "2");
    put(&target, "main/wal/2/00000001/0000000100000000/000000010000000000000001.zst").await;
    let refused = what(repository.claim_for_owner(&main(), &claimant(44), OWNER).await);
    assert_eq!(
        refused,
        "the archive main in memory: belongs to system identifier 43, but the data directory /data has 44"
    );
}

#[tokio::test]
async fn one_of_many_at_the_same_moment_gets_it() {
    for unlock in [Unlock::NotEncrypted, Unlock::KeyFile(Secret::new([7; 32]))] {
        let target = target(unlock);
        let owners: Vec<String> = (0..8).map(|n| format!("owner {n}")).collect();
        let racing = owners.iter().map(|owner| async {
            let prepared = look(&target, owner).await?;
            prepared.repository.claim_for_owner(&main(), &claimant(42), owner).await
        });
        let outcomes = futures::future::join_all(racing).await;
        let won: Vec<&ClaimRecord> = outcomes.iter().filter_map(|outcome| Some(&outcome.as_ref().ok()?.0)).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        for (owner, outcome) in owners.iter().zip(&outcomes) {
            match outcome {
                Ok((claim, _)) => assert_eq!(claim.owner.as_ref(), Some(owner)),
                Err(error) => assert!(matches!(*error.what, Cause::WrongOwner { .. }), "{error}"),
            }
        }
        let claims = Repository::open(&target).await.unwrap().claims(&main()).await.unwrap().records;
        assert_eq!(claims.len(), 1);
    }
}
