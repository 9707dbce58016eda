//! Making a repository.
//!
//! Order: look for what an earlier repository left; find out what the store can do; write the key slot;
//! write `holdfast.json` last, since its presence makes the repository exist. A run that dies in between
//! leaves a key slot that no repository refers to; the next `repo init` notices and says so. Of two runs at the same
//! moment one makes the repository, and the other waits a little for it and opens it.
//!
//! Invariant: no key slot and no `holdfast.json` is ever written over, also where the store ignores conditions. What is there
//! without `holdfast.json` may be all that opens somebody's backups.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_repo::key::{Argon2Cost, KeySlot};
use holdfast_repo::manifest::EXTENT_BYTES;
use holdfast_repo::name;
use holdfast_repo::record::{self, ConditionalCreate, EncryptionKind, FORMAT_VERSION, RepositoryRecord};
use holdfast_repo::{Fault, RepositoryId, RepositoryKey};
use holdfast_store::{Failure, Found, Operation, PutMode, Store, StoreError, StoreErrorKind, Uploads, probe};

use super::capabilities::{conditional, recorded};
use super::{Repository, RepositoryTarget, Unlock, first_slot, object_name, read_repository_record, remains};
use crate::error::{Cause, Error, ResultExt};

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

/// How long after our own write another one that began before it has arrived, where the store keeps no conditions.
pub(crate) const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);

/// What `init` found or made.
#[derive(Debug)]
pub struct Initialised {
    /// The open repository.
    pub repository: Repository,
    /// Whether this call made it, or it was there and fits.
    pub created: bool,
}

/// Makes a repository, or opens the one that is there when it fits the configuration.
///
/// # Errors
/// Those of [`Repository::open`] if there is a repository. [`Cause::AlreadyInitialised`] for a key slot or an archive
/// without `holdfast.json`. [`Cause::Key`] if the passphrase or the key file is too weak, [`Cause::Store`] if the store
/// cannot be asked or fails a trial, [`Cause::Internal`] if there are no random numbers.
pub async fn init(target: &RepositoryTarget, now: DateTime<Utc>) -> Result<Initialised, Error> {
    let url = target.store.describe();
    init_inner(target, now).await.doing(|| format!("making a repository at {url}"))
}

