//! Slots open with their own secret, in their own repository, and hostile slots cost nothing.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::record;
use proptest::prelude::*;
use std::time::Instant;

const CHEAP: Argon2Cost = Argon2Cost { memory_kib: MIN_MEMORY_KIB, iterations: 1, parallelism: 1 };

fn repository() -> RepositoryId {
    RepositoryId::from_bytes(*b"0123456789abcdef")
}

fn key() -> RepositoryKey {
    RepositoryKey::from_bytes([7; 32])
}

fn created() -> DateTime<Utc> {
    "2026-08-22T10:15:00Z".parse().unwrap()
}

fn name() -> SlotName {
    "default".parse().unwrap()
}

fn passphrase_slot() -> KeySlot {
    KeySlot::create_passphrase(name(), &repository(), &key(), &Secret::from("secret"), CHEAP, created()).unwrap()
}

fn key_file_slot() -> KeySlot {
    KeySlot::create_key_file(name(), &repository(), &key(), &Secret::new([1; 32]), created()).unwrap()
}

fn open(slot: &KeySlot) -> Result<(), KeyError> {
    slot.unlock_passphrase(&repository(), &Secret::from("secret")).map(|_| ())
}

#[test]
fn a_passphrase_slot_opens_with_its_passphrase_only() {
    let slot = passphrase_slot();
    assert_eq!(slot.unlock_passphrase(&repository(), &Secret::from("secret")).unwrap().expose(), key().expose());
    assert_eq!(
        slot.unlock_passphrase(&repository(), &Secret::from("Secret")).unwrap_err(),
        KeyError::WrongPassphrase { slot: name() }
    );
    assert_eq!(
        slot.unlock_key_file(&repository(), &Secret::from("secret")).unwrap_err(),
        KeyError::WrongKind { slot: name(), kind: KeySlotKind::Passphrase }
    );
    let text = String::from_utf8(record::encode_plain(&slot).unwrap()).unwrap();
    assert!(!text.contains("secret") && !text.contains(&hex::encode(key().expose())));
    assert_eq!(record::decode_plain::<KeySlot>(text.as_bytes()).unwrap(), slot);
}

#[test]
fn a_key_file_slot_opens_with_its_file_only() {
    let slot = key_file_slot();
    assert_eq!(slot.unlock_key_file(&repository(), &Secret::new([1; 32])).unwrap().expose(), key().expose());
    for wrong in [vec![1; 31], vec![1; 33], vec![2; 32], Vec::new()] {
        assert_eq!(
            slot.unlock_key_file(&repository(), &Secret::new(wrong)).unwrap_err(),
            KeyError::WrongKeyFile { slot: name() }
        );
    }
}

#[test]
fn an_x25519_slot_is_made_with_the_public_half_and_opens_with_the_private_half_only() {
    let (private, other) = (PrivateKey::random().unwrap(), PrivateKey::random().unwrap());
    let recipient = private.recipient().unwrap();
    let made = || KeySlot::create_x25519(name(), &repository(), &key(), &recipient, created()).unwrap();
    let slot = read(&made()).unwrap();
    assert_eq!((slot.kind(), slot.recipient(), slot.work_kib()), (KeySlotKind::X25519, Some(recipient), 0));
    assert_eq!(slot.unlock_x25519(&repository(), &private).unwrap().expose(), key().expose());
    let wrong = KeyError::WrongPrivateKey { slot: name() };
    assert_eq!(slot.unlock_x25519(&repository(), &other).unwrap_err(), wrong);
    assert_eq!(slot.unlock_x25519(&RepositoryId::from_bytes([0; 16]), &private).unwrap_err(), wrong);
    let renamed = KeySlot { slot: "other".parse().unwrap(), ..slot.clone() };
    assert!(matches!(renamed.unlock_x25519(&repository(), &private), Err(KeyError::WrongPrivateKey { .. })));
    assert!(matches!(open(&slot), Err(KeyError::WrongKind { .. })));
    assert!(matches!(passphrase_slot().unlock_x25519(&repository(), &private), Err(KeyError::WrongKind { .. })));

    // Somebody who changes whose slot it is, or its ephemeral key, opens nothing.
    let text = String::from_utf8(record::encode_plain(&slot).unwrap()).unwrap();
    assert!(!text.contains("salt") && !text.contains(&hex::encode(key().expose())), "{text}");
    let ephemeral = Kdf { ephemeral: made().kdf.ephemeral, ..slot.kdf.clone() };
    let claimed = Kdf { recipient: Some(hex::encode(other.recipient().unwrap().as_bytes())), ..slot.kdf.clone() };
    for kdf in [ephemeral, claimed] {
        let changed = KeySlot { kdf, ..slot.clone() };
        for private in [&private, &other] {
            assert_eq!(changed.unlock_x25519(&repository(), private).unwrap_err(), wrong);
        }
    }
    for kdf in [
        Kdf { ephemeral: None, ..slot.kdf.clone() },
        Kdf { recipient: Some("00".repeat(31)), ..slot.kdf.clone() },
        Kdf { ephemeral: Some("00".repeat(32)), ..slot.kdf.clone() },
    ] {
        let changed = KeySlot { kdf, ..slot.clone() };
        assert!(matches!(changed.unlock_x25519(&repository(), &private), Err(KeyError::Malformed { .. })));
    }
    assert!(matches!(
        KeySlot::create_x25519(name(), &repository(), &key(), &Recipient::from_bytes([0; 32]), created()),
        Err(KeyError::Malformed { .. })
    ));
}

