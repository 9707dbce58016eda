//! Object stores for Holdfast: one small trait over S3, a local directory and memory.
//!
//! The crate knows names and bytes. It knows nothing of PostgreSQL or of the repository's format.
//!
//! - [`Store`] is the trait, [`Upload`] an object of unknown size that is being written, [`StoreError`] every failure,
//!   with one kind for each thing a caller does differently.
//! - [`S3Store`], [`DirectoryStore`] and [`MemoryStore`] are the back-ends. A back-end makes one attempt and reports
//!   what happened; it never repeats a request.
//! - [`Retry`], [`Limited`], [`Counted`], [`Prefixed`] and [`Faulty`] are wrappers over `Arc<dyn Store>`, each with one
//!   job.
//! - [`open`] builds the standard stack of a [`StoreConfig`]: prefix, over retry, over the limit of requests in flight,
//!   over counters, over the back-end. So a request that waits for its next attempt holds no permit, and every attempt
//!   is counted.
//!
//! # What is promised
//! - At every moment every reader sees an object whole or not at all, also after a crash or a cancelled future.
//! - `Ok` from a write means durable: the answer of the object store, or `fsync` of file and directories.
//! - [`PutMode::Create`] never replaces an object. On a store without conditional writes, a HEAD comes before the write
//!   ([`ConditionalCreate::Emulated`]). This is not safe against two writers at the same instant, and a warning says
//!   so.
//!
//! # What is unknown after an error
//! A write that failed with [`StoreErrorKind::Timeout`], [`StoreErrorKind::Unreachable`] or
//! [`StoreErrorKind::Throttled`] may have taken effect: perhaps only the answer was lost. [`Retry`] resolves this:
//! after an "already exists" that follows such an attempt, it compares the stored object with the bytes to be written,
//! and equal means success. So a caller that uses a name as a lock must put something of its own into the content.
//! After a dropped future, too, both states are possible.
//!
//! # Example
//! ```
//! use holdfast_store::{ObjectName, PutMode, Store, StoreConfig, StoreErrorKind};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let store = holdfast_store::open(&StoreConfig::new("memory:".parse()?)).await?;
//! let name: ObjectName = "main/claims/1.json".parse()?;
//! store.put(&name, "one".into(), PutMode::Create).await?;
//! let second = store.put(&name, "two".into(), PutMode::Create).await;
//! assert_eq!(second.unwrap_err().kind(), StoreErrorKind::AlreadyExists);
//! assert_eq!(store.get(&name).await?, "one");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

mod buffer;
mod capabilities;
mod compare;
mod config;
mod config_error;
mod directory;
mod error;
mod memory;
mod object_lock;
mod object_name;
mod open;
mod parts;
mod probe;
mod proxies;
mod random;
mod s3;
pub mod tls;
mod wrappers;

use std::fmt::Debug;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

pub use buffer::Buffer;
pub use capabilities::{Capabilities, Checksums, ConditionalCreate, Dropped, LockedUploads, Locks, Trials, Uploads};
pub use config::{Credentials, Encryption, Location, S3Config, StoreConfig, Timeouts};
pub use config_error::ConfigError;
pub use directory::DirectoryStore;
pub use error::{Failure, Operation, StoreError, StoreErrorKind};
pub use memory::MemoryStore;
pub use object_lock::{LockMode, LockTerm, ObjectLock};
pub use object_name::{ObjectName, ObjectNameError};
pub use open::{open, open_counted, open_or_create};
pub use probe::{ProbeResult, probe};
pub use proxies::{Proxies, Proxy};
pub use s3::S3Store;
pub use wrappers::counted::{Counted, Counters, OperationCount};
pub use wrappers::faulty::{Fault, FaultRule, Faulty, OtherRun};
pub use wrappers::hurry::Hurry;
pub use wrappers::limited::Limited;
pub use wrappers::pace::{Pace, SystemPace, VirtualPace};
pub use wrappers::prefixed::Prefixed;
pub use wrappers::retry::{Retry, RetryPolicy};

