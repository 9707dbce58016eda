//! Removing what a backup left that did not get to its end.
//!
//! A backup without `backup.json` does not exist, but its packs take room. They are removed by the run itself when it
//! fails or is cancelled, or else by the next run on the same machine over the same data directory: that run holds the
//! lock, so the earlier one is dead. With an id that moves with the data directory ([`super::runner`]), the earlier one
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
pub(super) async fn remove_own(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<(), Error> {
    let removed = async {
        if is_complete(repository, cluster, backup).await? {
            return Ok::<_, Error>(());
        }
        // Nobody can refer to a backup that was never complete, and this run knows that it was not.
        remove_data(repository, cluster, backup, &BTreeSet::new(), Instant::now() + ABORT_OWN_WITHIN).await?;
        repository.store().delete(&[object_name(&name::backup_start(cluster, &backup))?]).await?;
        Ok(())
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
    remove_data(repository, cluster, backup, &used, until).await?;
    // A run that was alive after all can have sent it in between, and may not have heard of it. Its packs are gone.
    if is_complete(repository, cluster, backup).await? {
        store.delete(&[object_name(&name::backup_summary(cluster, &backup))?]).await?;
    }
    Ok(true)
}

/// The objects of a backup that other manifests of the cluster name; nothing when that cannot be known.
///
/// A backup that has its start record and no manifest was never complete, so none names its packs. Without both, it may be
/// one that an interrupted removal left: then the others are read as well.
async fn used_by_others(
    repository: &Repository,
    cluster: &ClusterName,
    backup: BackupId,
) -> Result<Option<BTreeSet<String>>, Error> {
    let own = name::manifest(cluster, &backup);
    let listed = repository.store().list(&name::backups_folder(cluster), None).await?;
    let names: Vec<&str> = listed.iter().map(|object| object.name.as_ref()).collect();
    let start = name::backup_start(cluster, &backup);
    if !names.contains(&own.as_str()) && names.contains(&start.as_str()) {
        return Ok(Some(BTreeSet::new()));
    }
    let folder = name::packs_folder(cluster, &backup);
    let mut used = BTreeSet::new();
    let others = names.into_iter().filter(|other| *other != own);
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
    let manifest = name::manifest(cluster, &backup);
    if used.is_empty() {
        store.delete(&[object_name(&manifest)?]).await?;
    }
    Ok(())
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

async fn is_complete(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
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
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use std::sync::Arc;

    use bytes::Bytes;
    use holdfast_repo::manifest::{ManifestHeader, ManifestWriter, Origin, PackEntry};
    use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, PutMode, Store};

    use super::*;
    use crate::progress::Silent;
    use crate::repository::{RepositoryTarget, Unlock, init};

    struct Bench {
        repository: Repository,
        cluster: ClusterName,
        runner: Runner,
    }

    impl Bench {
        async fn new() -> Self {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
            let now = "2026-11-22T11:00:00Z".parse().unwrap();
            let repository = init::init(&target, now).await.unwrap().repository;
            let runner = Runner::here("db1", "/data", None, now).unwrap();
            let runner = Runner { machine: Some("m1".to_owned()), boot: Some("b1".to_owned()), ..runner };
            Self { repository, cluster: "main".parse().unwrap(), runner }
        }

        async fn start(&self, id: &str, runner: &Runner, removes: &[&str]) -> BackupId {
            let backup_id: BackupId = id.parse().unwrap();
            let record = StartRecord {
                backup_id,
                cluster: self.cluster.clone(),
                claim: "1".parse().unwrap(),
                system_identifier: "7412345678901234567".parse().unwrap(),
                host: runner.host.clone(),
                pid: 4711,
                pgdata: runner.pgdata.clone(),
                started: backup_id.time(),
                software_version: "0.1.0".to_owned(),
                parent: None,
                run: Some(runner.identity(removes.iter().map(|id| id.parse().unwrap()).collect())),
            };
            let name = name::backup_start(&self.cluster, &backup_id);
            self.repository.create_record(&name, &record).await.unwrap();
            self.put(&name::pack(&self.cluster, &backup_id, 1)).await;
            backup_id
        }

        async fn put(&self, name: &str) {
            let name = object_name(name).unwrap();
            self.repository.store().put(&name, Bytes::from_static(b"x"), PutMode::Overwrite).await.unwrap();
        }

        async fn objects(&self) -> Vec<String> {
            let listed = self.repository.store().list("main/", None).await.unwrap();
            listed.iter().map(|object| object.name.to_string()).collect()
        }

        async fn dead(&self) -> Vec<String> {
            let dead = of_runner(&self.repository, &self.cluster, &self.runner, &Silent).await.unwrap();
            dead.iter().map(ToString::to_string).collect()
        }
    }

    /// A host's name and a path are not enough: the other machine's run may be alive.
    #[tokio::test]
    async fn remains_of_another_machine_of_the_same_name_are_left_alone() {
        let bench = Bench::new().await;
        let other = Runner { machine: Some("m2".to_owned()), boot: Some("b2".to_owned()), ..bench.runner.clone() };
        bench.start("20261122T090000Z", &other, &[]).await;
        bench.start("20261122T100000Z", &bench.runner, &[]).await;
        assert_eq!(bench.dead().await, ["20261122T100000Z"]);
    }

    #[tokio::test]
    async fn a_start_record_that_cannot_be_read_stops_nothing() {
        let bench = Bench::new().await;
        bench.start("20261122T100000Z", &bench.runner, &[]).await;
        bench.put("main/backups/20261122T090000Z/start.json").await;
        assert_eq!(bench.dead().await, ["20261122T100000Z"]);
    }

    /// The first run died, the second died while it removed what the first left.
    #[tokio::test]
    async fn an_interrupted_removal_is_continued() {
        let bench = Bench::new().await;
        let first = bench.start("20261122T080000Z", &bench.runner, &[]).await;
        bench.start("20261122T090000Z", &bench.runner, &["20261122T080000Z"]).await;
        let start = object_name(&name::backup_start(&bench.cluster, &first)).unwrap();
        bench.repository.store().delete(&[start]).await.unwrap();
        assert_eq!(bench.dead().await, ["20261122T080000Z", "20261122T090000Z"]);
        for id in ["20261122T080000Z", "20261122T090000Z"] {
            assert!(remove(&bench.repository, &bench.cluster, id.parse().unwrap()).await.unwrap());
        }
        assert_eq!(bench.objects().await, [""; 0]);
    }

    #[tokio::test]
    async fn a_run_knows_when_it_was_taken_for_dead() {
        let bench = Bench::new().await;
        let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        let mine = async |run: &str| still_mine(&bench.repository, &bench.cluster, backup, run).await.unwrap();
        assert!(mine(&bench.runner.run).await);
        assert!(!mine("another run").await);
        remove(&bench.repository, &bench.cluster, backup).await.unwrap();
        assert!(!mine(&bench.runner.run).await);
    }

    /// Of the dead run of this machine, all that it was uploading goes; that of a run which may be alive stays, and so does
    /// what a `wal push` uploads.
    #[tokio::test]
    async fn unfinished_uploads_go_with_the_run_that_began_them() {
        let bench = Bench::new().await;
        let other = Runner { machine: Some("m2".to_owned()), boot: Some("b2".to_owned()), ..bench.runner.clone() };
        let living = bench.start("20261122T090000Z", &other, &[]).await;
        let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        let store = bench.repository.store();
        let mut kept = Vec::new();
        for name in [
            name::pack(&bench.cluster, &living, 2),
            name::pack(&bench.cluster, &dead, 2),
            name::manifest(&bench.cluster, &dead),
            "main/wal/1/00000001/0000000000000000/000000010000000000000001".to_owned(),
        ] {
            kept.push(store.begin_upload(&object_name(&name).unwrap(), PutMode::Create).await.unwrap());
        }
        for backup in bench.dead().await {
            assert!(remove(&bench.repository, &bench.cluster, backup.parse().unwrap()).await.unwrap());
        }
        let left = store.unfinished_uploads("").await.unwrap().unwrap();
        let left: Vec<String> = left.into_iter().map(|upload| upload.name.to_string()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].contains("/20261122T090000Z/") && left[1].contains("/wal/"), "{left:?}");
    }

    /// A store that takes an hour for each does not keep the next backup waiting for hours.
    #[tokio::test]
    async fn uploads_that_cannot_be_given_up_in_time_are_left() {
        let bench = Bench::new().await;
        let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        let store = bench.repository.store();
        let pack = object_name(&name::pack(&bench.cluster, &backup, 2)).unwrap();
        let _kept = store.begin_upload(&pack, PutMode::Create).await.unwrap();
        let slow = FaultRule::new(&[Operation::Abort], 1.0, Fault::Delay(Duration::from_hours(1)));
        let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(store), 7, vec![slow]));
        let slow = Repository::open(&RepositoryTarget { store, unlock: Unlock::NotEncrypted }).await.unwrap();
        let until = Instant::now() + Duration::from_millis(100);
        let removing = remove_by(&slow, &bench.cluster, backup, until);
        assert!(tokio::time::timeout(Duration::from_mins(10), removing).await.unwrap().unwrap());
        assert_eq!(bench.objects().await, [""; 0]);
    }

    /// Interrupted, a run's removal of its own remains leaves the record by which the next one finds them.
    #[tokio::test]
    async fn what_a_run_leaves_of_its_own_can_be_found() {
        let bench = Bench::new().await;
        let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        let refuse = Fault::Refuse(holdfast_store::StoreErrorKind::PermissionDenied);
        let rule = FaultRule::new(&[Operation::Delete], 1.0, refuse).on("main/packs/");
        let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(bench.repository.store()), 7, vec![rule]));
        let faulty = Repository::open(&RepositoryTarget { store, unlock: Unlock::NotEncrypted }).await.unwrap();
        assert!(remove_own(&faulty, &bench.cluster, backup).await.is_err());
        assert_eq!(bench.dead().await, ["20261122T100000Z"]);
        remove_own(&bench.repository, &bench.cluster, backup).await.unwrap();
        assert_eq!(bench.objects().await, [""; 0]);
    }

    /// Stores a manifest of a backup that names these packs and, if any, takes over frames of this one.
    async fn put_manifest(bench: &Bench, backup: &str, packs: &[String], origin: Option<&str>) {
        let backup: BackupId = backup.parse().unwrap();
        let name = name::manifest(&bench.cluster, &backup);
        let header = ManifestHeader {
            backup: backup.to_string(),
            cluster: "main".to_owned(),
            extent_bytes: 1 << 20,
            details: serde_json::Map::new(),
        };
        let origins =
            origin.map(|name| Origin { name: name.to_owned(), size_bytes: 1, salt: [0; 32], packs: Vec::new() });
        let id = bench.repository.id();
        let (writer, start) =
            ManifestWriter::with_origins(&name, id, None, &header, origins.into_iter().collect()).unwrap();
        let packs: Vec<PackEntry> = packs.iter().map(|pack| PackEntry::new(pack.clone(), 1)).collect();
        let object = [&start[..], &writer.finish(&packs).unwrap()].concat();
        bench.repository.store().put(&object_name(&name).unwrap(), object.into(), PutMode::Create).await.unwrap();
    }

    /// A backup of a later release may use packs of one whose `backup.json` is gone.
    #[tokio::test]
    async fn packs_of_a_backup_with_a_manifest_are_removed_by_reference_only() {
        let bench = Bench::new().await;
        let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        bench.put(&name::pack(&bench.cluster, &dead, 2)).await;
        let own = name::manifest(&bench.cluster, &dead);
        let pack = |number| name::pack(&bench.cluster, &dead, number);
        put_manifest(&bench, "20261122T100000Z", &[pack(1), pack(2)], None).await;
        put_manifest(&bench, "20261123T100000Z", &[pack(2)], Some(&own)).await;
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        let later = name::manifest(&bench.cluster, &"20261123T100000Z".parse().unwrap());
        assert_eq!(bench.objects().await, [own.clone(), later.clone(), pack(2)]);
        // The one that used them is gone: a run that began the removal continues it.
        bench.repository.store().delete(&[object_name(&later).unwrap()]).await.unwrap();
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await, [""; 0]);
    }

    /// A removal is done again by the next run, from its list: what a child needs stays, however often.
    #[tokio::test]
    async fn a_removal_that_is_done_again_keeps_what_others_use() {
        let bench = Bench::new().await;
        let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        bench.put(&name::pack(&bench.cluster, &dead, 2)).await;
        let pack = |number| name::pack(&bench.cluster, &dead, number);
        let (own, child) = (name::manifest(&bench.cluster, &dead), "main/backups/20261123T100000Z/manifest".to_owned());
        put_manifest(&bench, "20261122T100000Z", &[pack(1), pack(2)], None).await;
        // It uses a pack, and refers to no frame of the manifest.
        put_manifest(&bench, "20261123T100000Z", &[pack(2)], None).await;
        for _ in 0..3 {
            assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
            assert_eq!(bench.objects().await, [own.clone(), child.clone(), pack(2)]);
        }
        // Also where somebody else has removed the manifest.
        bench.repository.store().delete(&[object_name(&own).unwrap()]).await.unwrap();
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await, [child, pack(2)]);
    }

    /// What a manifest of a later release, or a damaged one, needs is not known: nothing goes.
    #[tokio::test]
    async fn a_manifest_that_cannot_be_read_keeps_the_remains() {
        let bench = Bench::new().await;
        let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        put_manifest(&bench, "20261122T100000Z", &[name::pack(&bench.cluster, &dead, 1)], None).await;
        let before = bench.objects().await;
        let unreadable = "main/backups/20261123T100000Z/manifest";
        bench.put(unreadable).await;
        assert!(!remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await.len(), before.len() + 1);
        bench.repository.store().delete(&[object_name(unreadable).unwrap()]).await.unwrap();
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await, [""; 0]);
        // Without a manifest nobody can have named its packs, whatever the others say.
        let dead = bench.start("20261122T110000Z", &bench.runner, &[]).await;
        bench.put(unreadable).await;
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await, [unreadable]);
    }

    /// A run that completes while it is being removed keeps its packs.
    #[tokio::test]
    async fn a_complete_backup_keeps_its_packs() {
        let bench = Bench::new().await;
        let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
        bench.put(&name::backup_summary(&bench.cluster, &backup)).await;
        assert!(!remove(&bench.repository, &bench.cluster, backup).await.unwrap());
        assert_eq!(bench.objects().await.len(), 3);
    }
}
