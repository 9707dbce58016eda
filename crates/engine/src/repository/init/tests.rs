//! `init` never overwrites objects that it finds without `holdfast.json`.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use bytes::Bytes;
use holdfast_secret::Secret;
use holdfast_store::MemoryStore;

use super::*;

fn target(unlock: Unlock) -> RepositoryTarget {
    RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock }
}

fn now() -> DateTime<Utc> {
    "2026-11-29T10:00:00Z".parse().unwrap()
}

async fn put(target: &RepositoryTarget, name: &str) {
    target.store.put(&name.parse().unwrap(), Bytes::from_static(b"x"), PutMode::Create).await.unwrap();
}

async fn names(target: &RepositoryTarget) -> Vec<String> {
    target.store.list("", None).await.unwrap().into_iter().map(|object| object.name.to_string()).collect()
}

#[tokio::test]
async fn a_place_that_lost_its_record_is_refused_and_nothing_is_written() {
    for (object, named) in [
        ("keys/default.json", "a key slot (keys/default.json)"),
        ("keys/second.json", "a key slot (keys/second.json)"),
        ("main/claims/1.json", "an archive (main/claims/1.json)"),
        ("main/backups/20260822T101500Z/backup.json", "an archive (main/backups/20260822T101500Z/)"),
        ("main/packs/20260822T101500Z/000001.pack", "an archive (main/packs/20260822T101500Z/)"),
        ("main/snapshots/20260822T101500Z.json", "an archive (main/snapshots/20260822T101500Z.json)"),
        ("main/wal/1/00000001/000000010000000A/000000010000000A000000FF.zst", "an archive (main/wal/1/)"),
    ] {
        for unlock in [Unlock::NotEncrypted, Unlock::KeyFile(Secret::new([7; 32]))] {
            let target = target(unlock);
            put(&target, object).await;
            let error = init(&target, now()).await.unwrap_err();
            let expected = format!("memory: already holds a repository: {named} without holdfast.json");
            assert_eq!(error.what.to_string(), expected);
            assert_eq!(names(&target).await, [object]);
        }
    }
}

#[tokio::test]
async fn objects_of_others_beside_it_are_not_a_repository() {
    let target = target(Unlock::KeyFile(Secret::new([7; 32])));
    for object in [
        "README",
        "keys/README",
        "main/base/20260101T000000/data.tar",
        "main/wals/0000000100000000/000000010000000000000001",
        "photos/backups/summer/1.jpg",
        "photos/claims/travel.pdf",
        "main/wal/notes.txt",
        "main/wal/1/notes.txt",
    ] {
        put(&target, object).await;
    }
    assert!(init(&target, now()).await.unwrap().created);
}