/// What a write does if the name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Fail with [`StoreErrorKind::AlreadyExists`] and leave the stored object as it is.
    Create,
    /// Replace the object in one step.
    Overwrite,
}

/// What a store says about an object without returning its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The name, relative to the store.
    pub name: ObjectName,
    /// The size of the whole object.
    pub size_bytes: u64,
    /// CRC-32C of the whole object, if the store keeps it and was seen to compare it; never set in a listing.
    pub crc32c: Option<u32>,
    /// The time of the write, by the store's clock.
    pub modified: Option<SystemTime>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The objects that the store returns at once. An empty page does not end the listing.
    pub objects: Vec<ObjectInfo>,
    /// The store's token for the next page; `None` after the last page.
    pub next: Option<String>,
}

/// One page of the folders directly below a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderPage {
    /// Their names, without a path and without '/'. An empty page does not end the listing.
    pub folders: Vec<String>,
    /// The store's token for the next page; `None` after the last page.
    pub next: Option<String>,
}

/// One page of the uploads that were begun and neither completed nor aborted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnfinishedPage {
    /// The uploads that the store returns at once.
    pub uploads: Vec<UnfinishedUpload>,
    /// Where the next page continues; `None` after the last page.
    pub next: Option<NextUploads>,
}

/// The place in a listing of uploads at which the next page continues, in the store's own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextUploads {
    pub(crate) key: String,
    pub(crate) id: Option<String>,
}

/// Refuses an object of more than `most` bytes.
fn check_size(store: &str, name: &ObjectName, size_bytes: u64, most: u64) -> Result<(), StoreError> {
    if size_bytes <= most {
        return Ok(());
    }
    let (store, name) = (store.to_owned(), name.to_string());
    let detail = format!("it has {size_bytes} bytes, at most {most} are read");
    let failure = Failure { store, name, operation: Operation::Get, detail, source: None };
    Err(StoreError::new(StoreErrorKind::TooLarge, failure))
}

