//! A crash or a fault at each request: kept backups are always sound, and the next run finishes what was begun.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bench::{Bench, first_segment};
use crate::progress::Silent;
use crate::repository::{Repository, RepositoryTarget};
use holdfast_repo::name;
use holdfast_store::{Fault, FaultRule, Faulty, Store, StoreErrorKind};

/// Four days; the third uses a pack of the first.
async fn archive(encrypted: bool) -> Bench {
    let bench = Bench::new(encrypted).await;
    bench.backup(0, &[]).await;
    bench.backup(1, &[]).await;
    bench.backup(2, &[(0, 1)]).await;
    bench.backup(3, &[]).await;
    for number in 1..first_segment(4) {
        bench.segment(number).await;
    }
    bench
}

async fn check_end(bench: &Bench, what: &str) {
    assert_eq!(bench.sound_days().await, [2, 3], "{what}");
    let first = bench.id(0);
    let left: BTreeSet<String> = bench.names("backups/").await.into_iter().collect();
    let mut expected: BTreeSet<String> = [name::manifest(&bench.cluster, &first)].into();
    for id in [bench.id(2), bench.id(3)] {
        expected.insert(name::backup_start(&bench.cluster, &id));
        expected.insert(name::backup_summary(&bench.cluster, &id));
        expected.insert(name::manifest(&bench.cluster, &id));
    }
    assert_eq!(left, expected, "{what}");
    assert_eq!(bench.names("packs/").await.len(), 5, "{what}");
    assert_eq!(bench.segments().await, (first_segment(2)..first_segment(4)).collect(), "{what}");
    assert_eq!((bench.ledger("deletion").await, bench.ledger("removing").await), (0, 0), "{what}");
    // However the runs ended, the ledger records each removal exactly once.
    assert_eq!(bench.recorded_removed().await, (vec![bench.id(0), bench.id(1)], 3, first_segment(2) - 1), "{what}");
    assert_eq!(bench.recorded_wal().await, (1..first_segment(2)).collect(), "{what}");
}

async fn faulty(bench: &Bench, seed: u64, rules: Vec<FaultRule>) -> (Repository, Faulty) {
    let faulty = Faulty::new(Arc::clone(&bench.store), seed, rules);
    faulty.set_active(false);
    let store: Arc<dyn Store> = Arc::new(faulty.clone());
    let repository = Repository::open(&RepositoryTarget { store, unlock: bench.target.unlock.clone() }).await.unwrap();
    (repository, faulty)
}

#[tokio::test]
async fn after_a_crash_at_any_request_the_next_run_finishes() {
    for encrypted in [false, true] {
        let mut ended = 0;
        for requests in 1.. {
            let bench = archive(encrypted).await;
            let (repository, store) = faulty(&bench, requests, Vec::new()).await;
            store.crash_after(requests);
            store.set_active(true);
            let crashed = bench.expire_through(&repository, &bench.last(2), &Silent).await;
            // The kept backups are there. A half-removed backup has no `backup.json`.
            let days = bench.sound_days().await;
            assert!(days.contains(&2) && days.contains(&3), "{requests}: {days:?}");
            // The lease is of this process, so it counts as alive. Without it, the next run can begin.
            for lease in bench.names("leases/").await {
                bench.remove(&lease).await;
            }
            bench.expire(&bench.last(2)).await.unwrap();
            bench.expire(&bench.last(2)).await.unwrap();
            check_end(&bench, &format!("crash at request {requests}")).await;
            ended += u32::from(crashed.is_ok());
            // The last requests release the lease.
            if ended == 4 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_fails_stops_the_run_and_the_next_one_continues() {
    for seed in 0..40 {
        let bench = archive(false).await;
        let kind = if seed % 2 == 0 { StoreErrorKind::PermissionDenied } else { StoreErrorKind::Unreachable };
        let rules = vec![
            FaultRule::new(&[], 0.03, Fault::Refuse(kind)),
            FaultRule::new(&[], 0.03, Fault::LostAnswer),
            FaultRule::new(&[], 0.02, Fault::FlipBit),
            FaultRule::new(&[], 0.02, Fault::Truncate),
        ];
        let (repository, store) = faulty(&bench, seed, rules).await;
        store.set_active(true);
        for _ in 0..4 {
            let outcome = bench.expire_through(&repository, &bench.last(2), &Silent).await;
            let days = bench.sound_days().await;
            assert!(days.contains(&2) && days.contains(&3), "seed {seed}: {days:?} after {outcome:?}");
            for lease in bench.names("leases/").await {
                bench.remove(&lease).await;
            }
        }
        for _ in 0..2 {
            bench.expire(&bench.last(2)).await.unwrap();
        }
        check_end(&bench, &format!("seed {seed}")).await;
    }
}
