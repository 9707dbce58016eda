//! An open repository whose key slots are being changed.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_repo::RepositoryKey;
use holdfast_repo::key::{KeyError, KeySlot, KeySlotKind};
use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{self, ConditionalCreate, LedgerEntry};
use holdfast_store::{PutMode, Store};

use super::KeyOptions;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::init::{SECOND_LOOK_AFTER, create};
use crate::repository::slots::{Slots, read_one};
use crate::repository::{Repository, RepositoryTarget, Unlock, object_name};

/// The repository, the keys that the configured secret gives, and the slot that gave them.
pub(super) struct Session<'a> {
    pub(super) target: &'a RepositoryTarget,
    pub(super) repository: Repository,
    pub(super) key: RepositoryKey,
    pub(super) by: SlotName,
}

impl<'a> Session<'a> {
    /// Opens the repository with the configured secret.
    pub(super) async fn begin(target: &'a RepositoryTarget) -> Result<Self, Error> {
        let repository = Repository::open_to_write(target).await?;
        if let (Some(key), Some(by)) = (repository.key().cloned(), repository.opened_by().cloned()) {
            return Ok(Self { target, repository, key, by });
        }
        let store = repository.describe();
        Err(Cause::Refused(format!("{store} is not encrypted, so it has no key slots")).into())
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.repository.store()
    }

    /// Reads the slots from the store.
    pub(super) async fn slots(&self) -> Result<Slots, Error> {
        Slots::read(self.store(), self.target.unlock.hint()).await
    }

    /// Refuses if a slot belongs to a later epoch than the configured secret gives: that slot has keys that we do not
    /// have.
    pub(super) fn check_newest(&self, slots: &Slots) -> Result<(), Error> {
        slots.later_than(self.key.epoch()).map_or(Ok(()), |(slot, epoch)| Err(self.rotated_since(&slot, epoch)))
    }

    pub(super) fn rotated_since(&self, slot: &SlotName, epoch: u32) -> Error {
        let ours = self.key.epoch();
        Cause::Refused(format!(
            "key slot {slot} is of key epoch {epoch}, and the configured secret gives the keys up to epoch {ours}: use \
             a secret that opens the repository since the rotation"
        ))
        .into()
    }

    /// Refuses on a store without conditional writes, where two runs can create the same object.
    pub(super) fn check_conditions(&self) -> Result<(), Error> {
        if self.repository.record().conditional_create == ConditionalCreate::Native {
            return Ok(());
        }
        Err(Cause::Refused(format!(
            "{} is a store without conditional writes, so its keys cannot be rotated: a second rotation or a late \
             request could overwrite the only copy of the new key. To rotate keys, make a new repository in a store \
             with conditional writes; `holdfast key add` and `holdfast key remove` work here, but they do not change \
             the key",
            self.repository.describe()
        ))
        .into())
    }

    /// Makes a new slot for a secret, without writing it.
    pub(super) async fn make(
        &self,
        slot: SlotName,
        key: &RepositoryKey,
        secret: &Unlock,
        options: &KeyOptions,
    ) -> Result<KeySlot, Error> {
        let (id, key, secret, options) = (self.repository.id(), key.clone(), secret.clone(), options.clone());
        blocking(move || match secret.secret() {
            Unlock::Passphrase(secret) => {
                Ok(KeySlot::create_passphrase(slot, &id, &key, secret, options.cost, options.now)?)
            }
            Unlock::KeyFile(secret) => Ok(KeySlot::create_key_file(slot, &id, &key, secret, options.now)?),
            Unlock::PrivateKey(private) => {
                Ok(KeySlot::create_x25519(slot, &id, &key, &private.recipient()?, options.now)?)
            }
            Unlock::Recipient(recipient) => Ok(KeySlot::create_x25519(slot, &id, &key, recipient, options.now)?),
            Unlock::NotEncrypted | Unlock::Hinted { .. } => {
                Err(Cause::Refused("a key slot needs a passphrase, a key file or a public key".to_owned()).into())
            }
        })
        .await
    }

    /// Writes a new slot, reads it back, and opens it with its secret, if that can open it. On a store without
    /// conditional writes, another run may overwrite it meanwhile: the later slot stays.
    pub(super) async fn write(&self, slot: &KeySlot, secret: &Unlock, key: &RepositoryKey) -> Result<(), Error> {
        let name = name::key_slot(slot.slot());
        self.write_inner(slot, secret, key, &name).await.doing(|| format!("writing {name}"))
    }

