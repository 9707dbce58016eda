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

/// The slot of a later key is not taken for one of this key, and its number cannot be changed.
#[test]
fn a_slot_says_which_key_it_wraps() {
    let text = String::from_utf8(record::encode_plain(&key_file_slot()).unwrap()).unwrap();
    assert!(text.contains("\"epoch\": 0"), "{text}");
    let later = KeySlot { epoch: 1, ..key_file_slot() };
    let error = record::decode_plain::<KeySlot>(&record::encode_plain(&later).unwrap()).unwrap_err();
    assert!(error.is_newer(), "{error}");
    assert!(later.unlock_key_file(&repository(), &Secret::new([1; 32])).is_err());
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
        ("a salt that is no hex", |slot| slot.kdf.salt = "zz".repeat(32), "the salt is not"),
        ("a short key", |slot| slot.wrapped.truncate(60), "the wrapped key is not"),
        ("a key that is no hex", |slot| slot.wrapped = "zz".repeat(60), "the wrapped key is not"),
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
