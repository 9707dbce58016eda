//! Removing what a backup left that did not get to its end.
//!
//! A backup without `backup.json` does not exist, but its packs take room. They are removed by the run itself when it
//! fails or is cancelled, or else by the next run on the same machine over the same data directory, which first goes on from
//! them ([`super::resume`]): that run holds the lock, so the earlier one is dead. With an id that moves with the data directory ([`super::runner`]), the earlier one
//! may be alive on another host that was only taken for lost: it then fails, by the order below. Remains of other
//! machines are left alone, since nobody here can know whether that run is still alive; `holdfast list` shows them. So
//! are those whose start record cannot be read.
//!
//! Order: `start.json` first, then a look whether `backup.json` has come meanwhile, then uploads that were not finished, then
//! packs and manifest. A run looks
//! for its own `start.json` before and after it creates `backup.json` ([`still_mine`]), so that of a removal and a run that
//! is alive after all, whatever their order, one sees the other, and no backup is complete without its packs. A removal
//! that is interrupted is continued by the next run: which ones a run removes stands in its own start record first.
//!
//! **Packs of a backup whose manifest was ever stored are removed by reference only**: those that no other manifest of the
//! cluster names. A backup that was complete once can have lost its `backup.json` to an `expire` of a later release, while
//! incrementals go on using its packs and the frames of its manifest. If one of the other manifests cannot be read,
//! because it is newer or damaged, nobody knows what it names, and everything stays.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
use holdfast_repo::record::StartRecord;
use holdfast_store::ObjectName;
use tokio::time::Instant;

use super::runner::Runner;
use crate::error::{Error, ResultExt};
use crate::progress::Progress;
use crate::repository::{Repository, object_name};

/// Dead backups of earlier runs of the same runner, and those that they were removing.
pub(super) async fn of_runner(
    repository: &Repository,
    cluster: &ClusterName,
    runner: &Runner,
    progress: &dyn Progress,
) -> Result<BTreeSet<BackupId>, Error> {
    let mut dead = BTreeSet::new();
    for backup in repository.unfinished_backups(cluster).await? {
        let start = match repository.read_record::<StartRecord>(&name::backup_start(cluster, &backup)).await {
            Ok(start) => start,
            // Without a start record nobody knows whose it is: left alone.
            Err(error) if error.is_not_found() => continue,
            // One damaged object, or one of a newer release, is no reason to take no backups any more; `list` names it.
            Err(error) if error.is_of_one_object() => {
                progress.note(&format!(
                    "the unfinished backup {backup} is not removed, because it is not known who made it: {error}"
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        if runner.was(&start) {
            dead.insert(backup);
            dead.extend(start.run.into_iter().flat_map(|run| run.removes));
        }
    }
    Ok(dead)
}

/// How many manifests are looked into at once.
const ENDS_AT_ONCE: usize = 16;

/// How long the uploads of dead runs are looked for and given up, all together: see [`abort_uploads`], which may fail.
pub(super) const ABORT_WITHIN: Duration = Duration::from_secs(20);

/// The same for the run's own uploads at its end: removing packs is worth more of the little time there.
const ABORT_OWN_WITHIN: Duration = Duration::from_secs(2);

/// As [`remove_by`], with time for the uploads of one run.
pub(super) async fn remove(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
    remove_by(repository, cluster, backup, Instant::now() + ABORT_WITHIN).await
}

/// Removes what this run itself stored. Its start record goes last: if this is interrupted, the next backup on this host
/// finds by it what is left.
///
/// Whoever takes this run for dead writes into its start record, and then looks for the mark that is set here: of both, one
/// sees the other, however long either of them sleeps in between.
pub(super) async fn remove_own(
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
            // Whoever took this run over is complete, and has not seen what came since.
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

/// What became of a dead run that this run took over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adopted {
    /// What no manifest names of it is removed.
    Removed,
    /// Nothing is removed: it is not known what is needed of it, or it is not this run's any more.
    Kept,
}

/// Removes what no manifest names of the dead runs that this run took over, each with its start record last: the next run
/// takes over what is left. `adopted` are all of them, so that a manifest of one, which never came to be a backup, keeps
/// nothing of another.
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
        // None goes before it is known that none of them is a backup: what is counted for nothing is the manifests of all.
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
            // As in `remove_by`: a run that was alive after all can have sent it in between.
            let objects = [name::backup_summary, name::backup_end, name::backup_start];
            for object in objects {
                repository.store().delete(&[object_name(&object(cluster, backup))?]).await?;
            }
        }
        Ok(Adopted::Removed)
    };
    removed.await.doing(|| format!("removing the remains of killed backups from {}", repository.describe()))
}

/// Removes the remains of one backup; unfinished uploads only until this moment. Gives `false`, and removes nothing that it needs, when it is complete.
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
    // A run that was alive after all can have sent it in between, and may not have heard of it. Its packs are gone.
    if is_complete(repository, cluster, backup).await? {
        store.delete(&[object_name(&name::backup_summary(cluster, &backup))?]).await?;
    }
    Ok(true)
}

/// The packs and manifests of these backups that manifests of others in the cluster name; nothing when that cannot be known.
///
/// A backup without packs and manifest has nothing that could be named, and no manifest is read for it.
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
            // Removed a moment ago: it names nothing any more.
            Err(error) if error.is_not_found() => continue,
            // Damaged, newer, or in a storage class that must be thawed first: no reason to take no backups any more.
            Err(error) => {
                tracing::warn!(manifest = other, %error, "the remains of a backup are kept: what this manifest needs is not known");
                return Ok(None);
            }
        };
        let packs = end.packs.into_iter().map(|pack| pack.name);
        used.extend(packs.filter(|pack| folders.iter().any(|folder| pack.starts_with(folder))));
        used.extend(end.origins.into_iter().filter(|origin| own.contains(origin)));
    }
    Ok(Some(used))
}

/// Removes unfinished uploads, packs and manifest, but for what others use.
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
    // Last, and only when nothing of it is in use: it says that packs may be, to whoever continues this removal.
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

/// What becomes of the manifest of a removed backup while some of its packs are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manifest {
    /// The backup was never complete.
    Goes,
    /// It may have been.
    StaysWithItsPacks,
}

/// Throws away the parts of objects that the run had not finished; no listing of objects shows them, and a bucket keeps and
/// bills them for ever.
///
/// No other run loses an upload by this. A run makes its folders its own by creating `start.json`, writes nowhere else, and
/// they carry its id: whatever is being uploaded there is this run's. It is dead, or is removing its own remains. Were it alive
/// after all, it would find its `start.json` gone before it completes, and give up with or without these parts. Uploads of
/// WAL and of all other folders are not looked at.
///
/// A store that does not list uploads, fails to, or takes its time for each, is no reason to keep the remains, nor to stop the backup that found them.
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

/// Whether nobody has taken this run for a dead one: its start record is there and its own.
pub(super) async fn still_mine(
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