    async fn write_inner(&self, slot: &KeySlot, secret: &Unlock, key: &RepositoryKey, name: &str) -> Result<(), Error> {
        let (store, how) = (self.store(), self.repository.record().conditional_create);
        let body = record::encode_plain(slot)?;
        if let Err(error) = create(store, how, name, body.clone()).await {
            // The slot may be stored, and only the answer lost.
            let found = store.get_at_most(&object_name(name)?, body.len() as u64).await;
            if found.ok().is_none_or(|found| found != body) {
                return Err(error);
            }
        }
        if how == ConditionalCreate::Emulated {
            tokio::time::sleep(SECOND_LOOK_AFTER).await;
        }
        // Only its owner can open the slot of a public key. It was made here, so it is right if it is stored unchanged.
        let is_there = match secret.secret() {
            Unlock::Recipient(_) => read_one(store, slot.slot()).await? == *slot,
            _ => self.opens(slot.slot(), secret, key).await?,
        };
        if is_there {
            return Ok(());
        }
        Err(Cause::AnotherRun { verb: "key", subject: self.repository.describe(), pid: None }.into())
    }

    /// Whether the slot is stored and gives at least these keys for this secret.
    pub(super) async fn opens(&self, slot: &SlotName, secret: &Unlock, key: &RepositoryKey) -> Result<bool, Error> {
        let stored = match read_one(self.store(), slot).await {
            Ok(stored) => stored,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(self.try_on(stored, secret).await?.is_some_and(|opened| opened.holds(key)))
    }

    /// The keys that this secret unwraps from a slot; `None` if it does not open the slot.
    pub(super) async fn try_on(&self, slot: KeySlot, secret: &Unlock) -> Result<Option<RepositoryKey>, Error> {
        Ok(self.attempt(slot, secret).await?.ok())
    }

    /// As [`Self::try_on`], but gives the reason if the secret does not open the slot.
    pub(super) async fn attempt(
        &self,
        slot: KeySlot,
        secret: &Unlock,
    ) -> Result<Result<RepositoryKey, KeyError>, Error> {
        let (id, secret) = (self.repository.id(), secret.clone());
        blocking(move || match secret.open(&slot, id) {
            // This error is not about the slot.
            Err(error @ KeyError::Crypto) => Err(error.into()),
            opened => Ok(opened),
        })
        .await
    }

    /// Puts a mark on a slot before its removal. The mark stays for ever, so the name is never used again, and a
    /// deletion that arrives late cannot hit another slot. Returns `true` if this run created the mark.
    pub(super) async fn mark(&self, slot: &SlotName) -> Result<bool, Error> {
        let name = object_name(&name::key_slot_removal(slot))?;
        match self.store().put(&name, Bytes::new(), PutMode::Create).await.map_err(Error::from) {
            Ok(()) => Ok(true),
            Err(error) if error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a slot has a mark. Asks for it by name, because a listing may be out of date.
    pub(super) async fn is_marked(&self, slot: &SlotName) -> Result<bool, Error> {
        is_stored(self.store(), &name::key_slot_removal(slot)).await
    }

    /// Deletes these objects. It is not an error if one of them does not exist.
    pub(super) async fn delete(&self, names: &[String]) -> Result<(), Error> {
        let names: Vec<_> = names.iter().map(|name| object_name(name)).collect::<Result<_, _>>()?;
        if names.is_empty() {
            return Ok(());
        }
        Ok(self.store().delete(&names).await?)
    }

    /// Writes the change into the ledger of each archive, since all archives of a repository share its slots. The
    /// change is already done, and repeating the command would not help, so a failure is returned as a value.
    pub(super) async fn record(&self, key: &RepositoryKey, options: &KeyOptions, entry: &LedgerEntry) -> Option<Error> {
        let repository = self.repository.with_key(key);
        let recording = async {
            let mut failed = None;
            for cluster in repository.clusters().await? {
                let archive = async {
                    // A folder without a claim is not an archive. Nothing is written into it.
                    if repository.newest_claim(&cluster).await?.is_some() {
                        repository.write_ledger(&cluster, &options.host, options.now, entry.clone()).await?;
                    }
                    Ok::<_, Error>(())
                };
                if let Err(error) = archive.await {
                    failed.get_or_insert(error.doing(format!("writing to the ledger of the archive {cluster}")));
                }
            }
            failed.map_or(Ok(()), Err)
        };
        recording.await.err()
    }
}

/// Whether there is an object with this name.
pub(super) async fn is_stored(store: &Arc<dyn Store>, name: &str) -> Result<bool, Error> {
    match store.head(&object_name(name)?).await.map_err(Error::from) {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The kind of slot that this secret opens.
pub(super) fn kind(secret: &Unlock) -> Option<KeySlotKind> {
    match secret.secret() {
        Unlock::Passphrase(_) => Some(KeySlotKind::Passphrase),
        Unlock::KeyFile(_) => Some(KeySlotKind::KeyFile),
        Unlock::PrivateKey(_) | Unlock::Recipient(_) => Some(KeySlotKind::X25519),
        Unlock::NotEncrypted | Unlock::Hinted { .. } => None,
    }
}

/// Runs work that is slow by design (Argon2) on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Cause::Internal(format!("trying a key slot: {e}")))?
}
