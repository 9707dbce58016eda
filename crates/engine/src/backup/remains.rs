//! Removing what a backup left that did not get to its end.
//!
//! A backup without `backup.json` does not exist, but its packs take room. They are removed by the run itself when it
//! fails or is cancelled, or else by the next run on the same host over the same data directory: that run holds the
//! lock, so the earlier one is dead. Remains of other hosts are left alone, since nobody here can know whether that
//! run is still alive; `holdfast list` shows them.
//!
//! Order: packs and manifest first, `start.json` last, so that an interrupted removal is continued by the next.

use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::StartRecord;
use holdfast_store::ObjectName;

use crate::error::{Doing, Error, What};
use crate::repository::{Repository, object_name};

/// Who runs a backup: the run's own remains are known by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runner {
    pub host: String,
    pub pgdata: String,
}

/// Removes the remains of earlier runs of the same runner; gives their ids.
pub(super) async fn remove_of_runner(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
) -> Result<Vec<BackupId>, Error> {
    let mut removed = Vec::new();
    for backup in repository.unfinished_backups(cluster).await? {
        let start = match repository.read_record::<StartRecord>(&name::backup_start(cluster, &backup)).await {
            Ok(start) => start,
            // Without a start record nobody knows whose it is: left alone.
            Err(error) if error.is_not_found() => continue,
            // The same when it cannot be read: `list` names it.
            Err(error) if error.is_of_one_object() => {
                tracing::warn!(%backup, %error, "the start record of an unfinished backup cannot be read; its remains stay");
                continue;
            }
            Err(error) => return Err(error),
        };
        if start.host == runner.host && start.pgdata == runner.pgdata {
            remove(repository, cluster, backup).await?;
            removed.push(backup);
        }
    }
    Ok(removed)
}

/// Removes the remains of one backup; refuses when it is complete.
pub(super) async fn remove(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<(), Error> {
    remove_inner(repository, cluster, backup)
        .await
        .doing(|| format!("removing the remains of backup {backup} from {}", repository.describe()))
}

async fn remove_inner(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<(), Error> {
    let store = repository.store();
    let summary = name::backup_summary(cluster, &backup);
    match store.head(&object_name(&summary)?).await {
        Ok(_) => {
            return Err(What::Internal(format!("backup {backup} is complete and must not be removed")).into());
        }
        Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let packs: Vec<ObjectName> =
        store.list(&name::packs_folder(cluster, &backup), None).await?.into_iter().map(|object| object.name).collect();
    store.delete(&packs).await?;
    store.delete(&[object_name(&name::manifest(cluster, &backup))?]).await?;
    store.delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
    Ok(())
}
