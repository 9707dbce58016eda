//! Remains of dead runs: what is removed, what is taken over, and what stays.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use holdfast_repo::manifest::{ManifestHeader, ManifestWriter, Origin, PackEntry};
use holdfast_repo::name::LedgerTime;
use holdfast_repo::record::RunIdentity;
use holdfast_store::{Fault, FaultRule, Faulty, MemoryStore, Operation, PutMode, Store};
use tokio_util::sync::CancellationToken;

use super::super::resume;
use super::*;
use crate::progress::Silent;
use crate::repository::{RepositoryTarget, Unlock, init};

struct Bench {
    repository: Repository,
    cluster: ClusterName,
    runner: Runner,
    now: DateTime<Utc>,
}

impl Bench {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let target = RepositoryTarget { store, unlock: Unlock::NotEncrypted };
        let now = "2026-11-22T11:00:00Z".parse().unwrap();
        let repository = init::init(&target, now).await.unwrap().repository;
        let runner = Runner::here("db1", "/data", None, now).unwrap();
        let runner = Runner { machine: Some("m1".to_owned()), boot: Some("b1".to_owned()), ..runner };
        Self { repository, cluster: "main".parse().unwrap(), runner, now }
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
        let dead = of_runner(&self.repository, &self.cluster, &self.runner, self.now, &Silent).await.unwrap();
        dead.iter().map(ToString::to_string).collect()
    }
}

/// An equal host name and path are not enough: the other machine's run may be alive.
#[tokio::test]
async fn remains_of_another_machine_of_the_same_name_are_left_alone() {
    let bench = Bench::new().await;
    let other = Runner { machine: Some("m2".to_owned()), boot: Some("b2".to_owned()), ..bench.runner.clone() };
    bench.start("20261122T090000Z", &other, &[]).await;
    bench.start("20261122T100000Z", &bench.runner, &[]).await;
    assert_eq!(bench.dead().await, ["20261122T100000Z"]);
}

/// Two containers on one host: the lock of one data directory says nothing about the other.
#[tokio::test]
async fn a_run_in_another_container_of_this_host_is_left_alone_while_it_has_its_lease() {
    let bench = Bench::new().await;
    let run = "00112233445566778899aabbccddeeff";
    let other = Runner { pid_namespace: Some("pid:[1]".to_owned()), run: run.to_owned(), ..bench.runner.clone() };
    let backup = bench.start("20261122T100000Z", &other, &[]).await;
    assert_eq!(bench.dead().await, [""; 0], "it took no lease, so nobody knows");

    let start_name = name::backup_start(&bench.cluster, &backup);
    let mut start: StartRecord = bench.repository.read_record(&start_name).await.unwrap();
    start.run = start.run.map(|run| RunIdentity { leased: true, ..run });
    bench.repository.replace_record(&start_name, &start).await.unwrap();
    let lease = |minutes: i64| {
        let until = LedgerTime::new(bench.now + TimeDelta::minutes(minutes)).unwrap();
        name::lease(&bench.cluster, until, &run.parse().unwrap())
    };
    bench.put(&lease(30)).await;
    let in_force = Bench { now: "2026-11-22T11:00:00Z".parse().unwrap(), ..bench };
    assert_eq!(in_force.dead().await, [""; 0]);
    // The time of the store counts if it and the name differ by more than clocks may differ.
    let bench = Bench { now: Utc::now() + TimeDelta::hours(3), ..in_force };
    assert_eq!(bench.dead().await, ["20261122T100000Z"]);
}

#[tokio::test]
async fn a_start_record_that_cannot_be_read_stops_nothing() {
    let bench = Bench::new().await;
    bench.start("20261122T100000Z", &bench.runner, &[]).await;
    bench.put("main/backups/20261122T090000Z/start.json").await;
    assert_eq!(bench.dead().await, ["20261122T100000Z"]);
}

/// The first run died. The second run died while it removed the remains of the first.
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

/// All uploads of the dead run of this machine are aborted. Uploads of a run that may be alive stay, and so does an
/// upload of a `wal push`.
#[tokio::test]
async fn unfinished_uploads_are_aborted_with_the_run_that_began_them() {
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

/// A store that takes an hour for each abort does not delay the next backup for hours.
#[tokio::test]
async fn uploads_that_cannot_be_aborted_in_time_are_left() {
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

/// If a run's removal of its own remains is interrupted, the start record stays, so that the next run finds them.
#[tokio::test]
async fn the_rest_of_an_interrupted_own_removal_can_be_found() {
    let bench = Bench::new().await;
    let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    let refuse = Fault::Refuse(holdfast_store::StoreErrorKind::PermissionDenied);
    let rule = FaultRule::new(&[Operation::Delete], 1.0, refuse).on("main/packs/");
    let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(bench.repository.store()), 7, vec![rule]));
    let faulty = Repository::open(&RepositoryTarget { store, unlock: Unlock::NotEncrypted }).await.unwrap();
    assert!(remove_own(&faulty, &bench.cluster, backup, &bench.runner.run).await.is_err());
    assert_eq!(bench.dead().await, ["20261122T100000Z"]);
    remove_own(&bench.repository, &bench.cluster, backup, &bench.runner.run).await.unwrap();
    assert_eq!(bench.objects().await, [""; 0]);
}

