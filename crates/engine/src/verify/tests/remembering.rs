//! The ledger of verifications, and what is skipped because of it.

use std::time::Duration;

use chrono::TimeDelta;
use holdfast_repo::record::{LedgerEntry, LedgerRecord};

use super::*;

async fn ledger(bench: &Bench) -> Vec<String> {
    let listed = bench.target.store.list("main/ledger/", None).await.unwrap();
    let names = listed.into_iter().map(|object| object.name.to_string());
    names.filter(|name| name.contains("-verification-")).collect()
}

#[tokio::test]
async fn the_ledger_remembers_levels_results_and_problems() {
    for encrypted in [false, true] {
        let bench = Bench::new(encrypted).await;
        let id = bench.sample.backup.backup_id;
        bench.verify(Level::Deep).await;
        let found = verifications(&bench.repository, &"main".parse().unwrap(), |_| true, now() + TimeDelta::days(9))
            .await
            .unwrap();
        let standing = found.standing(id).unwrap();
        assert_eq!((standing.level, standing.sound, standing.host.as_str()), (Level::Deep, true, "db1"));
        assert_eq!(standing.to_string(), "verified 2026-11-22 deep");
        let sound =
            sound_backups(&bench.repository, &"main".parse().unwrap(), now() + TimeDelta::days(9)).await.unwrap();
        assert_eq!(sound.keys().copied().collect::<Vec<_>>(), [id]);

        let later = VerifyOptions { now: now() + TimeDelta::days(1), ..bench.options(Level::Deep) };
        let pack = std::fs::read(bench.file(&bench.pack(1))).unwrap();
        bench.change(&bench.pack(1), flip(|length| length / 2));
        bench.verify_with(&later).await.unwrap();
        let names = ledger(&bench).await;
        assert_eq!(names.len(), 2);
        assert!(names[1].ends_with("-verification-20260822T101500Z-deep.json"), "{names:?}");
        let record: LedgerRecord = bench.repository.read_record(&names[1]).await.unwrap();
        let LedgerEntry::Verification { problems, deep: true, size_bytes, .. } = record.entry else {
            panic!("{record:?}")
        };
        assert_eq!((problems.len(), problems[0].object.clone()), (1, bench.pack(1)));
        assert!(problems[0].problem.starts_with("does not match its checksum: the body of frame"), "{problems:?}");
        assert!(size_bytes > 0);

        // A verification that is not deep does not cancel it; a deep one does.
        bench.write(&bench.pack(1), &pack);
        let look = VerifyOptions { now: now() + TimeDelta::days(2), ..bench.options(Level::Shallow) };
        bench.verify_with(&look).await.unwrap();
        assert_eq!(
            sound_backups(&bench.repository, &"main".parse().unwrap(), now() + TimeDelta::days(9)).await.unwrap().len(),
            0
        );
        let deep = VerifyOptions { now: now() + TimeDelta::days(3), ..bench.options(Level::Deep) };
        bench.verify_with(&deep).await.unwrap();
        assert_eq!(
            sound_backups(&bench.repository, &"main".parse().unwrap(), now() + TimeDelta::days(9)).await.unwrap().len(),
            1
        );
    }
}

#[tokio::test]
async fn a_scrub_continues_where_it_stopped() {
    let bench = Bench::new(false).await;
    let deep = |days, age: Option<u64>| VerifyOptions {
        now: now() + TimeDelta::days(days),
        max_age: age.map(|days| Duration::from_secs(days * 86_400)),
        ..bench.options(Level::Deep)
    };
    let read = bench.verify_with(&deep(0, Some(30))).await.unwrap();
    assert!(read.read_bytes > 0);
    let again = bench.verify_with(&deep(10, Some(30))).await.unwrap();
    assert_eq!((again.read_bytes, again.backups[0].result), (0, BackupResult::PassedOver));
    assert!(!again.backups[0].recorded);
    assert_eq!(ledger(&bench).await.len(), 1);
    // It is examined all the same.
    let pack = std::fs::read(bench.file(&bench.pack(0))).unwrap();
    bench.remove(&bench.pack(0));
    let damaged = bench.verify_with(&deep(11, Some(30))).await.unwrap();
    assert_eq!((damaged.damage.len(), damaged.backups[0].result), (1, BackupResult::Damaged));
    bench.write(&bench.pack(0), &pack);
    let after = bench.verify_with(&deep(12, Some(30))).await.unwrap();
    assert_eq!(after.backups[0].result, BackupResult::Sound);
    assert!(after.read_bytes > 0);
    let old = bench.verify_with(&deep(50, Some(30))).await.unwrap();
    assert!(old.read_bytes > 0);
}

#[tokio::test]
async fn a_sample_is_repeated_by_its_seed() {
    let bench = Bench::new(false).await;
    let sampled = |percent, seed| VerifyOptions {
        sample: Some(super::super::Sample { percent, seed }),
        ..bench.options(Level::Deep)
    };
    let whole = bench.verify(Level::Deep).await.read_bytes;
    let mut sizes = Vec::new();
    for seed in 0..8 {
        let first = bench.verify_with(&sampled(50, seed)).await.unwrap();
        let second = bench.verify_with(&sampled(50, seed)).await.unwrap();
        assert_eq!((first.read_bytes, first.damage.len()), (second.read_bytes, 0));
        sizes.push(first.read_bytes);
    }
    sizes.dedup();
    assert!(sizes.len() > 1, "{sizes:?}");
    assert_eq!(bench.verify_with(&sampled(100, 1)).await.unwrap().read_bytes, whole);
    // It does not count as a deep verification.
    let mut percents = Vec::new();
    for name in ledger(&bench).await {
        let record: LedgerRecord = bench.repository.read_record(&name).await.unwrap();
        let LedgerEntry::Verification { deep, sample_percent, .. } = record.entry else { panic!("{record:?}") };
        assert_eq!(
            (deep, name.ends_with("-deep.json")),
            (sample_percent.is_none(), sample_percent.is_none()),
            "{name}"
        );
        percents.extend(sample_percent);
    }
    percents.sort_unstable();
    assert_eq!((percents.len(), percents.last()), (17, Some(&100)));
}

/// Read-only credentials are enough for a verification.
#[tokio::test]
async fn a_result_that_cannot_be_written_is_a_note() {
    use holdfast_store::{Fault, FaultRule, Faulty, Operation, StoreErrorKind};
    let bench = Bench::new(false).await;
    let rule = FaultRule::new(&[Operation::Put], 1.0, Fault::Refuse(StoreErrorKind::PermissionDenied));
    let faulty = Faulty::new(Arc::clone(&bench.target.store), 3, vec![rule]);
    let target = RepositoryTarget { store: Arc::new(faulty), unlock: bench.target.unlock.clone() };
    let repository = Repository::open(&target).await.unwrap();
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let options = bench.options(Level::Shallow);
    let found = verify(&repository, &options, &progress, &CancellationToken::new()).await.unwrap();
    assert_eq!((found.backups[0].result, found.backups[0].recorded), (BackupResult::Sound, false));
    let [note] = found.notes.as_slice() else { panic!("{:?}", found.notes) };
    assert!(note.starts_with("what was verified cannot be remembered in the repository: permission denied"), "{note}");
}
