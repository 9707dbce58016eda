//! An open repository: the store, the repository's record, and the key.
//!
//! Opening takes a few small reads in parallel and, with a passphrase, a key derivation. After that everything that is
//! read is checked against the repository's identity, and everything that is written is created once.
//!
//! - [`Repository`] in this file: opening, records.
//! - `features`: features that a program must know to use the repository.
//! - [`init`]: makes a repository, with a probe of the store.
//! - [`claim`]: who owns an archive, checked before anything is written.
//! - [`begin`]: the claim for a cluster that is about to exist.
//! - [`catalog`]: the backups; [`snapshots`]: the records of volume snapshots.
//! - `confirm`, `read_back`: compare what was sent with what the store has.
//! - `ledger`: events, decisions and holds; `leases`: the objects that runs use; `machine`: the machine of a run.
//! - [`drills`], [`verified`]: results of drills and verifications.
//! - [`listed`]: reads many records and separates those that cannot be read.

pub mod begin;
pub mod capabilities;
pub mod catalog;
pub mod claim;
pub(crate) mod confirm;
pub(crate) mod damaged;
pub mod drills;
mod features;
pub mod init;
pub(crate) mod leases;
pub(crate) mod ledger;
pub mod listed;
pub(crate) mod lost;
pub(crate) mod machine;
mod object_end;
mod read_back;
pub(crate) mod readings;
mod remains;
pub(crate) mod slots;
pub mod snapshots;
pub mod verified;

use std::sync::Arc;

use bytes::Bytes;
use holdfast_repo::key::{KeyError, KeySlot, PrivateKey, Recipient};
use holdfast_repo::name::{self, SlotName};
use holdfast_repo::record::{self, RecordBody, RecordSeal, RepositoryRecord};
use holdfast_repo::{ObjectOpener, ObjectSealer, ObjectType, RepositoryId, RepositoryKey};
use holdfast_secret::Secret;
use holdfast_store::{ObjectName, PutMode, Store, StoreErrorKind};

use self::features::Features;
use self::listed::Unreadable;
use self::read_back::read_back;
use self::slots::{Opened, Slots};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;

/// The most bytes of a record. The largest, `backup.json`, names every database and tablespace: ten thousand of them
/// are a megabyte.
const RECORD_BYTES_AT_MOST: u64 = 16 << 20;

/// The bytes of large ends of objects that are in memory at the same time, before they are opened: one of the largest.
const LARGE_PARTS_BYTES: u64 = 64 << 20;

/// A configured repository that is not open yet.
#[derive(Debug, Clone)]
pub struct RepositoryTarget {
    /// The store, at the repository's prefix.
    pub store: Arc<dyn Store>,
    /// The secret that unlocks its key.
    pub unlock: Unlock,
}

/// How a repository's key is unlocked.
#[derive(Debug, Clone)]
pub enum Unlock {
    /// The repository is not encrypted; the user must say so explicitly.
    NotEncrypted,
    /// A passphrase, as the user gave it.
    Passphrase(Secret<Vec<u8>>),
    /// The content of a key file.
    KeyFile(Secret<Vec<u8>>),
    /// The private half of an X25519 key pair.
    PrivateKey(PrivateKey),
    /// The public half of an X25519 key pair. It makes a key slot, and opens none.
    Recipient(Recipient),
    /// A secret with the key slot that is tried first: the named one, or the one that replaced it.
    Hinted {
        /// The one that is named.
        slot: SlotName,
        /// The secret that opens it.
        secret: Box<Unlock>,
    },
}

impl Unlock {
    fn describe(&self) -> &'static str {
        match self {
            Self::NotEncrypted => "encryption = \"none\"",
            Self::Passphrase(_) => "a passphrase",
            Self::KeyFile(_) => "a key file",
            Self::PrivateKey(_) => "a private key",
            Self::Recipient(_) => "a public key",
            Self::Hinted { secret, .. } => secret.describe(),
        }
    }

    /// The secret without the name of a slot.
    pub(crate) fn secret(&self) -> &Self {
        match self {
            Self::Hinted { secret, .. } => secret.secret(),
            _ => self,
        }
    }

    /// The slot to try first.
    pub(crate) fn hint(&self) -> Option<&SlotName> {
        match self {
            Self::Hinted { slot, .. } => Some(slot),
            _ => None,
        }
    }

    /// Tries the secret on one slot. Blocking.
    pub(crate) fn open(&self, slot: &KeySlot, repository: RepositoryId) -> Result<RepositoryKey, KeyError> {
        match self.secret() {
            Self::Passphrase(secret) => slot.unlock_passphrase(&repository, secret),
            Self::KeyFile(secret) => slot.unlock_key_file(&repository, secret),
            Self::PrivateKey(private) => slot.unlock_x25519(&repository, private),
            // These open no slot.
            Self::NotEncrypted | Self::Recipient(_) | Self::Hinted { .. } => {
                Err(KeyError::WrongKind { slot: slot.slot().clone(), kind: slot.kind() })
            }
        }
    }
}

