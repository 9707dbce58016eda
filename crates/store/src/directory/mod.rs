//! [`DirectoryStore`]: objects as files below one directory, for `file://` repositories on a disk or a network mount.
//!
//! # Order of a write
//! 1. The bytes go to a new file in `.holdfast-tmp` below the root, which listings hide and names cannot reach.
//! 2. The file is synced. Writing parts of an upload to the disk begins as they arrive, so that this sync is short.
//! 3. Missing folders are made, and each is synced into its parent. When a process uses a folder for the first time, it
//!    syncs the chain of parents: another process may have made the folder and not synced it yet.
//! 4. The file gets its name in one step: `renameat2(RENAME_NOREPLACE)`, or `link(2)` on file systems without it, in
//!    [`PutMode::Create`]; `rename(2)` in [`PutMode::Overwrite`]. Then the folder is synced.
//!
//! # After a crash
//! At most a file in `.holdfast-tmp` is left. Opening a store removes such files after a day. If the sync of the folder
//! in step 4 fails, the object is visible but may not be durable; the caller gets an error.
//!
//! # Rules
//! - The root must exist ([`StoreErrorKind::NoSuchBucket`]): a missing directory may be a disk that is not mounted, and
//!   is never reported as a missing object. [`DirectoryStore::create`] makes it.
//! - Files are 0600, folders 0700, whatever the umask. If root writes below a directory of another user, the files get
//!   that user as owner. Otherwise one command typed as root would close the archive to PostgreSQL. All I/O runs on
//!   tokio's blocking pool. An operation that makes no step for the time limit is given up, as one whose future is
//!   dropped: it ends at its next step, and its outcome is unknown (see `watch`).
//! - A listing is read in pages, in the order of the names. At most one page and the names of one folder are in memory
//!   (see `page`).
//! - Nothing else may write below the root. An object cannot have the name of a folder (`a` beside `a/b`).

mod files;
mod local_error;
mod page;
mod upload;
mod watch;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Failure, FolderPage, Hurry, ListPage, MOST_DELETED, ObjectInfo, ObjectName, Operation, PutMode, Store, StoreError,
    StoreErrorKind, Timeouts, Upload,
};
use files::Files;
use local_error::LocalError;
use upload::DirectoryUpload;
use watch::{Waiting, Watch, Working};

/// A store whose objects are files below one directory.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    files: Arc<Files>,
    /// The longest time without a step of an operation.
    limit: Duration,
    hurry: Hurry,
}

