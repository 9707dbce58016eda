//! Finds out what a store can do: does with small objects everything that a backup does.
//!
//! It tests the behaviour and never trusts an answer or the name of a product. There are stores that answer a
//! conditional write with success and overwrite, that repeat a checksum they never compared, that cannot begin a
//! multipart upload, that leave folders out of their listings, or that accept a setting and drop it.
//!
//! Order: create, twice; what only the back end can try ([`Store::trials`]: wrong checksums, creates that overlap, the
//! condition on completing an upload, settings); an upload; reads of ranges; listings; delete. All names lie in one
//! folder of the caller's choice, which is emptied at the end. A crash leaves some objects of a few bytes there.

use bytes::Bytes;

use crate::{
    Capabilities, ConditionalCreate, Failure, LockedUploads, Locks, ObjectName, Operation, PutMode, Store, StoreError,
    StoreErrorKind, Trials, Uploads,
};

const FIRST: &[u8] = b"first";

/// The result of [`probe`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// What the store can do.
    pub capabilities: Capabilities,
    /// Faults that do not prevent the use of the store, each a sentence for people.
    pub faults: Vec<String>,
}

/// Makes all trials in the folder `scratch`, and deletes what it wrote. Nobody else may use the folder, so its name
/// should hold something random.
///
/// `store` must be opened with the default [`Capabilities`].
///
/// # Errors
/// The error of a plain write, read, listing or delete; `InvalidConfig` if the store accepts encryption and does not
/// encrypt, or if locks are configured and do not work; `Unsupported` if the store cannot be used at all.
pub async fn probe(store: &dyn Store, scratch: &ObjectName) -> Result<ProbeResult, StoreError> {
    let object = within(store, scratch, "object")?;
    let uploaded = within(store, scratch, "folder/upload")?;
    // Sorts before the other folder in a list of names, and after it in a list of folders.
    let beside = within(store, scratch, "folder-2/object")?;
    let found = try_all(store, scratch, &Names { object: &object, uploaded: &uploaded, beside: &beside }).await;
    let cleaned = store.delete(&[object.clone(), uploaded, beside]).await;
    let found = found?;
    cleaned?;
    for fault in &found.faults {
        tracing::warn!(store = %store.describe(), "{fault}");
    }
    Ok(found)
}

/// The objects that the probe writes.
struct Names<'a> {
    object: &'a ObjectName,
    uploaded: &'a ObjectName,
    beside: &'a ObjectName,
}

async fn try_all(store: &dyn Store, scratch: &ObjectName, names: &Names<'_>) -> Result<ProbeResult, StoreError> {
    let Names { object, uploaded, beside } = *names;
    let create = try_twice(store, object).await?;
    let trials = store.trials(scratch).await?;
    refuse_dropped_encryption(store, scratch, &trials)?;
    refuse_missing_locks(store, scratch, &trials)?;
    match trials.uploads {
        Uploads::Parts => {
            let upload = store.begin_upload(uploaded, PutMode::Overwrite).await?;
            upload.part(1, Bytes::from_static(FIRST)).await?;
            upload.complete().await?;
        }
        Uploads::Whole => store.put(uploaded, Bytes::from_static(FIRST), PutMode::Overwrite).await?,
    }
    reads(store, uploaded).await?;
    store.put(beside, Bytes::from_static(FIRST), PutMode::Overwrite).await?;
    listings(store, scratch, names).await?;
    let capabilities = Capabilities {
        // A store that checks the name and then writes passes the first trial, but not the second.
        create: if create == ConditionalCreate::Native { trials.overlapping } else { create },
        create_by_parts: trials.create_by_parts,
        checksums: trials.checksums,
        uploads: trials.uploads,
        locks: trials.locks,
        locked_uploads: trials.locked_uploads,
    };
    Ok(ProbeResult { capabilities, faults: faults(create, capabilities, &trials) })
}

fn faults(create: ConditionalCreate, found: Capabilities, trials: &Trials) -> Vec<String> {
    let mut faults = Vec::new();
    if create == ConditionalCreate::Emulated {
        faults.push(
            "the store ignores or refuses conditional writes; Holdfast checks each name before it writes, which does \
             not protect against two writers at the same instant"
                .to_owned(),
        );
    } else if found.create == ConditionalCreate::Emulated {
        faults.push(
            "the store checks the condition of a write only when the write begins, which does not protect against two \
             writers at the same instant"
                .to_owned(),
        );
    }
    if found.uploads == Uploads::Whole {
        let why = trials.uploads_fault.as_deref().unwrap_or("no reason given");
        faults.push(format!(
            "multipart uploads do not work ({why}); every object is held in memory and sent in one request"
        ));
    } else if found.create == ConditionalCreate::Native && found.create_by_parts == ConditionalCreate::Emulated {
        faults.push(
            "the store ignores the condition of a multipart upload; Holdfast checks the names of large objects before \
             it writes, which does not protect against two writers at the same instant"
                .to_owned(),
        );
    }
    if trials.locks == Locks::Dates {
        faults.push(
            "objects get the date of their lock; whether the store refuses to delete a locked object could not be \
             tried, because these credentials may not delete versions of objects (which is how it should be)"
                .to_owned(),
        );
    }
    if trials.locks != Locks::NotTried && trials.locked_uploads == LockedUploads::Afterwards {
        faults.push(
            "the store does not lock an object that is uploaded in parts when it is created; Holdfast locks it by \
             another request right afterwards"
                .to_owned(),
        );
    }
    for dropped in &trials.dropped {
        faults.push(format!("the store accepts `{}` but does not apply it: {}", dropped.setting, dropped.seen));
    }
    faults
}

