//! Removes what an unfinished backup left.
//!
//! A backup without `backup.json` does not exist, but its packs take room. A run that fails or is cancelled removes
//! them itself. Otherwise the next run on the same machine over the same data directory first reuses them
//! ([`super::resume`]) and then removes the rest. That run holds the lock, so the earlier run is dead. If the id moves
//! with the data directory ([`super::runner`]), the earlier run may still be alive on a host that seemed lost. Then it
//! fails, because of the order below. Remains of other machines are left alone, since nobody here can know whether
//! their runs are alive; `holdfast list` shows them. Remains whose start record cannot be read are also left alone.
//!
//! Order: delete `start.json`; check that `backup.json` has not appeared meanwhile; abort unfinished uploads; delete
//! packs and manifest. A run looks for its own `start.json` before and after it creates `backup.json` ([`still_mine`]).
//! So if a run is alive while it is being removed, one of the two sees the other, whatever their order, and no backup
//! is complete without its packs. The next run continues an interrupted removal: what a run removes is recorded in its
//! own start record before the removal begins.
//!
//! **A pack is removed only if no other manifest of the cluster names it.** An `expire` of a later release may have
//! removed the `backup.json` of a complete backup while incremental backups still use its packs and the frames of its
//! manifest. If one of the other manifests cannot be read, because it is newer or damaged, nobody knows what it names,
//! and everything stays.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
use holdfast_repo::record::StartRecord;
use holdfast_store::ObjectName;
use tokio::time::Instant;

