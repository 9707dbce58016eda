//! Builds the standard stack of wrappers from a configuration.

use std::sync::Arc;

use crate::{
    Counted, Counters, DirectoryStore, Failure, Limited, Location, MemoryStore, ObjectName, Operation, Prefixed, Retry,
    S3Store, Store, StoreConfig, StoreError, StoreErrorKind,
};

/// Opens a store: prefix, over retry, over the limit of requests in flight, over counters, over the back-end.
///
/// It makes no request to an S3 store. The directory of a `file://` store must exist.
///
/// # Errors
/// `InvalidConfig` with the setting in the text, `NoSuchBucket` if the directory does not exist.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    open_counted(config, Arc::default()).await
}

/// As [`open`], and counts in `counters`, which progress displays and tests read.
///
/// # Errors
/// As [`open`].
pub async fn open_counted(config: &StoreConfig, counters: Arc<Counters>) -> Result<Arc<dyn Store>, StoreError> {
    config.validate().map_err(|error| {
        StoreError::new(
            StoreErrorKind::InvalidConfig,
            Failure {
                store: config.location.to_string(),
                name: String::new(),
                operation: Operation::Open,
                detail: error.to_string(),
                source: None,
            },
        )
    })?;
    let mut prefix: Option<ObjectName> = None;
    let back_end: Arc<dyn Store> = match &config.location {
        Location::S3 { prefix: wanted, .. } => {
            prefix.clone_from(wanted);
            Arc::new(S3Store::new(config).await?)
        }
        Location::Directory(path) => {
            Arc::new(DirectoryStore::open_within(path, config.timeouts.attempt, config.hurry.clone()).await?)
        }
        Location::Memory => Arc::new(MemoryStore::new()),
    };
    let counted = Arc::new(Counted::new(back_end, counters));
    let limited = Arc::new(Limited::new(counted, config.max_requests));
    let retry = Retry::new(limited, config.retry).in_hurry(config.hurry.clone());
    let retry: Arc<dyn Store> = match &config.location {
        Location::S3 { .. } => Arc::new(retry.by_network()),
        Location::Directory(_) | Location::Memory => Arc::new(retry),
    };
    Ok(match prefix {
        Some(prefix) => Arc::new(Prefixed::new(retry, &prefix)),
        None => retry,
    })
}

/// As [`open`], but makes the directory of a `file://` store first, with its parents. Only for `repo init`: if other
/// commands made directories, a disk that is not mounted would look like an empty repository.
///
/// # Errors
/// As [`open`], and the errors of making directories.
pub async fn open_or_create(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    if let Location::Directory(path) = &config.location {
        DirectoryStore::create(path).await?;
    }
    open(config).await
}