/// Stores a manifest that names these packs and, with `origin`, refers to frames of that manifest.
async fn put_manifest(bench: &Bench, backup: &str, packs: &[String], origin: Option<&str>) {
    let backup: BackupId = backup.parse().unwrap();
    let name = name::manifest(&bench.cluster, &backup);
    let header = ManifestHeader {
        backup: backup.to_string(),
        cluster: "main".to_owned(),
        extent_bytes: 1 << 20,
        details: serde_json::Map::new(),
    };
    let origins = origin.map(|name| Origin { name: name.to_owned(), size_bytes: 1, salt: [0; 32], packs: Vec::new() });
    let id = bench.repository.id();
    let (mut writer, start) = ManifestWriter::new(&name, id, None, &header).unwrap();
    let listed = writer.list_origins(origins.into_iter().collect()).unwrap();
    let packs: Vec<PackEntry> = packs.iter().map(|pack| PackEntry::new(pack.clone(), 1)).collect();
    let object = [&start[..], &listed, &writer.finish(&packs).unwrap()].concat();
    bench.repository.store().put(&object_name(&name).unwrap(), object.into(), PutMode::Create).await.unwrap();
}

/// A backup of a later release may use packs of a backup whose `backup.json` is gone.
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
    // The backup that used them is gone, so the next removal finishes.
    bench.repository.store().delete(&[object_name(&later).unwrap()]).await.unwrap();
    assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
    assert_eq!(bench.objects().await, [""; 0]);
}

/// The next run repeats a removal from its list. What a child needs stays, however often that happens.
#[tokio::test]
async fn a_repeated_removal_keeps_what_others_use() {
    let bench = Bench::new().await;
    let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    bench.put(&name::pack(&bench.cluster, &dead, 2)).await;
    let pack = |number| name::pack(&bench.cluster, &dead, number);
    let (own, child) = (name::manifest(&bench.cluster, &dead), "main/backups/20261123T100000Z/manifest".to_owned());
    put_manifest(&bench, "20261122T100000Z", &[pack(1), pack(2)], None).await;
    // The child uses a pack, and refers to no frame of the manifest.
    put_manifest(&bench, "20261123T100000Z", &[pack(2)], None).await;
    for _ in 0..3 {
        assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
        assert_eq!(bench.objects().await, [own.clone(), child.clone(), pack(2)]);
    }
    // Even if somebody else has removed the manifest.
    bench.repository.store().delete(&[object_name(&own).unwrap()]).await.unwrap();
    assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
    assert_eq!(bench.objects().await, [child, pack(2)]);
}

/// It is not known what a newer or damaged manifest needs, so nothing is removed.
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
    // A dead backup without packs has nothing that another backup could need.
    bench.put(unreadable).await;
    let dead = bench.start("20261122T110000Z", &bench.runner, &[]).await;
    assert!(!remove(&bench.repository, &bench.cluster, dead).await.unwrap());
    let pack = object_name(&name::pack(&bench.cluster, &dead, 1)).unwrap();
    bench.repository.store().delete(&[pack]).await.unwrap();
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

/// A run of the same data directory that finds the dead ones.
fn next_run(bench: &Bench) -> Runner {
    Runner { run: "next".to_owned(), ..bench.runner.clone() }
}

async fn take_over(bench: &Bench, dead: BackupId) -> BTreeSet<BackupId> {
    let (cluster, dead, cancel) = (&bench.cluster, BTreeSet::from([dead]), CancellationToken::new());
    let taken =
        resume::take_over(&bench.repository, cluster, &next_run(bench).identity(Vec::new()), &dead, 1 << 20, &cancel)
            .await;
    taken.adopted
}

async fn removes_adopted(bench: &Bench, adopted: &[BackupId], run: &str) -> bool {
    let adopted = adopted.iter().copied().collect();
    remove_adopted(&bench.repository, &bench.cluster, &adopted, run).await.unwrap() == Adopted::Removed
}

/// A later backup reused them, and was killed or lost its host before it removed the rest.
#[tokio::test]
async fn packs_of_a_killed_run_that_another_backup_names_stay() {
    let bench = Bench::new().await;
    let dead = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    bench.put(&name::pack(&bench.cluster, &dead, 2)).await;
    let pack = |number| name::pack(&bench.cluster, &dead, number);
    // The other backup is of a host whose clock is late.
    put_manifest(&bench, "20261121T100000Z", &[pack(2)], None).await;
    let other = "main/backups/20261121T100000Z/manifest".to_owned();
    assert_eq!(take_over(&bench, dead).await, BTreeSet::from([dead]));
    assert!(!removes_adopted(&bench, &[dead], "another").await, "another run has taken it over, and removes it");
    assert!(removes_adopted(&bench, &[dead], "next").await);
    assert_eq!(bench.objects().await, [other.clone(), pack(2)]);

    let dead = bench.start("20261122T110000Z", &bench.runner, &[]).await;
    put_manifest(&bench, "20261123T110000Z", &[name::pack(&bench.cluster, &dead, 1)], None).await;
    assert!(remove(&bench.repository, &bench.cluster, dead).await.unwrap());
    let last = "main/backups/20261123T110000Z/manifest".to_owned();
    assert_eq!(bench.objects().await, [other, last, pack(2), name::pack(&bench.cluster, &dead, 1)]);
}

