//! A nightly scrub: it reads what was not read for long, continues after a kill, and judges backups by the objects that
//! they name.

use std::time::Duration;

use chrono::TimeDelta;
use holdfast_store::{Fault, FaultRule, Faulty, Operation, StoreErrorKind};

use super::*;

const SEGMENT: u64 = 1 << 20;

/// A deep verification this many days after the first, which reads again what is older than 30 days.
fn night(bench: &Bench, days: i64) -> VerifyOptions {
    VerifyOptions {
        now: now() + TimeDelta::days(days),
        max_age: Some(Duration::from_hours(30 * 24)),
        ..bench.options(Level::Deep)
    }
}

/// Takes an incremental backup that names every pack of the bench, and has none of its own.
async fn take_child(bench: &Bench) -> BackupId {
    let child = store_child(&bench.sample).await;
    for object in [child.manifest.name.clone(), name::backup_summary(&child.cluster, &child.backup_id)] {
        let stored = bench.sample.store.get(&crate::repository::object_name(&object).unwrap()).await.unwrap();
        bench.write(&object, &stored);
    }
    child.backup_id
}

fn archive_segment(bench: &Bench, number: u64) {
    let segment_name = named(&bench.sample, 1, number);
    let raw = segment(&bench.sample, segment_name, bench.sample.backup.system_identifier.as_u64());
    let (object, stored) = wal(&bench.sample, &bench.repository, WalFileName::Segment(segment_name), &raw);
    bench.write(&object, &stored);
}

fn pack_bytes(bench: &Bench) -> u64 {
    bench.sample.packs.iter().map(|pack| pack.size_bytes).sum()
}

/// A rotten pack harms every backup that names it, also those that this run does not read.
#[tokio::test]
async fn a_rotten_pack_harms_every_backup_that_names_it() {
    for encrypted in [false, true] {
        let bench = Bench::of(Sample::with(encrypted, true).await).await;
        let parent = bench.sample.backup.backup_id;
        assert_eq!(bench.verify_with(&night(&bench, 0)).await.unwrap().damage, []);
        let child = take_child(&bench).await;
        bench.change(&bench.pack(1), flip(|length| length / 2));
        // The newest backup alone finds it, and so does a scrub long before the pack is due.
        let only = VerifyOptions { which: BackupChoice::One(child), max_age: None, ..night(&bench, 1) };
        assert_eq!(bench.verify_with(&only).await.unwrap().damage[0].backups, [child]);
        let found = bench.verify_with(&night(&bench, 2)).await.unwrap();
        let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
        assert_eq!((damage.object.clone(), damage.backups.clone()), (bench.pack(1), vec![parent, child]));
        let results: Vec<BackupResult> = found.backups.iter().map(|backup| backup.result).collect();
        assert_eq!(results, [BackupResult::Damaged; 2]);
    }
}

/// A new backup does not make the scrub read what it read last night.
#[tokio::test]
async fn a_new_backup_does_not_make_old_packs_due() {
    let bench = Bench::of(Sample::with(true, true).await).await;
    let first = bench.verify_with(&night(&bench, 0)).await.unwrap();
    assert_eq!(first.read_bytes, pack_bytes(&bench) + 4 * SEGMENT);
    let child = take_child(&bench).await;
    let second = bench.verify_with(&night(&bench, 1)).await.unwrap();
    assert_eq!((second.read_bytes, second.damage.len()), (0, 0), "{:?}", second.backups);
    let results: Vec<_> = second.backups.iter().map(|backup| (backup.backup_id, backup.result)).collect();
    let parent = bench.sample.backup.backup_id;
    assert_eq!(results, [(parent, BackupResult::PassedOver), (child, BackupResult::Sound)]);
    // In 30 nights everything is read once more, and not twice.
    let mut read = 0;
    for days in 2..=30 {
        read += bench.verify_with(&night(&bench, days)).await.unwrap().read_bytes;
    }
    assert_eq!(read, pack_bytes(&bench) + 4 * SEGMENT);
}

/// WAL that arrived after the last scrub is read by the next, although its backup is passed over.
#[tokio::test]
async fn new_wal_is_read_on_the_next_night() {
    let bench = Bench::new(false).await;
    bench.verify_with(&night(&bench, 0)).await.unwrap();
    archive_segment(&bench, 0xC);
    let second = bench.verify_with(&night(&bench, 1)).await.unwrap();
    assert_eq!((second.read_bytes, second.claims[0].segments_read), (SEGMENT, 1));
    assert_eq!(second.backups[0].result, BackupResult::PassedOver);
    archive_segment(&bench, 0xD);
    bench.change(&bench.wal_object(1, 0xD), flip(|length| length / 2));
    let third = bench.verify_with(&night(&bench, 2)).await.unwrap();
    let [damage] = third.damage.as_slice() else { panic!("{third:?}") };
    assert_eq!((damage.object.clone(), damage.windows.is_empty()), (bench.wal_object(1, 0xD), false));
    // What is damaged is read again on each night.
    assert_eq!(bench.verify_with(&night(&bench, 3)).await.unwrap().damage.len(), 1);
}

