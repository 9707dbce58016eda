//! The configured repositories, as the engine's type.
//!
//! The store's properties that `repo init` found are in the repository's record. [`AsRecorded`] reads the record when
//! the engine does, so no command needs one more request: the engine reads the record before it writes anything, and
//! `repo init` writes the record before anything but its probe and the key slot.

use super::Context;
use crate::config::Config;
use crate::config::repository::{KeySource, Repository as Configured};
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use async_trait::async_trait;
use bytes::Bytes;
use holdfast_engine::repository::capabilities::{capabilities, recorded_lock};
use holdfast_engine::repository::init::PROBE;
use holdfast_engine::repository::{Repository, RepositoryTarget, Unlock};
use holdfast_repo::name::{REPOSITORY_OBJECT, is_locked};
use holdfast_repo::record::{RepositoryRecord, decode_plain};
use holdfast_secret::Secret;
use holdfast_store::{
    Capabilities, ConditionalCreate, FolderPage, Hurry, ListPage, LockTerm, NextUploads, ObjectInfo, ObjectLock,
    ObjectName, PutMode, RetryPolicy, Store, StoreConfig, StoreError, StoreErrorKind, Trials, UnfinishedPage,
    UnfinishedUpload, Upload,
};
use parking_lot::Mutex;
use std::ffi::OsString;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long `wal push` repeats requests to a store that refuses connections, and all requests once its server is
/// stopping.
const REFUSED_DEADLINE: Duration = Duration::from_secs(5);

/// Whether the directory of a repository may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directory {
    /// It must exist: a disk that is not mounted must not look like an empty repository.
    MustExist,
    /// It is created, with its parents.
    Make,
}

/// All configured repositories, in their order. `deadline` limits the repetitions of each request.
pub(super) async fn all(context: &Context, deadline: Option<Duration>) -> Result<Vec<RepositoryTarget>, Failure> {
    let mut targets = Vec::new();
    for configured in &context.config.repositories {
        targets.push(one(configured, Directory::MustExist, deadline).await?);
    }
    Ok(targets)
}

/// All configured repositories for `wal push`, which PostgreSQL calls again by itself. It gives up sooner if a store
/// refuses connections, and once `hurry` begins. A stopping server lets its archiver try a file three times, and the
/// round before may count as well, while `pg_ctl stop` waits 60 seconds for all of it.
pub(super) async fn for_archiver(
    context: &Context,
    deadline: Duration,
    hurry: &Hurry,
) -> Result<Vec<RepositoryTarget>, Failure> {
    let mut targets = Vec::new();
    for configured in &context.config.repositories {
        let patience = RetryPolicy {
            deadline,
            refused_deadline: REFUSED_DEADLINE,
            ..configured.store_config(raw_variable)?.retry
        };
        targets.push(with_patience(configured, Directory::MustExist, patience, hurry.clone()).await?);
    }
    Ok(targets)
}

pub(super) async fn one(
    configured: &Configured,
    directory: Directory,
    deadline: Option<Duration>,
) -> Result<RepositoryTarget, Failure> {
    let usual = configured.store_config(raw_variable)?.retry;
    let deadline = deadline.unwrap_or(usual.deadline);
    let patience = RetryPolicy { deadline, refused_deadline: deadline, ..usual };
    with_patience(configured, directory, patience, Hurry::default()).await
}

async fn with_patience(
    configured: &Configured,
    directory: Directory,
    patience: RetryPolicy,
    hurry: Hurry,
) -> Result<RepositoryTarget, Failure> {
    let mut config = configured.store_config(raw_variable)?;
    (config.retry, config.hurry) = (patience, hurry);
    let secret = unlock(configured.encryption.key_source(variable)?);
    let unlock = match &configured.slot {
        Some(slot) => Unlock::Hinted { slot: slot.clone(), secret: Box::new(secret) },
        None => secret,
    };
    let native = match directory {
        Directory::MustExist => holdfast_store::open(&config).await?,
        Directory::Make => holdfast_store::open_or_create(&config).await?,
    };
    let store = Arc::new(AsRecorded { native, config, adopted: Mutex::default() });
    Ok(RepositoryTarget { store, unlock })
}

/// The repository that `--repo` names, counted from 1.
pub(super) fn by_number(config: &Config, number: usize) -> Result<&Configured, Failure> {
    let chosen = number.checked_sub(1).and_then(|index| config.repositories.get(index));
    chosen.ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("there is no repository {number}"))
            .hint(format!("--repo counts from 1, and the configuration has {}", config.repositories.len()))
    })
}

/// One repository, opened.
pub(super) async fn open(configured: &Configured) -> Result<Repository, Failure> {
    Ok(Repository::open(&one(configured, Directory::MustExist, None).await?).await?)
}

