//! Copies between repositories of every kind, a crash at each request, and copies that are refused.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_pgtypes::recovery_target::TargetTimeline;
use holdfast_pgtypes::{TimelineId, WalFileName};
use holdfast_repo::codec::Codec;
use holdfast_repo::name;
use holdfast_repo::record::{ClaimRecord, LedgerEntry, RunIdentity, StartRecord};
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_secret::Secret;
use holdfast_store::{Faulty, MemoryStore, OtherRun, PutMode, Store};

use super::*;
use crate::progress::Silent;
use crate::repository::{RepositoryTarget, Unlock, init, object_name};
use crate::restore::RestoreOptions;
use crate::restore::tests::patched::store_child;
use crate::restore::tests::sample::{Sample, noise, now};
use crate::verify::tests::{named, segment, wal};
use crate::verify::{Level, Verification, VerifyOptions, verify};

/// A repository with a backup and WAL, and an empty one that a copy writes.
struct Pair {
    sample: Sample,
    target: RepositoryTarget,
    repository: Repository,
}

impl Pair {
    /// Both repositories, each encrypted or not.
    async fn new(from: bool, to: bool) -> Self {
        Self::of(Sample::new(from).await, to).await
    }

    async fn of(sample: Sample, to: bool) -> Self {
        store_wal(&sample).await;
        let target = target(to).await;
        let repository = Repository::open(&target).await.unwrap();
        Self { sample, target, repository }
    }

    async fn copy(&self, options: &CopyOptions) -> Result<Copied, Error> {
        copy_between(&self.sample.repository, &self.repository, options).await
    }

    /// The names of the copied objects in a folder of the archive.
    async fn names(&self, below: &str) -> BTreeSet<String> {
        names(&self.target.store, below).await
    }

    /// Removes objects of the copied backup.
    async fn remove(&self, objects: &[&str]) {
        for object in objects {
            let name = format!("main/backups/{}/{object}", self.sample.backup.backup_id);
            self.target.store.delete(&[object_name(&name).unwrap()]).await.unwrap();
        }
    }

    async fn check(&self, what: &str) {
        check(&self.sample, &self.target, what).await;
    }
}

/// Stores segments 8 to B, a history file and a backup history file.
async fn store_wal(sample: &Sample) {
    let system = sample.backup.system_identifier.as_u64();
    for number in 8..=0xB {
        let raw = segment(sample, named(sample, 1, number), system);
        sample.put_segment(number, &raw, None).await;
    }
    for (file, raw) in [
        (
            WalFileName::BackupHistory { segment: named(sample, 1, 8), offset: 0x28 },
            &b"START WAL LOCATION: 0/800028"[..],
        ),
        (WalFileName::History(TimelineId::new(2).unwrap()), b"1\t0/B00100\tno recovery target specified\n"),
    ] {
        let (object, bytes) = wal(sample, &sample.repository, file, raw);
        sample.store.put(&object_name(&object).unwrap(), bytes, PutMode::Create).await.unwrap();
    }
}

/// A repository with its own key, or without encryption.
pub(crate) async fn target(encrypted: bool) -> RepositoryTarget {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let unlock = if encrypted { Unlock::KeyFile(Secret::new(noise(77, 32))) } else { Unlock::NotEncrypted };
    let target = RepositoryTarget { store, unlock };
    init::init(&target, now()).await.unwrap();
    target
}

pub(crate) fn options() -> CopyOptions {
    CopyOptions {
        cluster: "main".parse().unwrap(),
        which: CopyChoice::All,
        all_wal: true,
        wal_codec: Codec::Lz4,
        jobs: 2,
        memory_bytes: 64 << 20,
        part_size_bytes: 256 << 10,
        host: "db3".to_owned(),
        now: now(),
    }
}

pub(crate) async fn copy_between(from: &Repository, to: &Repository, options: &CopyOptions) -> Result<Copied, Error> {
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    copy(from, to, options, &progress, &CancellationToken::new()).await
}