/// A run that ends early remembers what it has read.
#[tokio::test]
async fn a_scrub_continues_within_a_backup() {
    let bench = Bench::new(false).await;
    let rule = FaultRule::new(&[Operation::Get], 1.0, Fault::Refuse(StoreErrorKind::Unreachable)).on("main/wal/");
    let faulty = Faulty::new(Arc::clone(&bench.target.store), 3, vec![rule]);
    faulty.set_active(false);
    let target = RepositoryTarget { store: Arc::new(faulty.clone()), unlock: bench.target.unlock.clone() };
    let repository = Repository::open(&target).await.unwrap();
    faulty.set_active(true);
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let ended = verify(&repository, &night(&bench, 0), &progress, &CancellationToken::new()).await.unwrap();
    assert!(ended.interrupted.is_some() && ended.read_bytes >= pack_bytes(&bench), "{ended:?}");
    let next = bench.verify_with(&night(&bench, 1)).await.unwrap();
    assert_eq!((next.read_bytes, next.backups[0].result), (4 * SEGMENT, BackupResult::Sound));
    assert_eq!(bench.verify_with(&night(&bench, 2)).await.unwrap().read_bytes, 0);
}

/// A killed run writes nothing at its end: what it wrote before counts.
#[tokio::test]
async fn a_scrub_continues_after_a_kill() {
    let bench = Bench::new(true).await;
    let all = pack_bytes(&bench) + 4 * SEGMENT;
    let often = VerifyOptions { remember_every: Duration::ZERO, ..night(&bench, 0) };
    let (mut read, mut nights) = (0, 0);
    for requests in (10..).step_by(7) {
        let faulty = Faulty::new(Arc::clone(&bench.target.store), requests, Vec::new());
        faulty.set_active(false);
        let target = RepositoryTarget { store: Arc::new(faulty.clone()), unlock: bench.target.unlock.clone() };
        let repository = Repository::open(&target).await.unwrap();
        faulty.crash_after(requests);
        faulty.set_active(true);
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let found = verify(&repository, &often, &progress, &CancellationToken::new()).await;
        let is_over = found.as_ref().is_ok_and(|found| found.interrupted.is_none());
        read += found.map_or(0, |found| found.read_bytes);
        nights += 1;
        if is_over {
            break;
        }
    }
    // Packs and segments that were on their way at a kill are read again.
    assert!(nights > 3 && read < 3 * all, "{nights} nights, {read} of {all} bytes");
    let next = bench.verify_with(&night(&bench, 1)).await.unwrap();
    assert_eq!((next.read_bytes, next.damage.len()), (0, 0));
}

/// Two runs at once, and a run that reads nothing new: what each of them read counts, and `expire` leaves one entry.
#[tokio::test]
async fn entries_of_several_runs_become_one() {
    use crate::repository::readings::superseded;
    let bench = Bench::new(false).await;
    let cluster = bench.sample.backup.cluster.clone();
    let (options, other) = (night(&bench, 0), night(&bench, 0));
    let (one, two) = tokio::join!(bench.verify_with(&options), bench.verify_with(&other));
    assert!(one.unwrap().damage.is_empty() && two.unwrap().damage.is_empty());
    let next = bench.verify_with(&night(&bench, 1)).await.unwrap();
    assert_eq!(next.read_bytes, 0);
    let later = now() + TimeDelta::days(2);
    let old = superseded(&bench.repository, &cluster, later).await.unwrap();
    assert_eq!(old.len(), 2, "{old:?}");
    bench.repository.delete_ledger(&old).await.unwrap();
    assert_eq!(bench.verify_with(&night(&bench, 2)).await.unwrap().read_bytes, 0);
    let left = bench.repository.ledger_names(&cluster, holdfast_repo::name::LedgerKind::Reading).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    // An entry that nobody can read costs a second reading, and nothing else.
    bench.write(&left[0].1, b"{}");
    let read = bench.verify_with(&night(&bench, 3)).await.unwrap();
    assert_eq!((read.read_bytes, read.damage.len()), (pack_bytes(&bench) + 4 * SEGMENT, 0));
}

/// If somebody removed every `backup.json`, what is left proves that there were backups.
#[tokio::test]
async fn a_backup_that_lost_its_record_is_damaged() {
    for encrypted in [false, true] {
        let bench = Bench::new(encrypted).await;
        bench.verify(Level::Shallow).await;
        bench.remove(&bench.summary());
        let found = bench.verify(Level::Shallow).await;
        let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
        assert_eq!((damage.kind, damage.class), (DamageKind::Missing, ObjectClass::BackupRecord), "{damage}");
        assert_eq!(
            (damage.object.clone(), damage.backups.clone()),
            (bench.summary(), vec![bench.sample.backup.backup_id])
        );
    }
}

/// What `expire` removed is not lost.
#[tokio::test]
async fn a_removed_backup_is_not_a_lost_one() {
    use holdfast_repo::record::LedgerEntry;
    let bench = Bench::new(false).await;
    bench.verify(Level::Shallow).await;
    let removal = LedgerEntry::Removal {
        backups: vec![bench.sample.backup.backup_id],
        pack_count: 0,
        wal_file_count: 0,
        size_bytes: 0,
        run: None,
        found_later: false,
        wal: Vec::new(),
    };
    bench.repository.write_ledger(&bench.sample.backup.cluster, "db1", now(), removal).await.unwrap();
    bench.remove(&bench.summary());
    assert_eq!(bench.verify(Level::Shallow).await.damage, []);
}