#[test]
fn a_slot_belongs_to_its_repository_and_name() {
    let slot = passphrase_slot();
    let elsewhere = RepositoryId::from_bytes([0; 16]);
    assert!(matches!(
        slot.unlock_passphrase(&elsewhere, &Secret::from("secret")),
        Err(KeyError::WrongPassphrase { .. })
    ));
    let renamed = KeySlot { slot: "other".parse().unwrap(), ..slot };
    assert!(matches!(open(&renamed), Err(KeyError::WrongPassphrase { .. })));
}

fn key_file_slot_of(key: &RepositoryKey) -> KeySlot {
    KeySlot::create_key_file(name(), &repository(), key, &Secret::new([1; 32]), created()).unwrap()
}

fn read(slot: &KeySlot) -> Result<KeySlot, record::RecordError> {
    record::decode_plain(&record::encode_plain(slot)?)
}

/// The slot of a later key does not pass as a slot of this key, and its epoch cannot be changed.
#[test]
fn a_slot_says_which_key_it_wraps() {
    let text = String::from_utf8(record::encode_plain(&key_file_slot()).unwrap()).unwrap();
    assert!(text.contains("\"epoch\": 0") && !text.contains("earlier") && !text.contains("label"), "{text}");
    let later = KeySlot { epoch: 1, ..key_file_slot() };
    assert!(read(&later).unwrap_err().to_string().contains("epoch 1 with the keys of 0 earlier ones"));
    assert!(later.unlock_key_file(&repository(), &Secret::new([1; 32])).is_err());
    let many = KeySlot { epoch: 256, earlier: vec![String::new(); 256], ..key_file_slot() };
    assert!(read(&many).unwrap_err().to_string().contains("there are 256 at most"));
}

#[test]
fn a_slot_gives_the_keys_of_all_epochs_up_to_its_own() {
    let third = key().next_epoch().unwrap().next_epoch().unwrap();
    let by_file = read(&key_file_slot_of(&third)).unwrap();
    assert_eq!(by_file.epoch(), 2);
    assert!(by_file.unlock_key_file(&repository(), &Secret::new([1; 32])).unwrap().holds(&third));
    let secret = Secret::from("secret");
    let slot = KeySlot::create_passphrase(name(), &repository(), &third, &secret, CHEAP, created()).unwrap();
    assert!(read(&slot).unwrap().unlock_passphrase(&repository(), &secret).unwrap().holds(&third));
    // It contains no key in clear text.
    let text = String::from_utf8(record::encode_plain(&by_file).unwrap()).unwrap();
    for epoch in 0..=2 {
        assert!(!text.contains(&hex::encode(third.of_epoch(epoch).unwrap())));
    }
}

/// The keys of earlier epochs are bound to their place and to the newest key: no slot can be assembled from two.
#[test]
fn the_keys_of_earlier_epochs_cannot_be_exchanged() {
    let third = key().next_epoch().unwrap().next_epoch().unwrap();
    let slot = key_file_slot_of(&third);
    let other = key_file_slot_of(&key().next_epoch().unwrap().next_epoch().unwrap());
    let mut swapped = slot.clone();
    swapped.earlier.swap(0, 1);
    let foreign = KeySlot { earlier: other.earlier, ..slot.clone() };
    let fewer = KeySlot { epoch: 1, earlier: slot.earlier[..1].to_vec(), ..slot.clone() };
    for changed in [swapped, foreign] {
        let error = changed.unlock_key_file(&repository(), &Secret::new([1; 32])).unwrap_err();
        assert_eq!(error, KeyError::Malformed { problem: "the key of an earlier epoch does not authenticate" });
    }
    let error = fewer.unlock_key_file(&repository(), &Secret::new([1; 32])).unwrap_err();
    assert!(matches!(error, KeyError::WrongKeyFile { .. }));
}

/// The largest possible slot is accepted by readers.
#[test]
fn a_slot_of_the_last_epoch_is_small_enough() {
    let mut key = key();
    while let Ok(next) = key.next_epoch() {
        key = next;
    }
    let object = record::encode_plain(&key_file_slot_of(&key)).unwrap();
    assert!(object.len() <= 64 << 10, "{}", object.len());
    let slot: KeySlot = record::decode_plain(&object).unwrap();
    assert!(slot.unlock_key_file(&repository(), &Secret::new([1; 32])).unwrap().holds(&key));
}