fn refuse_dropped_encryption(store: &dyn Store, scratch: &ObjectName, trials: &Trials) -> Result<(), StoreError> {
    let Some(dropped) = trials.dropped.iter().find(|dropped| dropped.setting == "sse") else { return Ok(()) };
    let detail = format!(
        "the store accepts `sse` but does not encrypt: {}; leave `sse` out, or use a store that supports it",
        dropped.seen
    );
    Err(failure(store, StoreErrorKind::InvalidConfig, Operation::Put, scratch.as_str(), detail))
}

fn refuse_missing_locks(store: &dyn Store, scratch: &ObjectName, trials: &Trials) -> Result<(), StoreError> {
    let Some(fault) = &trials.locks_fault else { return Ok(()) };
    let detail = format!(
        "`lock` is configured, and {fault}; use a bucket that was created with Object Lock and credentials with \
         s3:PutObjectRetention and s3:GetObjectRetention, or leave `lock` out"
    );
    Err(failure(store, StoreErrorKind::InvalidConfig, Operation::Lock, scratch.as_str(), detail))
}

/// Reads as a restore does: from the middle and from the end.
async fn reads(store: &dyn Store, name: &ObjectName) -> Result<(), StoreError> {
    let wrong = |operation, what: &str| {
        failure(store, StoreErrorKind::Unsupported, operation, name.as_str(), format!("{what} is not what was written"))
    };
    if store.get(name).await? != FIRST {
        return Err(wrong(Operation::Get, "the object"));
    }
    if store.get_range(name, 1..4).await? != FIRST.get(1..4).unwrap_or_default() {
        return Err(wrong(Operation::GetRange, "a range"));
    }
    if store.get_tail(name, 2).await? != (Bytes::from_static(b"st"), FIRST.len() as u64) {
        return Err(wrong(Operation::GetTail, "the end"));
    }
    Ok(())
}

/// What was written must be listed, and so must its folders: claims and archives are found that way. Two folders,
/// because some stores list the first and leave the others out.
async fn listings(store: &dyn Store, scratch: &ObjectName, names: &Names<'_>) -> Result<(), StoreError> {
    let Names { object, uploaded, beside } = *names;
    let prefix = format!("{scratch}/");
    let wrong = |operation, what: String| failure(store, StoreErrorKind::Unsupported, operation, &prefix, what);
    let listed = store.list(&prefix, None).await?;
    if let Some(missing) =
        [object, uploaded, beside].into_iter().find(|name| listed.iter().all(|info| info.name != **name))
    {
        return Err(wrong(Operation::List, format!("the store does not list {missing}, which was just written")));
    }
    let after = store.list(&prefix, Some(uploaded.as_str())).await?;
    if after.iter().any(|info| info.name <= *uploaded) || after.iter().all(|info| info.name != *object) {
        return Err(wrong(Operation::List, format!("the listing after {uploaded} is not what was asked for")));
    }
    if store.list_folders(&prefix).await? != ["folder", "folder-2"] {
        let what = "the store leaves out a folder that was just written when it lists with a delimiter";
        return Err(wrong(Operation::ListFolders, what.to_owned()));
    }
    Ok(())
}

/// Writes two different bodies, both in [`PutMode::Create`], and checks which one is stored.
async fn try_twice(store: &dyn Store, scratch: &ObjectName) -> Result<ConditionalCreate, StoreError> {
    let first = Bytes::from_static(FIRST);
    let second = Bytes::from_static(b"the second");
    match store.put(scratch, first.clone(), PutMode::Create).await {
        Ok(()) => {}
        Err(error) if refuses_condition(&error) => {
            // Was it refused for the condition, or for something that every write carries (encryption, storage class,
            // tags)? A write without the condition shows it, and its error is the right one.
            store.put(scratch, first, PutMode::Overwrite).await?;
            return Ok(ConditionalCreate::Emulated);
        }
        Err(error) => return Err(error),
    }
    let refused = match store.put(scratch, second, PutMode::Create).await {
        Ok(()) => false,
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => true,
        Err(error) if refuses_condition(&error) => false,
        Err(error) => return Err(error),
    };
    // Only the stored object counts, whatever the answer was.
    if refused && store.get(scratch).await? == first {
        Ok(ConditionalCreate::Native)
    } else {
        Ok(ConditionalCreate::Emulated)
    }
}

fn refuses_condition(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Unsupported | StoreErrorKind::InvalidConfig | StoreErrorKind::Other)
}

fn within(store: &dyn Store, scratch: &ObjectName, part: &str) -> Result<ObjectName, StoreError> {
    ObjectName::new(format!("{scratch}/{part}")).map_err(|error| {
        failure(store, StoreErrorKind::InvalidConfig, Operation::Put, scratch.as_str(), error.to_string())
    })
}

fn failure(store: &dyn Store, kind: StoreErrorKind, operation: Operation, name: &str, detail: String) -> StoreError {
    let (store, name) = (store.describe(), name.to_owned());
    StoreError::new(kind, Failure { store, name, operation, detail, source: None })
}
