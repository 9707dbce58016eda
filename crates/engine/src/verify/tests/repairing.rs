//! Repairs of each kind of damage from another repository, a crash at each request, and damage that cannot be repaired.

use std::collections::BTreeSet;

use holdfast_contract::report::verify::RepairKind;
use holdfast_repo::name::LedgerKind;
use holdfast_repo::record::LedgerEntry;
use holdfast_repo::recovery::RecoveryRequest;
use holdfast_store::Faulty;

use super::*;
use crate::copy::tests::{copy_between, options as copy_options, target};
use crate::restore::RestoreOptions;
use crate::verify::repair::{RepairOptions, verify_and_repair};

/// A bench, and a repository with a copy of it.
async fn copied(encrypted: bool, other_encrypted: bool) -> (Bench, RepositoryTarget) {
    let bench = Bench::new(encrypted).await;
    let other = target(other_encrypted).await;
    let to = Repository::open(&other).await.unwrap();
    copy_between(&bench.repository, &to, &copy_options()).await.unwrap();
    (bench, other)
}

async fn repair_through(
    bench: &Bench,
    repository: &Repository,
    others: &[RepositoryTarget],
) -> Result<Verification, Error> {
    let mut opened = Vec::new();
    for other in others {
        opened.push(Repository::open(other).await.unwrap());
    }
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let (options, repair) = (bench.options(Level::Deep), RepairOptions { part_size_bytes: 256 << 10 });
    verify_and_repair(repository, &opened, &options, repair, &progress, &CancellationToken::new()).await
}

