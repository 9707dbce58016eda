//! [`Limited`]: limits the number of requests in flight. Permits are taken only here; the queue is fair.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    Failure, FolderPage, ListPage, LockTerm, NextUploads, ObjectInfo, ObjectName, Operation, PutMode, Store,
    StoreError, StoreErrorKind, Trials, UnfinishedPage, UnfinishedUpload, Upload,
};

/// Lets a limited number of requests through at once; the others wait.
#[derive(Clone, Debug)]
pub struct Limited {
    inner: Arc<dyn Store>,
    permits: Arc<Semaphore>,
}

impl Limited {
    /// At most `max_requests` at once (at least one).
    pub fn new(inner: Arc<dyn Store>, max_requests: usize) -> Self {
        let permits = max_requests.clamp(1, Semaphore::MAX_PERMITS);
        Self { inner, permits: Arc::new(Semaphore::new(permits)) }
    }

    async fn permit(&self, operation: Operation, name: &str) -> Result<SemaphorePermit<'_>, StoreError> {
        // The semaphore is never closed; if it were, the request would not have been made.
        self.permits.acquire().await.map_err(|error| {
            StoreError::new(
                StoreErrorKind::Cancelled,
                Failure {
                    store: self.inner.describe(),
                    name: name.to_owned(),
                    operation,
                    detail: String::new(),
                    source: Some(error.into()),
                },
            )
        })
    }
}

#[async_trait]
impl Store for Limited {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let _permit = self.permit(Operation::Put, name.as_str()).await?;
        self.inner.put(name, body, mode).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let _permit = self.permit(Operation::Get, name.as_str()).await?;
        self.inner.get(name).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let _permit = self.permit(Operation::Get, name.as_str()).await?;
        self.inner.get_at_most(name, most).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let _permit = self.permit(Operation::GetRange, name.as_str()).await?;
        self.inner.get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let _permit = self.permit(Operation::GetTail, name.as_str()).await?;
        self.inner.get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let _permit = self.permit(Operation::Head, name.as_str()).await?;
        self.inner.head(name).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let _permit = self.permit(Operation::List, prefix).await?;
        self.inner.list_page(prefix, start_after, next).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        let _permit = self.permit(Operation::ListFolders, prefix).await?;
        self.inner.list_folders_page(prefix, next).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let first = names.first().map_or("", ObjectName::as_str);
        let _permit = self.permit(Operation::Delete, first).await?;
        self.inner.delete_some(names).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let _permit = self.permit(Operation::BeginUpload, name.as_str()).await?;
        let inner = self.inner.begin_upload(name, mode).await?;
        Ok(Box::new(LimitedUpload { limited: self.clone(), inner, name: name.clone() }))
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        let _permit = self.permit(Operation::Put, scratch.as_str()).await?;
        self.inner.trials(scratch).await
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        let _permit = self.permit(Operation::List, prefix).await?;
        self.inner.unfinished_page(prefix, next).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        let _permit = self.permit(Operation::Abort, upload.name.as_str()).await?;
        self.inner.abort_unfinished(upload).await
    }

    fn lock(&self) -> Option<LockTerm> {
        self.inner.lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        let _permit = self.permit(Operation::Head, name.as_str()).await?;
        self.inner.locked_until(name).await
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        let _permit = self.permit(Operation::Lock, name.as_str()).await?;
        self.inner.lock_until(name, end).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct LimitedUpload {
    limited: Limited,
    inner: Box<dyn Upload>,
    name: ObjectName,
}

#[async_trait]
impl Upload for LimitedUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let _permit = self.limited.permit(Operation::Part, self.name.as_str()).await?;
        self.inner.part(number, body).await
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let _permit = self.limited.permit(Operation::Complete, self.name.as_str()).await?;
        self.inner.try_complete().await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        let _permit = self.limited.permit(Operation::Abort, self.name.as_str()).await?;
        self.inner.try_abort().await
    }
}