use super::runner::{RunOwner, Runner};
use crate::error::{Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::NamedLease;
use crate::repository::{Repository, object_name};

/// The unfinished backups of earlier, dead runs of this runner, and the backups that these runs were removing.
pub(super) async fn of_runner(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
    now: DateTime<Utc>,
    progress: &dyn Progress,
) -> Result<BTreeSet<BackupId>, Error> {
    let mut dead = BTreeSet::new();
    let mut leases = None;
    for backup in repository.unfinished_backups(cluster).await? {
        let start = match repository.read_record::<StartRecord>(&name::backup_start(cluster, &backup)).await {
            Ok(start) => start,
            // Without a start record, nobody knows which run made it, so it is left alone.
            Err(error) if error.is_not_found() => continue,
            // One damaged or newer object must not stop all backups. `list` names it.
            Err(error) if error.is_of_one_object() => {
                progress.note(&format!(
                    "the unfinished backup {backup} is not removed, because it is not known who made it: {error}"
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_dead = match runner.owner_of(&start) {
            RunOwner::Ours => true,
            RunOwner::Other => false,
            RunOwner::OursWithoutItsLease => {
                let listed = match leases.take() {
                    Some(listed) => listed,
                    None => repository.lease_names(cluster).await?,
                };
                let run = start.run.as_ref().map(|run| run.id.as_str());
                let in_force = |lease: &NamedLease| Some(lease.run.as_str()) == run && !lease.is_over(now);
                let is_dead = !listed.iter().any(in_force);
                leases = Some(listed);
                is_dead
            }
        };
        if is_dead {
            dead.insert(backup);
            dead.extend(start.run.into_iter().flat_map(|run| run.removes));
        }
    }
    Ok(dead)
}

/// The number of manifests that are read in parallel.
const ENDS_AT_ONCE: usize = 16;

/// The time for finding and aborting all uploads of dead runs; see [`abort_uploads`], which may fail.
pub(super) const ABORT_WITHIN: Duration = Duration::from_secs(20);

/// The time for aborting the run's own uploads at its end. It is short, because removing packs is more important there.
const ABORT_OWN_WITHIN: Duration = Duration::from_secs(2);

/// As [`remove_by`], with [`ABORT_WITHIN`] for the uploads of one run.
pub(super) async fn remove(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
    remove_by(repository, cluster, backup, Instant::now() + ABORT_WITHIN).await
}

/// Removes what this run itself stored. The start record is deleted last: if the removal is interrupted, the next
/// backup on this host finds the rest through it.
///
/// A run that takes this one for dead writes into its start record, and then looks for the mark that is set here. So
/// one of the two sees the other, however long one of them sleeps in between.
pub(crate) async fn remove_own(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    run: &str,
) -> Result<(), Error> {
    let removed = async {
        if is_complete(repository, cluster, backup).await? {
            return Ok::<_, Error>(());
        }
        let start_name = name::backup_start(cluster, &backup);
        let start = match repository.read_record::<StartRecord>(&start_name).await {
            Ok(start) if is_of_run(&start, run) => Some(start),
            Ok(_) => return Ok(()),
            // The run that took this one over is complete. It has not seen what this run stored afterwards.
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if let Some(start) = &start {
            match repository.create_record(&name::backup_end(cluster, &backup), start).await {
                Err(error) if !error.is_already_exists() => return Err(error),
                _ => {}
            }
            match repository.read_record::<StartRecord>(&start_name).await {
                Ok(start) if !is_of_run(&start, run) => return Ok(()),
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        let all = BTreeSet::from([backup]);
        let Some(used) = used_by_others(repository, cluster, &all).await? else { return Ok(()) };
        let until = Instant::now() + ABORT_OWN_WITHIN;
        remove_data(repository, cluster, backup, &used, Manifest::Goes, until).await?;
        repository
            .store()
            .delete(&[object_name(&start_name)?, object_name(&name::backup_end(cluster, &backup))?])
            .await?;
        Ok(())
    };
    removed.await.doing(|| format!("removing the remains of backup {backup} from {}", repository.describe()))
}

fn is_of_run(start: &StartRecord, run: &str) -> bool {
    start.run.as_ref().is_some_and(|identity| identity.id == run)
}

/// Whether the remains of the dead runs that this run took over were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopted {
    /// Everything that no manifest names is removed.
    Removed,
    /// Nothing is removed: it is not known what is needed, or another run has taken them over.
    Kept,
}

/// Removes what no manifest names of the dead runs that this run took over. The start record of each is deleted last,
/// so that the next run can take over the rest. `adopted` must have all of them: the manifest of a dead run does not
/// keep packs of another dead run.
pub(super) async fn remove_adopted(
    repository: &Repository,
    cluster: &ClusterName,
    adopted: &BTreeSet<BackupId>,
    run: &str,
) -> Result<Adopted, Error> {
    let removed = async {
        if repository.check_removable().is_err() {
            return Ok::<_, Error>(Adopted::Kept);
        }
        let Some(used) = used_by_others(repository, cluster, adopted).await? else { return Ok(Adopted::Kept) };
        // First make sure that none of them is a complete backup, because the manifests of all of them were ignored.
        for backup in adopted {
            if !still_mine(repository, cluster, *backup, run).await?
                || is_complete(repository, cluster, *backup).await?
            {
                return Ok(Adopted::Kept);
            }
        }
        for backup in adopted {
            let until = Instant::now() + ABORT_WITHIN;
            remove_data(repository, cluster, *backup, &used, Manifest::Goes, until).await?;
            // As in `remove_by`: if the run is still alive, it may have sent `backup.json` in between.
            let objects = [name::backup_summary, name::backup_end, name::backup_start];
            for object in objects {
                repository.store().delete(&[object_name(&object(cluster, backup))?]).await?;
            }
        }
        Ok(Adopted::Removed)
    };
    removed.await.doing(|| format!("removing the remains of killed backups from {}", repository.describe()))
}

/// Removes the remains of one backup; unfinished uploads only until the time `until`. If the backup is complete, or may
/// be in use, it gives `false` and removes nothing that the backup needs.
pub(super) async fn remove_by(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    until: Instant,
) -> Result<bool, Error> {
    remove_inner(repository, cluster, backup, until)
        .await
        .doing(|| format!("removing the remains of backup {backup} from {}", repository.describe()))
}

async fn remove_inner(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    until: Instant,
) -> Result<bool, Error> {
    let store = repository.store();
    if let Err(error) = repository.check_removable() {
        tracing::warn!(%backup, %error, "the remains of a backup are kept");
        return Ok(false);
    }
    if is_complete(repository, cluster, backup).await? {
        return Ok(false);
    }
    let Some(used) = used_by_others(repository, cluster, &BTreeSet::from([backup])).await? else { return Ok(false) };
    store.delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
    if is_complete(repository, cluster, backup).await? {
        return Ok(false);
    }
    remove_data(repository, cluster, backup, &used, Manifest::StaysWithItsPacks, until).await?;
    store.delete(&[object_name(&name::backup_end(cluster, &backup))?]).await?;
    // If the run is still alive, it may have sent `backup.json` in between without getting an answer. Its packs are
    // gone.
    if is_complete(repository, cluster, backup).await? {
        store.delete(&[object_name(&name::backup_summary(cluster, &backup))?]).await?;
    }
    Ok(true)
}

/// The packs and manifests of these backups that other manifests of the cluster name; `None` if that cannot be known.
///
/// If the backups have no packs and no manifest, nothing can be named, and no manifest is read.
async fn used_by_others(
    repository: &Repository,
    cluster: &ClusterName,
    backups: &BTreeSet<BackupId>,
) -> Result<Option<BTreeSet<String>>, Error> {
    let listed = repository.store().list(&name::backups_folder(cluster), None).await?;
    let names: Vec<&str> = listed.iter().map(|object| object.name.as_ref()).collect();
    let own: BTreeSet<String> = backups.iter().map(|backup| name::manifest(cluster, backup)).collect();
    let folders: Vec<String> = backups.iter().map(|backup| name::packs_folder(cluster, backup)).collect();
    let mut can_be_used = names.iter().any(|name| own.contains(*name));
    for folder in &folders {
        can_be_used = can_be_used || !repository.store().list_page(folder, None, None).await?.objects.is_empty();
    }
    let mut used = BTreeSet::new();
    if !can_be_used {
        return Ok(Some(used));
    }
    let others = names.into_iter().filter(|other| !own.contains(*other));
    let manifests = others.filter(|other| matches!(other.parse(), Ok(ObjectPath::Manifest { .. })));
    let mut ends = FuturesUnordered::new();
    let mut manifests = manifests.map(str::to_owned);
    loop {
        let ahead = manifests.by_ref().take(ENDS_AT_ONCE - ends.len());
        ends.extend(ahead.map(|other| {
            let repository = repository.clone();
            async move { (repository.manifest_end(&other).await, other) }
        }));
        let Some((end, other)) = ends.next().await else { break };
        let end = match end {
            Ok(end) => end,
            // Removed a moment ago, so it no longer names anything.
            Err(error) if error.is_not_found() => continue,
            // Damaged, newer, or in a storage class that must be restored first. This must not stop all backups.
            Err(error) => {
                tracing::warn!(
                    manifest = other, %error,
                    "the remains of a backup are kept: it is not known what this manifest needs"
                );
                return Ok(None);
            }
        };
        let packs = end.packs.into_iter().map(|pack| pack.name);
        used.extend(packs.filter(|pack| folders.iter().any(|folder| pack.starts_with(folder))));
        used.extend(end.origins.into_iter().filter(|origin| own.contains(origin)));
    }
    Ok(Some(used))
}

/// Removes unfinished uploads, packs and the manifest, except what others use.
async fn remove_data(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    used: &BTreeSet<String>,
    manifest: Manifest,
    until: Instant,
) -> Result<(), Error> {
    let store = repository.store();
    if tokio::time::timeout_at(until, abort_uploads(repository, cluster, backup)).await.is_err() {
        tracing::debug!(%backup, "unfinished uploads of a dead backup are left to the bucket's lifecycle rule: no \
                                  time was left to remove them");
    }
    let packs = store.list(&name::packs_folder(cluster, &backup), None).await?.into_iter().map(|object| object.name);
    let packs: Vec<ObjectName> = packs.filter(|pack| !used.contains(pack.as_ref())).collect();
    store.delete(&packs).await?;
    // The manifest is deleted last, and only if nothing of the backup is in use: it tells a later removal that packs
    // may be in use.
    let name = name::manifest(cluster, &backup);
    let stays = match manifest {
        Manifest::Goes => used.contains(&name),
        Manifest::StaysWithItsPacks => !used.is_empty(),
    };
    if !stays {
        store.delete(&[object_name(&name)?]).await?;
    }
    Ok(())
}

/// Whether the manifest of a removed backup stays while some of its packs are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manifest {
    /// It is deleted: the backup was never complete.
    Goes,
    /// It stays: the backup may have been complete.
    StaysWithItsPacks,
}

/// Aborts the unfinished uploads of the run. No listing of objects shows their parts, and a bucket keeps and bills them
/// for ever.
///
/// No other run loses an upload by this. A run owns its folders from the moment when it creates `start.json`. It writes
/// nowhere else, and the folders carry its id, so every upload there belongs to it. The run is dead, or is removing its
/// own remains. If it is still alive, it finds its `start.json` gone before it completes, and gives up with or without
/// these parts. Uploads of WAL and of all other folders are left alone.
///
/// If the store cannot list or abort uploads, or is slow, the remains are still removed, and the backup
/// continues.
async fn abort_uploads(repository: &Repository, cluster: &ClusterName, backup: BackupId) {
    let store = repository.store();
    for folder in [name::packs_folder(cluster, &backup), format!("{}{backup}/", name::backups_folder(cluster))] {
        let uploads = match store.unfinished_uploads(&folder).await {
            Ok(uploads) => uploads.unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "unfinished uploads of a dead backup are left to the bucket's lifecycle rule");
                continue;
            }
        };
        for upload in uploads {
            if let Err(error) = store.abort_unfinished(&upload).await {
                tracing::debug!(%error, "an unfinished upload of a dead backup is left to the bucket's lifecycle rule");
            }
        }
    }
}

pub(super) async fn is_complete(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
) -> Result<bool, Error> {
    match repository.store().head(&object_name(&name::backup_summary(cluster, &backup))?).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == holdfast_store::StoreErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the start record is there and still belongs to this run, so that no other run has taken it for dead.
pub(crate) async fn still_mine(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    run: &str,
) -> Result<bool, Error> {
    match repository.read_record::<StartRecord>(&name::backup_start(cluster, &backup)).await {
        Ok(start) => Ok(is_of_run(&start, run)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
