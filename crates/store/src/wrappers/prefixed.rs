//! [`Prefixed`]: a store inside a folder of another one. Errors and listings use the names that the caller knows.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Failure, FolderPage, ListPage, LockTerm, MOST_DELETED, NextUploads, ObjectInfo, ObjectName, Operation, PutMode,
    Store, StoreError, StoreErrorKind, Trials, UnfinishedPage, UnfinishedUpload, Upload,
};

/// Puts `prefix/` before every name.
#[derive(Clone, Debug)]
pub struct Prefixed {
    inner: Arc<dyn Store>,
    /// Ends in '/'.
    folder: String,
}

impl Prefixed {
    /// Wraps a store; all objects are below `prefix`.
    pub fn new(inner: Arc<dyn Store>, prefix: &ObjectName) -> Self {
        Self { inner, folder: format!("{prefix}/") }
    }

    fn full(&self, operation: Operation, name: &ObjectName) -> Result<ObjectName, StoreError> {
        ObjectName::new(format!("{}{name}", self.folder)).map_err(|error| {
            let detail = format!("with its prefix the name is not valid: {}", error.reason);
            StoreError::new(
                StoreErrorKind::InvalidConfig,
                Failure {
                    store: self.describe(),
                    name: name.to_string(),
                    operation,
                    detail,
                    source: Some(error.into()),
                },
            )
        })
    }

    /// Names the store and the object as the caller does.
    fn translate(&self, mut error: StoreError) -> StoreError {
        let described = self.describe();
        let bucket_itself = error.kind() == StoreErrorKind::NoSuchBucket;
        let failure = error.failure_mut();
        if !bucket_itself {
            failure.store = described;
        }
        if let Some(name) = failure.name.strip_prefix(&self.folder) {
            failure.name = name.to_owned();
        }
        error
    }
}

#[async_trait]
impl Store for Prefixed {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let full = self.full(Operation::Put, name)?;
        self.inner.put(&full, body, mode).await.map_err(|error| self.translate(error))
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let full = self.full(Operation::Get, name)?;
        self.inner.get(&full).await.map_err(|error| self.translate(error))
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let full = self.full(Operation::Get, name)?;
        self.inner.get_at_most(&full, most).await.map_err(|error| self.translate(error))
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let full = self.full(Operation::GetRange, name)?;
        self.inner.get_range(&full, range).await.map_err(|error| self.translate(error))
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let full = self.full(Operation::GetTail, name)?;
        self.inner.get_tail(&full, bytes).await.map_err(|error| self.translate(error))
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let full = self.full(Operation::Head, name)?;
        let info = self.inner.head(&full).await.map_err(|error| self.translate(error))?;
        Ok(ObjectInfo { name: name.clone(), ..info })
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let full = format!("{}{prefix}", self.folder);
        let start_after = start_after.map(|name| format!("{}{name}", self.folder));
        let page = self.inner.list_page(&full, start_after.as_deref(), next).await;
        let page = page.map_err(|error| self.translate(error))?;
        let objects = page.objects.into_iter().filter_map(|info| {
            let name = ObjectName::new(info.name.as_str().strip_prefix(&self.folder)?).ok()?;
            Some(ObjectInfo { name, ..info })
        });
        Ok(ListPage { objects: objects.collect(), next: page.next })
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        let full = format!("{}{prefix}", self.folder);
        self.inner.list_folders_page(&full, next).await.map_err(|error| self.translate(error))
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let some = names.iter().take(MOST_DELETED);
        let full: Result<Vec<_>, _> = some.map(|name| self.full(Operation::Delete, name)).collect();
        self.inner.delete_some(&full?).await.map_err(|error| self.translate(error))
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let full = self.full(Operation::BeginUpload, name)?;
        let inner = self.inner.begin_upload(&full, mode).await;
        let inner = inner.map_err(|error| self.translate(error))?;
        Ok(Box::new(PrefixedUpload { inner, prefixed: self.clone() }))
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        let full = self.full(Operation::Put, scratch)?;
        self.inner.trials(&full).await.map_err(|error| self.translate(error))
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        let full = format!("{}{prefix}", self.folder);
        let found = self.inner.unfinished_page(&full, next).await.map_err(|error| self.translate(error))?;
        Ok(found.map(|page| {
            let inside = page.uploads.into_iter().filter_map(|upload| {
                let name = ObjectName::new(upload.name.as_str().strip_prefix(&self.folder)?).ok()?;
                Some(UnfinishedUpload { name, ..upload })
            });
            UnfinishedPage { uploads: inside.collect(), next: page.next }
        }))
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        let full = UnfinishedUpload { name: self.full(Operation::Abort, &upload.name)?, ..upload.clone() };
        self.inner.abort_unfinished(&full).await.map_err(|error| self.translate(error))
    }

    fn lock(&self) -> Option<LockTerm> {
        self.inner.lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        let full = self.full(Operation::Head, name)?;
        self.inner.locked_until(&full).await.map_err(|error| self.translate(error))
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        let full = self.full(Operation::Lock, name)?;
        self.inner.lock_until(&full, end).await.map_err(|error| self.translate(error))
    }

    fn describe(&self) -> String {
        let inner = self.inner.describe();
        format!("{}/{}", inner.trim_end_matches('/'), self.folder.trim_end_matches('/'))
    }
}

#[derive(Debug)]
struct PrefixedUpload {
    inner: Box<dyn Upload>,
    prefixed: Prefixed,
}

#[async_trait]
impl Upload for PrefixedUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        self.inner.part(number, body).await.map_err(|error| self.prefixed.translate(error))
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        self.inner.try_complete().await.map_err(|error| self.prefixed.translate(error))
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        self.inner.try_abort().await.map_err(|error| self.prefixed.translate(error))
    }
}
