//! Key slots: the repository key, wrapped so that a passphrase, a key file or a private key opens it.
//!
//! An encrypted repository has a random key for each epoch, mostly one. Each slot, `keys/<slot>.json`, contains the
//! newest key of its time under AES-256-GCM. The wrapping key is derived from one secret: with Argon2id from a
//! passphrase, or with HKDF-SHA256 (info `holdfast/1/key-file`) from the bytes of a key file, which must have enough
//! entropy of their own, or from a secret that is shared with a private key ([`x25519`]). The repository id, the key's
//! epoch and the slot's name are associated data, so a slot that is renamed or copied to another repository does not
//! open. The slot also contains the keys of all earlier epochs, wrapped under the newest (see [`wrap`]).
//!
//! Invariants: only the wrapped key is stored. Secrets and keys never print. A slot read from the store is hostile
//! until it has opened, so its parameters are bounded before any memory is spent on them (see [`MAX_MEMORY_KIB`]).

mod bech32;
mod error;
mod kdf;
#[cfg(test)]
mod tests;
mod wrap;
mod x25519;

pub use error::KeyError;
pub use kdf::{Argon2Cost, MAX_ITERATIONS, MAX_MEMORY_KIB, MAX_PARALLELISM, MIN_MEMORY_KIB};
pub use x25519::{KeyTextError, PrivateKey, Recipient};

use crate::identity::{MAX_EPOCHS, RepositoryId, RepositoryKey};
use crate::name::SlotName;
use crate::record::{Closed, RecordBody, RecordKind};
use chrono::{DateTime, Utc};
use holdfast_secret::Secret;
use kdf::{Kdf, SALT_BYTES, WrappingKey};
use serde::{Deserialize, Serialize};
use wrap::{Bound, random};

/// The least size of a key file in bytes: a smaller one cannot contain 256 bits of entropy.
pub const MIN_KEY_FILE_BYTES: usize = 32;

/// The kind of secret that opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySlotKind {
    /// A passphrase, which Argon2id makes a key of.
    Passphrase,
    /// The bytes of a key file.
    KeyFile,
    /// The private half of an X25519 key pair. The public half makes such a slot.
    X25519,
}

/// One wrapped copy of the repository's keys; the body of `keys/<slot>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlot {
    slot: SlotName,
    /// The name of the slot that this one replaces, or its own if left out. It tells people whose secret opens the
    /// slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<SlotName>,
    kind: KeySlotKind,
    /// The newest of the repository's keys that it wraps.
    #[serde(default)]
    epoch: u32,
    kdf: Kdf,
    wrapped: String,
    /// The keys of the epochs 0 to before `epoch`, wrapped under the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    earlier: Vec<String>,
    created: DateTime<Utc>,
}

