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
//!   tokio's blocking pool; if a future is dropped, its write still runs to the end.
//! - A listing is read in pages, in the order of the names. At most one page and the names of one folder are in memory
//!   (see `page`).
//! - Nothing else may write below the root. An object cannot have the name of a folder (`a` beside `a/b`).

mod files;
mod local_error;
mod page;
mod upload;

use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Failure, FolderPage, ListPage, MOST_DELETED, ObjectInfo, ObjectName, Operation, PutMode, Store, StoreError,
    StoreErrorKind, Upload,
};
use files::Files;
use local_error::LocalError;
use upload::DirectoryUpload;

/// A store whose objects are files below one directory.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    files: Arc<Files>,
}

impl DirectoryStore {
    /// Opens an existing directory, and removes temporary files that a killed process left more than a day ago.
    ///
    /// # Errors
    /// `NoSuchBucket` if it does not exist, `InvalidConfig` if it is not a directory or its path is not UTF-8.
    pub async fn open(root: &Path) -> Result<Self, StoreError> {
        let files = Files::new(root)?;
        let store = Self { files: Arc::new(files) };
        store
            .run(Operation::Open, "", |files| {
                files.check_root()?;
                files.clean();
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
        let store = Self { files: Arc::new(Files::new(root)?) };
        store.run(Operation::Open, "", |files| Ok(files.make_root()?)).await?;
        Self::open(root).await
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: Operation,
        name: &str,
        work: impl FnOnce(&Files) -> Result<T, LocalError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = Arc::clone(&self.files);
        let worked = tokio::task::spawn_blocking(move || {
            // The whole disk may be missing: the object is absent only if the root is there.
            work(&files).map_err(|trouble| match trouble.kind {
                Some(StoreErrorKind::NotFound) => files.check_root().err().unwrap_or(trouble),
                _ => trouble,
            })
        });
        let trouble = match worked.await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(trouble)) => trouble,
            Err(join) => LocalError {
                kind: Some(StoreErrorKind::Cancelled),
                detail: String::new(),
                source: Some(Box::new(join)),
            },
        };
        let kind = trouble.kind.unwrap_or(StoreErrorKind::Other);
        let detail = if kind == StoreErrorKind::NotFound { String::new() } else { trouble.detail };
        Err(StoreError::new(
            kind,
            Failure { store: self.describe(), name: name.to_owned(), operation, detail, source: trouble.source },
        ))
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let target = name.clone();
        self.run(Operation::Put, name.as_str(), move |files| {
            files.check_root()?;
            if mode == PutMode::Create {
                files.must_be_absent(&target)?;
            }
            let temporary = files.temporary()?;
            temporary.file().write_all_at(&body, 0)?;
            files.publish(&temporary, &target, mode)
        })
        .await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let target = name.clone();
        self.run(Operation::Get, name.as_str(), move |files| Ok(Bytes::from(std::fs::read(files.path(&target)?)?)))
            .await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let target = name.clone();
        let found = self.run(Operation::Get, name.as_str(), move |files| {
            let (file, size) = files.open(&target)?;
            let mut body = Vec::new();
            // Objects are never written in place, so a file that has grown is not one of ours.
            file.take(most.saturating_add(1)).read_to_end(&mut body)?;
            Ok((Bytes::from(body), size))
        });
        let (body, size) = found.await?;
        crate::check_size(&self.describe(), name, size.max(body.len() as u64), most)?;
        Ok(body)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let target = name.clone();
        self.run(Operation::GetRange, name.as_str(), move |files| {
            let (file, size) = files.open(&target)?;
            if range.end > size {
                let detail = format!("{size} bytes, asked for {}..{}", range.start, range.end);
                return Err(LocalError::new(StoreErrorKind::Truncated, detail));
            }
            Ok(files::read_at(&file, range)?)
        })
        .await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let target = name.clone();
        self.run(Operation::GetTail, name.as_str(), move |files| {
            let (file, size) = files.open(&target)?;
            Ok((files::read_at(&file, size.saturating_sub(bytes)..size)?, size))
        })
        .await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let target = name.clone();
        self.run(Operation::Head, name.as_str(), move |files| {
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
        self.run(Operation::List, prefix, move |files| {
            files.check_root()?;
            page::read(files, &wanted, after.as_deref(), page::OBJECTS)
        })
        .await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        let (wanted, after) = (prefix.to_owned(), next.map(str::to_owned));
        self.run(Operation::ListFolders, prefix, move |files| {
            files.check_root()?;
            files.list_folders(&wanted, after.as_deref(), page::OBJECTS)
        })
        .await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let first = names.first().map_or("", ObjectName::as_str);
        let some: Vec<ObjectName> = names.iter().take(MOST_DELETED).cloned().collect();
        self.run(Operation::Delete, first, move |files| {
            files.check_root()?;
            files.delete(&some)?;
            Ok(some.len())
        })
        .await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let target = name.clone();
        let temporary = self
            .run(Operation::BeginUpload, name.as_str(), move |files| {
                files.check_root()?;
                if mode == PutMode::Create {
                    files.must_be_absent(&target)?;
                }
                files.temporary()
            })
            .await?;
        Ok(Box::new(DirectoryUpload::new(self.clone(), name.clone(), mode, temporary)))
    }

    fn describe(&self) -> String {
        format!("file://{}", self.files.root().display())
    }
}
