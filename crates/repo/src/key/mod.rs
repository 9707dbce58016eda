//! Key slots: the repository key, wrapped so that a passphrase or a key file opens it.
//!
//! An encrypted repository has one random key. Each slot, `keys/<slot>.json`, contains this key under AES-256-GCM. The
//! wrapping key is derived from one secret: with Argon2id from a passphrase, or with HKDF-SHA256 (info
//! `holdfast/1/key-file`) from the bytes of a key file, which must have enough entropy of their own. The repository id,
//! the key's epoch and the slot's name are associated data, so a slot that is renamed or copied to another repository does not open.
//!
//! Invariants: only the wrapped key is stored. Secrets and keys never print. A slot read from the store is hostile
//! until it has opened, so its parameters are bounded before any memory is spent on them (see [`MAX_MEMORY_KIB`]).

mod kdf;
#[cfg(test)]
mod tests;

pub use kdf::{Argon2Cost, MAX_ITERATIONS, MAX_MEMORY_KIB, MAX_PARALLELISM, MIN_MEMORY_KIB};

use crate::identity::{KEY_EPOCH, RepositoryId, RepositoryKey};
use crate::name::SlotName;
use crate::record::{Closed, RecordBody, RecordKind};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use holdfast_secret::Secret;
use kdf::{Kdf, SALT_BYTES, WrappingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// The least size of a key file in bytes: a smaller one cannot contain 256 bits of entropy.
pub const MIN_KEY_FILE_BYTES: usize = 32;

/// First part of the associated data of every slot.
const AAD_PREFIX: &[u8] = b"holdfast/1/key-slot";

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// The kind of secret that opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySlotKind {
    /// A passphrase.
    Passphrase,
    /// The bytes of a key file.
    KeyFile,
}

/// One wrapped copy of the repository key; the body of `keys/<slot>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlot {
    slot: SlotName,
    kind: KeySlotKind,
    /// Which of the repository's keys it wraps. A later release may have more than the first.
    #[serde(default)]
    epoch: u32,
    kdf: Kdf,
    wrapped: String,
    created: DateTime<Utc>,
}

impl RecordBody for KeySlot {
    const KIND: RecordKind = RecordKind::KeySlot;
    const ALWAYS_PLAIN: bool = true;
    const CLOSED: &'static [Closed] = &[
        Closed { at: "/kind", values: &["passphrase", "key-file"] },
        Closed { at: "/epoch", values: &["0"] },
        Closed { at: "/kdf/algorithm", values: &["argon2id", "hkdf-sha256"] },
    ];
}

