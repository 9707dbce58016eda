//! Retry over a store that fails: nothing lost, nothing doubled, no false success, whatever the seed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_store::{
    Counted, Counters, Fault, FaultRule, Faulty, MemoryStore, ObjectName, Operation, PutMode, Retry, RetryPolicy,
    Store, StoreErrorKind, VirtualPace, probe,
};

const SEEDS: u64 = 300;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn stubborn() -> RetryPolicy {
    RetryPolicy { max_attempts: 1000, deadline: Duration::from_hours(24), ..RetryPolicy::default() }
}

fn retrying(inner: &Faulty, policy: RetryPolicy, seed: u64) -> Retry {
    Retry::with_pace(Arc::new(inner.clone()), policy, Arc::new(VirtualPace::new(seed)))
}

/// The faults that a network causes with correct servers.
fn bad_network() -> Vec<FaultRule> {
    vec![
        FaultRule::new(&[], 0.1, Fault::Refuse(StoreErrorKind::Timeout)),
        FaultRule::new(&[], 0.1, Fault::Refuse(StoreErrorKind::Throttled)),
        FaultRule::new(&[], 0.1, Fault::Refuse(StoreErrorKind::Unreachable)),
        FaultRule::new(&[], 0.3, Fault::LostAnswer),
        FaultRule::new(&[Operation::GetRange], 0.3, Fault::Truncate),
    ]
}

#[tokio::test]
async fn a_stubborn_client_sees_a_perfect_store() {
    for seed in 0..SEEDS {
        let memory = MemoryStore::new();
        let faulty = Faulty::new(Arc::new(memory.clone()), seed, bad_network());
        let store = retrying(&faulty, stubborn(), seed);
        let mut model: BTreeMap<ObjectName, Bytes> = BTreeMap::new();
        memory.put(&name("taken"), "other".into(), PutMode::Create).await.unwrap();
        model.insert(name("taken"), "other".into());
        for index in 0..8 {
            let (object, body) = (name(&format!("put/{index}")), Bytes::from(format!("body {index}")));
            store.put(&object, body.clone(), PutMode::Create).await.unwrap();
            model.insert(object, body);
            let (object, body) = (name("overwritten"), Bytes::from(format!("over {index}")));
            store.put(&object, body.clone(), PutMode::Overwrite).await.unwrap();
            model.insert(object, body);
        }
        let taken = store.put(&name("taken"), "mine".into(), PutMode::Create).await.unwrap_err();
        assert_eq!(taken.kind(), StoreErrorKind::AlreadyExists, "seed {seed}");

        for (index, mode) in [PutMode::Create, PutMode::Overwrite].into_iter().enumerate() {
            let object = name(&format!("upload/{index}"));
            let upload = store.begin_upload(&object, mode).await.unwrap();
            for (number, part) in [(2, "bbbb"), (3, "c"), (1, "aaaa")] {
                upload.part(number, part.into()).await.unwrap();
            }
            upload.complete().await.unwrap();
            model.insert(object, "aaaabbbbc".into());
        }
        let upload = store.begin_upload(&name("taken"), PutMode::Create).await.unwrap();
        upload.part(1, "longer".into()).await.unwrap();
        let taken = upload.complete().await.unwrap_err();
        assert_eq!(taken.kind(), StoreErrorKind::AlreadyExists, "seed {seed}");

        let gone = [name("put/3"), name("put/5"), name("never/was")];
        store.delete(&gone).await.unwrap();
        for object in &gone {
            model.remove(object);
            assert_eq!(store.get(object).await.unwrap_err().kind(), StoreErrorKind::NotFound);
        }
        for (object, body) in &model {
            let size = body.len() as u64;
            assert_eq!(store.get(object).await.unwrap(), body);
            assert_eq!(store.get_range(object, 1..size).await.unwrap(), body.slice(1..));
            assert_eq!(store.get_tail(object, 2).await.unwrap(), (body.slice(body.len() - 2..), size));
        }
        let listed: Vec<ObjectName> = store.list("", None).await.unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(listed, model.keys().cloned().collect::<Vec<_>>(), "seed {seed}");
        assert!(faulty.injected() > 0);
    }
}