/// An open repository; cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    record: RepositoryRecord,
    opened: Opened,
    features: Features,
    /// The limit on the memory for large ends of objects.
    large_parts: ByteBudget,
}

impl Repository {
    /// Reads `holdfast.json` and unlocks the key. Refuses a repository with a feature of a later release that a reader
    /// must know.
    ///
    /// # Errors
    /// [`Cause::NotInitialised`] if there is no `holdfast.json`, [`Cause::Record`] if it cannot be read, is of a newer
    /// release, or was changed in an encrypted repository. [`Cause::EncryptionMismatch`] if it is encrypted and the
    /// target says that it is not, or the reverse. [`Cause::Key`] if the passphrase or key file opens no slot,
    /// [`Cause::NoKeySlot`] if there is no slot of its kind, and the error of an unreadable slot if that could have
    /// been the right one. [`Cause::Store`] if the store cannot be asked, or has no key slot at all.
    pub async fn open(target: &RepositoryTarget) -> Result<Self, Error> {
        let url = target.store.describe();
        Self::open_inner(target).await.doing(|| format!("opening the repository {url}"))
    }

    /// The same, for a verb that writes. Also refuses a feature that a writer must know, and a key that is not the
    /// newest.
    ///
    /// # Errors
    /// Those of [`Repository::open`], [`Repository::check_writable`] and [`Repository::check_newest_key`].
    pub async fn open_to_write(target: &RepositoryTarget) -> Result<Self, Error> {
        let repository = Self::open(target).await?;
        let url = target.store.describe();
        let checked = repository.check_writable().and_then(|()| repository.check_newest_key());
        checked.doing(|| format!("opening the repository {url}"))?;
        Ok(repository)
    }

    /// Refuses to write if names below `keys/` show that the keys were rotated and the secret does not give the newest
    /// key. Data under an earlier key could be read with the secrets that the rotation locked out.
    ///
    /// # Errors
    /// [`Cause::KeysRotated`].
    pub fn check_newest_key(&self) -> Result<(), Error> {
        let Opened { key, by, later, going, .. } = &self.inner.opened;
        let why = match (later, by) {
            (Some((slot, _)), _) if slots::begins_epoch(slot).is_some() => {
                let epoch = key.as_ref().map_or(0, RepositoryKey::epoch);
                format!(
                    "there is or was a key slot {slot}, and the configured secret gives the keys up to epoch {epoch}"
                )
            }
            (_, Some(by)) if *going => format!("a removal of key slot {by}, which opened it, has begun"),
            _ => return Ok(()),
        };
        Err(Cause::KeysRotated { store: self.describe(), why }.into())
    }

    /// Refuses to remove the remains of another run if a later release uses a feature that forbids it.
    ///
    /// # Errors
    /// [`Cause::NewerFeature`].
    pub fn check_removable(&self) -> Result<(), Error> {
        self.inner.features.check_remove(&self.describe())
    }

    /// Refuses to write if a later release uses a feature that a writer must know.
    ///
    /// # Errors
    /// [`Cause::NewerFeature`].
    pub fn check_writable(&self) -> Result<(), Error> {
        self.inner.features.check_write(&self.describe())
    }

    async fn open_inner(target: &RepositoryTarget) -> Result<Self, Error> {
        let store = Arc::clone(&target.store);
        // Features and key slots are listed at the same time: fewer round trips for each `wal push`.
        let slots = async {
            match target.unlock.secret() {
                Unlock::NotEncrypted => Ok(Slots::default()),
                _ => Slots::read_following(&store, target.unlock.hint()).await,
            }
        };
        let (found, features, slots) = tokio::join!(read_repository_object(&store), Features::read(&store), slots);
        let (object, record) = found?.ok_or_else(|| Cause::NotInitialised { store: store.describe() })?;
        let features = features?;
        features.check_read(&store.describe())?;
        let encrypted = record.encryption.is_encrypted();
        if encrypted == matches!(target.unlock.secret(), Unlock::NotEncrypted) {
            return Err(Cause::EncryptionMismatch {
                store: store.describe(),
                found: if encrypted {
                    format!("encrypted with {}", record.encryption)
                } else {
                    "not encrypted".to_owned()
                },
                configured: target.unlock.describe().to_owned(),
            }
            .into());
        }
        let slots = slots?;
        let are_all = slots.unread.is_empty();
        let opened = match unlock(slots, target, record.repository_id).await {
            Err(_) if !are_all => {
                unlock(Slots::read(&store, target.unlock.hint()).await?, target, record.repository_id).await?
            }
            opened => opened?,
        };
        if let Some(key) = &opened.key {
            record::check_repository_mac(&object, record.repository_id, key)
                .doing(|| format!("reading {}", name::REPOSITORY_OBJECT))?;
        }
        let large_parts = ByteBudget::new(LARGE_PARTS_BYTES);
        Ok(Self { inner: Arc::new(Inner { store, record, opened, features, large_parts }) })
    }

