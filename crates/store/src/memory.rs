//! [`MemoryStore`]: the reference behaviour of the trait, for tests. Clones share their objects; nothing survives the
//! process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::parts::total_size;
use crate::{
    Failure, FolderPage, ListPage, MOST_DELETED, NextUploads, ObjectInfo, ObjectName, Operation, PutMode, Store,
    StoreError, StoreErrorKind, UnfinishedPage, UnfinishedUpload, Upload,
};

/// Objects of a page, as in S3.
const PAGE_OBJECTS: usize = 1000;

/// A store whose objects are in a map.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<BTreeMap<ObjectName, Stored>>>,
    uploads: Arc<Mutex<Vec<UnfinishedUpload>>>,
    begun: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Stored {
    body: Bytes,
    crc32c: u32,
    modified: SystemTime,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes everything that is stored older by this much, for tests that need old objects.
    pub fn age(&self, by: Duration) {
        self.objects.lock().values_mut().for_each(|stored| stored.modified -= by);
    }

    /// As [`Self::age`], for uploads that are not completed.
    pub fn age_uploads(&self, by: Duration) {
        self.uploads.lock().iter_mut().for_each(|upload| upload.begun = upload.begun.map(|begun| begun - by));
    }

    fn fail(operation: Operation, name: &str, kind: StoreErrorKind, detail: String) -> StoreError {
        let store = "memory:".to_owned();
        StoreError::new(kind, Failure { store, name: name.to_owned(), operation, detail, source: None })
    }

    fn stored(&self, operation: Operation, name: &ObjectName) -> Result<Stored, StoreError> {
        self.objects
            .lock()
            .get(name)
            .cloned()
            .ok_or_else(|| Self::fail(operation, name.as_str(), StoreErrorKind::NotFound, String::new()))
    }

    fn store(&self, operation: Operation, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        let mut objects = self.objects.lock();
        if mode == PutMode::Create && objects.contains_key(name) {
            return Err(Self::fail(operation, name.as_str(), StoreErrorKind::AlreadyExists, String::new()));
        }
        let crc32c = crc32c::crc32c(&body);
        objects.insert(name.clone(), Stored { body, crc32c, modified: SystemTime::now() });
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError> {
        self.store(Operation::Put, name, body, mode)
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        Ok(self.stored(Operation::Get, name)?.body)
    }

    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        let body = self.get(name).await?;
        crate::check_size(&self.describe(), name, body.len() as u64, most)?;
        Ok(body)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let body = self.stored(Operation::GetRange, name)?.body;
        let size = body.len();
        match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if end <= size => Ok(body.slice(start..end)),
            _ => {
                let detail = format!("{size} bytes, asked for {}..{}", range.start, range.end);
                Err(Self::fail(Operation::GetRange, name.as_str(), StoreErrorKind::Truncated, detail))
            }
        }
    }

    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError> {
        let body = self.stored(Operation::GetTail, name)?.body;
        let keep = usize::try_from(bytes).unwrap_or(usize::MAX).min(body.len());
        Ok((body.slice(body.len() - keep..), body.len() as u64))
    }

    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError> {
        let stored = self.stored(Operation::Head, name)?;
        Ok(ObjectInfo {
            name: name.clone(),
            size_bytes: stored.body.len() as u64,
            crc32c: Some(stored.crc32c),
            modified: Some(stored.modified),
        })
    }

    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError> {
        // A page continues after the last name of the previous page.
        let after = next.into_iter().chain(start_after).max();
        let from = match after.filter(|after| *after >= prefix) {
            Some(after) => (Bound::Excluded(after), Bound::Unbounded),
            None => (Bound::Included(prefix), Bound::Unbounded),
        };
        let objects = self.objects.lock();
        let mut wanted = objects.range::<str, _>(from).take_while(|(name, _)| name.as_str().starts_with(prefix));
        let found: Vec<ObjectInfo> = wanted
            .by_ref()
            .take(PAGE_OBJECTS)
            .map(|(name, stored)| ObjectInfo {
                name: name.clone(),
                size_bytes: stored.body.len() as u64,
                crc32c: None,
                modified: Some(stored.modified),
            })
            .collect();
        let next = wanted.next().and_then(|_| found.last()).map(|last| last.name.to_string());
        Ok(ListPage { objects: found, next })
    }

    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError> {
        let objects = self.objects.lock();
        let folders = objects.keys().filter_map(|name| {
            let (folder, _) = name.as_str().strip_prefix(prefix)?.split_once('/')?;
            next.is_none_or(|next| folder > next).then(|| folder.to_owned())
        });
        // "a-b/" sorts before "a/" among the names, "a" before "a-b" among the folders.
        let mut folders: BTreeSet<String> = folders.collect();
        let rest = folders.iter().nth(PAGE_OBJECTS).cloned();
        let more = rest.is_some_and(|rest| !folders.split_off(&rest).is_empty());
        let next = folders.last().filter(|_| more).cloned();
        Ok(FolderPage { folders: folders.into_iter().collect(), next })
    }

    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError> {
        let mut objects = self.objects.lock();
        let some = names.iter().take(MOST_DELETED);
        Ok(some.map(|name| objects.remove(name)).count())
    }

    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError> {
        let id = self.begun.fetch_add(1, Ordering::Relaxed).to_string();
        let begun = Some(SystemTime::now());
        self.uploads.lock().push(UnfinishedUpload { name: name.clone(), id: id.clone(), begun });
        Ok(Box::new(MemoryUpload { store: self.clone(), name: name.clone(), id, mode, parts: Mutex::default() }))
    }

    async fn unfinished_page(
        &self,
        prefix: &str,
        next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        let uploads = self.uploads.lock();
        let mut wanted: Vec<&UnfinishedUpload> =
            uploads.iter().filter(|upload| upload.name.as_str().starts_with(prefix)).collect();
        wanted.sort_by_key(|upload| (&upload.name, &upload.id));
        let place = |upload: &UnfinishedUpload| (upload.name.to_string(), Some(upload.id.clone()));
        let after = next.map(|next| (next.key.clone(), next.id.clone()));
        let later = wanted.into_iter().filter(|upload| after.as_ref().is_none_or(|after| place(upload) > *after));
        let mut page: Vec<UnfinishedUpload> = later.take(PAGE_OBJECTS + 1).cloned().collect();
        let more = page.len() > PAGE_OBJECTS;
        page.truncate(PAGE_OBJECTS);
        let next = page.last().filter(|_| more).map(place).map(|(key, id)| NextUploads { key, id });
        Ok(Some(UnfinishedPage { uploads: page, next }))
    }

    async fn abort_unfinished(&self, upload: &UnfinishedUpload) -> Result<(), StoreError> {
        self.uploads.lock().retain(|known| known.id != upload.id);
        Ok(())
    }

    fn describe(&self) -> String {
        "memory:".to_owned()
    }
}