#[tokio::test]
async fn every_answer_to_an_impatient_client_is_true() {
    let (mut successes, mut failures) = (0, 0);
    for seed in 0..SEEDS {
        let memory = MemoryStore::new();
        let faulty = Faulty::new(Arc::new(memory.clone()), seed, bad_network());
        let store = retrying(&faulty, RetryPolicy { max_attempts: 2, ..RetryPolicy::default() }, seed);
        for index in 0..10 {
            let object = name(&format!("object/{index}"));
            let body = Bytes::from(format!("body {index}"));
            let taken = index % 3 == 0;
            if taken {
                memory.put(&object, "another".into(), PutMode::Create).await.unwrap();
            }
            let result = store.put(&object, body.clone(), PutMode::Create).await;
            let stored = memory.get(&object).await;
            match result {
                Ok(()) => {
                    assert!(!taken);
                    assert_eq!(stored.unwrap(), body, "seed {seed}: acknowledged and not stored");
                    successes += 1;
                }
                Err(error) if error.kind() == StoreErrorKind::AlreadyExists => {
                    assert_eq!(stored.unwrap(), "another", "seed {seed}: our own object was taken for another's");
                }
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    assert!(stored.is_err() || !taken || stored.unwrap() == "another", "seed {seed}: overwritten");
                    failures += 1;
                }
            }
        }
    }
    assert!(successes > 100 && failures > 100, "{successes} {failures}");
}

#[tokio::test]
async fn an_equal_object_of_somebody_else_is_only_taken_for_ours_after_a_doubt() {
    let memory = MemoryStore::new();
    memory.put(&name("same"), "equal".into(), PutMode::Create).await.unwrap();
    let rules =
        vec![FaultRule::new(&[Operation::Put], 1.0, Fault::Refuse(StoreErrorKind::Timeout)).times(1).on("same")];
    let faulty = Faulty::new(Arc::new(memory), 1, rules);
    let store = retrying(&faulty, stubborn(), 1);
    store.put(&name("same"), "equal".into(), PutMode::Create).await.unwrap();
    let error = store.put(&name("same"), "equal".into(), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::AlreadyExists);
}

#[tokio::test]
async fn only_what_may_help_is_repeated_and_not_for_ever() {
    let counters: Arc<Counters> = Arc::default();
    for (kind, attempts) in [
        (StoreErrorKind::PermissionDenied, 1),
        (StoreErrorKind::NoSpace, 1),
        (StoreErrorKind::NoCredentials, 1),
        (StoreErrorKind::Throttled, 12),
        (StoreErrorKind::Unreachable, 12),
    ] {
        let rules = vec![FaultRule::new(&[], 1.0, Fault::Refuse(kind))];
        let faulty = Faulty::new(Arc::new(MemoryStore::new()), 1, rules);
        let counted = Counted::new(Arc::new(faulty), Arc::clone(&counters));
        let before = counters.of(Operation::Get);
        let store = Retry::with_pace(Arc::new(counted), RetryPolicy::default(), Arc::new(VirtualPace::new(1)));
        assert_eq!(store.get(&name("object")).await.unwrap_err().kind(), kind);
        let after = counters.of(Operation::Get);
        assert_eq!(after.requests - before.requests, attempts, "{kind:?}");
        assert_eq!(after.failures, after.requests);
    }
    // The deadline counts as well: at most 0.1 s of pauses leave time for two or three attempts.
    let rules = vec![FaultRule::new(&[], 1.0, Fault::Refuse(StoreErrorKind::Timeout))];
    let faulty = Faulty::new(Arc::new(MemoryStore::new()), 1, rules);
    let policy = RetryPolicy { deadline: Duration::from_millis(100), ..RetryPolicy::default() };
    retrying(&faulty, policy, 1).get(&name("object")).await.unwrap_err();
    assert!((2..=3).contains(&faulty.injected()), "{}", faulty.injected());
}

#[tokio::test]
async fn counters_count_bytes_both_ways() {
    let counters: Arc<Counters> = Arc::default();
    let store = Counted::new(Arc::new(MemoryStore::new()), Arc::clone(&counters));
    let object = name("object");
    store.put(&object, "12345".into(), PutMode::Create).await.unwrap();
    store.put(&object, "12345".into(), PutMode::Create).await.unwrap_err();
    store.get(&object).await.unwrap();
    store.get_range(&object, 1..3).await.unwrap();
    store.get_tail(&object, 1).await.unwrap();
    let total = counters.total();
    assert_eq!((total.requests, total.failures, total.bytes_out, total.bytes_in), (5, 1, 5, 8));
}

#[tokio::test]
async fn the_same_seed_goes_wrong_in_the_same_way() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let rules = vec![
            FaultRule::new(&[], 0.4, Fault::Refuse(StoreErrorKind::Other)),
            FaultRule::new(&[Operation::Get], 0.5, Fault::FlipBit),
        ];
        let store = Faulty::new(Arc::new(MemoryStore::new()), 42, rules);
        let mut seen = Vec::new();
        for index in 0..50 {
            let object = name(&format!("{index}"));
            seen.push(
                store.put(&object, "body".into(), PutMode::Create).await.map_err(|e| e.kind()).map(|()| Bytes::new()),
            );
            seen.push(store.get(&object).await.map_err(|error| error.kind()));
        }
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1]);
    let flipped = runs[0].iter().flatten().filter(|body| !body.is_empty() && *body != "body").count();
    assert!(flipped > 0);
}

