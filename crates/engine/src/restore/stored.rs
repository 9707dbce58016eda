//! Checks that everything that a manifest names is in the repository: every pack and every earlier manifest, with its
//! size.

use std::collections::{BTreeSet, HashMap};

use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_repo::ObjectType;
use holdfast_repo::manifest::Manifest;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use crate::error::{Cause, Error};
use crate::repository::{Repository, object_name};

/// The sizes of objects by folder. Each folder is listed once, even if many manifests name it.
#[derive(Debug, Default)]
pub(crate) struct ListedSizes {
    folders: HashMap<String, HashMap<String, u64>>,
}

/// Requests for folders and earlier manifests at the same time: a chain of incremental backups has many of them.
const REQUESTS_AT_ONCE: usize = 16;

impl ListedSizes {
    /// Lists the folders that are not listed yet.
    async fn list(&mut self, repository: &Repository, folders: BTreeSet<&str>) -> Result<(), Error> {
        let new = folders.into_iter().filter(|folder| !self.folders.contains_key(*folder));
        let lists =
            new.map(|folder| async move { Ok::<_, Error>((folder.to_owned(), sizes(repository, folder).await?)) });
        let listed: Vec<_> = stream::iter(lists.collect::<Vec<_>>()).buffered(REQUESTS_AT_ONCE).try_collect().await?;
        self.folders.extend(listed);
        Ok(())
    }

    /// The size of an object in a listed folder; `None` if it is not there.
    fn size_of(&self, name: &str) -> Option<u64> {
        let (folder, last) = name.rsplit_once('/')?;
        self.folders.get(folder)?.get(last).copied()
    }
}

/// The sizes in a folder, by the last part of the name.
async fn sizes(repository: &Repository, folder: &str) -> Result<HashMap<String, u64>, Error> {
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
            return Ok(sizes);
        }
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
    let folders = manifest.packs().iter().filter_map(|pack| Some(pack.name.rsplit_once('/')?.0)).collect();
    sizes.list(repository, folders).await?;
    let mut faults = Vec::new();
    for pack in manifest.packs() {
        let found = sizes.size_of(&pack.name);
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
    let looks = manifest.origins().iter().map(|origin| async move {
        match repository.store().head(&object_name(&origin.name)?).await {
            Ok(found) => Ok(Some(found.size_bytes)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::from(error)),
        }
    });
    let found: Vec<Option<u64>> =
        stream::iter(looks.collect::<Vec<_>>()).buffered(REQUESTS_AT_ONCE).try_collect().await?;
    for (origin, found) in manifest.origins().iter().zip(found) {
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