    /// Makes a repository from known parts.
    pub(super) fn assemble(store: Arc<dyn Store>, record: RepositoryRecord, key: Option<RepositoryKey>) -> Self {
        let opened = Opened { key, ..Opened::default() };
        let (features, large_parts) = (Features::default(), ByteBudget::new(LARGE_PARTS_BYTES));
        Self { inner: Arc::new(Inner { store, record, opened, features, large_parts }) }
    }

    /// The same repository with other keys.
    pub(crate) fn with_key(&self, key: &RepositoryKey) -> Self {
        let Inner { store, record, features, large_parts, .. } = &*self.inner;
        let opened = Opened { key: Some(key.clone()), ..Opened::default() };
        let (store, record, features) = (Arc::clone(store), record.clone(), features.clone());
        Self { inner: Arc::new(Inner { store, record, opened, features, large_parts: large_parts.clone() }) }
    }

    /// The store, at the repository's prefix.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The repository's own record, `holdfast.json`.
    pub fn record(&self) -> &RepositoryRecord {
        &self.inner.record
    }

    /// The repository's id, which is bound into all its objects.
    pub fn id(&self) -> RepositoryId {
        self.inner.record.repository_id
    }

    /// Key slots that could not be read, or are of a newer kind; another slot opened the repository. If the target
    /// names its slot, only few slots were read: [`Repository::further_slots_left_out`] has the others.
    pub fn slots_left_out(&self) -> &[Unreadable<SlotName>] {
        &self.inner.opened.left_out
    }

    /// Reads the key slots that were not needed to open the repository, and gives those that cannot be read, or are of
    /// a newer kind.
    ///
    /// # Errors
    /// [`Cause::Store`] if the store cannot be asked.
    pub async fn further_slots_left_out(&self) -> Result<Vec<Unreadable<SlotName>>, Error> {
        Slots::unreadable_of(self.store(), &self.inner.opened.unread).await
    }

    /// The key slot that opened the repository; `None` without encryption, and for a repository that was just made.
    pub fn opened_by(&self) -> Option<&SlotName> {
        self.inner.opened.by.as_ref()
    }

    /// A key slot of a later epoch that the secret does not open, with its epoch. The keys were rotated, and new data
    /// of others cannot be read with this secret.
    pub fn rotated_without_us(&self) -> Option<(&SlotName, u32)> {
        self.inner.opened.later.as_ref().map(|(slot, epoch)| (slot, *epoch))
    }

    /// The key, in an encrypted repository.
    pub(crate) fn key(&self) -> Option<&RepositoryKey> {
        self.inner.opened.key.as_ref()
    }

    /// Whether an object was written under a key of an earlier epoch.
    pub(crate) fn is_of_earlier_epoch(&self, opener: &ObjectOpener) -> bool {
        self.key().is_some_and(|key| opener.head().encryption.epoch() < key.epoch())
    }