impl DirectoryStore {
    /// Opens an existing directory, and removes temporary files that a killed process left more than a day ago.
    ///
    /// # Errors
    /// `NoSuchBucket` if it does not exist, `InvalidConfig` if it is not a directory or its path is not UTF-8.
    pub async fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_within(root, Timeouts::default().attempt, Hurry::default()).await
    }

    /// The same, with the longest time without a step of an operation. In a hurry it is a few seconds.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`]; `Timeout` if the file system does not answer.
    pub async fn open_within(root: &Path, limit: Duration, hurry: Hurry) -> Result<Self, StoreError> {
        let store = Self { files: Arc::new(Files::new(root)?), limit, hurry };
        store
            .run(Operation::Open, "", |files, watch| {
                files.check_root()?;
                files.clean(watch);
                Ok(())
            })
            .await?;
        Ok(store)
    }

    /// Opens the directory. Makes it and its parents first if they are missing, and syncs them.
    ///
    /// # Errors
    /// As [`DirectoryStore::open`], and the errors of making directories.
    pub async fn create(root: &Path) -> Result<Self, StoreError> {
        let limit = Timeouts::default().attempt;
        let store = Self { files: Arc::new(Files::new(root)?), limit, hurry: Hurry::default() };
        store.run(Operation::Open, "", |files, _| Ok(files.make_root()?)).await?;
        Self::open(root).await
    }

    /// Runs an operation on the pool for blocking calls, and gives it up when it makes no step for too long. Then its
    /// outcome is unknown, as after a lost answer of S3.
    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        name: &str,
        work: impl FnOnce(&Files, &Watch) -> Result<T, LocalError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let trouble = match Watch::begin(self.files.root(), self.hurry.clone()) {
            Ok(watch) => match self.watched(watch, work).await {
                Ok(value) => return Ok(value),
                Err(trouble) => trouble,
            },
            Err(refused) => refused,
        };
        let kind = trouble.kind.unwrap_or(StoreErrorKind::Other);
        let detail = if kind == StoreErrorKind::NotFound { String::new() } else { trouble.detail };
        Err(StoreError::new(
            kind,
            Failure { store: self.describe(), name: name.to_owned(), operation, detail, source: trouble.source },
        ))
    }

    async fn watched<T: Send + 'static>(
        &self,
        watch: Arc<Watch>,
        work: impl FnOnce(&Files, &Watch) -> Result<T, LocalError> + Send + 'static,
    ) -> Result<T, LocalError> {
        let files = Arc::clone(&self.files);
        let (waiting, working) = (Waiting(Arc::clone(&watch)), Working(watch));
        let worked = tokio::task::spawn_blocking(move || {
            let working = working;
            let watch = &working.0;
            // The whole disk may be missing: the object is absent only if the root is there.
            work(&files, watch).map_err(|trouble| match trouble.kind {
                Some(StoreErrorKind::NotFound) => files.check_root().err().unwrap_or(trouble),
                _ => trouble,
            })
        });
        tokio::select! {
            biased;
            worked = worked => worked.unwrap_or_else(|join| {
                let kind = Some(StoreErrorKind::Cancelled);
                Err(LocalError { kind, detail: String::new(), source: Some(Box::new(join)) })
            }),
            silent = waiting.0.still(self.limit) => {
                let detail = format!("the file system has not answered for {} s", silent.as_secs());
                Err(LocalError::new(StoreErrorKind::Timeout, detail))
            }
        }
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let target = name.clone();
        self.run(Operation::Put, name.as_str(), move |files, watch| {
            files.check_root()?;
            if mode == PutMode::Create {
                files.must_be_absent(&target)?;
            }
            watch.check()?;
            let temporary = files.temporary()?;
            temporary.write(&body, 0, watch)?;
            files.publish(&temporary, &target, mode, watch)
        })
        .await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let target = name.clone();
        self.run(Operation::Get, name.as_str(), move |files, watch| {
            let (file, size) = files.open(&target)?;
            Ok(files::read_at(&file, 0..size, watch)?)
        })
        .await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let target = name.clone();
        let found = self.run(Operation::Get, name.as_str(), move |files, watch| {
            // Objects are never written in place: a file does not grow.
            let (file, size) = files.open(&target)?;
            let body = if size > most { Bytes::new() } else { files::read_at(&file, 0..size, watch)? };
            Ok((body, size))
        });
        let (body, size) = found.await?;
        crate::check_size(&self.describe(), name, size, most)?;
        Ok(body)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let target = name.clone();
        self.run(Operation::GetRange, name.as_str(), move |files, watch| {
            let (file, size) = files.open(&target)?;
            if range.end > size {
                let detail = format!("{size} bytes, asked for {}..{}", range.start, range.end);
                return Err(LocalError::new(StoreErrorKind::Truncated, detail));
            }
            Ok(files::read_at(&file, range, watch)?)
        })
        .await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let target = name.clone();
        self.run(Operation::GetTail, name.as_str(), move |files, watch| {
            let (file, size) = files.open(&target)?;
            Ok((files::read_at(&file, size.saturating_sub(bytes)..size, watch)?, size))
        })
        .await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let target = name.clone();
        self.run(Operation::Head, name.as_str(), move |files, _| {
            files.check_root()?;
            let metadata = std::fs::metadata(files.path(&target)?)?;
            if !metadata.is_file() {
                return Err(LocalError::new(StoreErrorKind::NotFound, ""));
            }
            Ok(ObjectInfo {
                name: target,
                size_bytes: metadata.len(),
                crc32c: None,
                modified: metadata.modified().ok(),
            })
        })
        .await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let after = next.into_iter().chain(start_after).max().map(str::to_owned);
        let wanted = prefix.to_owned();
        self.run(Operation::List, prefix, move |files, watch| {
            files.check_root()?;
            page::read(files, &wanted, after.as_deref(), page::OBJECTS, watch)
        })
        .await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        let (wanted, after) = (prefix.to_owned(), next.map(str::to_owned));
        self.run(Operation::ListFolders, prefix, move |files, watch| {
            files.check_root()?;
            files.list_folders(&wanted, after.as_deref(), page::OBJECTS, watch)
        })
        .await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let first = names.first().map_or("", ObjectName::as_str);
        let some: Vec<ObjectName> = names.iter().take(MOST_DELETED).cloned().collect();
        self.run(Operation::Delete, first, move |files, watch| {
            files.check_root()?;
            files.delete(&some, watch)?;
            Ok(some.len())
        })
        .await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let target = name.clone();
        let temporary = self
            .run(Operation::BeginUpload, name.as_str(), move |files, watch| {
                files.check_root()?;
                if mode == PutMode::Create {
                    files.must_be_absent(&target)?;
                }
                watch.check()?;
                files.temporary()
            })
            .await?;
        Ok(Box::new(DirectoryUpload::new(self.clone(), name.clone(), mode, temporary)))
    }

    fn describe(&self) -> String {
        format!("file://{}", self.files.root().display())
    }
}

#[cfg(test)]
mod tests;
