//! Each verb by itself: what it does, what it refuses, and what each secret can read afterwards.

use bytes::Bytes;
use holdfast_repo::key::{KeyError, PrivateKey};
use holdfast_repo::record::{KeyChange, decode_plain};
use holdfast_secret::Secret;

use super::bench::{ANNA, BEN, Bench, VAULT, add_to, options, remove_from, rotate_in, secret, slot};
use crate::error::{Cause, Error};
use crate::keys::add::add;
use crate::keys::list::list;
use crate::keys::rotate::{Carried, rotate};
use crate::repository::{Repository, RepositoryTarget, Unlock, init};

fn why<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    let error = refused.unwrap_err();
    assert!(matches!(*error.what, Cause::Refused(_)), "{error}");
    error.what.to_string()
}

async fn put(bench: &Bench, name: &str, content: Bytes) {
    bench.put(name, content).await;
}

/// Checks that the command refused because the secret gives only keys from before a rotation.
fn rotated<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    let error = refused.unwrap_err();
    assert!(matches!(*error.what, Cause::KeysRotated { .. }), "{error}");
    error.what.to_string()
}

/// The person who rotates gives the public keys. A slot in the store is not believed, because anybody could have put it
/// there.
#[tokio::test]
async fn only_public_keys_that_are_given_are_carried_into_a_new_epoch() {
    let bench = Bench::new().await;
    let (safe, thief) = (PrivateKey::random().unwrap(), PrivateKey::random().unwrap());
    let public = |key: &PrivateKey| Unlock::Recipient(key.recipient().unwrap());
    let opens = async |key: &PrivateKey| {
        let target = RepositoryTarget { unlock: Unlock::PrivateKey(key.clone()), ..bench.target(ANNA) };
        Repository::open(&target).await.map(|opened| opened.key().unwrap().epoch())
    };
    let added = add(&bench.target(ANNA), &slot("safe"), &public(&safe), &options()).await.unwrap();
    assert!(added.made);
    assert_eq!(opens(&safe).await.unwrap(), 0);
    let refused = why(add(&bench.target(ANNA), &slot("safe"), &public(&safe), &options()).await);
    assert!(refused.starts_with("there is a key slot safe already, and only the private key can show"), "{refused}");

    // A slot that opens nothing, for a key of the thief's.
    let planted = hex::encode([9; 32]);
    let change = |body: &mut serde_json::Value| body["kdf"]["recipient"] = planted.into();
    bench.plant("safe", "planted", change).await;
    let rotating = async |drop: &[&str]| {
        let carried = [Carried { secret: public(&safe), what: "the public key of the safe".to_owned() }];
        let drop: Vec<_> = drop.iter().map(|name| slot(name)).collect();
        rotate(&bench.target(ANNA), &carried, &drop, &options()).await
    };
    let refused = why(rotating(&[]).await);
    assert!(refused.starts_with("no given secret opens key slot planted"), "{refused}");
    let rotated = rotating(&["planted"]).await.unwrap();
    assert_eq!(rotated.written, [slot("epoch-1"), slot("safe.1")]);
    assert_eq!(opens(&safe).await.unwrap(), 1);
    assert!(matches!(*opens(&thief).await.unwrap_err().what, Cause::Key(KeyError::WrongPrivateKey { .. })));

    // A public key without a slot, and one whose slot is to be dropped.
    let unknown = [Carried { secret: public(&thief), what: "the public key of the thief".to_owned() }];
    let refused = why(rotate(&bench.target(ANNA), &unknown, &[slot("safe.1")], &options()).await);
    assert_eq!(refused, "the public key of the thief opens no other key slot: add it with `holdfast key add`");
    let refused = why(rotating(&["safe.1"]).await);
    assert_eq!(refused, "the public key of the safe opens key slot safe.1, which is to be dropped");
}

