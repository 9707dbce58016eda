//! Finds the remains of a repository whose `holdfast.json` is gone.
//!
//! A bucket without that object, or one that hides it, looks empty. A new repository there would give old backups a new
//! identity and a new key. So `repo init` looks for objects that only a repository has.

use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_repo::name::{self, ClusterName, ObjectPath};
use holdfast_store::Store;

use crate::error::Error;

/// Requests in flight.
const AT_ONCE: usize = 16;

/// The most folders that are examined: a bucket with more is shared, and nobody takes it for a repository.
const FOLDERS_AT_MOST: usize = 1000;

/// A key slot, if there is one: of a running `init`, or of a repository that lost its record.
pub(super) async fn key_slot(store: &dyn Store) -> Result<Option<String>, Error> {
    let listed = store.list(&name::keys_folder(), None).await?;
    Ok(listed
        .iter()
        .map(|object| object.name.to_string())
        .find(|name| matches!(name.parse(), Ok(ObjectPath::KeySlot(_)))))
}

/// An archive of some cluster, if there is one. Folders of other software do not count, whatever their names.
pub(super) async fn archive(store: &dyn Store) -> Result<Option<String>, Error> {
    let folders = store.list_folders("").await?;
    let clusters = folders.iter().filter_map(|folder| folder.parse().ok()).take(FOLDERS_AT_MOST);
    let looks: Vec<_> = clusters.map(|cluster: ClusterName| async move { archive_of(store, &cluster).await }).collect();
    let found: Vec<Option<String>> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().next())
}

/// An object in the folder of a cluster that only Holdfast would have written.
async fn archive_of(store: &dyn Store, cluster: &ClusterName) -> Result<Option<String>, Error> {
    for folder in [name::claims_folder(cluster), name::snapshots_folder(cluster)] {
        let listed = store.list(&folder, None).await?;
        let ours = listed.into_iter().find(|object| object.name.as_ref().parse::<ObjectPath>().is_ok());
        if let Some(object) = ours {
            return Ok(Some(object.name.to_string()));
        }
    }
    for folder in [name::backups_folder(cluster), format!("{cluster}/packs/")] {
        let folders = store.list_folders(&folder).await?;
        let ours = folders.into_iter().find(|name| name.parse::<name::BackupId>().is_ok());
        if let Some(backup) = ours {
            return Ok(Some(format!("{folder}{backup}/")));
        }
    }
    let folder = format!("{cluster}/wal/");
    for claim in store.list_folders(&folder).await? {
        if claim.parse::<name::ClaimNumber>().is_err() {
            continue;
        }
        let timelines = store.list_folders(&format!("{folder}{claim}/")).await?;
        if timelines.iter().any(|name| is_timeline(name)) {
            return Ok(Some(format!("{folder}{claim}/")));
        }
    }
    Ok(None)
}

fn is_timeline(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}