/// A place for named, immutable runs of bytes. See the crate's documentation for what is promised.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Writes one object, whole and durable on `Ok`.
    ///
    /// # Errors
    /// `AlreadyExists` in [`PutMode::Create`] if the name is taken; otherwise any kind.
    async fn put(&self, name: &ObjectName, body: Bytes, mode: PutMode) -> Result<(), StoreError>;

    /// Reads a whole object. It is checked against the store's CRC-32C if there is one.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Corrupt` if the bytes do not match the checksum.
    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError>;

    /// Reads a whole object of at most `most` bytes, as [`Store::get`]. Never holds more than that in memory: others
    /// may write to the bucket, so an object can have any size.
    ///
    /// # Errors
    /// As [`Store::get`]; `TooLarge` if the object is larger.
    async fn get_at_most(&self, name: &ObjectName, most: u64) -> Result<Bytes, StoreError> {
        check_size(&self.describe(), name, self.head(name).await?.size_bytes, most)?;
        let body = self.get(name).await?;
        check_size(&self.describe(), name, body.len() as u64, most)?;
        Ok(body)
    }

    /// Reads exactly the bytes of `range` (an empty range reads nothing and does not ask the store).
    ///
    /// # Errors
    /// `NotFound` if there is no object, `Truncated` if it ends before `range.end`.
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Reads the last `min(bytes, size)` bytes, and returns the size of the whole object.
    ///
    /// # Errors
    /// `NotFound` if there is no object.
    async fn get_tail(&self, name: &ObjectName, bytes: u64) -> Result<(Bytes, u64), StoreError>;

    /// Returns size, checksum and time of an object.
    ///
    /// # Errors
    /// `NotFound` if there is no object.
    async fn head(&self, name: &ObjectName) -> Result<ObjectInfo, StoreError>;

    /// One page of the objects whose names start with the string `prefix`, after `start_after` if given. `next` is the
    /// token of the previous page, with the same prefix and start; `None` asks for the first page.
    ///
    /// # Errors
    /// Never `NotFound`: if nothing is there, the page is empty.
    async fn list_page(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        next: Option<&str>,
    ) -> Result<ListPage, StoreError>;

    /// All objects of the pages, in ascending byte order. What a wrapper does in [`Store::list_page`] applies to every
    /// page: a page that fails is repeated alone. If a listing may be long, read it by pages and keep less.
    ///
    /// # Errors
    /// Never `NotFound`: if nothing is there, the list is empty.
    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Vec<ObjectInfo>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.list_page(prefix, start_after, next.as_deref()).await?;
            found.extend(page.objects);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        // Some stores return pages in an order of their own.
        found.sort_by(|left: &ObjectInfo, right| left.name.cmp(&right.name));
        Ok(found)
    }

    /// One page of the folders directly below the folder `prefix`, which is empty or ends in '/'. A folder exists while
    /// an object is in it. `next` is the token of the previous page; `None` asks for the first page.
    ///
    /// # Errors
    /// Never `NotFound`: if nothing is there, the page is empty.
    async fn list_folders_page(&self, prefix: &str, next: Option<&str>) -> Result<FolderPage, StoreError>;

    /// The names (no path, no '/') of all folders of the pages, ascending. As in [`Store::list`], a page that fails is
    /// repeated alone.
    ///
    /// # Errors
    /// As [`Store::list_folders_page`].
    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let page = self.list_folders_page(prefix, next.as_deref()).await?;
            found.extend(page.folders);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Deletes the first of these objects, as many as one request can, and returns how many those were: at least one,
    /// unless there are none. Those that do not exist count as deleted.
    ///
    /// # Errors
    /// Any kind: the first failure. Some may be gone and some not; the call may be repeated.
    async fn delete_some(&self, names: &[ObjectName]) -> Result<usize, StoreError>;

    /// Deletes objects. Those that do not exist count as deleted. A request that fails is repeated alone. After an
    /// error, some may be gone and some not.
    ///
    /// # Errors
    /// As [`Store::delete_some`].
    async fn delete(&self, names: &[ObjectName]) -> Result<(), StoreError> {
        let mut left = names;
        while !left.is_empty() {
            let done = self.delete_some(left).await?;
            left = left.get(done.max(1)..).unwrap_or_default();
        }
        Ok(())
    }

    /// Begins an object whose size is not known yet. Nothing appears under the name before [`Upload::complete`].
    ///
    /// # Errors
    /// In [`PutMode::Create`] a taken name may be reported here already, or only by `complete`.
    async fn begin_upload(&self, name: &ObjectName, mode: PutMode) -> Result<Box<dyn Upload>, StoreError>;

    /// Makes the trials that only the back end can make: a part of [`probe`]. Uses objects below the folder `scratch`
    /// and deletes them. Back ends in this process have nothing to find out.
    ///
    /// # Errors
    /// Any kind; the call may be repeated.
    async fn trials(&self, _scratch: &ObjectName) -> Result<Trials, StoreError> {
        Ok(Trials::default())
    }

    /// One page of the uploads that were begun and neither completed nor aborted, for objects whose names start with
    /// `prefix`. Their writers died or are still working. `None` if the store does not list them, or refuses us the
    /// list. In a store in this process no upload outlives its writer.
    ///
    /// # Errors
    /// Any kind; the call may be repeated.
    async fn unfinished_page(
        &self,
        _prefix: &str,
        _next: Option<&NextUploads>,
    ) -> Result<Option<UnfinishedPage>, StoreError> {
        Ok(Some(UnfinishedPage::default()))
    }

    /// The uploads of all pages, [`MOST_UNFINISHED`] at most. As in [`Store::list`], a page that fails is repeated
    /// alone.
    ///
    /// # Errors
    /// As [`Store::unfinished_page`].
    async fn unfinished_uploads(&self, prefix: &str) -> Result<Option<Vec<UnfinishedUpload>>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let Some(page) = self.unfinished_page(prefix, next.as_ref()).await? else { return Ok(None) };
            found.extend(page.uploads);
            next = page.next;
            if next.is_none() || found.len() >= MOST_UNFINISHED {
                found.truncate(MOST_UNFINISHED);
                return Ok(Some(found));
            }
        }
    }

    /// Removes the parts of an unfinished upload, no matter who began it. If the upload is already gone, that is a
    /// success.
    ///
    /// # Errors
    /// Any kind; the call may be repeated.
    async fn abort_unfinished(&self, _upload: &UnfinishedUpload) -> Result<(), StoreError> {
        Ok(())
    }

    /// The term of the locks that new objects of this store get; `None` if they get none.
    fn lock(&self) -> Option<LockTerm> {
        None
    }

    /// The end of an object's lock, which may be in the past; `None` if it was never locked. A store shows nothing to
    /// credentials without the right to read locks: [`probe`] finds that out.
    ///
    /// # Errors
    /// `NotFound` if there is no object.
    async fn locked_until(&self, _name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        Ok(None)
    }

    /// Locks an object until this time, in the mode of [`Store::lock`]. Ask for the end of its lock first: a store
    /// should refuse to shorten a lock, but not every store does.
    ///
    /// # Errors
    /// `NotFound` if there is no object, `Unsupported` for a store without locks, `PermissionDenied` without the right
    /// to change locks.
    async fn lock_until(&self, name: &ObjectName, _end: SystemTime) -> Result<(), StoreError> {
        let (store, name) = (self.describe(), name.to_string());
        let detail = "this store has no object lock".to_owned();
        let failure = Failure { store, name, operation: Operation::Lock, detail, source: None };
        Err(StoreError::new(StoreErrorKind::Unsupported, failure))
    }

    /// The store's URL for messages, without anything secret.
    fn describe(&self) -> String;
}