#[tokio::test]
async fn after_the_crash_point_nothing_happens() {
    let memory = MemoryStore::new();
    let store = Faulty::new(Arc::new(memory.clone()), 7, Vec::new());
    store.crash_after(3);
    for index in 0..10 {
        let result = store.put(&name(&format!("{index}")), "x".into(), PutMode::Create).await;
        assert_eq!(result.is_ok(), index < 2, "{index}");
        if let Err(error) = result {
            assert_eq!(error.kind(), StoreErrorKind::Cancelled);
        }
    }
    let stored = memory.list("", None).await.unwrap().len();
    assert!((2..=3).contains(&stored), "{stored}");
    store.set_active(false);
    store.put(&name("later"), "x".into(), PutMode::Create).await.unwrap();
}

#[tokio::test]
async fn the_probe_survives_lost_answers() {
    for seed in 0..50 {
        let faulty = Faulty::new(Arc::new(MemoryStore::new()), seed, bad_network());
        let store = retrying(&faulty, stubborn(), seed);
        let found = probe(&store, &name("scratch")).await.unwrap();
        assert_eq!(found.capabilities, holdfast_store::Capabilities::default(), "seed {seed}");
    }
}

/// A store over counters over faults in every request of `operation`, and what counts.
fn paged(memory: MemoryStore, operation: Operation) -> (Retry, Faulty, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let counted: Arc<dyn Store> = Arc::new(Counted::new(Arc::new(memory), Arc::clone(&counters)));
    let rule = FaultRule::new(&[operation], 0.4, Fault::Refuse(StoreErrorKind::Throttled));
    let faulty = Faulty::new(counted, 5, vec![rule]);
    (retrying(&faulty, RetryPolicy::default(), 5), faulty, counters)
}

async fn filled(names: impl IntoIterator<Item = String>) -> (MemoryStore, Vec<ObjectName>) {
    let memory = MemoryStore::new();
    let names: Vec<ObjectName> = names.into_iter().map(|text| name(&text)).collect();
    for object in &names {
        memory.put(object, "x".into(), PutMode::Create).await.unwrap();
    }
    (memory, names)
}

/// Retry repeats single pages: a page that fails does not start the whole listing again.
#[tokio::test]
async fn a_page_that_fails_is_repeated_alone() {
    let (memory, names) = filled((0..20_500).map(|index| format!("many/{index:06}"))).await;
    let (store, faulty, counters) = paged(memory, Operation::List);
    let listed: Vec<ObjectName> = store.list("many/", None).await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, names);
    assert!(faulty.injected() > 5, "{}", faulty.injected());
    assert_eq!(counters.of(Operation::List).requests, 21, "a page was asked for again that had been answered");
}

#[tokio::test]
async fn a_page_of_folders_that_fails_is_repeated_alone() {
    let (memory, _) = filled((0..12_500).map(|index| format!("many/{index:06}/object"))).await;
    let (store, faulty, counters) = paged(memory, Operation::ListFolders);
    let expected: Vec<String> = (0..12_500).map(|index| format!("{index:06}")).collect();
    assert_eq!(store.list_folders("many/").await.unwrap(), expected);
    assert!(faulty.injected() > 5, "{}", faulty.injected());
    assert_eq!(counters.of(Operation::ListFolders).requests, 13, "a page was asked for again that had been answered");
}

#[tokio::test]
async fn a_page_of_uploads_that_fails_is_repeated_alone() {
    let memory = MemoryStore::new();
    for index in 0..9500 {
        memory.begin_upload(&name(&format!("many/{index:06}")), PutMode::Create).await.unwrap();
    }
    let (store, faulty, counters) = paged(memory, Operation::List);
    let found = store.unfinished_uploads("many/").await.unwrap().unwrap();
    assert!(found.iter().enumerate().all(|(index, upload)| upload.name == name(&format!("many/{index:06}"))));
    assert_eq!(found.len(), 9500);
    assert!(faulty.injected() > 5, "{}", faulty.injected());
    assert_eq!(counters.of(Operation::List).requests, 10, "a page was asked for again that had been answered");
}

#[tokio::test]
async fn a_delete_that_fails_is_repeated_alone() {
    let (memory, names) = filled((0..20_500).map(|index| format!("many/{index:06}"))).await;
    let (store, faulty, counters) = paged(memory.clone(), Operation::Delete);
    store.delete(&names).await.unwrap();
    assert_eq!(memory.list("", None).await.unwrap().len(), 0);
    assert!(faulty.injected() > 5, "{}", faulty.injected());
    assert_eq!(counters.of(Operation::Delete).requests, 21, "a request was repeated that had been answered");
}
