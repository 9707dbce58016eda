//! Trials of Object Lock: an object must get the date of its write, the date must be extended, and the version must
//! not be deleted before it.
//!
//! A store proves that it refuses to delete only to credentials that may delete versions, so an object without a lock
//! is deleted first. Without that right, every refusal looks the same. The locked versions stay in the bucket for
//! [`TERM`] at least, as old versions of a few bytes; nobody can delete them before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::delete::{add_content_md5, delete_one};
use super::errors::judge;
use super::lock::Lock;
use super::receive::system_time;
use super::shared::Shared;
use super::upload::S3Upload;
use crate::{
    LockMode, LockedUploads, Locks, ObjectName, Operation, PutMode, StoreError, StoreErrorKind, Trials, Upload, Uploads,
};

const BODY: &[u8] = b"written by holdfast to try the lock of this store";

/// How long the objects are locked: longer than the trials take on a slow store.
const TERM: Duration = Duration::from_mins(10);

/// Runs the trials below `scratch`, if locks are configured.
pub(super) async fn run(shared: &Arc<Shared>, scratch: &ObjectName, trials: &mut Trials) -> Result<(), StoreError> {
    let Some(lock) = shared.settings.lock else { return Ok(()) };
    let mode = lock.term.mode;
    let name = |part: &str| {
        ObjectName::new(format!("{scratch}/{part}")).map_err(|error| {
            shared.fail(Operation::Lock, scratch.as_str(), StoreErrorKind::InvalidConfig, error.to_string())
        })
    };
    let (free, locked, parts) = (name("lock-free")?, name("lock-put")?, name("lock-parts")?);
    let tried = async {
        trials.locks_fault = at_creation(shared, &free, &locked, mode, trials).await?;
        if trials.locks_fault.is_none() && trials.uploads == Uploads::Parts {
            trials.locks_fault = by_parts(shared, &parts, mode, trials).await?;
        }
        Ok(())
    };
    let tried = tried.await;
    // Makes markers, so that listings no longer show the locked objects.
    for name in [&free, &locked, &parts] {
        delete_one(shared, name).await?;
    }
    tried
}

/// Tries an object that is written in one request. Gives what does not work.
async fn at_creation(
    shared: &Arc<Shared>,
    free: &ObjectName,
    locked: &ObjectName,
    mode: LockMode,
    trials: &mut Trials,
) -> Result<Option<String>, StoreError> {
    let end = SystemTime::now() + TERM;
    let version = match put(shared, locked, Some(Lock::new(mode, end))).await {
        Ok(version) => version,
        Err(error) if refuses(&error) => return Ok(Some(format!("the store refuses a write with a lock ({error})"))),
        Err(error) => return Err(error),
    };
    let Some(version) = version else {
        return Ok(Some("the bucket keeps no versions of objects, without which nothing can be locked".to_owned()));
    };
    if let Some(fault) = shows(shared, locked, mode, end).await? {
        return Ok(Some(format!("an object that was written with a lock {fault}")));
    }
    let later = end + TERM;
    match shared.put_lock(locked, Lock::new(mode, later)).await {
        Ok(()) => {}
        Err(error) if refuses(&error) => return Ok(Some(format!("the store refuses to extend a lock ({error})"))),
        Err(error) => return Err(error),
    }
    if let Some(fault) = shows(shared, locked, mode, later).await? {
        return Ok(Some(format!("an object whose lock was extended {fault}")));
    }
    trials.locks = Locks::Dates;
    let Some(unlocked) = put(shared, free, None).await? else { return Ok(None) };
    if !delete_version(shared, free, &unlocked).await? {
        return Ok(None);
    }
    if delete_version(shared, locked, &version).await? {
        return Ok(Some("the store deletes an object before the end of its lock".to_owned()));
    }
    trials.locks = Locks::Enforced;
    Ok(None)
}

/// Tries an object that is uploaded in parts.
async fn by_parts(
    shared: &Arc<Shared>,
    name: &ObjectName,
    mode: LockMode,
    trials: &mut Trials,
) -> Result<Option<String>, StoreError> {
    let end = SystemTime::now() + TERM;
    let lock = Lock::new(mode, end);
    let upload = S3Upload::begin_locked(Arc::clone(shared), name, PutMode::Overwrite, Some(lock)).await?;
    upload.part(1, Bytes::from_static(BODY)).await?;
    upload.complete_without_looking().await?;
    trials.locked_uploads = LockedUploads::AtCreation;
    if shows(shared, name, mode, end).await?.is_none() {
        return Ok(None);
    }
    trials.locked_uploads = LockedUploads::Afterwards;
    shared.put_lock(name, lock).await?;
    let fault = shows(shared, name, mode, end).await?;
    Ok(fault.map(|fault| format!("an object that was uploaded in parts and then locked {fault}")))
}

/// Writes an object, and gives its version.
async fn put(shared: &Arc<Shared>, name: &ObjectName, lock: Option<Lock>) -> Result<Option<String>, StoreError> {
    let request = shared
        .client
        .put_object()
        .bucket(&shared.bucket)
        .key(name.as_str())
        .set_sse_customer_algorithm(shared.settings.customer_algorithm())
        .set_sse_customer_key(shared.settings.customer_key())
        .set_sse_customer_key_md5(shared.settings.customer_key_md5())
        .set_object_lock_mode(lock.map(Lock::mode))
        .set_object_lock_retain_until_date(lock.map(Lock::end))
        .body(Bytes::from_static(BODY).into())
        .customize()
        .mutate_request(add_content_md5);
    match request.send().await {
        Ok(output) => Ok(output.version_id().filter(|version| *version != "null").map(str::to_owned)),
        Err(error) => Err(shared.error(Operation::Put, name.as_str(), error)),
    }
}

/// What is wrong with the lock that the store shows for an object; `None` if it is right. A later end is right as well:
/// the bucket may have a longer term of its own.
async fn shows(
    shared: &Arc<Shared>,
    name: &ObjectName,
    mode: LockMode,
    end: SystemTime,
) -> Result<Option<String>, StoreError> {
    let head = shared.head_once(Operation::Head, name).await?;
    let Some(found) = head.object_lock_mode() else {
        return Ok(Some("has none, or these credentials may not read it".to_owned()));
    };
    if found.as_str() != mode.header() {
        return Ok(Some(format!("has the mode {}", found.as_str())));
    }
    let until = system_time(head.object_lock_retain_until_date());
    // The date is sent in whole seconds.
    if until.is_some_and(|until| until + Duration::from_secs(1) >= end) {
        return Ok(None);
    }
    Ok(Some("has an earlier date".to_owned()))
}

/// Whether the store deletes this version. False if it refuses.
async fn delete_version(shared: &Arc<Shared>, name: &ObjectName, version: &str) -> Result<bool, StoreError> {
    let request = shared.client.delete_object().bucket(&shared.bucket).key(name.as_str()).version_id(version);
    match request.send().await {
        Ok(_) => Ok(true),
        Err(error) => {
            let judged = judge(Operation::Delete, &error);
            let error = shared.judged(Operation::Delete, name.as_str(), judged, Some(error.into()));
            if refuses(&error) { Ok(false) } else { Err(error) }
        }
    }
}

/// Whether the store understood the request and refused it.
fn refuses(error: &StoreError) -> bool {
    matches!(
        error.kind(),
        StoreErrorKind::InvalidConfig
            | StoreErrorKind::Unsupported
            | StoreErrorKind::PermissionDenied
            | StoreErrorKind::Other
    )
}
