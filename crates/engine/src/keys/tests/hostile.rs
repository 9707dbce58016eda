//! Objects that somebody with write access puts into `keys/`, damaged slots, and mistakes.

use bytes::Bytes;
use holdfast_repo::RepositoryKey;
use holdfast_repo::key::KeySlot;
use holdfast_repo::record::{KeyChange, encode_plain};
use holdfast_secret::Secret;
use tokio_util::sync::CancellationToken;

use super::bench::{ANNA, BEN, Bench, VAULT, add_to, cluster, now, remove_from, rotate_in, secret, slot};
use crate::error::{Cause, Error};
use crate::expire::{ExpireOptions, HoldOptions, Policy, expire, hold, release};
use crate::progress::Silent;
use crate::repository::{Repository, RepositoryTarget, Unlock};

fn why<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    let error = refused.unwrap_err();
    assert!(matches!(*error.what, Cause::Refused(_)), "{error}");
    error.what.to_string()
}

/// Adds other slots: enough that a reader who takes only the first names misses the real one.
async fn plant_many(bench: &Bench, like: &str) {
    for number in 0..64 {
        bench.plant(like, &format!("a-{number:02}"), |_| {}).await;
    }
}

fn hinted(bench: &Bench, who: u8, hint: &str) -> RepositoryTarget {
    RepositoryTarget { unlock: Unlock::Hinted { slot: slot(hint), secret: Box::new(secret(who)) }, ..bench.target(who) }
}

#[tokio::test]
async fn no_number_of_slots_hides_the_newest() {
    let bench = Bench::shared().await;
    let old = bench.store.get(&"keys/default.json".parse().unwrap()).await.unwrap();
    rotate_in(&bench.target(ANNA), &[VAULT], &["ben"]).await.unwrap();
    plant_many(&bench, "vault.1").await;
    bench.put("keys/default.json", old).await;
    for hint in [None, Some("default"), Some("epoch-1"), Some("nobody")] {
        let target = hint.map_or_else(|| bench.target(ANNA), |hint| hinted(&bench, ANNA, hint));
        let repository = Repository::open_to_write(&target).await.unwrap();
        assert_eq!(repository.opened_by(), Some(&slot("epoch-1")), "{hint:?}");
    }
    // The slot that replaced the configured one is read too.
    let vault = Repository::open_to_write(&hinted(&bench, VAULT, "vault")).await.unwrap();
    assert_eq!(vault.opened_by(), Some(&slot("vault.1")));
}

#[tokio::test]
async fn nothing_is_written_under_a_key_from_before_a_rotation() {
    let bench = Bench::shared().await;
    let old = bench.store.get(&"keys/ben.json".parse().unwrap()).await.unwrap();
    rotate_in(&bench.target(ANNA), &[VAULT], &["ben"]).await.unwrap();
    bench.put("keys/ben.json", old).await;
    let refused = async |bench: &Bench| {
        let error = bench.write(BEN).await.unwrap_err();
        assert!(matches!(*error.what, Cause::KeysRotated { .. }), "{error}");
        // The repository opens for reading, and shows the later slot.
        let (later, epoch) = bench.open(BEN).await.unwrap().rotated_without_us().map(|(s, e)| (s.clone(), e)).unwrap();
        assert_eq!((later.as_str(), epoch), ("epoch-1", 1));
    };
    refused(&bench).await;
    // Neither damage nor a removal changes that: the name counts.
    let whole = bench.store.get(&"keys/epoch-1.json".parse().unwrap()).await.unwrap();
    bench.put("keys/epoch-1.json", "damaged").await;
    refused(&bench).await;
    bench.put("keys/epoch-1.json", whole).await;
    remove_from(&bench.target(VAULT), "epoch-1").await.unwrap();
    refused(&bench).await;
    assert!(bench.write(VAULT).await.is_ok());
}

/// Leases, decisions and holds of the newer key cannot be read with an older one. Who may remove something, or tell
/// somebody that it is held, must not take them for absent.
#[tokio::test]
async fn nobody_holds_or_removes_with_a_key_from_before_a_rotation() {
    let bench = Bench::shared().await;
    let old = bench.store.get(&"keys/ben.json".parse().unwrap()).await.unwrap();
    rotate_in(&bench.target(ANNA), &[VAULT], &["ben"]).await.unwrap();
    bench.put("keys/ben.json", old).await;
    let repository = bench.open(BEN).await.unwrap();
    let (cluster, backup) = (cluster(1), "20260822T101500Z".parse().unwrap());
    let holding = HoldOptions {
        cluster: cluster.clone(),
        backup,
        until: None,
        with_wal: false,
        reason: None,
        host: "db2".to_owned(),
        now: now(),
    };
    let expiring = ExpireOptions {
        cluster: cluster.clone(),
        policy: Policy::default(),
        grace: std::time::Duration::ZERO,
        host: "db2".to_owned(),
        now: now(),
    };
    let held = hold(&repository, &holding).await.map(drop);
    let released = release(&repository, &cluster, backup).await.map(drop);
    let expired = expire(&repository, &expiring, &Silent, &CancellationToken::new()).await.map(drop);
    for refused in [held, released, expired] {
        let error = refused.unwrap_err();
        assert!(matches!(*error.what, Cause::KeysRotated { .. }), "{error}");
    }
}

