//! The number of requests for a long archive. Only the names and sizes of its objects exist, not their content.

use std::sync::Arc;

use holdfast_pgtypes::{Lsn, WalFileName, WalSegmentSize};
use holdfast_repo::name as names;
use holdfast_store::{Counted, Counters, ObjectName, Operation, PutMode, Store};

use super::{Bench, SIZE, name, segment};
use crate::archive::listed_wal::LEAST_OBJECT_BYTES;
use crate::archive::{KnownLogs, ListedWal, WalFolders, WalScope, first_missing, list};
use crate::repository::{RepositoryTarget, Unlock};

/// The name that `wal get` asks for.
fn object(bench: &Bench, number: u64, extension: &str) -> ObjectName {
    let file: WalFileName = name(number).parse().unwrap();
    let folder = names::wal_log_folder(&bench.cluster, names::ClaimNumber::FIRST, &file);
    format!("{folder}{file}.{extension}").parse().unwrap()
}

/// An archive with `count` segments from 1, in a store that counts requests.
async fn long(count: u64) -> (Bench, Arc<Counters>) {
    let mut bench = Bench::new(1).await;
    let first = bench.wal(&name(1), &segment(1, 1));
    bench.push(&first).await.unwrap();
    for number in 2..=count {
        let smallest = vec![b'x'; LEAST_OBJECT_BYTES as usize];
        bench.stores[0].put(&object(&bench, number, "zst"), smallest.into(), PutMode::Create).await.unwrap();
    }
    let counters = Arc::new(Counters::default());
    bench.targets[0].store = Arc::new(Counted::new(Arc::new(bench.stores[0].clone()), Arc::clone(&counters)));
    (bench, counters)
}

#[tokio::test]
async fn a_long_archive_is_listed_from_where_a_recovery_begins() {
    let count = 20_480;
    let (bench, counters) = long(count).await;
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let size = WalSegmentSize::new(SIZE).unwrap();
    let before = || counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;

    let start = before();
    let all = WalFolders::read_and_list(&repository, &claim, WalScope::All).await.unwrap().describe();
    assert_eq!((all.timelines[0].segments, all.timelines[0].ranges.len()), (count, 1));
    assert_eq!(
        before() - start,
        4 + 21,
        "timelines, history file, logs, the end, and a request for each 1000 segments"
    );

    // A folder has 4 GiB, here 4096 segments: all of the folder before the last one is needed.
    let start = before();
    let from = Lsn::new((count - 10) * size.as_u64());
    let newest = WalFolders::read_and_list(&repository, &claim, WalScope::From(from)).await.unwrap().describe();
    assert_eq!((newest.timelines[0].segments, newest.timelines[0].ranges.len()), (4097, 1));
    assert_eq!(before() - start, 4 + 5 + 1, "timelines, history file, logs, the end, and the two that are needed");

    // A backup that waits for its WAL asks from the first missing segment.
    let lacking = object(&bench, count - 5000, "zst");
    bench.stores[0].delete(&[lacking]).await.unwrap();
    let (first, last) = (name(count - 5100).parse().unwrap(), name(count).parse().unwrap());
    let missing = first_missing(&repository, &bench.cluster, &claim, first, last).await.unwrap();
    assert_eq!(missing.iter().map(ToString::to_string).collect::<Vec<_>>(), [name(count - 5000)]);
    let start = before();
    first_missing(&repository, &bench.cluster, &claim, missing[0], last).await.unwrap();
    assert_eq!(before() - start, 1);
}

