//! Whatever lies below `keys/`, a slot that opens opens; and nothing there costs much.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use holdfast_repo::record::sha256_hex;
use holdfast_secret::Secret;
use holdfast_store::{MemoryStore, PutMode};

use super::*;
use crate::repository::{Repository, RepositoryTarget, init};

const PASSPHRASE: &str = "correct horse";

async fn repository(passphrase: bool) -> RepositoryTarget {
    let unlock = if passphrase {
        Unlock::Passphrase(Secret::new(PASSPHRASE.as_bytes()))
    } else {
        Unlock::KeyFile(Secret::new([7; 32]))
    };
    let target = RepositoryTarget { store: Arc::new(MemoryStore::new()), unlock };
    init::init(&target, "2026-11-29T10:00:00Z".parse().unwrap()).await.unwrap();
    target
}

async fn put(target: &RepositoryTarget, name: &str, content: impl Into<Bytes>) {
    target.store.put(&name.parse().unwrap(), content.into(), PutMode::Overwrite).await.unwrap();
}

async fn first_slot_text(target: &RepositoryTarget) -> String {
    let object = target.store.get(&"keys/default.json".parse().unwrap()).await.unwrap();
    String::from_utf8(object.to_vec()).unwrap()
}

/// The first slot with another body, under a digest of its own.
async fn changed(target: &RepositoryTarget, change: impl FnOnce(&mut serde_json::Value)) -> String {
    let text = first_slot_text(target).await;
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let body = record.get_mut("body").unwrap();
    change(body);
    let body = body.to_string();
    format!(r#"{{"holdfast":"key-slot","version":1,"sha256":"{}","body":{body}}}"#, sha256_hex(body.as_bytes()))
}

fn left_out(repository: &Repository) -> Vec<String> {
    repository.slots_left_out().iter().map(|bad| bad.object.clone()).collect()
}

#[tokio::test]
async fn strays_and_bad_slots_are_left_out_as_long_as_another_opens() {
    for passphrase in [false, true] {
        let target = repository(passphrase).await;
        for stray in ["README", "lost+found/x", ".hidden.json", "default.json.old", "deep/slot.json", "default.JSON"] {
            put(&target, &format!("keys/{stray}"), "a stray").await;
        }
        let repository = Repository::open(&target).await.unwrap();
        assert!(left_out(&repository).is_empty());

        let whole = first_slot_text(&target).await;
        put(&target, "keys/a-damaged.json", "not a record at all").await;
        put(&target, "keys/b-half.json", whole.split_at(whole.len() / 2).0.to_owned()).await;
        put(&target, "keys/c-renamed.json", whole.clone()).await;
        put(&target, "keys/d-large.json", vec![b' '; 70_000]).await;
        let kms = changed(&target, |body| {
            *body = serde_json::json!({"slot": "e-kms", "kind": "kms", "kdf": {"algorithm": "kms", "key_id": "x"}});
        });
        put(&target, "keys/e-kms.json", kms.await).await;
        put(&target, "keys/f-later.json", whole.replace("\"version\": 1", "\"version\": 2")).await;
        let repository = Repository::open(&target).await.unwrap();
        let expected = ["a-damaged", "b-half", "c-renamed", "d-large", "e-kms", "f-later"];
        assert_eq!(left_out(&repository), expected.map(|slot| format!("keys/{slot}.json")));
        let newer: Vec<bool> = repository.slots_left_out().iter().map(|bad| bad.error.is_newer()).collect();
        assert_eq!(newer, [false, false, false, false, true, true]);
    }
}

#[tokio::test]
async fn without_a_slot_that_opens_what_was_left_out_is_named() {
    let target = repository(false).await;
    let other = RepositoryTarget { unlock: Unlock::KeyFile(Secret::new([8; 32])), ..target.clone() };
    put(&target, "keys/second.json", "damaged").await;
    let error = Repository::open(&other).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Key(KeyError::WrongKeyFile { .. })));
    assert_eq!(error.doing.first().unwrap(), "leaving out keys/second.json, which cannot be read");
    // The only slot of our kind is damaged, and one of a newer kind is beside it: the damage is what is wrong.
    let kms = changed(&target, |body| body["kind"] = "kms".into()).await;
    put(&target, "keys/a-kms.json", kms).await;
    put(&target, "keys/default.json", "damaged").await;
    let error = Repository::open(&target).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Record(_)) && !error.is_newer(), "{error}");
    // Nothing but a slot of a newer kind.
    let delete = ["keys/default.json", "keys/second.json"].map(|name| name.parse().unwrap());
    target.store.delete(&delete).await.unwrap();
    let error = Repository::open(&target).await.unwrap_err();
    assert!(error.is_newer(), "{error}");
}

#[tokio::test]
async fn planted_slots_cost_little() {
    let target = repository(true).await;
    // The most expensive one that is allowed, by a name before ours; and very many.
    let dear = changed(&target, |body| {
        body["slot"] = "a-dear".into();
        body["kdf"]["memory_kib"] = MAX_MEMORY_KIB.into();
        body["kdf"]["iterations"] = 8.into();
    });
    put(&target, "keys/a-dear.json", dear.await).await;
    for number in 0..200 {
        let name = format!("b-{number:03}");
        let slot = changed(&target, |body| {
            body["slot"] = name.clone().into();
            body["kdf"]["memory_kib"] = 8192.into();
            body["kdf"]["iterations"] = 1.into();
        });
        put(&target, &format!("keys/{name}.json"), slot.await).await;
    }
    let slots = Slots::read(&target.store, None).await.unwrap();
    assert_eq!((slots.sound.len(), slots.unreadable.len()), (SLOTS_AT_MOST, 202 - SLOTS_AT_MOST));
    assert_eq!(slots.sound.last().unwrap().slot().as_str(), "a-dear", "the dearest is tried last");
    let repository = Repository::open(&target).await.unwrap();
    assert!(repository.is_encrypted());
    // Two of the dearest are more than is spent in all, so a wrong passphrase ends too.
    let sum: u64 = slots.sound.iter().map(KeySlot::work_kib).sum();
    assert!(sum < WORK_KIB_AT_MOST && sum + 8 * u64::from(MAX_MEMORY_KIB) > WORK_KIB_AT_MOST);
}
