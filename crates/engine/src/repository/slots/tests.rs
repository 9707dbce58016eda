//! Whatever is below `keys/`: a good slot opens, and nothing there costs much.

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

/// The first slot with a changed body and a matching digest.
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
async fn strays_and_bad_slots_are_left_out_if_another_opens() {
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
async fn if_no_slot_opens_those_left_out_are_named() {
    let target = repository(false).await;
    let other = RepositoryTarget { unlock: Unlock::KeyFile(Secret::new([8; 32])), ..target.clone() };
    put(&target, "keys/second.json", "damaged").await;
    let error = Repository::open(&other).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Key(KeyError::WrongKeyFile { .. })));
    assert_eq!(error.doing.first().unwrap(), "leaving out keys/second.json, which cannot be read");
    // The only slot of our kind is damaged, and a slot of a newer kind is beside it: the error is about the damage.
    let kms = changed(&target, |body| body["kind"] = "kms".into()).await;
    put(&target, "keys/a-kms.json", kms).await;
    put(&target, "keys/default.json", "damaged").await;
    let error = Repository::open(&target).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Record(_)) && !error.is_newer(), "{error}");
    // There is only a slot of a newer kind.
    let delete = ["keys/default.json", "keys/second.json"].map(|name| name.parse().unwrap());
    target.store.delete(&delete).await.unwrap();
    let error = Repository::open(&target).await.unwrap_err();
    assert!(error.is_newer(), "{error}");
}

#[tokio::test]
async fn planted_slots_cost_little() {
    let target = repository(true).await;
    // The most expensive slot that is allowed, with a name before ours, and very many others.
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
    assert_eq!(slots.sound.last().unwrap().slot().as_str(), "a-dear", "the most expensive is tried last");
    let repository = Repository::open(&target).await.unwrap();
    assert!(repository.is_encrypted());
    // Two of the most expensive exceed the total limit, so the attempt with a wrong passphrase ends as well.
    let sum: u64 = slots.sound.iter().map(KeySlot::work_kib).sum();
    assert!(sum < WORK_KIB_AT_MOST && sum + 8 * u64::from(MAX_MEMORY_KIB) > WORK_KIB_AT_MOST);
}

/// After a rotation the first try opens the repository, and a slot that is being removed is tried last.
#[tokio::test]
async fn the_first_slot_of_an_epoch_is_tried_first() {
    let target = repository(true).await;
    for (name, epoch) in [("a.2", 2), ("a-later", 9), ("epoch-1", 1), ("epoch-2", 2)] {
        let slot = changed(&target, |body| {
            body["slot"] = name.into();
            body["epoch"] = epoch.into();
            body["earlier"] = vec![""; epoch].into();
        });
        let slot = slot.await;
        put(&target, &format!("keys/{name}.json"), slot).await;
    }
    let order = async |hint: Option<&str>| {
        let hint: Option<SlotName> = hint.map(|hint| hint.parse().unwrap());
        let mut slots = Slots::read(&target.store, hint.as_ref()).await.unwrap();
        let ordered = slots.take_in_order(hint.as_ref());
        ordered.iter().map(|slot| slot.slot().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order(None).await, ["epoch-2", "epoch-1", "a-later", "a.2", "default"]);
    assert_eq!(order(Some("a.2")).await, ["a.2", "epoch-2", "epoch-1", "a-later", "default"]);
    put(&target, "keys/epoch-2.removing", "").await;
    assert_eq!(order(None).await, ["epoch-1", "a-later", "a.2", "default", "epoch-2"]);
}

/// A wrong name in the configuration, or one that a rotation replaced, opens as well.
#[tokio::test]
async fn the_other_slots_are_read_only_if_the_named_one_does_not_open() {
    let target = repository(true).await;
    for name in ["a", "b", "vault.1", "epoch-1"] {
        let slot = changed(&target, |body| {
            body["slot"] = name.into();
            body["wrapped"] = "00".repeat(60).into();
        });
        put(&target, &format!("keys/{name}.json"), slot.await).await;
    }
    let hinted = |slot: &str| RepositoryTarget {
        unlock: Unlock::Hinted { slot: slot.parse().unwrap(), secret: Box::new(target.unlock.clone()) },
        ..target.clone()
    };
    let following = async |hint: &str| {
        let slots = Slots::read_following(&target.store, Some(&hint.parse().unwrap())).await.unwrap();
        let mut read: Vec<_> = slots.names().map(ToString::to_string).collect();
        read.sort();
        (read.join(" "), slots.unread.len())
    };
    assert_eq!(following("default").await, ("default epoch-1".to_owned(), 3));
    assert_eq!(following("vault").await, ("epoch-1 vault.1".to_owned(), 3));
    // The slot of the secret is `default`, whatever the configuration says.
    for hint in ["default", "vault", "a", "nobody"] {
        let repository = Repository::open(&hinted(hint)).await.unwrap();
        assert_eq!(repository.opened_by().unwrap().as_str(), "default", "{hint}");
    }
    let stray = RepositoryTarget {
        unlock: Unlock::Hinted {
            slot: "a".parse().unwrap(),
            secret: Box::new(Unlock::Passphrase(Secret::new(*b"no"))),
        },
        ..target.clone()
    };
    assert!(matches!(*Repository::open(&stray).await.unwrap_err().what, Cause::Key(_)));
}

/// The name of an epoch that cannot exist yet does not count, and only few planted names of epochs are read.
#[tokio::test]
async fn names_of_epochs_have_a_share() {
    for (name, epoch) in [("epoch-1", Some(1)), ("epoch-255", Some(255))] {
        assert_eq!(begins_epoch(&name.parse().unwrap()), epoch);
    }
    for name in ["epoch-0", "epoch-01", "epoch-256", "epoch-", "epoch-1.1", "epoch", "epoch-4294967297"] {
        assert_eq!(name.parse().ok().and_then(|name| begins_epoch(&name)), None, "{name}");
    }
    let target = repository(false).await;
    for epoch in 1..200 {
        put(&target, &format!("keys/epoch-{epoch}.json"), "damaged").await;
    }
    let repository = Repository::open(&target).await.unwrap();
    assert_eq!(repository.opened_by().unwrap().as_str(), "default");
    assert_eq!(repository.rotated_without_us().map(|(slot, epoch)| (slot.as_str(), epoch)), Some(("epoch-199", 199)));
    assert!(Repository::open_to_write(&target).await.is_err());
}
