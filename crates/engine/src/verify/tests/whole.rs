//! A failing store says nothing about objects, and only checked objects count as sound.

use holdfast_store::{Fault, FaultRule, Faulty, Operation, StoreErrorKind};

use super::*;

async fn verify_through(bench: &Bench, faulty: &Faulty, options: &VerifyOptions) -> Result<Verification, Error> {
    let target = RepositoryTarget { store: Arc::new(faulty.clone()), unlock: bench.target.unlock.clone() };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let repository = Repository::open(&target).await?;
    verify(&repository, options, &progress, &CancellationToken::new()).await
}

/// The store becomes unavailable after each number of requests.
#[tokio::test]
async fn an_unavailable_store_is_neither_sound_nor_damaged() {
    let bench = Bench::new(true).await;
    for level in [Level::Shallow, Level::Deep] {
        let options = bench.options(level);
        let mut requests = 0;
        loop {
            let faulty = Faulty::new(Arc::clone(&bench.target.store), 1, Vec::new());
            faulty.crash_after(requests);
            let Ok(found) = verify_through(&bench, &faulty, &options).await else {
                requests += 1;
                continue;
            };
            assert_eq!(found.damage, [], "{requests} requests");
            let sound = found.backups.iter().filter(|backup| backup.result == BackupResult::Sound).count();
            if found.interrupted.is_none() {
                // Only the last request, which records the result, may be missing.
                assert_eq!(sound, 1);
                if found.backups[0].recorded {
                    break;
                }
                assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
            } else {
                assert_eq!(sound, 0, "{requests} requests");
            }
            requests += 1;
        }
        assert!(requests > 10, "{requests}");
    }
}

/// One request of many is refused or does not arrive.
#[tokio::test]
async fn one_refused_request_makes_the_verification_incomplete() {
    let bench = Bench::new(false).await;
    for kind in [StoreErrorKind::Timeout, StoreErrorKind::PermissionDenied, StoreErrorKind::Throttled] {
        for prefix in ["main/packs/", "main/wal/", "main/backups/", "main/claims/"] {
            let rule = FaultRule::new(
                &[Operation::Get, Operation::GetRange, Operation::GetTail, Operation::Head, Operation::List],
                1.0,
                Fault::Refuse(kind),
            );
            let faulty = Faulty::new(Arc::clone(&bench.target.store), 3, vec![rule.on(prefix).times(1)]);
            let found = verify_through(&bench, &faulty, &bench.options(Level::Deep)).await.unwrap();
            let Some(why) = &found.interrupted else { panic!("{kind:?} {prefix}: {found:?}") };
            assert!(matches!(&*why.what, Cause::Store(error) if error.kind() == kind), "{prefix}: {why}");
            assert_eq!(found.damage, [], "{kind:?} {prefix}");
            assert!(found.backups.iter().all(|backup| backup.result == BackupResult::NotVerified), "{found:?}");
        }
    }
}

/// A bit that flips once on the way is not damage.
#[tokio::test]
async fn a_bit_that_flips_on_the_way_is_not_damage() {
    for encrypted in [false, true] {
        let bench = Bench::new(encrypted).await;
        for prefix in ["main/packs/", "main/wal/1/00000001/0", "main/backups/", "main/claims/"] {
            let rule = FaultRule::new(&[Operation::Get, Operation::GetRange], 1.0, Fault::FlipBit);
            let faulty = Faulty::new(Arc::clone(&bench.target.store), 5, vec![rule.on(prefix).times(1)]);
            let found = verify_through(&bench, &faulty, &bench.options(Level::Deep)).await.unwrap();
            assert_eq!(faulty.injected(), 1, "{prefix}");
            assert_eq!(found.damage, [], "{prefix}");
            assert!(found.interrupted.is_none(), "{prefix}: {:?}", found.interrupted);
        }
    }
}

/// A backup is removed while it is examined.
#[tokio::test]
async fn a_backup_that_is_removed_meanwhile_is_not_damaged() {
    let bench = Bench::new(false).await;
    bench.remove(&bench.pack(0));
    // The record exists while backups are listed and read, and is gone when the result is known.
    let summary = bench.summary();
    let rule = FaultRule::new(&[Operation::Head], 1.0, Fault::Refuse(StoreErrorKind::NotFound)).on(&summary);
    let faulty = Faulty::new(Arc::clone(&bench.target.store), 3, vec![rule]);
    let found = verify_through(&bench, &faulty, &bench.options(Level::Shallow)).await.unwrap();
    if found.backups.is_empty() {
        assert_eq!(found.damage, []);
        assert_eq!(found.notes, ["backup 20260822T101500Z was removed during the verification"]);
    } else {
        panic!("{found:?}");
    }
}
