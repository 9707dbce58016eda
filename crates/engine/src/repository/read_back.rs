//! Reads back an object that was just sent, and compares every byte. It needs no open repository, so that a repository
//! can read back its own records.

use holdfast_store::{ObjectName, Store, StoreErrorKind};

use crate::error::{Cause, Error};

/// How often an object is fetched before it counts as damaged: the bytes may have been changed on their way back.
pub(super) const FETCHES: u32 = 2;

/// Fetches the object and compares it with what was sent.
///
/// # Errors
/// [`Cause::NotReadable`] if the store has something else; [`Cause::Store`].
pub(super) async fn read_back(store: &dyn Store, name: &ObjectName, sent: &[u8]) -> Result<(), Error> {
    for _ in 0..FETCHES {
        match store.get_at_most(name, sent.len() as u64).await {
            Ok(stored) if stored == sent => return Ok(()),
            Ok(_) => {}
            // A store that repeats the checksum of the request makes the client find out on its own.
            Err(error) if is_other_content(error.kind()) => {}
            Err(error) if error.kind() == StoreErrorKind::NotFound => {
                return Err(differs(store, name.as_str(), "it is not there".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(differs(store, name.as_str(), "what the store has is not what was sent".to_owned()))
}

/// Whether the store has an object under the name, and not the one that was sent.
fn is_other_content(kind: StoreErrorKind) -> bool {
    matches!(kind, StoreErrorKind::TooLarge | StoreErrorKind::Truncated | StoreErrorKind::Corrupt)
}

/// The error for an object that is not what was sent.
pub(super) fn differs(store: &dyn Store, object: &str, reason: String) -> Error {
    Cause::NotReadable { store: store.describe(), name: object.to_owned(), reason }.into()
}