#[test]
fn a_label_says_which_slot_it_replaces() {
    let label: SlotName = "vault".parse().unwrap();
    let slot = read(&key_file_slot().labelled(&label)).unwrap();
    assert_eq!((slot.slot(), slot.label()), (&name(), &label));
    let own = key_file_slot().labelled(&name());
    assert_eq!((own.label(), own.clone()), (&name(), KeySlot { label: None, ..own.clone() }));
    assert!(slot.unlock_key_file(&repository(), &Secret::new([1; 32])).is_ok());
}

#[test]
fn weak_secrets_make_no_slot() {
    let empty = KeySlot::create_passphrase(name(), &repository(), &key(), &Secret::from(""), CHEAP, created());
    assert!(matches!(empty, Err(KeyError::WeakSecret { .. })));
    let short = KeySlot::create_key_file(name(), &repository(), &key(), &Secret::new([1; 31]), created());
    assert!(matches!(short, Err(KeyError::WeakSecret { .. })));
    let cost = Argon2Cost { memory_kib: 64, ..CHEAP };
    let cheap = KeySlot::create_passphrase(name(), &repository(), &key(), &Secret::from("x"), cost, created());
    assert!(matches!(cheap, Err(KeyError::UnsupportedKdf { .. })));
}

#[test]
fn two_slots_of_one_secret_share_nothing() {
    let (a, b) = (passphrase_slot(), passphrase_slot());
    assert_ne!(a.wrapped, b.wrapped);
    assert_ne!(a.kdf.salt, b.kdf.salt);
}

#[test]
fn hostile_slots_are_refused_before_they_cost_anything() {
    type Change = fn(&mut KeySlot);
    let table: [(&str, Change, &str); 13] = [
        ("1 TiB of memory", |slot| slot.kdf.memory_kib = Some(1 << 30), "memory must be"),
        ("all memory", |slot| slot.kdf.memory_kib = Some(u32::MAX), "memory must be"),
        ("no memory", |slot| slot.kdf.memory_kib = Some(0), "memory must be"),
        ("for ever", |slot| slot.kdf.iterations = Some(u32::MAX), "iterations must be"),
        ("no iterations", |slot| slot.kdf.iterations = Some(0), "iterations must be"),
        (
            "both limits at once",
            |slot| (slot.kdf.memory_kib, slot.kdf.iterations) = (Some(MAX_MEMORY_KIB), Some(MAX_ITERATIONS)),
            "iterations must be",
        ),
        ("many lanes", |slot| slot.kdf.parallelism = Some(u32::MAX), "parallelism must be"),
        ("another algorithm", |slot| slot.kdf.algorithm = "scrypt".to_owned(), "algorithm is not known"),
        ("no parameters", |slot| slot.kdf.iterations = None, "argon2id parameters are missing"),
        ("a short salt", |slot| slot.kdf.salt.truncate(20), "the salt is not"),
        ("a salt that is not hex", |slot| slot.kdf.salt = "zz".repeat(32), "the salt is not"),
        ("a short key", |slot| slot.wrapped.truncate(60), "the wrapped key is not"),
        ("a key that is not hex", |slot| slot.wrapped = "zz".repeat(60), "the wrapped key is not"),
    ];
    let valid = passphrase_slot();
    let begin = Instant::now();
    for (name, change, expected) in table {
        let mut slot = valid.clone();
        change(&mut slot);
        let error = open(&slot).unwrap_err();
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(matches!(error, KeyError::UnsupportedKdf { .. } | KeyError::Malformed { .. }), "{name}");
    }
    assert!(begin.elapsed().as_secs() < 10);
}

#[test]
fn secrets_print_as_stars() {
    let secret = Secret::from("hunter2");
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    let error = passphrase_slot().unlock_passphrase(&repository(), &secret).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

/// An independent AES-GCM opens the same slot: the format is as documented.
#[test]
fn an_independent_cipher_opens_a_key_file_slot() {
    use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
    let slot = key_file_slot();
    let wrapping = slot.kdf.derive_from_key_file(&[1; 32]).unwrap();
    let sealed = hex::decode(&slot.wrapped).unwrap();
    let (nonce, body) = sealed.split_at(12);
    let aad = b"holdfast/1/key-slot0123456789abcdef\0\0\0\0default";
    let cipher = aes_gcm::Aes256Gcm::new_from_slice(wrapping.as_slice()).unwrap();
    let nonce = aes_gcm::Nonce::try_from(nonce).unwrap();
    let opened = cipher.decrypt(&nonce, Payload { msg: body, aad }).unwrap();
    assert_eq!(opened, key().expose());
}

proptest! {
    #[test]
    fn any_change_of_the_wrapped_key_is_noticed(at in 0usize..60, flip in 1u8..) {
        let mut slot = key_file_slot();
        let mut wrapped = hex::decode(&slot.wrapped).unwrap();
        wrapped[at] ^= flip;
        slot.wrapped = hex::encode(wrapped);
        prop_assert!(slot.unlock_key_file(&repository(), &Secret::new([1; 32])).is_err());
    }
}
