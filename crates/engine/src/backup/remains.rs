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
use holdfast_repo::record::{RunIdentity, StartRecord};
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
        // Whoever took this run for dead goes on from its packs, or removes them. From the mark on nobody begins to.
        if !end(repository, cluster, backup, run).await? {
            return Ok(());
        }
        // Nobody else can refer to a backup that was never complete, and this run knows that it was not.
        let until = Instant::now() + ABORT_OWN_WITHIN;
        remove_data(repository, cluster, backup, &BTreeSet::new(), Manifest::Goes, until).await?;
        repository.store().delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
        Ok(())
    };
    removed.await.doing(|| format!("removing the remains of backup {backup} from {}", repository.describe()))
}

/// Marks the start record of this run, so that nobody takes its packs over. Gives `false` if somebody has.
async fn end(repository: &Repository, cluster: &ClusterName, backup: BackupId, run: &str) -> Result<bool, Error> {
    let name = name::backup_start(cluster, &backup);
    let start = match repository.read_record::<StartRecord>(&name).await {
        Ok(start) => start,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error),
    };
    let Some(identity) = start.run.filter(|identity| identity.id == run) else { return Ok(false) };
    let ended = StartRecord { run: Some(RunIdentity { ended: true, ..identity }), ..start };
    repository.replace_record(&name, &ended).await?;
    still_mine(repository, cluster, backup, run).await
}

/// Removes what no manifest names of a dead run that this run took over, the start record last: the next run takes over what
/// is left of it. Gives `false`, and removes nothing, if that cannot be known, or somebody else has taken it over.
pub(super) async fn remove_adopted(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
    run: &str,
) -> Result<bool, Error> {
    let removed = async {
        if repository.check_removable().is_err() || is_complete(repository, cluster, backup).await? {
            return Ok::<_, Error>(false);
        }
        let Some(used) = used_by_others(repository, cluster, backup).await? else { return Ok(false) };
        if !still_mine(repository, cluster, backup, run).await? {
            return Ok(false);
        }
        let until = Instant::now() + ABORT_WITHIN;
        remove_data(repository, cluster, backup, &used, Manifest::Goes, until).await?;
        repository.store().delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
        Ok(true)
    };
    removed.await.doing(|| format!("removing the remains of backup {backup} from {}", repository.describe()))
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
    let Some(used) = used_by_others(repository, cluster, backup).await? else { return Ok(false) };
    store.delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
    if is_complete(repository, cluster, backup).await? {
        return Ok(false);
    }
    remove_data(repository, cluster, backup, &used, Manifest::StaysWithItsPacks, until).await?;
    // A run that was alive after all can have sent it in between, and may not have heard of it. Its packs are gone.
    if is_complete(repository, cluster, backup).await? {
        store.delete(&[object_name(&name::backup_summary(cluster, &backup))?]).await?;
    }
    Ok(true)
}

/// The objects of a backup that other manifests of the cluster name; nothing when that cannot be known.
///
/// A backup that has its start record was never complete: only runs that came after it may have gone on from its packs. Others
/// may have been complete once, and all manifests are read.
async fn used_by_others(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
) -> Result<Option<BTreeSet<String>>, Error> {
    let own = name::manifest(cluster, &backup);
    let listed = repository.store().list(&name::backups_folder(cluster), None).await?;
    let names: Vec<&str> = listed.iter().map(|object| object.name.as_ref()).collect();
    let start = name::backup_start(cluster, &backup);
    let begun = names.contains(&start.as_str());
    let folder = name::packs_folder(cluster, &backup);
    let mut used = BTreeSet::new();
    let others = names.into_iter().filter(|other| *other != own);
    let manifests = others.filter(|other| match other.parse() {
        Ok(ObjectPath::Manifest { backup: of, .. }) => !begun || of > backup,
        _ => false,
    });
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
                tracing::warn!(%backup, manifest = other, %error, "the remains of a backup are kept: what this manifest needs is not known");
                return Ok(None);
            }
        };
        used.extend(end.packs.into_iter().map(|pack| pack.name).filter(|pack| pack.starts_with(&folder)));
        used.extend(end.origins.into_iter().filter(|origin| *origin == own));
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
        Ok(start) => Ok(start.run.is_some_and(|identity| identity.id == run)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