async fn repair(bench: &Bench, others: &[RepositoryTarget]) -> Verification {
    repair_through(bench, &bench.repository, others).await.unwrap()
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn segment_object(bench: &Bench, number: u64) -> String {
    let file = WalFileName::Segment(named(&bench.sample, 1, number));
    wal(&bench.sample, &bench.repository, file, b"").0
}

/// All objects of a backup, each with its name and the kind of its repair.
fn objects(bench: &Bench) -> Vec<(String, RepairKind)> {
    let (cluster, id) = (&bench.sample.backup.cluster, &bench.sample.backup.backup_id);
    let mut objects: Vec<(String, RepairKind)> =
        bench.sample.packs.iter().map(|pack| (pack.name.clone(), RepairKind::SameBytes)).collect();
    objects.push((name::manifest(cluster, id), RepairKind::TakenOver));
    objects.push((name::backup_summary(cluster, id), RepairKind::TakenOver));
    objects.push((name::backup_start(cluster, id), RepairKind::SealedAgain));
    objects.push((segment_object(bench, 8), RepairKind::SealedAgain));
    objects.push((segment_object(bench, 0xA), RepairKind::SealedAgain));
    objects
}

/// The files of the repository, except the ledger.
fn content(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut found, mut folders) = (Vec::new(), vec![bench.root.join("main")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.ends_with("ledger") || path.ends_with("leases") => {}
                true => folders.push(path),
                false => found.push((path.clone(), std::fs::read(path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

async fn check_repaired(bench: &Bench, what: &str) {
    let found = bench.verify(Level::Deep).await;
    assert_eq!(found.damage, [], "{what}");
    std::fs::remove_dir_all(bench.sample.pgdata()).ok();
    std::fs::remove_dir_all(bench.sample.fast()).ok();
    bench.sample.restore_with(&bench.repository, &bench.sample.options()).await.unwrap();
    bench.sample.check();
}

#[tokio::test]
async fn each_object_is_brought_back_whatever_became_of_it() {
    for (encrypted, other) in [(false, false), (false, true), (true, false), (true, true)] {
        let (bench, other) = copied(encrypted, other).await;
        let sound = content(&bench);
        for (object, how) in objects(&bench) {
            for missing in [true, false] {
                let what = format!("{object}, missing: {missing}, encrypted: {encrypted}");
                let is_record = object.ends_with("backup.json") || object.ends_with("start.json");
                match missing {
                    // Without this record there is no backup, or no restore needs it.
                    true if is_record => continue,
                    true => bench.remove(&object),
                    false => bench.change(&object, |bytes| flip(bytes)),
                }
                let found = repair(&bench, std::slice::from_ref(&other)).await;
                assert_eq!(found.damage, [], "{what}");
                let repair = found.repair.unwrap();
                let repaired: Vec<_> = repair.repaired.iter().map(|it| (it.object.as_str(), it.how)).collect();
                assert_eq!((repaired.as_slice(), repair.left.len()), (&[(object.as_str(), how)][..], 0), "{what}");
                let harmless = object.ends_with("start.json") || object == segment_object(&bench, 0xA);
                let expected = if harmless { Vec::new() } else { vec![bench.sample.backup.backup_id] };
                assert_eq!(repair.backups, expected, "{what}");
                if how == RepairKind::SameBytes {
                    assert_eq!(content(&bench), sound, "{what}");
                }
                check_repaired(&bench, &what).await;
                if how != RepairKind::SameBytes {
                    for (path, bytes) in &sound {
                        let path = path.strip_prefix(&bench.root).unwrap().to_str().unwrap();
                        bench.write(path, bytes);
                    }
                }
            }
        }
        let written = bench.repository.ledger(&bench.sample.backup.cluster, LedgerKind::Repair).await.unwrap().records;
        assert_eq!(written.len(), objects(&bench).len() * 2 - 2);
        assert!(
            written.iter().all(|(_, record)| {
                matches!(record.entry, LedgerEntry::Repair { object_count: 1, left_count: 0, .. })
            })
        );
        assert_eq!(bench.repository.leases(&bench.sample.backup.cluster).await.unwrap().len(), 0);
    }
}

/// Damage of several kinds at once, and a run that is killed at any request.
#[tokio::test]
async fn a_crash_at_each_request_of_a_repair_harms_nothing_that_is_sound() {
    let (bench, other) = copied(true, true).await;
    let sound = content(&bench);
    let damaged = [bench.pack(0), segment_object(&bench, 9), bench.manifest()];
    let mut ended = 0;
    for requests in 1.. {
        let what = format!("crash at request {requests}");
        for (path, _) in content(&bench) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &sound {
            bench.write(path.strip_prefix(&bench.root).unwrap().to_str().unwrap(), bytes);
        }
        bench.remove(&damaged[0]);
        bench.change(&damaged[1], |bytes| flip(bytes));
        bench.change(&damaged[2], |bytes| flip(bytes));
        let faulty = Faulty::new(Arc::clone(bench.repository.store()), requests, Vec::new());
        faulty.set_active(false);
        let store: Arc<dyn Store> = Arc::new(faulty.clone());
        let through = RepositoryTarget { store, unlock: bench.target.unlock.clone() };
        let through = Repository::open(&through).await.unwrap();
        faulty.crash_after(requests);
        faulty.set_active(true);
        let crashed = repair_through(&bench, &through, std::slice::from_ref(&other)).await;
        let untouched: BTreeSet<&str> = damaged.iter().map(String::as_str).collect();
        for (path, bytes) in &sound {
            let name = path.strip_prefix(&bench.root).unwrap().to_str().unwrap();
            let may_change = untouched.contains(name) || name.ends_with("backup.json");
            assert!(may_change || std::fs::read(path).unwrap() == *bytes, "{what}: {name}");
        }
        for lease in bench.repository.leases(&bench.sample.backup.cluster).await.unwrap() {
            for object in lease.named.objects() {
                bench.remove(object);
            }
        }
        let found = repair(&bench, std::slice::from_ref(&other)).await;
        assert_eq!(found.damage, [], "{what}: {:?}", found.repair);
        check_repaired(&bench, &what).await;
        ended += u32::from(crashed.is_ok_and(|found| found.interrupted.is_none()));
        if ended == 3 {
            break;
        }
    }
}

/// A repository also helps if its packs were made in another way, and so have other names.
#[tokio::test]
async fn a_backup_is_taken_over_where_packs_are_laid_out_otherwise() {
    for encrypted in [false, true] {
        let bench = Bench::new(encrypted).await;
        let other = target(true).await;
        let to = Repository::open(&other).await.unwrap();
        for pack in &bench.sample.packs {
            let name = crate::repository::object_name(&pack.name).unwrap();
            other.store.put(&name, bytes::Bytes::from_static(b"another pack"), PutMode::Create).await.unwrap();
        }
        copy_between(&bench.repository, &to, &copy_options()).await.unwrap();
        bench.change(&bench.pack(1), |bytes| flip(bytes));
        let found = repair(&bench, std::slice::from_ref(&other)).await;
        assert_eq!(found.damage, []);
        let repair = found.repair.unwrap();
        assert_eq!(repair.repaired.len(), 1, "{repair:?}");
        assert_eq!((repair.repaired[0].object.clone(), repair.repaired[0].how), (bench.pack(1), RepairKind::TakenOver));
        check_repaired(&bench, "taken over").await;
    }
}

#[tokio::test]
async fn what_no_other_repository_has_is_named() {
    let (bench, other) = copied(true, false).await;
    let empty = target(true).await;
    bench.change(&bench.pack(0), |bytes| flip(bytes));
    bench.remove(&segment_object(&bench, 9));
    bench.remove(&segment_object(&bench, 0xA));
    for object in other.store.list("main/wal/", None).await.unwrap() {
        if object.name.as_ref().contains("00000000000A") {
            other.store.delete(&[object.name]).await.unwrap();
        }
    }
    let before = content(&bench);
    let found = repair(&bench, std::slice::from_ref(&empty)).await;
    assert_eq!(found.damage.len(), 2, "{:?}", found.damage);
    let repair_of_nothing = found.repair.unwrap();
    assert_eq!((repair_of_nothing.repaired.len(), repair_of_nothing.left.len()), (0, 2), "{repair_of_nothing:?}");
    assert_eq!(content(&bench), before);
    // The first repository has nothing. The second has everything except one segment.
    let found = repair(&bench, &[empty, other]).await;
    let [damage] = found.damage.as_slice() else { panic!("{:?}", found.damage) };
    assert_eq!((damage.object.clone(), damage.count), (segment_object(&bench, 0xA), 1));
    let repair = found.repair.unwrap();
    assert_eq!(repair.repaired.len(), 2, "{repair:?}");
    assert_eq!(repair.backups, [bench.sample.backup.backup_id]);
    let [left] = repair.left.as_slice() else { panic!("{repair:?}") };
    assert_eq!((left.object.clone(), left.reason.as_str()), (segment_object(&bench, 9), "no other repository has it"));
}

/// A manifest to which others refer: what became of it, and what the repair does.
#[tokio::test]
async fn a_manifest_is_not_replaced_while_a_sound_backup_refers_to_it() {
    for encrypted in [false, true] {
        for (what, harms_child) in [("it is missing", true), ("a frame of files", true), ("its end", false)] {
            let sample = Sample::with(encrypted, true).await;
            let child = store_child(&sample).await;
            let bench = Bench::of(sample).await;
            let other = target(!encrypted).await;
            let to = Repository::open(&other).await.unwrap();
            copy_between(&bench.repository, &to, &copy_options()).await.unwrap();
            let (parent, own) = (bench.manifest(), std::fs::read(bench.file(&child.manifest.name)).unwrap());
            match what {
                "it is missing" => bench.remove(&parent),
                "a frame of files" => bench.change(&parent, |bytes| {
                    let (id, key) = (bench.repository.id(), bench.repository.key());
                    let read = Manifest::parse(&parent, bytes, id, key).unwrap();
                    bytes[read.frames()[0].location.range().end as usize - 1] ^= 1;
                }),
                _ => bench.change(&parent, |bytes| *bytes.last_mut().unwrap() ^= 1),
            }
            let found = bench.verify(Level::Deep).await;
            let [damage] = found.damage.as_slice() else { panic!("{what}: {found:?}") };
            let affected = [bench.sample.backup.backup_id, child.backup_id];
            assert_eq!(damage.backups, affected[..=usize::from(harms_child)], "{what}");
            let found = repair(&bench, std::slice::from_ref(&other)).await;
            let repair = found.repair.unwrap();
            if harms_child {
                assert_eq!(found.damage, [], "{what}: {repair:?}");
                assert_eq!(repair.backups, affected, "{what}");
                check_repaired(&bench, what).await;
                continue;
            }
            // The older backup stays damaged, and the younger one stays as it is.
            let [left] = repair.left.as_slice() else { panic!("{what}: {repair:?}") };
            let words = format!("would be replaced, and {} refers to what is in it", child.manifest.name);
            assert!(left.reason.contains(&words), "{what}: {left:?}");
            assert_eq!(std::fs::read(bench.file(&child.manifest.name)).unwrap(), own, "{what}");
            assert_eq!(found.damage.len(), 1, "{what}");
            let request = RecoveryRequest { backup: Some(child.backup_id), ..RecoveryRequest::default() };
            std::fs::remove_dir_all(bench.sample.pgdata()).ok();
            std::fs::remove_dir_all(bench.sample.fast()).ok();
            let options = RestoreOptions { request, ..bench.sample.options() };
            bench.sample.restore_with(&bench.repository, &options).await.unwrap();
            bench.sample.check();
        }
    }
}

/// The hole has neighbours that cannot be compared. The next segment that both repositories have decides: here the
/// archives split, so the hole stays.
#[tokio::test]
async fn a_hole_is_closed_only_if_a_segment_beside_it_is_the_same_in_both() {
    for (neighbours, same) in [(false, true), (false, false), (true, false)] {
        let (bench, other) = copied(false, false).await;
        let system = bench.sample.backup.system_identifier.as_u64();
        if !same {
            // The other repository has the WAL of another server on this timeline.
            for number in [8, 9, 0xA, 0xB] {
                let name = named(&bench.sample, 1, number);
                let mut raw = segment(&bench.sample, name, system);
                let middle = raw.len() / 2;
                raw[middle] ^= 1;
                let (object, bytes) = wal(&bench.sample, &bench.repository, WalFileName::Segment(name), &raw);
                let object = crate::repository::object_name(&object.replace(".zst", ".lz4")).unwrap();
                other.store.delete(std::slice::from_ref(&object)).await.unwrap();
                let to = Repository::open(&other).await.unwrap();
                let (_, bytes_there) = (bytes, to.id());
                let stored = holdfast_repo::wal_object::encode(
                    object.as_ref(),
                    &name.to_string(),
                    &raw,
                    Compression::of(Codec::Lz4),
                    bytes_there,
                    to.key(),
                    serde_json::json!({ "first_record_lsn": name.start_lsn(bench.sample.backup.wal_segment_size) }),
                )
                .unwrap();
                other.store.put(&object, stored, PutMode::Create).await.unwrap();
            }
        }
        bench.remove(&segment_object(&bench, 9));
        if !neighbours {
            // One neighbour is damaged here, and the other repository lacks the other.
            bench.change(&segment_object(&bench, 0xA), |bytes| bytes.truncate(200));
            for object in other.store.list("main/wal/", None).await.unwrap() {
                if object.name.as_ref().contains("000000000008.") {
                    other.store.delete(&[object.name]).await.unwrap();
                }
            }
        }
        let found = repair(&bench, std::slice::from_ref(&other)).await;
        let left: Vec<String> = found.repair.unwrap().left.into_iter().map(|left| left.object).collect();
        assert_eq!(!left.contains(&segment_object(&bench, 9)), same, "neighbours: {neighbours}, {left:?}");
    }
}