#[derive(Debug)]
struct MemoryUpload {
    store: MemoryStore,
    name: ObjectName,
    id: String,
    mode: PutMode,
    parts: Mutex<BTreeMap<u32, Bytes>>,
}

impl MemoryUpload {
    fn fail(&self, operation: Operation, kind: StoreErrorKind, detail: String) -> StoreError {
        MemoryStore::fail(operation, self.name.as_str(), kind, detail)
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError> {
        self.parts.lock().insert(number, body);
        Ok(())
    }

    async fn try_complete(&self) -> Result<(), StoreError> {
        let parts = self.parts.lock().clone();
        let sizes = parts.iter().map(|(number, body)| (*number, body.len() as u64)).collect();
        total_size(&sizes).map_err(|detail| self.fail(Operation::Complete, StoreErrorKind::InvalidConfig, detail))?;
        let body = parts.into_values().fold(BytesMut::new(), |mut whole, part| {
            whole.extend_from_slice(&part);
            whole
        });
        self.store.store(Operation::Complete, &self.name, body.freeze(), self.mode)?;
        self.store.uploads.lock().retain(|known| known.id != self.id);
        Ok(())
    }

    async fn try_abort(&self) -> Result<(), StoreError> {
        self.parts.lock().clear();
        self.store.uploads.lock().retain(|known| known.id != self.id);
        Ok(())
    }
}