/// A rotation paused until its epoch was over, and only then wrote its slot.
#[tokio::test]
async fn no_host_writes_with_a_first_slot_that_came_too_late() {
    let bench = Bench::shared().await;
    let late = other_keys(&bench, "epoch-1").await;
    rotate_in(&bench.target(BEN), &[VAULT], &["default"]).await.unwrap();
    remove_from(&bench.target(VAULT), "epoch-1").await.unwrap();
    bench.put("keys/epoch-1.json", encode_plain(&late).unwrap()).await;
    let error = bench.write(ANNA).await.unwrap_err();
    assert!(matches!(*error.what, Cause::KeysRotated { .. }), "{error}");
    bench.write(VAULT).await.unwrap();
    assert!(bench.reads_all(VAULT).await);
}

/// A slot for Anna with a key of the next epoch that differs from the key that a rotation will draw.
async fn other_keys(bench: &Bench, name: &str) -> KeySlot {
    let repository = bench.open(ANNA).await.unwrap();
    let key: RepositoryKey = repository.key().unwrap().next_epoch().unwrap();
    KeySlot::create_key_file(slot(name), &repository.id(), &key, &Secret::new([ANNA; 32]), now()).unwrap()
}

#[tokio::test]
async fn a_slot_with_other_keys_is_not_removed() {
    for many in [false, true] {
        let bench = Bench::shared().await;
        let other = other_keys(&bench, "zz-other").await;
        rotate_in(&bench.target(ANNA), &[VAULT], &["ben"]).await.unwrap();
        bench.put("keys/zz-other.json", encode_plain(&other).unwrap()).await;
        if many {
            plant_many(&bench, "vault.1").await;
        }
        assert_eq!(
            why(remove_from(&bench.target(ANNA), "zz-other").await),
            "key slot zz-other gives other keys than epoch-1: data that was written with them needs this slot"
        );
        // A slot that the secret does not open is not compared, and the result says so. A slot that it opens is
        // compared.
        assert!(!remove_from(&bench.target(ANNA), "vault.1").await.unwrap().compared);
        add_to(&bench.target(ANNA), "anna-2", ANNA).await.unwrap();
        assert!(remove_from(&bench.target(ANNA), "anna-2").await.unwrap().compared);
    }
}

#[tokio::test]
async fn a_removal_looks_for_later_slots() {
    let bench = Bench::shared().await;
    bench
        .plant("vault", "later", |body| {
            body["epoch"] = 7.into();
            body["earlier"] = vec![""; 7].into();
        })
        .await;
    assert!(why(remove_from(&bench.target(ANNA), "ben").await).starts_with("key slot later is of key epoch 7, and"));
    bench.store.delete(&["keys/later.json".parse().unwrap()]).await.unwrap();
    remove_from(&bench.target(ANNA), "ben").await.unwrap();
}

/// No slot of a secret that stays can be dropped, whichever of its slots it is.
#[tokio::test]
async fn a_secret_that_stays_cannot_be_dropped_by_another_name() {
    let bench = Bench::shared().await;
    for name in ["vault-2", "aaa"] {
        add_to(&bench.target(ANNA), name, VAULT).await.unwrap();
    }
    for name in ["vault", "vault-2", "aaa"] {
        assert_eq!(
            why(rotate_in(&bench.target(ANNA), &[VAULT, BEN], &[name]).await),
            format!("the secret 2 opens key slot {name}, which is to be dropped")
        );
    }
    assert_eq!(rotate_in(&bench.target(ANNA), &[VAULT, BEN], &[]).await.unwrap().written.len(), 3);
}

#[tokio::test]
async fn a_bad_slot_is_named_and_does_not_stop_a_rotation() {
    let bench = Bench::shared().await;
    bench.plant("vault", "algorithm", |body| body["kdf"]["algorithm"] = "argon2id".into()).await;
    bench.plant("vault", "content", |body| body["wrapped"] = "no digits".into()).await;
    let said = why(rotate_in(&bench.target(ANNA), &[VAULT, BEN], &[]).await);
    assert!(said.contains("opens key slot algorithm (key derivation \"argon2id\" is not supported"), "{said}");
    assert!(said.contains(" and content (the key slot is damaged"), "{said}");
    let done = rotate_in(&bench.target(ANNA), &[VAULT, BEN], &["algorithm", "content"]).await.unwrap();
    assert_eq!((done.epoch, done.written.len(), done.removed.len()), (1, 3, 5));
    assert_eq!(bench.keys().await.len(), 3);
}

/// The change is done. Repeating the command would make another change.
#[tokio::test]
async fn a_ledger_that_cannot_be_written_is_not_a_failure() {
    let bench = Bench::shared().await;
    bench.write(ANNA).await.unwrap();
    bench.put("c0/claims/1.json", Bytes::from_static(b"damaged")).await;
    let added = add_to(&bench.target(ANNA), "office", 9).await.unwrap();
    let removed = remove_from(&bench.target(ANNA), "office").await.unwrap();
    let rotated = rotate_in(&bench.target(ANNA), &[VAULT, BEN], &[]).await.unwrap();
    for unrecorded in [added.unrecorded, removed.unrecorded, rotated.unrecorded] {
        let said = format!("{:?}", unrecorded.unwrap().doing);
        assert!(said.contains("the ledger of the archive c0"), "{said}");
    }
    let others: Vec<KeyChange> = bench.ledger(ANNA, 1).await.into_iter().map(|(change, ..)| change).collect();
    assert_eq!(others, [KeyChange::Add, KeyChange::Remove, KeyChange::Rotate]);
}