#[tokio::test]
async fn every_added_secret_opens_the_repository() {
    let bench = Bench::new().await;
    assert!(add_to(&bench.target(ANNA), "vault", VAULT).await.unwrap().made);
    // A secret that was added can add others.
    assert!(add_to(&bench.target(VAULT), "ben", BEN).await.unwrap().made);
    for who in [ANNA, VAULT, BEN] {
        bench.write(who).await.unwrap();
    }
    for who in [ANNA, VAULT, BEN] {
        assert!(bench.reads_all(who).await, "{who}");
    }
    assert_eq!(bench.keys().await, ["ben.json", "default.json", "vault.json"]);
    // Adding the same slot again is not an error. Another secret with that name, or a name of a rotation, is one.
    assert!(!add_to(&bench.target(ANNA), "vault", VAULT).await.unwrap().made);
    assert_eq!(
        why(add_to(&bench.target(ANNA), "vault", BEN).await),
        "there is a key slot vault already, and this secret does not open it"
    );
    assert_eq!(
        why(add_to(&bench.target(ANNA), "epoch-7", 9).await),
        "the name epoch-7 is reserved for rotations: choose one that does not begin with epoch-"
    );
    let weak = add(&bench.target(ANNA), &slot("weak"), &Unlock::KeyFile(Secret::new([1; 31])), &options()).await;
    assert!(matches!(*weak.unwrap_err().what, Cause::Key(KeyError::WeakSecret { .. })));
    let wrong = add_to(&bench.target(9), "thief", 9).await.unwrap_err();
    assert!(matches!(*wrong.what, Cause::Key(KeyError::WrongKeyFile { .. })), "{wrong}");
    assert_eq!(bench.keys().await.len(), 3);
    let said = bench.ledger(ANNA, 0).await;
    let adds: Vec<_> = said.iter().map(|(change, written, ..)| (*change, written[0].as_str())).collect();
    assert_eq!(adds, [(KeyChange::Add, "vault"), (KeyChange::Add, "ben"), (KeyChange::Add, "vault")]);
}

#[tokio::test]
async fn a_rotation_shuts_out_a_dropped_secret_and_loses_nothing() {
    let bench = Bench::shared().await;
    bench.write(BEN).await.unwrap();
    let before = bench.open(BEN).await.unwrap();
    assert_eq!(
        why(rotate_in(&bench.target(ANNA), &[VAULT], &[]).await),
        "no given secret opens key slot ben: give the secret of each slot that should stay, and name each slot to \
         remove with --drop"
    );
    assert_eq!(
        why(rotate_in(&bench.target(ANNA), &[VAULT, 9], &["ben"]).await),
        "the secret 9 opens no other key slot: add it with `holdfast key add`"
    );
    assert_eq!(
        why(rotate_in(&bench.target(ANNA), &[VAULT, BEN], &["default"]).await),
        "the configured secret opens key slot default, which is to be dropped: configure the secret that stays"
    );
    assert_eq!(
        why(rotate_in(&bench.target(ANNA), &[VAULT, BEN], &["ben"]).await),
        "the secret 3 opens key slot ben, which is to be dropped"
    );
    assert_eq!(bench.keys().await, ["ben.json", "default.json", "vault.json"], "nothing was changed");

    let done = rotate_in(&bench.target(ANNA), &[VAULT], &["ben", "left-long-ago"]).await.unwrap();
    assert_eq!((done.epoch, done.written), (1, vec![slot("epoch-1"), slot("vault.1")]));
    let of = |name: &str, label: &str, epoch| (name.to_owned(), label.to_owned(), epoch);
    assert_eq!(bench.slots(ANNA).await, [of("epoch-1", "default", 1), of("vault.1", "vault", 1)]);
    assert_eq!(bench.keys().await, ["epoch-1.json", "vault.1.json"]);
    let refused = bench.open(BEN).await.unwrap_err();
    assert!(matches!(*refused.what, Cause::Key(KeyError::WrongKeyFile { .. })), "{refused}");

    // Ben's process that was already running still writes, and the others can read that. He cannot read new data.
    bench.write_with(&before).await;
    bench.write(ANNA).await.unwrap();
    bench.write(VAULT).await.unwrap();
    assert!(bench.reads_all(ANNA).await && bench.reads_all(VAULT).await);
    let claim = holdfast_repo::name::claim(&super::bench::cluster(4), "1".parse().unwrap());
    let error = before.read_record::<holdfast_repo::record::ClaimRecord>(&claim).await.unwrap_err();
    assert!(format!("{:?}", error.what).contains("UnknownKeyEpoch(1)"), "{error:?}");
    assert!(error.is_newer(), "a reader without the key leaves it alone");

    // Another rotation, by the other secret that stayed. The names do not grow.
    let done = rotate_in(&bench.target(VAULT), &[ANNA], &[]).await.unwrap();
    assert_eq!((done.epoch, done.written), (2, vec![slot("epoch-2"), slot("default.2")]));
    assert_eq!(bench.slots(VAULT).await, [of("default.2", "default", 2), of("epoch-2", "vault", 2)]);
    bench.write(ANNA).await.unwrap();
    assert!(bench.reads_all(ANNA).await && bench.reads_all(VAULT).await);
    let said = bench.ledger(ANNA, 0).await;
    let (change, written, removed, epoch) = said.last().unwrap();
    assert_eq!((*change, *epoch), (KeyChange::Rotate, 2));
    assert_eq!(written, &[slot("epoch-2"), slot("default.2")]);
    assert_eq!(removed, &[slot("epoch-1"), slot("vault.1")]);
}