impl RecordBody for KeySlot {
    const KIND: RecordKind = RecordKind::KeySlot;
    const ALWAYS_PLAIN: bool = true;
    const CLOSED: &'static [Closed] = &[
        Closed { at: "/kind", values: &["passphrase", "key-file", "x25519"] },
        Closed { at: "/kdf/algorithm", values: &["argon2id", "hkdf-sha256", "x25519-hkdf-sha256"] },
    ];

    fn check(&self) -> Result<(), String> {
        let Self { epoch, earlier, .. } = self;
        if usize::try_from(*epoch).is_ok_and(|epoch| epoch == earlier.len() && epoch < MAX_EPOCHS) {
            return Ok(());
        }
        Err(format!("epoch {epoch} with the keys of {} earlier ones; there are {MAX_EPOCHS} at most", earlier.len()))
    }
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
        Self::wrapping(slot, KeySlotKind::Passphrase, kdf, &wrapping, repository, key, created)
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
        Self::wrapping(slot, KeySlotKind::KeyFile, kdf, &wrapping, repository, key, created)
    }

    /// Makes a slot that the private half of `recipient` opens. Nobody can prove without that half that it opens.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] for a public key with which everybody shares the same secret.
    pub fn create_x25519(
        slot: SlotName,
        repository: &RepositoryId,
        key: &RepositoryKey,
        recipient: &Recipient,
        created: DateTime<Utc>,
    ) -> Result<Self, KeyError> {
        let (wrapping, ephemeral) = recipient.new_wrapping_key()?;
        let kdf = Kdf::x25519(recipient, &ephemeral);
        Self::wrapping(slot, KeySlotKind::X25519, kdf, &wrapping, repository, key, created)
    }

    fn wrapping(
        slot: SlotName,
        kind: KeySlotKind,
        kdf: Kdf,
        wrapping: &WrappingKey,
        repository: &RepositoryId,
        key: &RepositoryKey,
        created: DateTime<Utc>,
    ) -> Result<Self, KeyError> {
        let epoch = key.epoch();
        let wrapped = wrap::wrap(wrapping, key.expose(), Bound::to_slot(repository, epoch, &slot))?;
        let under = wrap::for_earlier(key.expose(), repository)?;
        let earlier = (0..)
            .zip(key.earlier())
            .map(|(of, key)| wrap::wrap(&under, key, Bound::to_later(repository, epoch, of)))
            .collect::<Result<_, _>>()?;
        Ok(Self { slot, label: None, kind, epoch, kdf, wrapped, earlier, created })
    }

    /// The same slot, labelled as the one that replaces `label`.
    #[must_use]
    pub fn labelled(mut self, label: &SlotName) -> Self {
        self.label = Some(label.clone()).filter(|label| *label != self.slot);
        self
    }

    /// The slot's name.
    pub fn slot(&self) -> &SlotName {
        &self.slot
    }

    /// The name that people know: that of the slot that this one replaces, or its own. Anyone who may write to the
    /// store can change it, so nothing depends on it.
    pub fn label(&self) -> &SlotName {
        self.label.as_ref().unwrap_or(&self.slot)
    }

    /// The epoch of the newest key that it gives.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The kind of secret that opens it.
    pub fn kind(&self) -> KeySlotKind {
        self.kind
    }

    /// The public key for which an X25519 slot was made, as it says itself. Anyone who may write to the store can
    /// change it, so it only helps people.
    pub fn recipient(&self) -> Option<Recipient> {
        if self.kind == KeySlotKind::X25519 { self.kdf.recipient().ok() } else { None }
    }

    /// When the slot was made.
    pub fn created(&self) -> DateTime<Utc> {
        self.created
    }

    /// The memory that is passed over when one passphrase is tried on it, in KiB; 0 for a key file, which costs
    /// nothing. A slot may state any value, so a caller that tries many slots must limit the sum.
    pub fn work_kib(&self) -> u64 {
        let of = |parameter: Option<u32>| u64::from(parameter.unwrap_or(0));
        of(self.kdf.memory_kib) * of(self.kdf.iterations)
    }

    /// Opens a passphrase slot. It takes as long as the slot's cost parameters require, so do not call it on an async
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
        self.unwrap_keys(&wrapping, repository, || KeyError::WrongPassphrase { slot: self.slot.clone() })
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
        self.unwrap_keys(&wrapping, repository, || KeyError::WrongKeyFile { slot: self.slot.clone() })
    }

    /// Opens an X25519 slot.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn unlock_x25519(&self, repository: &RepositoryId, private: &PrivateKey) -> Result<RepositoryKey, KeyError> {
        self.expect_kind(KeySlotKind::X25519)?;
        let wrong = || KeyError::WrongPrivateKey { slot: self.slot.clone() };
        let (recipient, ephemeral) = (self.kdf.recipient()?, self.kdf.ephemeral()?);
        if private.recipient()? != recipient {
            return Err(wrong());
        }
        self.unwrap_keys(&private.wrapping_key(&ephemeral)?, repository, wrong)
    }

    fn expect_kind(&self, kind: KeySlotKind) -> Result<(), KeyError> {
        if self.kind == kind { Ok(()) } else { Err(KeyError::WrongKind { slot: self.slot.clone(), kind: self.kind }) }
    }

    fn unwrap_keys(
        &self,
        wrapping: &WrappingKey,
        repository: &RepositoryId,
        wrong: impl FnOnce() -> KeyError,
    ) -> Result<RepositoryKey, KeyError> {
        let bound = Bound::to_slot(repository, self.epoch, &self.slot);
        let newest = wrap::unwrap_key(wrapping, &self.wrapped, bound, wrong)?;
        let wrapping = wrap::for_earlier(&newest, repository)?;
        let earlier = (0..).zip(&self.earlier).map(|(epoch, wrapped)| {
            let damaged = || KeyError::Malformed { problem: "the key of an earlier epoch does not authenticate" };
            wrap::unwrap_key(&wrapping, wrapped, Bound::to_later(repository, self.epoch, epoch), damaged)
        });
        Ok(RepositoryKey::of_slot(newest, earlier.collect::<Result<_, _>>()?))
    }
}