/// The second run was killed while it waited for WAL. Its manifest was stored, but it never became a backup.
#[tokio::test]
async fn a_killed_run_keeps_nothing_of_another() {
    let bench = Bench::new().await;
    let first = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    let second = bench.start("20261122T110000Z", &bench.runner, &[]).await;
    put_manifest(&bench, "20261122T110000Z", &[name::pack(&bench.cluster, &first, 1)], None).await;
    for dead in [first, second] {
        assert_eq!(take_over(&bench, dead).await, BTreeSet::from([dead]));
    }
    assert!(removes_adopted(&bench, &[first, second], "next").await);
    assert_eq!(bench.objects().await, [""; 0]);
}

/// The run is still alive: it does not complete, and it does not remove what another run uses.
#[tokio::test]
async fn a_run_that_was_taken_over_leaves_its_packs() {
    let bench = Bench::new().await;
    let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    let (repository, cluster, run) = (&bench.repository, &bench.cluster, bench.runner.run.as_str());
    assert!(still_mine(repository, cluster, backup, run).await.unwrap());
    assert_eq!(take_over(&bench, backup).await, BTreeSet::from([backup]));
    assert!(!still_mine(repository, cluster, backup, run).await.unwrap());
    let before = bench.objects().await;
    remove_own(repository, cluster, backup, run).await.unwrap();
    assert_eq!(bench.objects().await, before);
    // The record still has the same machine and directory, so the next run finds it.
    assert_eq!(bench.dead().await, ["20261122T100000Z"]);
}

/// The run that took it over is complete and has ended. This run removes what it stored since then, and nothing else.
#[tokio::test]
async fn a_run_that_comes_back_late_removes_only_what_nobody_uses() {
    let bench = Bench::new().await;
    let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    let pack = |number| name::pack(&bench.cluster, &backup, number);
    take_over(&bench, backup).await;
    put_manifest(&bench, "20261123T100000Z", &[pack(1)], None).await;
    assert!(removes_adopted(&bench, &[backup], "next").await);
    bench.put(&pack(2)).await;
    put_manifest(&bench, "20261122T100000Z", &[pack(1), pack(2)], None).await;
    remove_own(&bench.repository, &bench.cluster, backup, &bench.runner.run).await.unwrap();
    assert_eq!(bench.objects().await, ["main/backups/20261123T100000Z/manifest".to_owned(), pack(1)]);
}

/// Some of its packs may already be gone.
#[tokio::test]
async fn a_run_that_is_removing_its_packs_is_not_taken_over() {
    let bench = Bench::new().await;
    let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    bench.put(&name::backup_end(&bench.cluster, &backup)).await;
    assert_eq!(take_over(&bench, backup).await, BTreeSet::new());
    assert!(remove(&bench.repository, &bench.cluster, backup).await.unwrap());
    assert_eq!(bench.objects().await, [""; 0]);
    // A run without packs, or without a start record, is not taken over either: there is nothing to reuse.
    let empty = bench.start("20261122T110000Z", &bench.runner, &[]).await;
    let pack = object_name(&name::pack(&bench.cluster, &empty, 1)).unwrap();
    bench.repository.store().delete(&[pack]).await.unwrap();
    assert_eq!(take_over(&bench, empty).await, BTreeSet::new());
}

/// Unreadable remains of a dead run must not stop new backups.
#[tokio::test]
async fn if_the_store_refuses_old_packs_only_their_reuse_fails() {
    let bench = Bench::new().await;
    let backup = bench.start("20261122T100000Z", &bench.runner, &[]).await;
    let refuse = || Fault::Refuse(holdfast_store::StoreErrorKind::PermissionDenied);
    for (operation, on, adopted) in [(Operation::Get, "main/packs/", 1), (Operation::Put, "main/backups/", 0)] {
        let rule = FaultRule::new(&[operation], 1.0, refuse()).on(on);
        let store: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(bench.repository.store()), 7, vec![rule]));
        let faulty = Repository::open(&RepositoryTarget { store, unlock: Unlock::NotEncrypted }).await.unwrap();
        let (dead, cancel) = (BTreeSet::from([backup]), CancellationToken::new());
        let taken =
            resume::take_over(&faulty, &bench.cluster, &next_run(&bench).identity(Vec::new()), &dead, 1 << 20, &cancel)
                .await;
        assert_eq!((taken.adopted.len(), taken.left.len()), (adopted, 1 - adopted), "{on}");
    }
}
