//! WAL that is on its way: a hole that may still be filled is no gap.
//!
//! The store's clock is that of this machine, so these archives are of now. The waiting takes no time: the clock of the
//! program is stopped.

use super::*;

impl Bench {
    /// Verifies now: everything was stored a moment ago.
    async fn verify_now(&self) -> WalVerification {
        let options = WalVerifyOptions { now: Utc::now(), ..self.options() };
        let found = self.verify_with(&options).await.unwrap();
        assert!(found.interrupted.is_none(), "{:?}", found.interrupted);
        found
    }
}

fn not_missed(timeline: u32, number: u64) -> String {
    format!(
        "{0}..{0} (1) of claim 1 are not missed: later WAL is there, and they may still be on their way",
        named(timeline, number)
    )
}

#[tokio::test(start_paused = true)]
async fn a_young_hole_is_no_gap() {
    let bench = Bench::new().await;
    bench.lose([11]).await;
    let found = bench.verify_now().await;
    assert_eq!((lines(&found), found.notes), (Vec::new(), vec![not_missed(1, 11)]));
    assert_eq!(bench.ledger().await, [""; 0]);
    // Later it is one.
    assert_eq!(bench.verify(Level::Shallow).await.findings.len(), 1);
    // Once it is recorded, a young hole does not close it.
    let recorded = bench.ledger().await;
    bench.verify_now().await;
    assert_eq!((recorded.len(), bench.ledger().await), (1, recorded));
}

/// The last segment of a timeline, and the first one of the next: each is before a segment of another timeline.
#[tokio::test(start_paused = true)]
async fn a_young_hole_between_two_timelines_is_no_gap() {
    let mut bench = Bench::new().await;
    bench.promote().await;
    for (timeline, number) in [(1, 8), (2, 9)] {
        let object = bench.object(WalFileName::Segment(named(timeline, number)));
        let whole = bench.store.get(&object_name(&object).unwrap()).await.unwrap();
        if timeline == 1 {
            // Timeline 1 itself has no hole: nothing of it is after segment 8.
            bench.remove(&bench.segment_object(9)).await;
        }
        bench.remove(&object).await;
        let found = bench.verify_now().await;
        assert_eq!((lines(&found), found.notes), (Vec::new(), vec![not_missed(timeline, number)]));
        assert_eq!(bench.verify(Level::Shallow).await.findings.len(), 1, "later it is one");
        bench.put(&object, whole).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hole_that_is_filled_meanwhile_is_waited_for() {
    let bench = Bench::new().await;
    let object = bench.segment_object(11);
    let whole = bench.store.get(&object_name(&object).unwrap()).await.unwrap();
    bench.remove(&object).await;
    let (store, name) = (bench.store.clone(), object_name(&object).unwrap());
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(4)).await;
        store.put(&name, whole, PutMode::Create).await.unwrap();
    });
    let found = bench.verify_now().await;
    late.await.unwrap();
    assert_eq!((lines(&found), found.notes), (Vec::new(), Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn the_state_waits_for_a_young_hole() {
    let bench = Bench::new().await;
    bench.lose([11]).await;
    let (crew, cancel) = (crate::pipeline::crew::Crew::new(1), CancellationToken::new());
    let found = state(&bench.repository, &bench.claim, "1".parse().unwrap(), Utc::now(), &crew, &cancel).await.unwrap();
    let expected =
        format!("WAL segment {} is missing, and later WAL is there: it may still be on its way", named(1, 11));
    assert_eq!(found, State::Waiting(expected));
}
