//! What a manifest names is in the repository: every pack, and every manifest that it refers to, in its size.

use std::collections::{BTreeSet, HashMap};

use holdfast_repo::ObjectType;
use holdfast_repo::manifest::Manifest;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use crate::error::{Cause, Error};
use crate::repository::{Repository, object_name};

/// Every pack is there, with the size that the manifest states, and so is every manifest that it refers to. One listing for
/// each folder of packs.
pub(super) async fn check_packs(repository: &Repository, manifest: &Manifest) -> Result<(), Error> {
    let folders: BTreeSet<&str> =
        manifest.packs().iter().filter_map(|pack| pack.name.rsplit_once('/')).map(|(folder, _)| folder).collect();
    let mut sizes: HashMap<String, u64> = HashMap::new();
    for folder in folders {
        for object in repository.store().list(&format!("{folder}/"), None).await? {
            sizes.insert(object.name.to_string(), object.size_bytes);
        }
    }
    for pack in manifest.packs() {
        let found = sizes.get(&pack.name).copied();
        if found != Some(pack.size_bytes) {
            return Err(not_whole(repository, &pack.name, found, pack.size_bytes, "the manifest"));
        }
        // A pack of a newer release is refused here, before `--delta` removes anything.
        if let Some(identity) = &pack.identity {
            repository.opener_by_salt(ObjectType::Pack, &pack.name, &identity.salt)?;
        }
    }
    for origin in manifest.origins() {
        let found = match repository.store().head(&object_name(&origin.name)?).await {
            Ok(found) => Some(found.size_bytes),
            Err(error) if error.kind() == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if found != Some(origin.size_bytes) {
            return Err(not_whole(repository, &origin.name, found, origin.size_bytes, "the manifest"));
        }
    }
    Ok(())
}

/// An object that is missing, too short or too long: three things that a person does something different about.
pub(super) fn not_whole(
    repository: &Repository,
    name: &str,
    found: Option<u64>,
    expected: u64,
    who_says: &str,
) -> Error {
    let failed = |kind, detail| {
        let (store, name) = (repository.describe(), name.to_owned());
        StoreError::new(kind, Failure { store, name, operation: Operation::Head, detail, source: None })
    };
    match found {
        None => failed(StoreErrorKind::NotFound, format!("{who_says} names it")).into(),
        Some(found) if found < expected => {
            let detail = format!("it has {found} bytes, {who_says} says {expected}");
            failed(StoreErrorKind::Truncated, detail).into()
        }
        Some(found) => {
            let reason = format!("it has {found} bytes, {who_says} says {expected}");
            Cause::NotReadable { store: repository.describe(), name: name.to_owned(), reason }.into()
        }
    }
}