pub(crate) async fn verified(repository: &Repository) -> Verification {
    let options = VerifyOptions {
        cluster: "main".parse().unwrap(),
        which: crate::verify::BackupChoice::All,
        level: Level::Deep,
        sample: None,
        max_age: None,
        remember_every: Duration::from_mins(5),
        remember: false,
        jobs: 2,
        memory_bytes: 64 << 20,
        host: "db3".to_owned(),
        now: now(),
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    verify(repository, &options, &progress, &CancellationToken::new()).await.unwrap()
}

async fn names(store: &Arc<dyn Store>, below: &str) -> BTreeSet<String> {
    let listed = store.list(&format!("main/{below}"), None).await.unwrap();
    listed.into_iter().map(|object| object.name.to_string()).collect()
}

/// Restores the sample's own backup on its own timeline, because the second timeline has no WAL.
fn restore_options(sample: &Sample) -> RestoreOptions {
    let backup = Some(sample.backup.backup_id);
    let request = RecoveryRequest { backup, timeline: TargetTimeline::Number(TimelineId::FIRST), ..Default::default() };
    RestoreOptions { request, ..sample.options() }
}

/// Checks that everything is sound, that nothing else is there, and that a restore succeeds.
async fn check(sample: &Sample, target: &RepositoryTarget, what: &str) {
    let repository = Repository::open(target).await.unwrap();
    let found = verified(&repository).await;
    assert_eq!(found.damage, [], "{what}");
    assert!(found.interrupted.is_none(), "{what}");
    let mut needed = BTreeSet::new();
    for backup in repository.backups(&sample.backup.cluster).await.unwrap().records {
        let end = repository.manifest_end(&backup.manifest.name).await.unwrap();
        needed.extend(end.packs.into_iter().map(|pack| pack.name));
    }
    assert_eq!(names(&target.store, "packs/").await, needed, "{what}");
    assert_eq!(names(&target.store, "leases/").await, BTreeSet::new(), "{what}");
    std::fs::remove_dir_all(sample.pgdata()).ok();
    std::fs::remove_dir_all(sample.fast()).ok();
    sample.restore_with(&repository, &restore_options(sample)).await.unwrap();
    sample.check();
}

#[tokio::test]
async fn a_backup_and_its_wal_go_between_repositories_of_every_kind() {
    for (from, to) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("encrypted: {from} to {to}");
        let pair = Pair::of(Sample::with(from, true).await, to).await;
        let sample = &pair.sample;
        let child = store_child(sample).await.backup_id;
        let copied = pair.copy(&options()).await.unwrap();
        let outcomes: Vec<_> = copied.backups.iter().map(|backup| (backup.backup_id, backup.outcome)).collect();
        let expected = [sample.backup.backup_id, child].map(|id| (id, CopyOutcome::Copied));
        assert_eq!(outcomes, expected, "{what}: {:?}", copied.backups);
        // The second backup names packs of the first backup, which are already there.
        assert_eq!(copied.backups[0].new_packs.0, sample.packs.len() as u64, "{what}");
        assert_eq!(copied.backups[1].new_packs.0, 0, "{what}");
        let [wal] = copied.wal.as_slice() else { unreachable!("{:?}", copied.wal) };
        assert_eq!((wal.stored_count, wal.failed_count), (6, 0), "{what}: {wal:?}");
        // The claim of a new archive has its own codec. History files always have the same codec.
        let end = if to { ".lz4.enc" } else { ".lz4" };
        let segments = pair.names("wal/").await;
        assert_eq!(segments.iter().filter(|name| name.ends_with(end)).count(), 5, "{segments:?}");
        pair.check(&what).await;
        let entries = pair.repository.ledger(&options().cluster, name::LedgerKind::Copy).await.unwrap().records;
        let LedgerEntry::Copy { backups, wal_file_count, repository_id, .. } = &entries[0].1.entry else {
            unreachable!()
        };
        assert_eq!((backups.len(), *wal_file_count, *repository_id), (2, 6, sample.repository.id()));
        // A second copy has nothing to do.
        let before = pair.names("").await;
        let again = pair.copy(&options()).await.unwrap();
        assert!(again.backups.iter().all(|backup| backup.outcome == CopyOutcome::AlreadyThere), "{:?}", again.backups);
        assert_eq!(pair.names("").await, before, "{what}");
        // Then from the copy into a third repository, which has nothing of the first one.
        let third = target(from).await;
        let third_repository = Repository::open(&third).await.unwrap();
        copy_between(&pair.repository, &third_repository, &options()).await.unwrap();
        check(sample, &third, &what).await;
    }
}