async fn init_inner(target: &RepositoryTarget, now: DateTime<Utc>) -> Result<Initialised, Error> {
    let store = &target.store;
    if read_repository_record(store).await?.is_some() {
        return found(target).await;
    }
    if let Some(slot) = remains::key_slot(&**store).await? {
        return of_another_run(target, &slot).await;
    }
    if let Some(object) = remains::archive(&**store).await? {
        return Err(already(target, format!("an archive ({object}) without holdfast.json")));
    }
    let seen = try_store(&**store).await?.capabilities;
    let how = conditional(seen.create);
    let repository_id = RepositoryId::random().map_err(|fault| no_randomness(&fault))?;
    let (slot, key) = new_key(target, &repository_id, how, now)?;
    if let Some(slot) = &slot {
        let name = name::key_slot(slot.slot());
        match create(store, how, &name, record::encode_plain(slot)?).await {
            Ok(()) => {}
            Err(error) if error.is_already_exists() => return of_another_run(target, &name).await,
            Err(error) => return Err(error),
        }
    }
    let body = RepositoryRecord {
        repository_id,
        format_version: FORMAT_VERSION,
        created: now,
        encryption: if slot.is_some() { EncryptionKind::Aes256Gcm } else { EncryptionKind::None },
        conditional_create: how,
        store: Some(recorded(seen)),
        extent_size_bytes: EXTENT_BYTES,
        pack_size_bytes: match seen.uploads {
            Uploads::Parts => PACK_SIZE_BYTES,
            Uploads::Whole => WHOLE_PACK_SIZE_BYTES,
        },
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    match create(store, how, name::REPOSITORY_OBJECT, record::encode_repository(&body, key.as_ref())?).await {
        Ok(()) if how == ConditionalCreate::Native || is_kept(target, repository_id).await? => {
            let repository = Repository::assemble(Arc::clone(store), body, key);
            Ok(Initialised { repository, created: true })
        }
        Ok(()) => withdraw(target, slot.as_ref()).await,
        // Somebody else was quicker.
        Err(error) if error.is_already_exists() => withdraw(target, slot.as_ref()).await,
        Err(error) => Err(error),
    }
}

/// The repository that is there.
async fn found(target: &RepositoryTarget) -> Result<Initialised, Error> {
    Ok(Initialised { repository: Repository::open(target).await?, created: false })
}

/// A new key in a new slot, where the repository is to be encrypted.
///
/// Where a store keeps no conditional writes, the slot gets a name that no other run has: of two at the same moment each
/// would overwrite the other's, and the repository would stay with a slot that does not open it.
fn new_key(
    target: &RepositoryTarget,
    repository: &RepositoryId,
    how: ConditionalCreate,
    now: DateTime<Utc>,
) -> Result<(Option<KeySlot>, Option<RepositoryKey>), Error> {
    let name = || match how {
        ConditionalCreate::Native => first_slot(),
        ConditionalCreate::Emulated => {
            let name = format!("{}-{}", first_slot()?, repository);
            name.parse().map_err(|e| Cause::Internal(format!("key slot name: {e}")).into())
        }
    };
    let random = || RepositoryKey::random().map_err(|fault| no_randomness(&fault));
    Ok(match target.unlock.secret() {
        Unlock::NotEncrypted | Unlock::Hinted { .. } => (None, None),
        Unlock::Passphrase(secret) => {
            let (key, cost) = (random()?, Argon2Cost::default());
            (Some(KeySlot::create_passphrase(name()?, repository, &key, secret, cost, now)?), Some(key))
        }
        Unlock::KeyFile(secret) => {
            let key = random()?;
            (Some(KeySlot::create_key_file(name()?, repository, &key, secret, now)?), Some(key))
        }
    })
}

/// Creates an object in the way that the probe found to hold: where the store would overwrite, a look comes first. The target
/// itself learns the way only from `holdfast.json`, which is written last.
pub(crate) async fn create(
    store: &Arc<dyn Store>,
    how: ConditionalCreate,
    name: &str,
    body: Vec<u8>,
) -> Result<(), Error> {
    let name = object_name(name)?;
    if how == ConditionalCreate::Emulated {
        match store.head(&name).await {
            Ok(_) => {
                let failure = Failure {
                    store: store.describe(),
                    name: name.to_string(),
                    operation: Operation::Put,
                    detail: String::new(),
                    source: None,
                };
                return Err(StoreError::new(StoreErrorKind::AlreadyExists, failure).into());
            }
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(store.put(&name, body.into(), PutMode::Create).await?)
}

/// Whether our record is still the one that is stored: of two writers who both saw nothing the later one stays.
async fn is_kept(target: &RepositoryTarget, repository: RepositoryId) -> Result<bool, Error> {
    tokio::time::sleep(SECOND_LOOK_AFTER).await;
    Ok(read_repository_record(&target.store).await?.is_some_and(|record| record.repository_id == repository))
}

/// Opens the repository that another run made at the same moment. Our slot, under a name that is only ours, is of no use.
async fn withdraw(target: &RepositoryTarget, slot: Option<&KeySlot>) -> Result<Initialised, Error> {
    if let Some(slot) = slot.filter(|slot| first_slot().is_ok_and(|first| first != *slot.slot())) {
        target.store.delete(&[object_name(&name::key_slot(slot.slot()))?]).await?;
    }
    found(target).await
}

/// Does in small all that a backup does, and looks what the store made of it.
pub(crate) async fn try_store(store: &dyn Store) -> Result<Found, Error> {
    // A name of its own: two that probe at the same moment must not take each other for a store's fault.
    let scratch = RepositoryId::random().map_err(|fault| no_randomness(&fault))?;
    probe(store, &object_name(&format!("{PROBE}{scratch}"))?).await.doing(|| "trying what the store can do".to_owned())
}

/// A key slot without a record is that of a run at the same moment, whose repository is opened, or left over from an `init`
/// that did not get to its end, or of a repository whose `holdfast.json` was lost: nothing is written beside it.
async fn of_another_run(target: &RepositoryTarget, slot: &str) -> Result<Initialised, Error> {
    for _ in 0..OTHER_RUN_LOOKS {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        if read_repository_record(&target.store).await?.is_some() {
            return found(target).await;
        }
    }
    Err(already(target, format!("a key slot ({slot}) without holdfast.json")))
}

fn already(target: &RepositoryTarget, found: String) -> Error {
    Cause::AlreadyInitialised { store: target.store.describe(), found }.into()
}

fn no_randomness(fault: &Fault) -> Error {
    Cause::Internal(format!("no random numbers: {fault}")).into()
}

#[cfg(test)]
mod tests;
