//! The number of requests for a long archive. Its segments have facts, and no records.

use holdfast_store::{Counted, Counters, Operation};

use super::*;

#[tokio::test]
async fn a_long_archive_is_listed_by_its_log_folders_and_compared_at_its_end() {
    let mut bench = Bench::new().await;
    let count = 20_480;
    for number in 13..=count {
        let name = named(1, number);
        let facts =
            serde_json::json!({ "first_record_lsn": name.start_lsn(size()), "last_record_end": name.end_lsn(size()) });
        bench.store_with(WalFileName::Segment(name), b"x", facts).await;
    }
    bench.lose([9000, 9001, 15_000]).await;
    bench.backup("20260802T000000Z".parse().unwrap(), 15_100, 15_101).await;
    let counters = Arc::new(Counters::default());
    bench.target.store = Arc::new(Counted::new(Arc::new(bench.store.clone()), Arc::clone(&counters)));
    bench.repository = Repository::open(&bench.target).await.unwrap();
    let found = bench.verify_with(&bench.options()).await.unwrap();
    let gaps: Vec<String> = lines(&found).into_iter().filter(|line| line.starts_with("loss gap")).collect();
    assert_eq!(
        gaps,
        [
            format!("loss gap: {} (2): there is WAL after it", named(1, 9000)),
            format!("loss gap: {} (1): there is WAL after it", named(1, 15_000)),
        ]
    );
    assert_eq!(found.segment_count, count - 3);
    // Claims, backups, snapshots, four kinds of the ledger, timelines, history, logs, the end: and a request for each
    // 1000 segments.
    let lists = counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    assert!(lists <= 21 + 20, "{lists}");
    // Two requests for each compared segment, and for the last transactions before the gaps and at the end: no segment
    // after the first twelve has one.
    let reads = counters.total().requests - lists;
    assert_eq!(found.compared_count, 1023);
    assert!(reads <= 2 * (1024 + 9_000 + 6_000), "{reads}");
}