#[tokio::test]
async fn one_backup_takes_the_wal_that_it_needs() {
    let pair = Pair::new(true, true).await;
    let one = CopyOptions { which: CopyChoice::Latest, all_wal: false, ..options() };
    pair.copy(&one).await.unwrap();
    let wal = pair.names("wal/").await;
    assert_eq!(wal.iter().filter(|name| name.ends_with(".lz4.enc")).count(), 2, "{wal:?}");
    let unknown = CopyOptions { which: CopyChoice::These(vec!["20200101T000000Z".parse().unwrap()]), ..options() };
    let error = pair.copy(&unknown).await.unwrap_err();
    assert!(matches!(*error.what, Cause::NoSuchBackup { .. }), "{error}");
    let error = copy_between(&pair.sample.repository, &pair.sample.repository, &one).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_crash_at_each_request_leaves_what_the_next_copy_continues_from() {
    for (from, to) in [(false, true), (true, true)] {
        let sample = Sample::new(from).await;
        store_wal(&sample).await;
        let mut ended = 0;
        for requests in 1.. {
            let what = format!("crash at request {requests}");
            let target = target(to).await;
            let faulty = Faulty::new(Arc::clone(&target.store), requests, Vec::new());
            faulty.set_active(false);
            let store: Arc<dyn Store> = Arc::new(faulty.clone());
            let through = RepositoryTarget { store, unlock: target.unlock.clone() };
            let through = Repository::open(&through).await.unwrap();
            faulty.crash_after(requests);
            faulty.set_active(true);
            let crashed = copy_between(&sample.repository, &through, &options()).await;
            let repository = Repository::open(&target).await.unwrap();
            // Every backup that exists can be restored, even if everything else is incomplete.
            let found = repository.backups(&options().cluster).await.unwrap();
            assert!(found.unreadable.is_empty(), "{what}");
            if !found.records.is_empty() {
                // Several WAL files after the backup are stored at once, so an earlier one may be missing while a later
                // one is there.
                let damage = verified(&repository).await.damage;
                assert!(damage.iter().all(|damage| damage.backups.is_empty()), "{what}: {damage:?}");
            }
            // Its leases name this process, which is alive. Delete them, so that the next run can begin.
            for lease in names(&target.store, "leases/").await {
                target.store.delete(&[object_name(&lease).unwrap()]).await.unwrap();
            }
            copy_between(&sample.repository, &repository, &options()).await.unwrap();
            check(&sample, &target, &what).await;
            ended += u32::from(crashed.is_ok());
            // The last requests write into the ledger and release the leases.
            if ended == 4 {
                break;
            }
        }
    }
}

/// The two repositories have different packs under the same names.
#[tokio::test]
async fn a_name_that_another_pack_has_is_left_to_it() {
    for to in [false, true] {
        let pair = Pair::of(Sample::with(true, true).await, to).await;
        let other = Sample::with(true, false).await;
        store_wal(&other).await;
        copy_between(&other.repository, &pair.repository, &options()).await.unwrap();
        pair.remove(&["backup.json", "manifest", "start.json"]).await;
        let before = pair.names("packs/").await;
        let copied = pair.copy(&options()).await.unwrap();
        assert_eq!(copied.backups[0].outcome, CopyOutcome::Copied);
        assert!(copied.backups[0].new_packs.0 > 0);
        assert!(pair.names("packs/").await.is_superset(&before));
        assert_eq!(verified(&pair.repository).await.damage, []);
        pair.sample.restore_with(&pair.repository, &restore_options(&pair.sample)).await.unwrap();
        pair.sample.check();
    }
}

/// The next backup in the destination removes what a dead run left. It reads the manifests before it does, so it does
/// not see the copy that is about to be complete.
#[tokio::test]
async fn a_copy_names_nothing_in_the_folder_of_an_unfinished_backup() {
    for is_stored in [true, false] {
        let pair = Pair::of(Sample::with(true, true).await, true).await;
        let child = store_child(&pair.sample).await.backup_id;
        let dead = pair.sample.backup.backup_id;
        copy_between(&pair.sample.repository, &pair.repository, &options()).await.unwrap();
        for object in names(&pair.target.store, &format!("backups/{child}/")).await {
            pair.target.store.delete(&[object_name(&object).unwrap()]).await.unwrap();
        }
        pair.remove(&["backup.json", "manifest"]).await;
        let folder = format!("packs/{dead}/");
        if !is_stored {
            for object in pair.names(&folder).await {
                pair.target.store.delete(&[object_name(&object).unwrap()]).await.unwrap();
            }
        }
        let copied = pair.copy(&CopyOptions { which: CopyChoice::These(vec![child]), ..options() }).await.unwrap();
        assert_eq!(copied.backups[0].outcome, CopyOutcome::Copied, "{:?}", copied.backups);
        for object in pair.names(&folder).await {
            pair.target.store.delete(&[object_name(&object).unwrap()]).await.unwrap();
        }
        pair.remove(&["start.json"]).await;
        assert_eq!(verified(&pair.repository).await.damage, [], "stored before: {is_stored}");
    }
}

#[tokio::test]
async fn the_archive_of_another_cluster_and_other_wal_are_refused() {
    let strange = Pair::new(true, false).await;
    let claim = strange.sample.repository.current_claim(&strange.sample.backup.cluster).await.unwrap();
    let stranger = ClaimRecord { system_identifier: "7000000000000000001".parse().unwrap(), ..claim.clone() };
    strange.repository.create_record(&name::claim(&claim.cluster, claim.number), &stranger).await.unwrap();
    let error = strange.copy(&options()).await.unwrap_err();
    assert!(matches!(*error.what, Cause::WrongCluster { .. }), "{error}");
    assert_eq!(strange.names("").await.len(), 1);

    let diverged = Pair::new(true, true).await;
    let other = Sample::new(true).await;
    store_wal(&other).await;
    let mut raw = segment(&other, named(&other, 1, 9), other.backup.system_identifier.as_u64());
    *raw.last_mut().unwrap() = 0;
    other.put_segment(9, &raw, None).await;
    copy_between(&other.repository, &diverged.repository, &options()).await.unwrap();
    diverged.remove(&["backup.json", "start.json"]).await;
    let error = diverged.copy(&options()).await.unwrap_err();
    assert!(matches!(*error.what, Cause::Divergence { .. }), "{error}");
    assert!(diverged.repository.backups(&options().cluster).await.unwrap().records.is_empty());
}

#[tokio::test]
async fn what_is_damaged_in_the_source_is_not_copied_and_leaves_nothing() {
    let pair = Pair::new(true, true).await;
    pair.sample
        .replace(&pair.sample.packs[1].name.clone(), |mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            bytes
        })
        .await;
    let copied = pair.copy(&options()).await.unwrap();
    assert_eq!(copied.backups[0].outcome, CopyOutcome::Failed);
    let error = copied.backups[0].error.as_ref().unwrap();
    assert!(error.what.to_string().contains("000001.pack"), "{error}");
    for folder in ["packs/", "backups/", "leases/"] {
        assert_eq!(pair.names(folder).await, BTreeSet::new(), "{folder}");
    }
}