/// The old secret gives the old key. It opens nothing that has the new key.
#[tokio::test]
async fn a_kept_copy_of_an_old_slot_gives_no_later_key() {
    let bench = Bench::shared().await;
    let copy = bench.store.get(&"keys/ben.json".parse().unwrap()).await.unwrap();
    rotate_in(&bench.target(ANNA), &[VAULT], &["ben"]).await.unwrap();
    bench.write(ANNA).await.unwrap();
    put(&bench, "keys/ben.json", copy).await;
    let repository = bench.open(BEN).await.unwrap();
    assert_eq!(bench.read(BEN).await, Some(1), "only what was written before");
    assert_eq!(repository.rotated_without_us(), Some((&slot("epoch-1"), 1)));
    // Ben cannot rotate, add a slot, or remove a slot of the others.
    let refusal = "the keys of memory: were rotated: there is or was a key slot epoch-1, and the configured secret \
                   gives the keys up to epoch 0";
    assert_eq!(rotated(rotate_in(&bench.target(BEN), &[], &["epoch-1", "vault.1"]).await), refusal);
    assert_eq!(rotated(add_to(&bench.target(BEN), "back", BEN).await), refusal);
    assert_eq!(rotated(remove_from(&bench.target(BEN), "epoch-1").await), refusal);
    remove_from(&bench.target(ANNA), "ben").await.unwrap();
    assert!(bench.open(BEN).await.is_err() && bench.reads_all(VAULT).await);
}

#[tokio::test]
async fn the_slot_that_opens_the_repository_cannot_be_removed() {
    let bench = Bench::new().await;
    let last = why(remove_from(&bench.target(ANNA), "default").await);
    assert_eq!(
        last,
        "key slot default is the only one that the configured secret opens: configure another secret first, and add it \
         with `holdfast key add` if there is none"
    );
    add_to(&bench.target(ANNA), "vault", VAULT).await.unwrap();
    assert_eq!(why(remove_from(&bench.target(ANNA), "default").await), last, "not even beside another one");
    assert_eq!(
        why(remove_from(&bench.target(ANNA), "nobody").await),
        "there is no key slot nobody: the slots are default, vault"
    );
    // The holder of the other secret can remove it.
    let done = remove_from(&bench.target(VAULT), "default").await.unwrap();
    assert_eq!((done.opens, done.was_there), (slot("vault"), true));
    assert_eq!(bench.keys().await, ["vault.json"]);
    assert!(bench.open(ANNA).await.is_err() && bench.reads_all(VAULT).await);
    // A second slot of the same secret is enough.
    add_to(&bench.target(VAULT), "vault-2", VAULT).await.unwrap();
    remove_from(&bench.target(VAULT), "vault").await.unwrap();
    assert_eq!(bench.keys().await, ["vault-2.json"]);
    assert_eq!(bench.ledger(VAULT, 0).await.last().unwrap().0, KeyChange::Remove);
}

#[tokio::test]
async fn damaged_and_newer_slots_are_removed_only_by_name() {
    let bench = Bench::shared().await;
    put(&bench, "keys/ben.json", Bytes::from_static(b"no slot at all")).await;
    assert!(why(rotate_in(&bench.target(ANNA), &[VAULT], &[]).await).contains("opens key slot ben ("));
    remove_from(&bench.target(ANNA), "ben").await.unwrap();
    let vault = bench.store.get(&"keys/vault.json".parse().unwrap()).await.unwrap();
    let later = String::from_utf8(vault.to_vec()).unwrap().replace("\"version\": 1", "\"version\": 2");
    put(&bench, "keys/kms.json", later.into()).await;
    assert_eq!(
        why(remove_from(&bench.target(ANNA), "kms").await),
        "key slot kms was written by a newer holdfast: this release cannot tell which keys it holds"
    );
    let done = rotate_in(&bench.target(ANNA), &[VAULT], &["kms"]).await.unwrap();
    assert_eq!(done.removed, [slot("default"), slot("vault"), slot("kms")]);
    assert!(bench.reads_all(ANNA).await && bench.reads_all(VAULT).await);
}

