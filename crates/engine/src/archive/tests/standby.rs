//! When `push_standby` reports success, and which files it keeps.

use std::time::Duration;

use chrono::Utc;
use holdfast_store::{Fault, FaultRule, Operation, Store, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use super::{Bench, SIZE, kind, name, segment};
use crate::archive::{Fork, PushOutcome, StandbyOutcome, StandbyPushOptions, StandbyPushReport, push_standby};
use crate::error::Error;

async fn ask_for(bench: &Bench, path: &std::path::Path, wait: Duration) -> Result<StandbyPushReport, Error> {
    let options = StandbyPushOptions { cluster: bench.cluster.clone(), owner: None, path: path.to_owned(), wait };
    push_standby(&bench.targets, &options, &CancellationToken::new()).await
}

async fn ask(bench: &Bench, path: &std::path::Path) -> Result<StandbyPushReport, Error> {
    ask_for(bench, path, Duration::ZERO).await
}

const HISTORY: &str = "1\t0/380000\tno recovery target specified\n";

#[tokio::test]
async fn a_standby_stores_nothing_and_releases_archived_files() {
    for bench in [Bench::new(2).await, Bench::encrypted().await] {
        let path = bench.segments(3, 3).remove(0);
        let error = ask(&bench, &path).await.unwrap_err();
        assert_eq!(kind(&error), "NotArchived", "there is no claim yet: {error}");
        let before = bench.objects(0, "").await;
        bench.push(&path).await.unwrap();
        let counted = bench.objects(0, "").await.len();
        assert_eq!(counted, before.len() + 2, "the claim and the segment");
        assert_eq!(ask(&bench, &path).await.unwrap().outcome, StandbyOutcome::InArchive);
        // Nothing in the archive refers to the next segment.
        let next = bench.segments(4, 4).remove(0);
        assert_eq!(kind(&ask(&bench, &next).await.unwrap_err()), "NotArchived");
        assert_eq!(bench.objects(0, "").await.len(), counted);
        // A history file as well.
        let history = bench.wal("00000002.history", HISTORY.as_bytes());
        assert_eq!(kind(&ask(&bench, &history).await.unwrap_err()), "NotArchived");
        bench.push(&history).await.unwrap();
        assert_eq!(ask(&bench, &history).await.unwrap().outcome, StandbyOutcome::InArchive);
    }
}

#[tokio::test]
async fn it_must_be_in_every_repository() {
    let mut bench = Bench::new(2).await;
    let path = bench.segments(3, 3).remove(0);
    bench.faulty(
        1,
        vec![FaultRule::new(&[Operation::Put], 1.0, Fault::Refuse(StoreErrorKind::NoSpace)).on("main/wal/")],
    );
    bench.push(&path).await.unwrap_err();
    assert_eq!(bench.objects(0, "main/wal/").await.len(), 1);
    assert_eq!(kind(&ask(&bench, &path).await.unwrap_err()), "NotArchived");
    let faulty =
        bench.faulty(1, vec![FaultRule::new(&[Operation::GetRange], 1.0, Fault::Refuse(StoreErrorKind::Timeout))]);
    bench.stores[1].list("", None).await.unwrap();
    assert_eq!(kind(&ask(&bench, &path).await.unwrap_err()), "Store", "a doubt is not an answer: {faulty:?}");
}

#[tokio::test]
async fn other_content_stops_hard_and_another_cluster_too() {
    let bench = Bench::new(1).await;
    let path = bench.segments(3, 3).remove(0);
    bench.push(&path).await.unwrap();
    bench.wal(&name(3), &segment(3, 2));
    assert_eq!(kind(&ask(&bench, &path).await.unwrap_err()), "Divergence");
    bench.wal(&name(3), &super::segment_of(4711, 3, 1, SIZE));
    assert_eq!(kind(&ask(&bench, &path).await.unwrap_err()), "WrongCluster");
    bench.wal(&name(3), &segment(3, 1)[..8192]);
    assert_eq!(kind(&ask(&bench, &path).await.unwrap_err()), "SegmentSize");
}

#[tokio::test]
async fn it_waits_for_the_primary_and_no_longer_than_it_must() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(3, 4);
    bench.push(&paths[0]).await.unwrap();
    let began = std::time::Instant::now();
    let (asked, pushed) = tokio::join!(ask_for(&bench, &paths[1], Duration::from_secs(30)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.push(&paths[1]).await
    });
    assert_eq!(asked.unwrap().outcome, StandbyOutcome::InArchive);
    pushed.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));

    // A signal ends it at once.
    let path = bench.segments(5, 5).remove(0);
    let cancel = CancellationToken::new();
    let options = StandbyPushOptions {
        cluster: bench.cluster.clone(),
        owner: None,
        path: path.clone(),
        wait: Duration::from_secs(30),
    };
    let began = std::time::Instant::now();
    let (asked, ()) = tokio::join!(push_standby(&bench.targets, &options, &cancel), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    assert_eq!(kind(&asked.unwrap_err()), "Cancelled");
    // The shutdown of the server, which waits for its archiver, also ends it.
    let status = "4711\n/data\n1790000000\n5432\n/run\nlocalhost\n 5432001 1\nstopping\n";
    std::fs::write(bench.pgdata().join("postmaster.pid"), status).unwrap();
    assert_eq!(kind(&ask_for(&bench, &path, Duration::from_secs(30)).await.unwrap_err()), "NotArchived");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn segments_after_a_fork_are_ignored() {
    let bench = Bench::new(1).await;
    let paths = bench.segments(2, 4);
    bench.push(&paths[0]).await.unwrap();
    bench.wal("00000002.history", HISTORY.as_bytes());
    // 0/380000 is in segment 3: segments before it are needed, segments that end after it are not.
    let fork = Fork {
        timeline: "1".parse().unwrap(),
        switch_lsn: "0/380000".parse().unwrap(),
        according_to: "2".parse().unwrap(),
    };
    assert_eq!(ask(&bench, &paths[0]).await.unwrap().outcome, StandbyOutcome::InArchive);
    // A promoted copy has archived this history, and the standby has read it and stays on timeline 1.
    for timeline in [None, Some(1)] {
        if let Some(timeline) = timeline {
            bench.on_timeline(timeline);
        }
        for path in &paths[1..] {
            assert_eq!(kind(&ask(&bench, path).await.unwrap_err()), "NotArchived", "{timeline:?}");
        }
    }
    // The control file is written later than the first segment of the new timeline.
    let first = bench.wal("000000020000000000000003", &segment(3, 2));
    assert_eq!(ask(&bench, &paths[1]).await.unwrap().outcome, StandbyOutcome::AfterFork(fork));
    std::fs::remove_file(first).unwrap();
    bench.on_timeline(2);
    for path in &paths[1..] {
        assert_eq!(ask(&bench, path).await.unwrap().outcome, StandbyOutcome::AfterFork(fork));
    }
    // Only the history of the server's timeline decides, and only about its own ancestors.
    bench.on_timeline(3);
    bench.wal("00000003.history", b"1\t0/400000\tno recovery target specified\n");
    assert_eq!(kind(&ask(&bench, &paths[1]).await.unwrap_err()), "NotArchived");
    assert!(matches!(ask(&bench, &paths[2]).await.unwrap().outcome, StandbyOutcome::AfterFork(_)));

    // After the promotion the server pushes it like any other file; if another server's file is there, that one stays.
    bench.push(&paths[2]).await.unwrap();
    bench.wal(&name(4), &segment(4, 2));
    let report = bench.push(&paths[2]).await.unwrap();
    assert!(matches!(report.outcome, PushOutcome::AfterFork(fork) if fork.switch_lsn.to_string() == "0/400000"));
    bench.get_with(&crate::archive::GetOptions { now: Utc::now(), ..bench.get_options(&name(4)) }).await.unwrap();
    assert_eq!(std::fs::read(bench.destination()).unwrap(), segment(4, 1));
    // A divergence in a segment that the history needs is still an error.
    bench.wal(&name(2), &segment(2, 2));
    assert_eq!(kind(&bench.push(&paths[0]).await.unwrap_err()), "Divergence");
}
