//! Two hosts change the keys at once. Whatever one does between any two requests of the other, somebody who was not
//! shut out on purpose can read everything, and at least one secret opens the repository.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_store::{Fault, FaultRule, Faulty, Operation, OtherRun, Store};

use super::bench::{ANNA, BEN, Bench, VAULT, add_to, remove_from, rotate_in, through};
use crate::error::Error;
use crate::repository::RepositoryTarget;

/// What one of the two hosts does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verb {
    Add(&'static str, u8),
    Remove(&'static str),
    /// Keeps its own secret and these others, and drops these slots.
    Rotate(&'static [u8], &'static [&'static str]),
}

impl Verb {
    async fn run(self, target: &RepositoryTarget) -> Result<(), Error> {
        match self {
            Self::Add(name, who) => add_to(target, name, who).await.map(|_| ()),
            Self::Remove(name) => remove_from(target, name).await.map(|_| ()),
            Self::Rotate(stay, drop) => rotate_in(target, stay, drop).await.map(|_| ()),
        }
    }
}

/// The store of the bench for a host that sleeps before one of its requests, while the other run comes to its end.
fn asleep(bench: &Bench, before: u64, other: OtherRun) -> Arc<dyn Store> {
    let store = Faulty::new(Arc::clone(&bench.store), 1, Vec::new());
    store.run_before(before, other);
    Arc::new(store)
}

/// Runs Anna's verb, with Ben's verb before each of its requests in turn. Then `check` gets who of the two succeeded.
async fn each_interruption(anna: Verb, ben: Verb, check: impl AsyncFn(&Bench, [bool; 2], &str)) {
    for before in 0.. {
        let bench = Arc::new(Bench::shared().await);
        let succeeded = Arc::new(AtomicU64::new(2));
        let other: OtherRun = {
            let (bench, succeeded) = (Arc::clone(&bench), Arc::clone(&succeeded));
            Box::pin(async move {
                let done = ben.run(&bench.target(BEN)).await;
                succeeded.store(u64::from(done.is_ok()), Ordering::SeqCst);
                // A backup at the same moment, with any secret that still opens the repository.
                for who in [ANNA, BEN, VAULT] {
                    let _ = bench.write(who).await;
                }
            })
        };
        let store = asleep(&bench, before, other);
        let done = anna.run(&through(store, ANNA)).await;
        let bens = succeeded.load(Ordering::SeqCst);
        if bens == 2 {
            assert!(before > 10, "{anna:?} ended too early to be true");
            return;
        }
        for who in [ANNA, BEN, VAULT] {
            let _ = bench.write(who).await;
        }
        let what = format!("{anna:?} of Anna, before its request {before} {ben:?} of Ben: {done:?}, {bens}");
        check(&bench, [done.is_ok(), bens == 1], &what).await;
    }
}

/// The secrets that open the repository, and whether each of them reads all of it.
async fn readers(bench: &Bench) -> Vec<(u8, bool)> {
    let mut readers = Vec::new();
    for who in [ANNA, BEN, VAULT, 9] {
        if bench.open(who).await.is_ok() {
            readers.push((who, bench.reads_all(who).await));
        }
    }
    readers
}

#[tokio::test]
async fn two_removals_of_each_others_slot_do_not_both_succeed() {
    each_interruption(Verb::Remove("ben"), Verb::Remove("default"), async |bench, succeeded, what| {
        assert!(succeeded != [true, true], "{what}");
        let readers = readers(bench).await;
        assert!(readers.iter().all(|(_, all)| *all) && readers.len() >= 2, "{what}: {readers:?}");
        // The run that gave up left no mark. Each removed slot has a mark.
        let (keys, marks) = (bench.keys().await, bench.marks().await);
        assert!(marks.iter().all(|mark| !keys.contains(&format!("{mark}.json"))), "{what}: {keys:?} {marks:?}");
        assert_eq!(keys.len() + marks.len(), 3, "{what}: {keys:?} {marks:?}");
    })
    .await;
}

#[tokio::test]
async fn a_rotation_beside_another_reads_everything_if_it_succeeds() {
    for (anna, ben) in [
        // Each one drops the other's slot, or keeps all secrets.
        (Verb::Rotate(&[VAULT], &["ben"]), Verb::Rotate(&[VAULT], &["default"])),
        (Verb::Rotate(&[VAULT, BEN], &[]), Verb::Rotate(&[VAULT, ANNA], &[])),
    ] {
        each_interruption(anna, ben, async |bench, succeeded, what| {
            let readers = readers(bench).await;
            for (who, done) in [ANNA, BEN].into_iter().zip(succeeded) {
                let shut_out = succeeded == [true, true] && !readers.iter().any(|(reader, _)| *reader == who);
                assert!(!done || shut_out || readers.contains(&(who, true)), "{what}: {readers:?}");
            }
            assert!(readers.iter().any(|(_, all)| *all), "{what}: {readers:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_addition_beside_a_rotation_opens_everything_or_is_refused() {
    each_interruption(Verb::Add("ninth", 9), Verb::Rotate(&[VAULT, ANNA], &[]), async |bench, succeeded, what| {
        let readers = readers(bench).await;
        assert!(succeeded[0] || succeeded[1], "{what}");
        assert!(readers.contains(&(ANNA, true)) && readers.contains(&(BEN, true)), "{what}: {readers:?}");
        if !succeeded[0] {
            assert!(!readers.iter().any(|(who, _)| *who == 9), "{what}: {readers:?}");
        }
    })
    .await;
    each_interruption(Verb::Rotate(&[VAULT, BEN], &[]), Verb::Add("ninth", 9), async |bench, succeeded, what| {
        let readers = readers(bench).await;
        assert!(succeeded != [true, true] || readers.contains(&(9, true)), "{what}: {readers:?}");
        for who in [ANNA, BEN, VAULT] {
            assert!(readers.contains(&(who, true)), "{what}: {readers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_removal_beside_a_rotation_locks_nobody_out_by_mistake() {
    for (anna, ben) in [
        (Verb::Rotate(&[VAULT, BEN], &[]), Verb::Remove("vault")),
        (Verb::Rotate(&[VAULT, BEN], &[]), Verb::Remove("default")),
        (Verb::Remove("vault"), Verb::Rotate(&[VAULT, ANNA], &[])),
        (Verb::Remove("ben"), Verb::Rotate(&[VAULT, ANNA], &[])),
    ] {
        each_interruption(anna, ben, async |bench, succeeded, what| {
            let readers = readers(bench).await;
            assert!(readers.iter().any(|(_, all)| *all), "{what}: {readers:?}");
            for (who, done, verb) in [(ANNA, succeeded[0], anna), (BEN, succeeded[1], ben)] {
                let removed_by_other = !readers.iter().any(|(reader, _)| *reader == who);
                let is_rotation = matches!(verb, Verb::Rotate(..));
                assert!(
                    !(done && is_rotation) || removed_by_other || readers.contains(&(who, true)),
                    "{what}: {readers:?}"
                );
            }
        })
        .await;
    }
}

/// Its key may already be in use, whichever run was first.
#[tokio::test]
async fn a_slot_that_began_an_epoch_stays_when_its_rotation_gives_up() {
    let mut stayed = 0;
    for before in 0.. {
        let bench = Arc::new(Bench::shared().await);
        let other: OtherRun = {
            let bench = Arc::clone(&bench);
            Box::pin(async move {
                bench
                    .plant("vault", "other", |body| {
                        body["epoch"] = 7.into();
                        body["earlier"] = vec![""; 7].into();
                    })
                    .await;
                // Another host writes at the same moment.
                let _ = bench.write(ANNA).await;
            })
        };
        let store = asleep(&bench, before, other);
        let done = rotate_in(&through(store, ANNA), &[VAULT, BEN], &[]).await;
        let keys = bench.keys().await;
        let Err(error) = done else {
            // The other slot was written after everything was done.
            let after_all = keys.contains(&"other.json".to_owned()) && before > 10 && stayed > 0;
            assert!(after_all, "it ended too early to be true, before request {before}: {keys:?}");
            return;
        };
        let said = error.doing.iter().any(|doing| doing.contains("having written key slot epoch-1"));
        assert_eq!(said, keys.contains(&"epoch-1.json".to_owned()), "before request {before}: {error:?} {keys:?}");
        stayed += u32::from(said);
        assert!(keys.contains(&"default.json".to_owned()), "nothing is removed: {keys:?}");
        let removed = bench.store.delete(&["keys/other.json".parse().unwrap()]).await;
        removed.unwrap();
        assert!(bench.reads_all(ANNA).await, "before request {before}");
    }
}

/// Two runs that remove each other's slot see the other's mark even if a listing does not show it yet.
#[tokio::test]
async fn the_mark_of_the_slot_that_stays_is_asked_for_by_name() {
    let bench = Bench::shared().await;
    bench.put("keys/default.removing", Bytes::new()).await;
    let rule = FaultRule::new(&[Operation::List], 1.0, Fault::Hide(".removing"));
    let store = Arc::new(Faulty::new(Arc::clone(&bench.store), 1, vec![rule]));
    let error = remove_from(&through(store, ANNA), "ben").await.unwrap_err();
    assert!(matches!(*error.what, crate::error::Cause::AnotherRun { .. }), "{error}");
    assert_eq!(bench.marks().await, ["default"]);
    assert!(bench.reads_all(BEN).await);
}
