//! A crash or a fault at each request of each verb: the user of the command can still read everything, and the same
//! command finishes the change.

use std::sync::Arc;

use holdfast_store::{Fault, FaultRule, Faulty, Store, StoreErrorKind};

use super::bench::{ANNA, BEN, Bench, VAULT, add_to, remove_from, rotate_in, through};
use crate::error::Error;
use crate::repository::RepositoryTarget;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Add,
    Rotate,
    Remove,
}

impl Verb {
    async fn run(self, target: &RepositoryTarget) -> Result<(), Error> {
        match self {
            Self::Add => add_to(target, "third", 9).await.map(|_| ()),
            Self::Rotate => rotate_in(target, &[VAULT], &["ben"]).await.map(|_| ()),
            Self::Remove => remove_from(target, "ben").await.map(|_| ()),
        }
    }

    /// Checks that the change is complete, and that no intermediate object is left.
    async fn check_end(self, bench: &Bench, what: &str) {
        for who in [ANNA, VAULT] {
            bench.write(who).await.unwrap();
        }
        assert!(bench.reads_all(ANNA).await && bench.reads_all(VAULT).await, "{what}");
        let keys = bench.keys().await;
        match self {
            Self::Add => {
                assert!(bench.reads_all(9).await && bench.reads_all(BEN).await, "{what}");
                assert_eq!(keys, ["ben.json", "default.json", "third.json", "vault.json"], "{what}");
            }
            Self::Rotate => {
                assert!(bench.open(BEN).await.is_err(), "{what}");
                assert_eq!(keys.len(), 2, "{what}: {keys:?}");
            }
            Self::Remove => {
                assert!(bench.open(BEN).await.is_err(), "{what}");
                assert_eq!(keys, ["default.json", "vault.json"], "{what}");
            }
        }
    }
}

/// Checks what is always true: Anna, who runs the command, reads everything, also what she writes now. The vault reads
/// everything that was written before.
async fn check_moment(bench: &Bench, before: u32, what: &str) {
    assert!(bench.reads_all(ANNA).await, "{what}");
    assert!(bench.read(VAULT).await.is_some_and(|read| read >= before), "{what}");
    bench.write(ANNA).await.unwrap();
    assert!(bench.reads_all(ANNA).await, "{what}");
}

#[tokio::test]
async fn after_a_crash_at_any_request_the_same_command_finishes() {
    for verb in [Verb::Add, Verb::Rotate, Verb::Remove] {
        // The seed decides whether the last request has no effect or only its answer is lost.
        for seed in 0..2 {
            for requests in 1.. {
                let bench = Bench::shared().await;
                bench.write(BEN).await.unwrap();
                let store = Faulty::new(Arc::clone(&bench.store), seed * 1000 + requests, Vec::new());
                store.crash_after(requests);
                let faulty: Arc<dyn Store> = Arc::new(store);
                let crashed = verb.run(&through(faulty, ANNA)).await;
                let what = format!("{verb:?} crashed at request {requests}, seed {seed}");
                check_moment(&bench, 2, &what).await;
                verb.run(&bench.target(ANNA)).await.or_else(was_done).unwrap();
                verb.check_end(&bench, &what).await;
                if crashed.is_ok() {
                    assert!(requests > 10, "{what}: it ended too early to be true");
                    break;
                }
            }
        }
    }
}

/// If only the ledger entry of a removal is missing, there is nothing more to remove.
fn was_done(error: Error) -> Result<(), Error> {
    if error.what.to_string().contains("there is no key slot ben") { Ok(()) } else { Err(error) }
}

#[tokio::test]
async fn a_request_that_fails_stops_the_run_and_the_next_run_finishes() {
    for verb in [Verb::Add, Verb::Rotate, Verb::Remove] {
        for seed in 0..60 {
            let bench = Bench::shared().await;
            bench.write(BEN).await.unwrap();
            let kind = if seed % 2 == 0 { StoreErrorKind::PermissionDenied } else { StoreErrorKind::Unreachable };
            let rules = vec![
                FaultRule::new(&[], 0.05, Fault::Refuse(kind)),
                FaultRule::new(&[], 0.05, Fault::LostAnswer),
                FaultRule::new(&[], 0.03, Fault::FlipBit),
                FaultRule::new(&[], 0.03, Fault::Truncate),
            ];
            let faulty: Arc<dyn Store> = Arc::new(Faulty::new(Arc::clone(&bench.store), seed, rules));
            for _ in 0..4 {
                let outcome = verb.run(&through(Arc::clone(&faulty), ANNA)).await;
                check_moment(&bench, 2, &format!("{verb:?} of seed {seed}: {outcome:?}")).await;
            }
            verb.run(&bench.target(ANNA)).await.or_else(was_done).unwrap();
            verb.check_end(&bench, &format!("{verb:?} of seed {seed}")).await;
        }
    }
}