    fn seal(&self) -> RecordSeal<'_> {
        RecordSeal { repository: self.id(), key: self.key() }
    }

    /// Whether the repository is encrypted, so that its objects are sealed.
    pub fn is_encrypted(&self) -> bool {
        self.inner.opened.key.is_some()
    }

    /// The redacted URL, for messages.
    pub fn describe(&self) -> String {
        self.inner.store.describe()
    }

    /// A sealer for the frames of one new object, and the bytes of its head frame.
    ///
    /// # Errors
    /// [`Cause::Format`] with the fault of [`ObjectSealer::new`].
    pub fn sealer(&self, object_type: ObjectType, name: &str) -> Result<(ObjectSealer, Vec<u8>), Error> {
        Ok(ObjectSealer::new(object_type, name, self.id(), self.key())?)
    }

    /// An opener for the frames of one stored object, made from the bytes of its head frame.
    ///
    /// # Errors
    /// [`Cause::Format`] with the fault of [`ObjectOpener::new`].
    pub fn opener(&self, object_type: ObjectType, name: &str, head: &[u8]) -> Result<ObjectOpener, Error> {
        Ok(ObjectOpener::new(object_type, name, head, self.id(), self.key())?)
    }

    /// The same, for an object whose salt is known: its head is not read.
    pub(crate) fn opener_by_salt(
        &self,
        object_type: ObjectType,
        name: &str,
        salt: &[u8; 32],
    ) -> Result<ObjectOpener, Error> {
        Ok(ObjectOpener::with_salt(object_type, name, salt, self.id(), self.key())?)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`Cause::Store`], of kind `NotFound` if there is no such record ([`Error::is_not_found`]) and `TooLarge` if it
    /// is larger than any record; [`Cause::Record`] if it is damaged, not of this repository or kind, or of a newer
    /// release.
    pub async fn read_record<T: RecordBody>(&self, name: &str) -> Result<T, Error> {
        let object = self.store().get_at_most(&object_name(name)?, RECORD_BYTES_AT_MOST).await?;
        self.decode_record(name, &object)
    }

    /// Decodes the bytes of a record.
    pub(crate) fn decode_record<T: RecordBody>(&self, name: &str, object: &[u8]) -> Result<T, Error> {
        record::decode(name, self.seal(), object).doing(|| format!("reading {name} in {}", self.describe()))
    }

    /// Creates a record; a record of that name must not exist. If the store does not compare checksums, the record is
    /// read back.
    ///
    /// # Errors
    /// [`Cause::Store`], of kind `AlreadyExists` if the name is taken ([`Error::is_already_exists`]);
    /// [`Cause::NotReadable`] if it was changed on its way: the store then has something else under this name.
    /// [`Cause::Refused`] if the record would be larger than a reader accepts; [`Cause::Record`] if it cannot be
    /// sealed.
    pub async fn create_record<T: RecordBody>(&self, name: &str, body: &T) -> Result<(), Error> {
        self.put_record(name, body, PutMode::Create).await
    }

    /// The same, but replaces a record of that name. If two writers do this at once, one of them wins: read the record
    /// again.
    pub(crate) async fn replace_record<T: RecordBody>(&self, name: &str, body: &T) -> Result<(), Error> {
        self.put_record(name, body, PutMode::Overwrite).await
    }

    async fn put_record<T: RecordBody>(&self, name: &str, body: &T, mode: PutMode) -> Result<(), Error> {
        self.check_writable()?;
        let object = record::encode(name, self.seal(), body)?;
        // A record that a reader would refuse is not written.
        if object.len() as u64 > RECORD_BYTES_AT_MOST {
            let (bytes, most) = (object.len(), RECORD_BYTES_AT_MOST);
            let why = format!("{name} would have {bytes} bytes, more than the {most} that a reader accepts");
            return Err(Cause::Refused(why).into());
        }
        let (object, object_name) = (Bytes::from(object), object_name(name)?);
        let written = async {
            self.store().put(&object_name, object.clone(), mode).await?;
            if self.compares_checksums() { Ok(()) } else { read_back(&**self.store(), &object_name, &object).await }
        };
        written.await.doing(|| format!("writing {name} to {}", self.describe()))
    }
}

/// Finds the slot that the target's secret opens.
async fn unlock(slots: Slots, target: &RepositoryTarget, repository: RepositoryId) -> Result<Opened, Error> {
    let (way, url) = (target.unlock.clone(), target.store.describe());
    tokio::task::spawn_blocking(move || slots.unlock(&way, repository, &url))
        .await
        .map_err(|e| Cause::Internal(format!("unlocking the key: {e}")))?
}

/// A name made by `holdfast_repo::name`, in the store's type.
pub(crate) fn object_name(name: &str) -> Result<ObjectName, Error> {
    name.parse().map_err(|e| Cause::Internal(format!("object name {name}: {e}")).into())
}

async fn read_repository_record(store: &Arc<dyn Store>) -> Result<Option<RepositoryRecord>, Error> {
    Ok(read_repository_object(store).await?.map(|(_, record)| record))
}

async fn read_repository_object(store: &Arc<dyn Store>) -> Result<Option<(Bytes, RepositoryRecord)>, Error> {
    match store.get_at_most(&object_name(name::REPOSITORY_OBJECT)?, RECORD_BYTES_AT_MOST).await {
        Ok(object) => {
            let record = record::decode_plain(&object).doing(|| format!("reading {}", name::REPOSITORY_OBJECT))?;
            Ok(Some((object, record)))
        }
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The name of the first key slot, made by `repo init`.
pub(crate) fn first_slot() -> Result<SlotName, Error> {
    "default".parse().map_err(|e| Cause::Internal(format!("key slot name: {e}")).into())
}
