//! [`Counted`]: counts requests by kind, failures, and bytes read and written.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    FolderPage, ListPage, LockTerm, NextUploads, ObjectInfo, ObjectName, Operation, PutMode, Store, StoreError, Trials,
    UnfinishedPage, UnfinishedUpload, Upload,
};

/// Shared counters; any number of stores may use the same.
#[derive(Debug, Default)]
pub struct Counters {
    operations: [Cell; Operation::ALL.len()],
}

#[derive(Debug, Default)]
struct Cell {
    requests: AtomicU64,
    failures: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// The counts of one operation, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationCount {
    /// Calls of the back-end, with repeated ones. Each page of a listing is a call.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Bytes of objects that successful calls read.
    pub bytes_in: u64,
    /// Bytes of objects that successful calls wrote.
    pub bytes_out: u64,
}

impl Counters {
    /// The counts of one operation.
    pub fn of(&self, operation: Operation) -> OperationCount {
        let counter = self.cell(operation);
        OperationCount {
            requests: counter.requests.load(Ordering::Relaxed),
            failures: counter.failures.load(Ordering::Relaxed),
            bytes_in: counter.bytes_in.load(Ordering::Relaxed),
            bytes_out: counter.bytes_out.load(Ordering::Relaxed),
        }
    }

    /// The sum over all operations.
    pub fn total(&self) -> OperationCount {
        Operation::ALL.into_iter().map(|operation| self.of(operation)).fold(OperationCount::default(), |sum, count| {
            OperationCount {
                requests: sum.requests + count.requests,
                failures: sum.failures + count.failures,
                bytes_in: sum.bytes_in + count.bytes_in,
                bytes_out: sum.bytes_out + count.bytes_out,
            }
        })
    }

    fn cell(&self, operation: Operation) -> &Cell {
        &self.operations[operation as usize]
    }

    async fn count<T>(
        &self,
        operation: Operation,
        bytes_out: usize,
        bytes_in: impl Fn(&T) -> usize + Send,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let counter = self.cell(operation);
        counter.requests.fetch_add(1, Ordering::Relaxed);
        let result = call.await;
        match &result {
            Ok(value) => {
                counter.bytes_out.fetch_add(bytes_out as u64, Ordering::Relaxed);
                counter.bytes_in.fetch_add(bytes_in(value) as u64, Ordering::Relaxed);
            }
            Err(_) => {
                counter.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
        result
    }
}

/// Counts the requests that pass through it.
#[derive(Clone, Debug)]
pub struct Counted {
    inner: Arc<dyn Store>,
    counters: Arc<Counters>,
}

impl Counted {
    /// Wraps a store; the counts go to `counters`.
    pub fn new(inner: Arc<dyn Store>, counters: Arc<Counters>) -> Self {
        Self { inner, counters }
    }
}

fn none<T>(_: &T) -> usize {
    0
}

#[async_trait]
impl Store for Counted {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let size = body.len();
        self.counters.count(Operation::Put, size, none, self.inner.put(name, body, mode)).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.counters.count(Operation::Get, 0, Bytes::len, self.inner.get(name)).await
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        self.counters.count(Operation::Get, 0, Bytes::len, self.inner.get_at_most(name, most)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let call = self.inner.get_range(name, range);
        self.counters.count(Operation::GetRange, 0, Bytes::len, call).await
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let size = |(tail, _): &(Bytes, u64)| tail.len();
        self.counters.count(Operation::GetTail, 0, size, self.inner.get_tail(name, bytes)).await
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        self.counters.count(Operation::Head, 0, none, self.inner.head(name)).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        self.counters.count(Operation::List, 0, none, self.inner.list_page(prefix, start_after, next)).await
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        self.counters.count(Operation::ListFolders, 0, none, self.inner.list_folders_page(prefix, next)).await
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        self.counters.count(Operation::Delete, 0, none, self.inner.delete_some(names)).await
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let call = self.inner.begin_upload(name, mode);
        let inner = self.counters.count(Operation::BeginUpload, 0, none, call).await?;
        Ok(Box::new(CountedUpload { inner, counters: Arc::clone(&self.counters) }))
    }

    async fn trials(&self, scratch: &ObjectName) -> Result<Trials, StoreError> {
        self.counters.count(Operation::Put, 0, none, self.inner.trials(scratch)).await
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        self.counters.count(Operation::List, 0, none, self.inner.unfinished_page(prefix, next)).await
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.counters.count(Operation::Abort, 0, none, self.inner.abort_unfinished(upload)).await
    }

    fn lock(&self) -> Option<LockTerm> {
        self.inner.lock()
    }

    async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        self.counters.count(Operation::Head, 0, none, self.inner.locked_until(name)).await
    }

    async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        self.counters.count(Operation::Lock, 0, none, self.inner.lock_until(name, end)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct CountedUpload {
    inner: Box<dyn Upload>,
    counters: Arc<Counters>,
}

#[async_trait]
impl Upload for CountedUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        let size = body.len();
        self.counters.count(Operation::Part, size, none, self.inner.part(number, body)).await
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        self.counters.count(Operation::Complete, 0, none, self.inner.try_complete()).await
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        self.counters.count(Operation::Abort, 0, none, self.inner.try_abort()).await
    }
}
