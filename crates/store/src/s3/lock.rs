//! Object Lock of single objects: the headers of a write, and reading and extending the date of an object.

use std::time::SystemTime;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};

use super::delete::add_content_md5;
use super::receive::system_time;
use super::shared::Shared;
use crate::{LockMode, LockedUploads, ObjectName, Operation, StoreError, StoreErrorKind};

/// The lock of one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lock {
    mode: LockMode,
    end: SystemTime,
}

impl Lock {
    pub(super) fn new(mode: LockMode, end: SystemTime) -> Self {
        Self { mode, end }
    }

    pub(super) fn mode(self) -> ObjectLockMode {
        ObjectLockMode::from(self.mode.header())
    }

    /// In whole seconds: not every store reads fractions.
    pub(super) fn end(self) -> DateTime {
        DateTime::from_secs(DateTime::from(self.end).secs())
    }
}

impl Shared {
    /// The lock of an object that is written now, by its name in the bucket.
    pub(super) fn lock_of(&self, name: &ObjectName) -> Option<Lock> {
        let lock = self.settings.lock?;
        let inside = name.as_str().strip_prefix(&self.folder)?;
        (lock.covers)(inside).then(|| Lock::new(lock.term.mode, lock.term.end(SystemTime::now())))
    }

    /// Locks an object that was just uploaded in parts, if the store does not do so by itself.
    pub(super) async fn lock_completed(&self, name: &ObjectName) -> Result<(), StoreError> {
        match self.lock_of(name) {
            Some(lock) if self.capabilities.locked_uploads == LockedUploads::Afterwards => {
                self.put_lock(name, lock).await
            }
            _ => Ok(()),
        }
    }

    /// The end of an object's lock. HEAD has it on every store; the request of its own is missing on some.
    pub(super) async fn locked_until(&self, name: &ObjectName) -> Result<Option<SystemTime>, StoreError> {
        let head = self.head_once(Operation::Head, name).await?;
        Ok(head.object_lock_mode().and_then(|_| system_time(head.object_lock_retain_until_date())))
    }

    pub(super) async fn lock_until(&self, name: &ObjectName, end: SystemTime) -> Result<(), StoreError> {
        let Some(lock) = self.settings.lock else {
            let detail = "`lock` is not configured".to_owned();
            return Err(self.fail(Operation::Lock, name.as_str(), StoreErrorKind::InvalidConfig, detail));
        };
        self.put_lock(name, Lock::new(lock.term.mode, end)).await
    }

    /// One PutObjectRetention.
    pub(super) async fn put_lock(&self, name: &ObjectName, lock: Lock) -> Result<(), StoreError> {
        let retention = ObjectLockRetention::builder()
            .mode(ObjectLockRetentionMode::from(lock.mode.header()))
            .retain_until_date(lock.end())
            .build();
        self.client
            .put_object_retention()
            .bucket(&self.bucket)
            .key(name.as_str())
            .retention(retention)
            .customize()
            // Stores older than the flexible checksums require it.
            .mutate_request(add_content_md5)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| self.error(Operation::Lock, name.as_str(), error))
    }
}
