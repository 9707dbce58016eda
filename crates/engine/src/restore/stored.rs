//! Checks that everything that a manifest names is in the repository: every pack and every earlier manifest, with its
//! size.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_repo::ObjectType;
use holdfast_repo::manifest::Manifest;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use crate::error::{Cause, Error};
use crate::repository::{Repository, object_name};

/// The sizes of objects by folder. Each folder is listed once, even if many manifests name it.
#[derive(Debug, Default)]
pub(crate) struct ListedSizes {
    folders: HashMap<String, Arc<HashMap<String, u64>>>,
}

impl ListedSizes {
    /// The sizes in a folder, by the last part of the name.
    async fn folder(&mut self, repository: &Repository, folder: &str) -> Result<Arc<HashMap<String, u64>>, Error> {
        if let Some(listed) = self.folders.get(folder) {
            return Ok(Arc::clone(listed));
        }
        let prefix = format!("{folder}/");
        let (mut sizes, mut next) = (HashMap::new(), None);
        loop {
            let page = repository.store().list_page(&prefix, None, next.as_deref()).await?;
            for object in page.objects {
                if let Some(last) = object.name.as_ref().strip_prefix(&prefix) {
                    sizes.insert(last.to_owned(), object.size_bytes);
                }
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let sizes = Arc::new(sizes);
        self.folders.insert(folder.to_owned(), Arc::clone(&sizes));
        Ok(sizes)
    }
}

/// Checks that every pack exists with the size that the manifest states, and so does every manifest to which it refers.
/// Costs one listing for each folder of packs.
pub(crate) async fn check_packs(repository: &Repository, manifest: &Manifest) -> Result<(), Error> {
    let faults = faults_of_objects(repository, manifest, &mut ListedSizes::default()).await?;
    faults.into_iter().next().map_or(Ok(()), |(_, fault)| Err(fault))
}

/// The faults that a listing shows of the packs of a manifest, and of the manifests to which it refers: each name with
/// its fault.
///
/// # Errors
/// Only if the store could not be asked; that says nothing about an object.
pub(crate) async fn faults_of_objects(
    repository: &Repository,
    manifest: &Manifest,
    sizes: &mut ListedSizes,
) -> Result<Vec<(String, Error)>, Error> {
    let mut faults = Vec::new();
    for pack in manifest.packs() {
        let found = match pack.name.rsplit_once('/') {
            Some((folder, last)) => sizes.folder(repository, folder).await?.get(last).copied(),
            None => None,
        };
        if found != Some(pack.size_bytes) {
            let fault = not_whole(repository, &pack.name, found, pack.size_bytes, "the manifest");
            faults.push((pack.name.clone(), fault));
        } else if let Some(identity) = &pack.identity
            // A pack of a newer release is refused here, before `--delta` removes anything.
            && let Err(fault) = repository.opener_by_salt(ObjectType::Pack, &pack.name, &identity.salt)
        {
            faults.push((pack.name.clone(), fault));
        }
    }
    for origin in manifest.origins() {
        let found = match repository.store().head(&object_name(&origin.name)?).await {
            Ok(found) => Some(found.size_bytes),
            Err(error) if error.kind() == StoreErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if found != Some(origin.size_bytes) {
            let fault = not_whole(repository, &origin.name, found, origin.size_bytes, "the manifest");
            faults.push((origin.name.clone(), fault));
        }
    }
    Ok(faults)
}

/// An object that is missing, too short or too long: each needs a different action by a person.
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
