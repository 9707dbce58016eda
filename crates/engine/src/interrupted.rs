//! A store for tests of two runs at once: before one of its requests it lets the other run come to its end.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_store::{ListPage, ObjectInfo, ObjectName, PutMode, Store, StoreError, Trials, UnfinishedUpload, Upload};
use parking_lot::Mutex;

/// What runs in between.
pub(crate) type Other = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store that runs another task before one of its requests.
pub(crate) struct Interrupted {
    inner: Arc<dyn Store>,
    requests: AtomicU64,
    before: u64,
    other: Mutex<Option<Other>>,
    /// Listings leave out names with this ending, as if they were out of date.
    hidden: &'static str,
}

impl std::fmt::Debug for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Interrupted before {}", self.before)
    }
}

impl Interrupted {
    /// Runs `other` before the request of this number, from 0.
    pub(crate) fn new(inner: Arc<dyn Store>, before: u64, other: Option<Other>) -> Self {
        Self { inner, requests: AtomicU64::new(0), before, other: Mutex::new(other), hidden: "" }
    }

    /// Listings leave out names with this ending.
    pub(crate) fn hiding(self, hidden: &'static str) -> Self {
        Self { hidden, ..self }
    }

    /// The number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    async fn pass(&self) -> &Arc<dyn Store> {
        if self.requests.fetch_add(1, Ordering::SeqCst) == self.before {
            let other = self.other.lock().take();
            if let Some(other) = other {
                other.await;
            }
        }
        &self.inner
    }
}

#[async_trait]
impl Store for Interrupted {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        self.pass().await.put(name, body, mode).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.pass().await.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.pass().await.get_range(name, range).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        self.pass().await.get_tail(name, bytes).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.pass().await.head(name).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        let mut page = self.pass().await.list_page(prefix, start_after, next).await?;
        page.objects.retain(|object| self.hidden.is_empty() || !object.name.as_ref().ends_with(self.hidden));
        Ok(page)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.pass().await.list_folders(prefix).await
    }

    async fn delete(&self, names: &[ObjectName]) -> Result<(), StoreError> {
        self.pass().await.delete(names).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        self.pass().await.begin_upload(name, mode).await
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        self.inner.trials(scratch).await
    }

    async fn unfinished_uploads(&self, prefix: &str) -> Result<Option<Vec<UnfinishedUpload>>, StoreError> {
        self.inner.unfinished_uploads(prefix).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.inner.abort_unfinished(upload).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
