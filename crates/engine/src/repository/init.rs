//! Making a repository.
//!
//! Order: find out what the store can do; write the key slot; write
//! `holdfast.json` last, since its presence makes the repository exist. A run that dies in between
//! leaves a key slot that no repository refers to; the next `repo init` notices and says so. Of two runs at the same
//! moment one makes the repository, and the other waits a little for it and opens it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_repo::key::{Argon2Cost, KeySlot};
use holdfast_repo::manifest::EXTENT_BYTES;
use holdfast_repo::name;
use holdfast_repo::record::{self, EncryptionKind, FORMAT_VERSION, RepositoryRecord};
use holdfast_repo::{Fault, RepositoryId, RepositoryKey};
use holdfast_store::{Found, PutMode, Store, StoreErrorKind, Uploads, probe};

use super::capabilities::{conditional, recorded};
use super::{Repository, RepositoryTarget, Unlock, first_slot, object_name, read_repository_record};
use crate::error::{Doing, Error, What};

/// Packs are closed at this size: large enough that 10 TB are tens of thousands of objects, small enough that a
/// mostly dead pack is cheap to rewrite.
const PACK_SIZE_BYTES: u64 = 128 * 1024 * 1024;

/// The same where every object goes out in one request and waits for that in memory.
const WHOLE_PACK_SIZE_BYTES: u64 = 32 * 1024 * 1024;

/// What the name of the folder begins with in which a store is tried. No cluster is called so, and readers pass over it.
pub const PROBE: &str = ".probe-";

/// Between the key slot of another run and its `holdfast.json` is one request: some seconds are enough for it.
const OTHER_RUN_LOOKS: u32 = 15;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What `init` found or made.
#[derive(Debug)]
pub struct Initialised {
    /// The open repository.
    pub repository: Repository,
    /// Whether this call made it, or it was there and fits.
    pub created: bool,
}

/// Makes a repository, or opens the one that is there when it fits the configuration.
pub async fn init(target: &RepositoryTarget, now: DateTime<Utc>) -> Result<Initialised, Error> {
    let url = target.store.describe();
    init_inner(target, now).await.doing(|| format!("making a repository at {url}"))
}

async fn init_inner(target: &RepositoryTarget, now: DateTime<Utc>) -> Result<Initialised, Error> {
    let store = &target.store;
    if read_repository_record(store).await?.is_some() {
        return Ok(Initialised { repository: Repository::open(target).await?, created: false });
    }
    let found = try_store(&**store).await?.capabilities;
    let repository_id = RepositoryId::random().map_err(|fault| no_randomness(&fault))?;
    let (encryption, key) = match &target.unlock {
        Unlock::NotEncrypted => (EncryptionKind::None, None),
        Unlock::Passphrase(secret) => {
            let key = random_key()?;
            let cost = Argon2Cost::default();
            let slot = KeySlot::create_passphrase(first_slot()?, &repository_id, &key, secret, cost, now)?;
            if let Some(repository) = store_slot(target, &slot).await? {
                return Ok(Initialised { repository, created: false });
            }
            (EncryptionKind::Aes256Gcm, Some(key))
        }
        Unlock::KeyFile(secret) => {
            let key = random_key()?;
            let slot = KeySlot::create_key_file(first_slot()?, &repository_id, &key, secret, now)?;
            if let Some(repository) = store_slot(target, &slot).await? {
                return Ok(Initialised { repository, created: false });
            }
            (EncryptionKind::Aes256Gcm, Some(key))
        }
    };
    let body = RepositoryRecord {
        repository_id,
        format_version: FORMAT_VERSION,
        created: now,
        encryption,
        conditional_create: conditional(found.create),
        store: Some(recorded(found)),
        extent_size_bytes: EXTENT_BYTES,
        pack_size_bytes: match found.uploads {
            Uploads::Parts => PACK_SIZE_BYTES,
            Uploads::Whole => WHOLE_PACK_SIZE_BYTES,
        },
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let object = record::encode_plain(&body)?;
    match store.put(&object_name(name::REPOSITORY_OBJECT)?, object.into(), PutMode::Create).await {
        Ok(()) => {
            Ok(Initialised { repository: Repository::assemble(std::sync::Arc::clone(store), body, key), created: true })
        }
        // Somebody else was quicker.
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
            Ok(Initialised { repository: Repository::open(target).await?, created: false })
        }
        Err(error) => Err(error.into()),
    }
}

/// Does in small all that a backup does, and looks what the store made of it.
pub(crate) async fn try_store(store: &dyn Store) -> Result<Found, Error> {
    // A name of its own: two that probe at the same moment must not take each other for a store's fault.
    let scratch = RepositoryId::random().map_err(|fault| no_randomness(&fault))?;
    probe(store, &object_name(&format!("{PROBE}{scratch}"))?).await.doing(|| "trying what the store can do".to_owned())
}

/// Writes the first key slot. One that is there already is that of a run at the same moment, whose repository is opened,
/// or it is left over from an `init` that did not get to its end, or of a repository whose `holdfast.json` was lost: it is
/// never overwritten.
async fn store_slot(target: &RepositoryTarget, slot: &KeySlot) -> Result<Option<Repository>, Error> {
    let name = object_name(&name::key_slot(slot.slot()))?;
    let object = record::encode_plain(slot)?;
    match target.store.put(&name, object.into(), PutMode::Create).await {
        Ok(()) => return Ok(None),
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    for _ in 0..OTHER_RUN_LOOKS {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        if read_repository_record(&target.store).await?.is_some() {
            return Repository::open(target).await.map(Some);
        }
    }
    Err(What::AlreadyInitialised {
        store: target.store.describe(),
        found: format!("a key slot ({name}) without holdfast.json"),
    }
    .into())
}

fn random_key() -> Result<RepositoryKey, Error> {
    RepositoryKey::random().map_err(|fault| no_randomness(&fault))
}

fn no_randomness(fault: &Fault) -> Error {
    What::Internal(format!("no random numbers: {fault}")).into()
}