/// The secret as the engine's type.
pub(super) fn unlock(source: KeySource) -> Unlock {
    match source {
        KeySource::None => Unlock::NotEncrypted,
        KeySource::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
        KeySource::Key(key) => Unlock::KeyFile(Secret::new(*key.expose())),
        KeySource::PrivateKey(key) => Unlock::PrivateKey(key),
    }
}

/// A variable of this process, as text.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable of this process, text or not.
pub(super) fn raw_variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Every configured repository, opened or with the reason why not, so that one that is away does not hide the others.
pub(super) async fn opened(context: &Context) -> Vec<(String, Result<Repository, Failure>)> {
    let opening = context
        .config
        .repositories
        .iter()
        .map(|configured| async { (configured.location().to_string(), open(configured).await) });
    futures::future::join_all(opening).await
}

/// A store that is used as the repository's record says.
#[derive(Debug)]
struct AsRecorded {
    native: Arc<dyn Store>,
    config: StoreConfig,
    /// The store with its limits handled, once they are known.
    adopted: Mutex<Option<(Capabilities, Arc<dyn Store>)>>,
}

impl AsRecorded {
    fn adopted(&self) -> Option<(Capabilities, Arc<dyn Store>)> {
        self.adopted.lock().clone()
    }

    fn store(&self) -> Arc<dyn Store> {
        self.adopted().map_or_else(|| Arc::clone(&self.native), |(_, store)| store)
    }

    /// The probe's objects always use native requests.
    fn of(&self, name: &str) -> Arc<dyn Store> {
        if name.starts_with(PROBE) { Arc::clone(&self.native) } else { self.store() }
    }

    /// Uses the store with these capabilities from now on, and with these locks if the configuration names none.
    async fn adopt(&self, mut capabilities: Capabilities, recorded: Option<LockTerm>) -> Result<(), StoreError> {
        let mut config = self.config.clone();
        config.s3.lock = config.s3.lock.or(recorded.map(|term| ObjectLock { term, covers: is_locked }));
        let lock = config.s3.lock.map(|lock| lock.term);
        if lock.is_none() {
            // They have no meaning then, and another store would cost another connection.
            capabilities.locks = self.config.capabilities.locks;
            capabilities.locked_uploads = self.config.capabilities.locked_uploads;
        }
        config.capabilities = capabilities;
        let unchanged =
            |(adopted, store): (Capabilities, Arc<dyn Store>)| adopted == capabilities && store.lock() == lock;
        let native = || (self.config.capabilities, Arc::clone(&self.native));
        if unchanged(self.adopted().unwrap_or_else(native)) {
            return Ok(());
        }
        let store = holdfast_store::open(&config).await?;
        *self.adopted.lock() = Some((capabilities, store));
        Ok(())
    }

    /// Reads the record of the repository. The engine refuses one that cannot be parsed.
    async fn heed(&self, name: &ObjectName, body: &[u8]) -> Result<(), StoreError> {
        if name.as_ref() == REPOSITORY_OBJECT
            && let Ok(record) = decode_plain::<RepositoryRecord>(body)
        {
            self.adopt(capabilities(&record), recorded_lock(&record)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Store for AsRecorded {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        if name.as_ref().starts_with(PROBE) {
            let answer = self.native.put(name, body, mode).await;
            // A store that refuses the condition would also refuse the key slot, which is written next.
            if let Err(error) = &answer
                && matches!(error.kind(), StoreErrorKind::Unsupported | StoreErrorKind::InvalidConfig)
            {
                let emulated = Capabilities { create: ConditionalCreate::Emulated, ..Capabilities::default() };
                self.adopt(emulated, None).await?;
            }
            return answer;
        }
        self.heed(name, &body).await?;
        self.store().put(name, body, mode).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let body = self.of(name.as_str()).get(name).await?;
        self.heed(name, &body).await?;
        Ok(body)
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let body = self.of(name.as_str()).get_at_most(name, most).await?;
        self.heed(name, &body).await?;
        Ok(body)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.of(name.as_str()).get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.of(name.as_str()).get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.of(name.as_str()).head(name).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.of(prefix).list_page(prefix, start_after, next).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.of(prefix).list_folders_page(prefix, next).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        self.store().delete_some(names).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        self.of(name.as_str()).begin_upload(name, mode).await
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        self.native.trials(scratch).await
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        self.of(prefix).unfinished_page(prefix, next).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.of(upload.name.as_str()).abort_unfinished(upload).await
    }

    fn lock(&self) -> Option<LockTerm> {
        self.store().lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        self.of(name.as_str()).locked_until(name).await
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        self.of(name.as_str()).lock_until(name, end).await
    }

    fn describe(&self) -> String {
        self.native.describe()
    }
}

#[cfg(test)]
mod tests;