/// Why a slot does not open, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The passphrase does not belong to the slot, or the slot was changed or belongs to another repository.
    #[error("the passphrase does not open key slot {slot}")]
    WrongPassphrase {
        /// The slot that was tried.
        slot: SlotName,
    },
    /// The key file does not belong to the slot, or the slot was changed or belongs to another repository.
    #[error("the key file does not open key slot {slot}")]
    WrongKeyFile {
        /// The slot that was tried.
        slot: SlotName,
    },
    /// The slot opens with the other kind of secret.
    #[error("key slot {slot} does not open with this kind of secret, it is a {kind:?} slot")]
    WrongKind {
        /// The slot that was tried.
        slot: SlotName,
        /// The kind of secret that opens it.
        kind: KeySlotKind,
    },
    /// The slot is damaged.
    #[error("the key slot is damaged: {problem}")]
    Malformed {
        /// What is wrong with the slot.
        problem: &'static str,
    },
    /// The key derivation is unknown, or its parameters are outside the safe limits.
    #[error("key derivation {algorithm:?} is not supported: {problem}")]
    UnsupportedKdf {
        /// The algorithm in the slot.
        algorithm: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The secret is too weak for a new slot.
    #[error("the secret is too weak: {problem}")]
    WeakSecret {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system gave no random bytes, or the cipher failed.
    #[error("the cryptographic library failed")]
    Crypto,
}

impl KeySlot {
    /// Makes a slot that `passphrase` opens.
    ///
    /// # Errors
    /// [`KeyError::WeakSecret`] for an empty passphrase, [`KeyError::UnsupportedKdf`] for a cost out of bounds.
    pub fn create_passphrase(
        slot: SlotName,
        repository: &RepositoryId,
        key: &RepositoryKey,
        passphrase: &Secret<Vec<u8>>,
        cost: Argon2Cost,
        created: DateTime<Utc>,
    ) -> Result<Self, KeyError> {
        if passphrase.expose().is_empty() {
            return Err(KeyError::WeakSecret { problem: "the passphrase is empty" });
        }
        let kdf = Kdf::argon2id(cost, &random::<SALT_BYTES>()?);
        let wrapping = kdf.derive_from_passphrase(passphrase.expose())?;
        let wrapped = wrap(&wrapping, key, repository, &slot)?;
        Ok(Self { slot, kind: KeySlotKind::Passphrase, epoch: KEY_EPOCH, kdf, wrapped, created })
    }

    /// Makes a slot that the bytes of a key file open.
    ///
    /// # Errors
    /// [`KeyError::WeakSecret`] for fewer than [`MIN_KEY_FILE_BYTES`] bytes.
    pub fn create_key_file(
        slot: SlotName,
        repository: &RepositoryId,
        key: &RepositoryKey,
        content: &Secret<Vec<u8>>,
        created: DateTime<Utc>,
    ) -> Result<Self, KeyError> {
        if content.expose().len() < MIN_KEY_FILE_BYTES {
            return Err(KeyError::WeakSecret { problem: "a key file has at least 32 bytes" });
        }
        let kdf = Kdf::hkdf_sha256(&random::<SALT_BYTES>()?);
        let wrapping = kdf.derive_from_key_file(content.expose())?;
        let wrapped = wrap(&wrapping, key, repository, &slot)?;
        Ok(Self { slot, kind: KeySlotKind::KeyFile, epoch: KEY_EPOCH, kdf, wrapped, created })
    }

    /// The slot's name.
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// The kind of secret that opens it.
    pub fn kind(&self) -> KeySlotKind {
        self.kind
    }

    /// When the slot was made.
    pub fn created(&self) -> DateTime<Utc> {
        self.created
    }

    /// The memory that is passed over when one passphrase is tried on it, in KiB; 0 for a key file, which costs
    /// nothing. A slot may state any value, so a caller that tries many slots bounds the sum.
    pub fn work_kib(&self) -> u64 {
        let of = |parameter: Option<u32>| u64::from(parameter.unwrap_or(0));
        of(self.kdf.memory_kib) * of(self.kdf.iterations)
    }

    /// Opens a passphrase slot. It takes as long as the slot's cost parameters demand, so do not call it on an async
    /// worker.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn unlock_passphrase(
        &self,
        repository: &RepositoryId,
        passphrase: &Secret<Vec<u8>>,
    ) -> Result<RepositoryKey, KeyError> {
        self.expect_kind(KeySlotKind::Passphrase)?;
        let wrapping = self.kdf.derive_from_passphrase(passphrase.expose())?;
        self.unwrap_key(&wrapping, repository, || KeyError::WrongPassphrase { slot: self.slot.clone() })
    }

    /// Opens a key-file slot.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn unlock_key_file(
        &self,
        repository: &RepositoryId,
        content: &Secret<Vec<u8>>,
    ) -> Result<RepositoryKey, KeyError> {
        self.expect_kind(KeySlotKind::KeyFile)?;
        let wrapping = self.kdf.derive_from_key_file(content.expose())?;
        self.unwrap_key(&wrapping, repository, || KeyError::WrongKeyFile { slot: self.slot.clone() })
    }

    fn expect_kind(&self, kind: KeySlotKind) -> Result<(), KeyError> {
        if self.kind == kind { Ok(()) } else { Err(KeyError::WrongKind { slot: self.slot.clone(), kind: self.kind }) }
    }

    fn unwrap_key(
        &self,
        wrapping: &WrappingKey,
        repository: &RepositoryId,
        wrong: impl FnOnce() -> KeyError,
    ) -> Result<RepositoryKey, KeyError> {
        let malformed = KeyError::Malformed { problem: "the wrapped key is not 60 bytes of hex" };
        let mut sealed = Zeroizing::new(hex::decode(&self.wrapped).map_err(|_| malformed.clone())?);
        if sealed.len() != NONCE_LEN + KEY_BYTES + TAG_BYTES {
            return Err(malformed);
        }
        let (nonce, body) = sealed.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| malformed.clone())?;
        let opened = cipher(wrapping)?
            .open_in_place(nonce, Aad::from(associated_data(repository, self.epoch, &self.slot)), body)
            .map_err(|_| wrong())?;
        let mut key = [0; KEY_BYTES];
        let opened: &[u8] = opened;
        key.copy_from_slice(opened.get(..KEY_BYTES).ok_or(malformed)?);
        let repository_key = RepositoryKey::from_bytes(key);
        key.zeroize();
        Ok(repository_key)
    }
}

fn wrap(
    wrapping: &WrappingKey,
    key: &RepositoryKey,
    repository: &RepositoryId,
    slot: &SlotName,
) -> Result<String, KeyError> {
    // A random nonce is safe here: the salt makes the wrapping key new for every slot.
    let nonce = random::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(Vec::with_capacity(KEY_BYTES + TAG_BYTES));
    body.extend_from_slice(key.expose());
    let tag = cipher(wrapping)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data(repository, KEY_EPOCH, slot)),
            body.as_mut_slice(),
        )
        .map_err(|_| KeyError::Crypto)?;
    Ok(format!("{}{}{}", hex::encode(nonce), hex::encode(body.as_slice()), hex::encode(tag.as_ref())))
}

fn cipher(wrapping: &WrappingKey) -> Result<LessSafeKey, KeyError> {
    UnboundKey::new(&AES_256_GCM, wrapping.as_slice()).map(LessSafeKey::new).map_err(|_| KeyError::Crypto)
}

fn associated_data(repository: &RepositoryId, epoch: u32, slot: &SlotName) -> Vec<u8> {
    [AAD_PREFIX, repository.as_bytes().as_slice(), &epoch.to_le_bytes(), slot.as_str().as_bytes()].concat()
}

fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KeyError::Crypto)?;
    Ok(bytes)
}