#[tokio::test]
async fn a_run_that_is_alive_is_left_alone() {
    let pair = Pair::new(true, true).await;
    let (sample, repository) = (&pair.sample, &pair.repository);
    let run = RunIdentity {
        id: "r1".to_owned(),
        machine: None,
        boot: None,
        pid_namespace: None,
        removes: Vec::new(),
        leased: false,
    };
    let start = StartRecord {
        backup_id: sample.backup.backup_id,
        cluster: sample.backup.cluster.clone(),
        claim: sample.backup.claim,
        system_identifier: sample.backup.system_identifier,
        host: "db1".to_owned(),
        pid: 1,
        pgdata: "/srv/pg".to_owned(),
        started: now(),
        software_version: "0.1.0".to_owned(),
        parent: None,
        run: Some(run.clone()),
    };
    let object = name::backup_start(&start.cluster, &start.backup_id);
    repository.create_record(&object, &start).await.unwrap();
    let error = pair.copy(&options()).await.unwrap_err();
    assert!(matches!(*error.what, Cause::AnotherRun { .. }), "{error}");
    // Its record says that it has a lease, but there is no such lease any more.
    let dead = StartRecord { run: Some(RunIdentity { leased: true, ..run }), ..start };
    repository.replace_record(&object, &dead).await.unwrap();
    pair.copy(&options()).await.unwrap();
    pair.check("taken over").await;
}

