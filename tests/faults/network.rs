//! Lost answers and requests: one by one, by throttling, by cut connections, by a store that restarts. A repeated
//! request is never taken for a duplicate or a divergence.

use std::time::{Duration, Instant};

use holdfast_testkit::proxy::{Effect, Fault, SeenRequest, When};
use holdfast_testkit::random::Random;
use holdfast_testkit::rows::{Pace, RowWriter};

use super::kit::{
    add_to_wal_table, archive, holds, http_faults, no_divergence, no_gaps, small, stop, tcp_proxy, unarchived,
};
use crate::stage::attack::{Victim, back_up, complete, fill_segments, ids_in_store, load, segment_path, segments, sum};
use crate::stage::{self, Seal, Stage, StoreKind, wait_promoted};

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_are_neither_doubles_nor_divergence() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let part_size = stage.config_text().replace("path_style = true\n", "path_style = true\npart_size = \"5MiB\"\n");
    stage.write_config("holdfast.toml", &part_size);
    let proxy = http_faults(&stage);
    let lost = |when| Fault::new(Effect::LostAnswer, when);
    // The first segments.
    proxy.inject(lost(When::First(3)).method("PUT").path_contains("/wal/"));
    archive(&stage).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    stage.archive_now().await;
    assert_eq!(proxy.hits(), 3, "{:?}", proxy.seen());
    proxy.clear();
    // Every kind of write that a backup makes.
    let kinds = [
        ("PUT", "start.json"),
        ("POST", "?uploads"),
        ("PUT", "partNumber="),
        ("POST", "uploadId="),
        ("PUT", "/manifest"),
        ("PUT", "backup.json"),
    ];
    for (method, path) in kinds {
        proxy.inject(lost(When::First(1)).method(method).path_contains(path));
    }
    let before = proxy.hits();
    let id = back_up(&stage);
    let seen: Vec<_> = proxy.seen().into_iter().filter(|seen| seen.effect.is_some()).collect();
    assert_eq!(proxy.hits() - before, kinds.len(), "{seen:?}");
    assert_eq!(complete(&stage).into_iter().collect::<Vec<_>>(), [id]);
    assert_eq!(ids_in_store(&stage), complete(&stage));
    proxy.clear();
    // One third of all requests.
    proxy.inject(lost(When::EveryNth(3)));
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 50).await.expect("write rows");
    back_up(&stage);
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    holds(&restored, &written).await;
    proxy.clear();
    assert_eq!(complete(&stage).len(), 2);
    no_divergence(&stage);
    no_gaps(&stage);
    stage.ok(&["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_lost_requests_are_survived() {
    let Some(stage) = Stage::start(17, small(Seal::Passphrase)).await else { return };
    let mut random = Random::of_this_run();
    let proxy = http_faults(&stage);
    proxy.inject(Fault::new(Effect::Status(503, "SlowDown"), When::EveryNth(4)));
    proxy.inject(Fault::new(Effect::Status(500, "InternalError"), When::EveryNth(7)));
    let chance = When::Chance { per_mille: 150, seed: random.below(u64::MAX) };
    proxy.inject(Fault::new(Effect::LostRequest, chance));
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    back_up(&stage);
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 50).await.expect("write rows");
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    holds(&restored, &written).await;
    assert!(proxy.hits() > 20, "{}", proxy.hits());
    no_divergence(&stage);
    no_gaps(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_and_cut_connections_are_survived() {
    let Some(stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    proxy.set_latency(Duration::from_millis(20));
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    load(&stage.cluster).await;
    let mut victim = Victim::start(&stage, &["backup"]);
    let began = Instant::now();
    while victim.is_running() {
        // Often enough to hit every phase, with pauses in which something succeeds.
        tokio::time::sleep(Duration::from_millis(250)).await;
        if began.elapsed() < Duration::from_secs(4) {
            proxy.cut();
        }
    }
    let ended = victim.wait();
    if !ended.status.success() {
        // `s3s-fs` gives up a multipart upload if the connection is cut while it joins the parts. The repeated request
        // then finds an upload that it does not know, and `s3s-fs` reports that as a lack of permission. In this case
        // nothing may be left, and the next backup works.
        assert!(ended.stderr.contains("complete the upload"), "{ended:?}");
        assert!(complete(&stage).is_empty() && ids_in_store(&stage).is_empty(), "{:?}", ids_in_store(&stage));
        back_up(&stage);
    }
    let written = stop(&stage, writer).await;
    stage.archive_now().await;
    let target = stage.target("restored");
    let mut victim = Victim::start(&stage, &["restore", "--pgdata", &target.display().to_string()]);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        proxy.cut();
    }
    // Nothing arrives for a while, and then everything.
    proxy.stall();
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.resume();
    assert!(victim.runs_until(|| false).await || !victim.is_running());
    let ended = victim.wait();
    assert!(ended.status.success(), "{ended:?}");
    let restored = stage.start_restored(&target).await;
    holds(&restored, &written).await;
    no_divergence(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_restarts_in_the_middle_of_a_backup_is_waited_for() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    load(&stage.cluster).await;
    stage.archive_now().await;
    let expected = sum(&stage.cluster).await;
    let mut victim = Victim::start(&stage, &["backup"]);
    let folder = stage.repository_folder().join("main/backups");
    let begun = || stage::attack::files_below(&folder).keys().any(|name| name.ends_with("start.json"));
    assert!(victim.runs_until(begun).await, "the backup begins: {:?}", victim.wait());
    let s3 = stage.s3.as_mut().expect("a stage on S3");
    s3.stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    s3.restart().expect("start the store again");
    let ended = victim.wait();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(complete(&stage).len(), 1);
    assert_eq!(complete(&stage), ids_in_store(&stage));
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(sum(&restored).await, expected);
    no_divergence(&stage);
}

/// The network is just fast enough for one segment, so waiting segments must not take a part of it: a segment whose
/// push failed is sent alone, and others are sent after the one that PostgreSQL asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_push_failed_is_sent_alone() {
    let Some(stage) = Stage::start(18, unarchived(StoreKind::S3, Seal::KeyFile)).await else { return };
    let proxy = http_faults(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    fill_segments(&stage.cluster, 6).await;
    let ready = segments(stage.cluster.data(), "ready");
    assert!(ready.len() >= 6, "{ready:?}");
    let path = |segment: &str| segment_path(stage.cluster.data(), segment).display().to_string();
    let sent = |from: usize| -> Vec<String> {
        let of_wal = |seen: &SeenRequest| seen.method == "PUT" && seen.path.contains("/wal/");
        let names = proxy.seen().into_iter().skip(from).filter(of_wal).map(|seen| seen.path);
        names.map(|path| ready.iter().find(|segment| path.contains(*segment)).expect("a segment").clone()).collect()
    };
    proxy.inject(Fault::new(Effect::LostRequest, When::Always).method("PUT").path_contains("/wal/"));
    let (code, text) = stage.fails(&["wal", "push", &path(&ready[0])]);
    assert_eq!(code, 24, "{text}");
    proxy.clear();
    let before = proxy.seen().len();
    stage.ok(&["wal", "push", &path(&ready[0])]);
    assert_eq!(sent(before), ready[..1]);

    // The next push takes the others along, after its own segment.
    let before = proxy.seen().len();
    stage.ok(&["wal", "push", &path(&ready[1])]);
    let mut along = sent(before);
    assert_eq!(along.first(), Some(&ready[1]));
    along.sort();
    assert_eq!(along, ready[1..]);
}
