//! Finds out whether a store keeps [`PutMode::Create`] by itself.
//!
//! By looking, not by asking: there are stores that answer a conditional write with success and overwrite.

use bytes::Bytes;

use crate::{ConditionalCreate, ObjectName, PutMode, Store, StoreError, StoreErrorKind};

/// Writes two different bodies to `scratch`, both in [`PutMode::Create`], looks which one is stored, and deletes it.
///
/// `store` must be opened with [`ConditionalCreate::Native`], and `scratch` must be a name nobody else uses (put something
/// random into it). A crash leaves an object of a few bytes there.
///
/// # Errors
/// Whatever the store answers to a plain write, read or delete; a store that does not know the condition at all is not an
/// error but [`ConditionalCreate::Emulated`].
pub async fn probe_conditional_create(
    store: &dyn Store,
    scratch: &ObjectName,
) -> Result<ConditionalCreate, StoreError> {
    let found = try_twice(store, scratch).await;
    let cleaned = store.delete(std::slice::from_ref(scratch)).await;
    let found = found?;
    cleaned?;
    if found == ConditionalCreate::Emulated {
        tracing::warn!(
            store = %store.describe(),
            "the store ignores or refuses conditional writes; names are looked at before they are written, which does not \
             keep two writers in the same instant apart"
        );
    }
    Ok(found)
}

async fn try_twice(store: &dyn Store, scratch: &ObjectName) -> Result<ConditionalCreate, StoreError> {
    let first = Bytes::from_static(b"first");
    let second = Bytes::from_static(b"the second");
    match store.put(scratch, first.clone(), PutMode::Create).await {
        Ok(()) => {}
        Err(error) if refuses_condition(&error) => return Ok(ConditionalCreate::Emulated),
        Err(error) => return Err(error),
    }
    let refused = match store.put(scratch, second, PutMode::Create).await {
        Ok(()) => false,
        Err(error) if error.kind() == StoreErrorKind::AlreadyExists => true,
        Err(error) if refuses_condition(&error) => false,
        Err(error) => return Err(error),
    };
    // Whatever was answered, what counts is what is stored.
    if refused && store.get(scratch).await? == first {
        Ok(ConditionalCreate::Native)
    } else {
        Ok(ConditionalCreate::Emulated)
    }
}

fn refuses_condition(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Unsupported | StoreErrorKind::InvalidConfig)
}
