//! Makes a repository.
//!
//! Order: look for remains of an earlier repository; find out what the store can do; write the key slot; write
//! `holdfast.json` last, because its presence makes the repository exist. A run that dies before that leaves a key slot
//! without a repository, and the next `repo init` reports it. Of two runs at the same moment, one makes the repository;
//! the other waits a little and opens it.
//!
//! Invariant: no key slot and no `holdfast.json` is ever overwritten, even if the store ignores conditions. A key slot
//! without `holdfast.json` may be the only way to open somebody's backups.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_repo::key::{Argon2Cost, KeySlot};
use holdfast_repo::manifest::EXTENT_BYTES;
use holdfast_repo::name;
use holdfast_repo::record::{self, ConditionalCreate, EncryptionKind, FORMAT_VERSION, RepositoryRecord};
use holdfast_repo::{Fault, RepositoryId, RepositoryKey};
use holdfast_store::{
    Capabilities, Checksums, Failure, Operation, ProbeResult, PutMode, Store, StoreError, StoreErrorKind, Uploads,
    probe,
};

use super::capabilities::{conditional, recorded};
use super::read_back::read_back;
use super::{Repository, RepositoryTarget, Unlock, first_slot, object_name, read_repository_record, remains};
use crate::error::{Cause, Error, ResultExt};

/// Packs are closed at this size: large enough that 10 TB are tens of thousands of objects, small enough that a
/// mostly dead pack is cheap to rewrite.
const PACK_SIZE_BYTES: u64 = 128 * 1024 * 1024;

/// The same, for a store where each object is sent in one request and held in memory until then.
const WHOLE_PACK_SIZE_BYTES: u64 = 32 * 1024 * 1024;

/// The prefix of the folder in which a store is tried. No cluster can have such a name, and readers ignore it.
pub const PROBE: &str = ".probe-";

/// How many times, a second apart, to look for the `holdfast.json` of another run: it needs only one more request.
const OTHER_RUN_LOOKS: u32 = 15;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The pause before we check our own write, if the store keeps no conditions: a write that began earlier has arrived by
/// then.
pub(crate) const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);

/// The repository that `init` found or made.
#[derive(Debug)]
pub struct Initialised {
    /// The open repository.
    pub repository: Repository,
    /// Whether this call made it; otherwise it existed and fits the configuration.
    pub created: bool,
}

/// Makes a repository, or opens the existing one if it fits the configuration.
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
        let object = record::encode_plain(slot)?;
        match create(store, how, &name, object.clone()).await {
            Ok(()) => confirm_new(store, seen, &name, &object).await?,
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
        store: Some(recorded(seen, store.lock())),
        extent_size_bytes: EXTENT_BYTES,
        pack_size_bytes: match seen.uploads {
            Uploads::Parts => PACK_SIZE_BYTES,
            Uploads::Whole => WHOLE_PACK_SIZE_BYTES,
        },
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let object = record::encode_repository(&body, key.as_ref())?;
    match create(store, how, name::REPOSITORY_OBJECT, object.clone()).await {
        Ok(()) if how == ConditionalCreate::Native || is_kept(target, repository_id).await? => {
            confirm_new(store, seen, name::REPOSITORY_OBJECT, &object).await?;
            let repository = Repository::assemble(Arc::clone(store), body, key);
            Ok(Initialised { repository, created: true })
        }
        Ok(()) => withdraw(target, slot.as_ref()).await,
        // Another run was faster.
        Err(error) if error.is_already_exists() => withdraw(target, slot.as_ref()).await,
        Err(error) => Err(error),
    }
}

/// Opens the existing repository.
async fn found(target: &RepositoryTarget) -> Result<Initialised, Error> {
    Ok(Initialised { repository: Repository::open(target).await?, created: false })
}

/// A new key in a new slot, if the repository is to be encrypted.
///
/// If the store keeps no conditional writes, the slot gets a name that no other run has. Otherwise two runs at the same
/// moment could overwrite each other's slot, and the repository would have a slot that does not open it.
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
        Unlock::NotEncrypted | Unlock::Recipient(_) | Unlock::Hinted { .. } => (None, None),
        Unlock::Passphrase(secret) => {
            let (key, cost) = (random()?, Argon2Cost::default());
            (Some(KeySlot::create_passphrase(name()?, repository, &key, secret, cost, now)?), Some(key))
        }
        Unlock::KeyFile(secret) => {
            let key = random()?;
            (Some(KeySlot::create_key_file(name()?, repository, &key, secret, now)?), Some(key))
        }
        Unlock::PrivateKey(private) => {
            let (key, recipient) = (random()?, private.recipient()?);
            (Some(KeySlot::create_x25519(name()?, repository, &key, &recipient, now)?), Some(key))
        }
    })
}

/// Creates an object by the method that the probe found reliable: if the store would overwrite, it checks the name
/// first. The target does not know the method yet: it is in `holdfast.json`, which is written last.
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

/// Reads back what was just written, if the store does not compare checksums.
async fn confirm_new(store: &Arc<dyn Store>, seen: Capabilities, name: &str, object: &[u8]) -> Result<(), Error> {
    match seen.checksums {
        Checksums::Kept => Ok(()),
        Checksums::NotCompared => read_back(&**store, &object_name(name)?, object).await,
    }
}

/// Whether the stored record is ours: if two writers both found the name free, the later write stays.
async fn is_kept(target: &RepositoryTarget, repository: RepositoryId) -> Result<bool, Error> {
    tokio::time::sleep(SECOND_LOOK_AFTER).await;
    Ok(read_repository_record(&target.store).await?.is_some_and(|record| record.repository_id == repository))
}

/// Opens the repository that another run made at the same moment. Our own slot is removed if its name is only ours,
/// because it is of no use.
async fn withdraw(target: &RepositoryTarget, slot: Option<&KeySlot>) -> Result<Initialised, Error> {
    if let Some(slot) = slot.filter(|slot| first_slot().is_ok_and(|first| first != *slot.slot())) {
        target.store.delete(&[object_name(&name::key_slot(slot.slot()))?]).await?;
    }
    found(target).await
}

/// Tests with small objects everything that a backup does.
pub(crate) async fn try_store(store: &dyn Store) -> Result<ProbeResult, Error> {
    // A name of its own, so that two runs that probe at the same moment do not see each other as a fault of the store.
    let scratch = RepositoryId::random().map_err(|fault| no_randomness(&fault))?;
    probe(store, &object_name(&format!("{PROBE}{scratch}"))?).await.doing(|| "trying what the store can do".to_owned())
}

/// Handles a key slot without a record. If a run at the same moment made it, its repository is opened. Otherwise it
/// remains of an `init` that did not finish, or of a repository whose `holdfast.json` was lost, and nothing is written.
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