#[tokio::test]
async fn whole_logs_are_not_listed_again() {
    let count = 20_480;
    let (bench, counters) = long(count).await;
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let requests = || counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    let folders = WalFolders::read(&repository, &claim).await.unwrap();
    let list = async |known: &KnownLogs| folders.list(&repository, |_| WalScope::All, known).await.unwrap();

    let first = list(&KnownLogs::default()).await;
    // The first log lacks segment 0, and the last one may get more segments.
    let known = first.whole_logs();
    assert_eq!(known.count(), 4);
    let start = requests();
    let again = list(&known).await;
    assert_eq!(again.describe(), first.describe());
    assert_eq!(requests() - start, 5 + 1 + 1, "the first log, the last, and the end");
    assert_eq!(again.whole_logs(), known);

    // A segment removed from an incomplete log is missed at once; from a complete one, at the next full listing.
    bench.stores[0].delete(&[object(&bench, 100, "zst"), object(&bench, 10_000, "zst")]).await.unwrap();
    let gaps = |listed: &ListedWal| {
        listed.describe().timelines[0].gaps.iter().map(|gap| gap.first.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(gaps(&list(&known).await), [name(100)]);
    assert_eq!(gaps(&list(&KnownLogs::default()).await), [name(100), name(10_000)]);
}

/// What a report shows of an archive has a bound. What was shown before is known, so that the next report sees more.
#[tokio::test]
async fn a_report_lists_a_bounded_part_and_learns_the_rest() {
    let per_log = 4096;
    let count = 20 * per_log + 7;
    let (bench, counters) = long(count).await;
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let requests = || counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    let folders = WalFolders::read(&repository, &claim).await.unwrap();
    let lsn = |number: u64| Lsn::new(number * u64::from(SIZE));
    let (oldest, newest) = (lsn(5), lsn(count - 10));
    let list = async |newest: Lsn, known: &KnownLogs| {
        folders.list(&repository, |_| WalScope::Shown { oldest, newest }, known).await.unwrap()
    };

    // 65,536 segments are 16 logs, of the 21 that there are.
    let start = requests();
    let first = list(newest, &KnownLogs::default()).await;
    assert!(requests() - start < 80, "{}", requests() - start);
    let shown = first.describe();
    assert_eq!(shown.listed_from, Some(lsn(5 * per_log)));
    assert_eq!(shown.timelines[0].ranges[0].first.to_string(), name(5 * per_log));
    assert_eq!(shown.timelines[0].segments, 15 * per_log + 8);
    assert!(first.covers(newest) && first.covers(lsn(5 * per_log)) && !first.covers(lsn(5 * per_log - 1)));

    // The newest beginning is always covered.
    let wide = list(lsn(2 * per_log + 1), &KnownLogs::default()).await;
    assert_eq!(wide.describe().listed_from, Some(lsn(2 * per_log + 1)));
    assert_eq!(wide.describe().timelines[0].ranges[0].first.to_string(), name(2 * per_log));

    // With what the first report found, the next one sees all.
    let start = requests();
    let all = list(newest, &first.whole_logs()).await;
    assert!(requests() - start < 40, "{}", requests() - start);
    let whole = folders.list(&repository, |_| WalScope::From(oldest), &KnownLogs::default()).await.unwrap();
    assert_eq!(all.describe(), whole.describe());
    assert!(all.covers(oldest));
}

/// The cost of a push does not grow with the history of a repository: only the claim in force is read.
#[tokio::test]
async fn a_push_makes_as_many_requests_whatever_came_before() {
    let (bench, counters) = long(1).await;
    let push = async |number: u64| {
        let path = bench.wal(&name(number), &segment(number, 1));
        let before = counters.total().requests;
        bench.push(&path).await.unwrap();
        counters.total().requests - before
    };
    let alone = push(2).await;
    assert!(alone <= 8, "{alone}");
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    for number in (2..=40).filter_map(names::ClaimNumber::new) {
        let later = holdfast_repo::record::ClaimRecord { number, ..claim.clone() };
        repository.create_record(&names::claim(&bench.cluster, number), &later).await.unwrap();
    }
    assert_eq!(push(3).await, alone);
}

/// With the name of its slot, a push reads the slots of nobody else.
#[tokio::test]
async fn a_push_with_the_name_of_its_slot_makes_as_many_requests_whatever_slots_there_are() {
    let mut bench = Bench::encrypted().await;
    let counters = Arc::new(Counters::default());
    let slot: names::SlotName = "default".parse().unwrap();
    let RepositoryTarget { unlock, .. } = bench.targets[0].clone();
    bench.targets[0] = RepositoryTarget {
        store: Arc::new(Counted::new(Arc::new(bench.stores[0].clone()), Arc::clone(&counters))),
        unlock: Unlock::Hinted { slot, secret: Box::new(unlock) },
    };
    let push = async |number: u64| {
        let path = bench.wal(&name(number), &segment(number, 1));
        let before = counters.total().requests;
        bench.push(&path).await.unwrap();
        counters.total().requests - before
    };
    push(1).await;
    let alone = push(2).await;
    for number in 0..10 {
        let slot = format!("keys/vault-{number}.json").parse().unwrap();
        bench.stores[0].put(&slot, "the slot of somebody else".into(), PutMode::Create).await.unwrap();
    }
    assert_eq!(push(3).await, alone);
    // `check` and `info` still name those that cannot be read.
    let repository = bench.open(0).await;
    assert_eq!(repository.slots_left_out().len(), 0);
    assert_eq!(repository.further_slots_left_out().await.unwrap().len(), 10);
}

#[tokio::test]
async fn the_newest_log_tells_where_an_archive_ends() {
    let count = 20_480;
    let (bench, counters) = long(count).await;
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let newest = WalFolders::read_and_list(&repository, &claim, WalScope::Newest).await.unwrap().describe();
    assert_eq!(newest.timelines[0].ranges.last().unwrap().last.to_string(), name(count));
    assert_eq!(newest.listed_from, Some("4/0".parse().unwrap()));
    let requests = counters.of(Operation::List).requests + counters.of(Operation::ListFolders).requests;
    assert!(requests < 20, "{requests}");

    // A timeline that was left within the first segment of a log.
    let partial = object(&bench, count, "zst").to_string().replace(&name(count), &format!("{}.partial", name(count)));
    bench.stores[0].put(&partial.parse().unwrap(), "x".into(), PutMode::Create).await.unwrap();
    bench.stores[0].delete(&[object(&bench, count, "zst")]).await.unwrap();
    let newest = WalFolders::read_and_list(&repository, &claim, WalScope::Newest).await.unwrap().describe();
    assert_eq!(newest.timelines[0].ranges.last().unwrap().last.to_string(), name(count - 1));
    assert_eq!(newest.timelines[0].partials.len(), 1);
}

/// An archive must not end early because a store leaves out a folder.
#[tokio::test]
async fn the_end_of_an_archive_is_found_without_its_folder() {
    let (bench, _) = long(20_480).await;
    let repository = bench.open(0).await;
    let claim = repository.current_claim(&bench.cluster).await.unwrap();
    let folders = WalFolders::read(&repository, &claim).await.unwrap().without_newest_logs();
    for wanted in [WalScope::All, WalScope::Newest] {
        let listed = folders.list(&repository, |_| wanted, &KnownLogs::default()).await.unwrap().describe();
        assert_eq!(listed.timelines[0].ranges.last().unwrap().last.to_string(), name(20_480));
    }
    // The same if the store names no folder at all.
    let one = long(5).await.0.open(0).await;
    let folders = WalFolders::read(&one, &claim).await.unwrap().without_newest_logs();
    let listed = folders.list(&one, |_| WalScope::All, &KnownLogs::default()).await.unwrap().describe();
    assert_eq!(listed.timelines[0].segments, 5);
}

/// A copy of a segment under another spelling is not the name that `wal get` asks for, so it fills no gap.
#[tokio::test]
async fn another_spelling_is_not_wal_of_the_archive() {
    let (bench, _) = long(9).await;
    for (number, extension) in [(4, "raw"), (5, "zst.enc"), (6, "lz4"), (9, "raw")] {
        bench.stores[0].delete(&[object(&bench, number, "zst")]).await.unwrap();
        bench.stores[0].put(&object(&bench, number, extension), "x".into(), PutMode::Create).await.unwrap();
    }
    // In the folder of another log, where no command looks for it.
    let stray = object(&bench, 3, "zst").to_string().replace("0000000100000000/", "0000000100000007/");
    bench.stores[0].put(&stray.parse().unwrap(), "x".into(), PutMode::Create).await.unwrap();
    bench.stores[0].delete(&[object(&bench, 3, "zst")]).await.unwrap();
    let listing = list(&bench.open(0).await, &bench.cluster).await.unwrap();
    let timeline = &listing.claims[0].timelines[0];
    let ranges: Vec<(String, String)> =
        timeline.ranges.iter().map(|range| (range.first.to_string(), range.last.to_string())).collect();
    assert_eq!(ranges, [(name(1), name(2)), (name(7), name(8))]);
    assert_eq!((timeline.gaps.len(), timeline.gaps[0].count, timeline.segments), (1, 4, 4));
}