/// The maximum number of objects that one [`Store::delete_some`] deletes: S3's limit for a request.
pub const MOST_DELETED: usize = 1000;

/// The maximum number of unfinished uploads in a listing: enough to say that there are many.
pub const MOST_UNFINISHED: usize = 10_000;

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedUpload {
    /// The object that the upload would have made.
    pub name: ObjectName,
    /// The store's id for the upload.
    pub id: String,
    /// The time of its beginning, by the store's clock.
    pub begun: Option<SystemTime>,
}

/// An object that is being written. Parts may be sent concurrently and in any order.
///
/// Dropping an upload leaves its parts where they are: the directory store removes them by age, a bucket by its
/// lifecycle rule for incomplete uploads. [`Upload::abort`] removes them at once.
#[async_trait]
pub trait Upload: Send + Sync + Debug {
    /// Sends part `number` (from 1). All parts but the last have the same size, at least 5 MiB; the last has 1 byte or
    /// more, unless it is the only one. Sending a part again replaces it.
    ///
    /// # Errors
    /// Any kind; the part may be sent again.
    async fn part(&self, number: u32, body: Bytes) -> Result<(), StoreError>;

    /// One attempt to make the object visible. Callers use [`Upload::complete`]; this is for wrappers that repeat it.
    ///
    /// # Errors
    /// As [`Upload::complete`]; `NotFound` if the store does not know the upload, or no longer.
    async fn try_complete(&self) -> Result<(), StoreError>;

    /// One attempt to remove the parts. Callers use [`Upload::abort`].
    ///
    /// # Errors
    /// Any kind; an upload that is already gone is a success.
    async fn try_abort(&self) -> Result<(), StoreError>;

    /// Makes the object visible, whole and durable. An upload without parts makes an empty object.
    ///
    /// # Errors
    /// `AlreadyExists` in [`PutMode::Create`] if the name is taken, `InvalidConfig` if parts are missing or uneven.
    /// After an error that is not retryable, the parts were removed if possible.
    async fn complete(self: Box<Self>) -> Result<(), StoreError> {
        let result = self.try_complete().await;
        // After a retryable error the parts may already be an object, or may still be needed. They are left to the
        // cleaning by age.
        if result.as_ref().is_err_and(|error| !error.is_retryable())
            && let Err(error) = self.try_abort().await
        {
            tracing::debug!(%error, "the parts of an upload could not be removed");
        }
        result
    }

    /// Removes the parts; no object appears.
    ///
    /// # Errors
    /// Any kind; parts that remain do not appear in any listing.
    async fn abort(self: Box<Self>) -> Result<(), StoreError> {
        self.try_abort().await
    }
}