#[tokio::test]
async fn a_repository_can_have_passphrases_and_key_files() {
    let bench = Bench::new().await;
    let typed = |text: &str| Unlock::Passphrase(Secret::from(text));
    for (name, text) in [("office", "correct horse"), ("home", "battery staple")] {
        add(&bench.target(ANNA), &slot(name), &typed(text), &options()).await.unwrap();
    }
    let target = |text: &str| RepositoryTarget { unlock: typed(text), ..bench.target(ANNA) };
    let carried = [
        Carried { secret: secret(ANNA), what: "the key file".to_owned() },
        Carried { secret: typed("battery staple"), what: "the passphrase".to_owned() },
    ];
    let done = rotate(&target("correct horse"), &carried, &[], &options()).await.unwrap();
    assert_eq!(done.written, [slot("epoch-1"), slot("default.1"), slot("home.1")]);
    for text in ["correct horse", "battery staple"] {
        assert!(Repository::open(&target(text)).await.is_ok(), "{text}");
    }
    assert!(bench.reads_all(ANNA).await);
    // A slot that the configuration names is tried first, by its own name or the name of the slot that it replaced.
    for (hint, by) in [("epoch-1", "epoch-1"), ("office", "epoch-1"), ("nobody", "epoch-1")] {
        let unlock = Unlock::Hinted { slot: slot(hint), secret: Box::new(typed("correct horse")) };
        let repository = Repository::open(&RepositoryTarget { unlock, ..bench.target(ANNA) }).await.unwrap();
        assert_eq!(repository.opened_by(), Some(&slot(by)), "{hint}");
    }
}

/// So a deletion that arrives late never deletes a slot that another run has written since.
#[tokio::test]
async fn no_name_of_a_slot_is_used_twice() {
    let bench = Bench::shared().await;
    remove_from(&bench.target(ANNA), "ben").await.unwrap();
    rotate_in(&bench.target(ANNA), &[VAULT], &[]).await.unwrap();
    assert_eq!(bench.marks().await, ["ben", "default", "vault"]);
    for name in ["ben", "vault", "default"] {
        assert_eq!(
            why(add_to(&bench.target(ANNA), name, BEN).await),
            format!(
                "a key slot {name} was removed, or its removal has begun, and a name is never used again: choose \
                 another one"
            )
        );
    }
    assert_eq!(bench.keys().await, ["epoch-1.json", "vault.1.json"]);
    // Removing a removed slot again succeeds.
    assert!(!remove_from(&bench.target(ANNA), "ben").await.unwrap().was_there);
    // A rotation skips a name that is taken.
    add_to(&bench.target(ANNA), "vault.2", BEN).await.unwrap();
    let done = rotate_in(&bench.target(ANNA), &[VAULT, BEN], &[]).await.unwrap();
    assert_eq!(done.written, [slot("epoch-2"), slot("vault-2.2"), slot("vault.2.2")]);
    bench.write(ANNA).await.unwrap();
    for who in [ANNA, VAULT, BEN] {
        assert!(bench.reads_all(who).await, "{who}");
    }
}

#[tokio::test]
async fn an_unencrypted_repository_has_no_slots() {
    let bench = Bench::new().await;
    let store = std::sync::Arc::new(holdfast_store::MemoryStore::new());
    let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
    init::init(&target, super::bench::now()).await.unwrap();
    for refused in [
        why(add_to(&target, "vault", VAULT).await),
        why(rotate_in(&target, &[], &[]).await),
        why(remove_from(&target, "default").await),
    ] {
        assert_eq!(refused, "memory: is not encrypted, so it has no key slots");
    }
    let (_, found) = list(&target).await.unwrap();
    assert_eq!((found.epoch, found.slots.len()), (None, 0));
    // A folder without a claim stays as it is.
    put(&bench, "photos/summer.jpg", Bytes::new()).await;
    add_to(&bench.target(ANNA), "vault", VAULT).await.unwrap();
    assert_eq!(bench.store.list("photos/", None).await.unwrap().len(), 1);
}

/// After an interrupted rotation, a secret has slots of two epochs. The later one is used, whatever the order of names
/// is.
#[tokio::test]
async fn a_secret_with_two_slots_uses_the_later_epoch() {
    let bench = Bench::new().await;
    let old = bench.store.get(&"keys/default.json".parse().unwrap()).await.unwrap();
    rotate_in(&bench.target(ANNA), &[], &[]).await.unwrap();
    put(&bench, "keys/default.json", old.clone()).await;
    for hint in [None, Some("default"), Some("epoch-1")] {
        let unlock = match hint {
            None => secret(ANNA),
            Some(hint) => Unlock::Hinted { slot: slot(hint), secret: Box::new(secret(ANNA)) },
        };
        let repository = Repository::open(&RepositoryTarget { unlock, ..bench.target(ANNA) }).await.unwrap();
        assert_eq!(repository.opened_by(), Some(&slot("epoch-1")), "{hint:?}");
        assert_eq!(repository.rotated_without_us(), None);
    }
    let read: holdfast_repo::key::KeySlot = decode_plain(&old).unwrap();
    assert_eq!(read.epoch(), 0);
    rotate_in(&bench.target(ANNA), &[], &[]).await.unwrap();
    assert_eq!(bench.keys().await, ["epoch-2.json"]);
}