/// One copy waits before each of its requests until its leases are over for another host, which copies the same
/// backup. Either of them may fail then. What one of them reported as copied stays, what is complete can be restored,
/// and a later copy completes the rest.
#[tokio::test]
async fn a_copy_that_slept_harms_nothing_that_another_completed() {
    let sample = Sample::new(true).await;
    store_wal(&sample).await;
    // The store has its own clock.
    let later = |hours| CopyOptions {
        host: "db4".to_owned(),
        now: chrono::Utc::now() + chrono::TimeDelta::hours(hours),
        ..options()
    };
    let is_done =
        |copied: &Result<Copied, Error>| copied.as_ref().is_ok_and(|copied| copied.backups[0].error.is_none());
    for encrypted in [true, false] {
        let mut slept_well = 0;
        for before in 0.. {
            let target = target(encrypted).await;
            let other_done = Arc::new(AtomicBool::new(false));
            let (from, to, done) = (sample.repository.clone(), target.clone(), Arc::clone(&other_done));
            let other: OtherRun = Box::pin(async move {
                let to = Repository::open(&to).await.unwrap();
                // A pack of the first copy can take its name while this one sends it.
                done.store(is_done(&copy_between(&from, &to, &later(3)).await), Ordering::SeqCst);
            });
            let store = Faulty::new(Arc::clone(&target.store), 1, Vec::new());
            store.run_before(before, other);
            let through = RepositoryTarget { store: Arc::new(store.clone()), unlock: target.unlock.clone() };
            let through = Repository::open(&through).await.unwrap();
            let slept = copy_between(&sample.repository, &through, &options()).await;
            let what = format!("encrypted: {encrypted}, asleep before request {before}: {:?}", slept.as_ref().err());
            let repository = Repository::open(&target).await.unwrap();
            let found = repository.backups(&options().cluster).await.unwrap();
            assert!(found.unreadable.is_empty(), "{what}");
            if found.records.is_empty() {
                assert!(!is_done(&slept) && !other_done.load(Ordering::SeqCst), "what was copied is gone, {what}");
            } else {
                let damage = verified(&repository).await.damage;
                assert!(damage.iter().all(|damage| damage.backups.is_empty()), "{what}: {damage:?}");
            }
            copy_between(&sample.repository, &repository, &later(6)).await.unwrap();
            assert_eq!(verified(&repository).await.damage, [], "{what}");
            slept_well += u32::from(slept.is_ok());
            if store.requests() <= before {
                assert!(before > 40 && slept_well > 0, "it ended too early to be true: {what}");
                break;
            }
        }
    }
}
