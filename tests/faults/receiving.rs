//! A store that is away while `wal receive` works.

use std::time::{Duration, Instant};

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::rows::{Pace, RowWriter, found};
use rustix::process::Signal;

use super::kit::{add_to_wal_table, small, tcp_proxy};
use crate::stage::attack::{Victim, back_up, fill_segments, load, sum};
use crate::stage::{Seal, Stage, wait_promoted};

/// Longer than a request to the store is repeated.
const AWAY_FOR: Duration = Duration::from_secs(70);

async fn receiving(stage: &Stage) -> Victim {
    stage.cluster.set("archive_command", "/bin/false").expect("set archive_command");
    stage.cluster.reload().await.expect("reload");
    let running = Victim::start(stage, &["wal", "receive"]);
    streaming(&stage.cluster).await;
    running
}

async fn streaming(cluster: &Cluster) {
    let streaming = "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn IS NOT NULL";
    cluster.wait_for(streaming, Duration::from_mins(2)).await.expect("stream to the receiver");
}

fn end(running: Victim) {
    running.signal(Signal::TERM);
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
}

/// What was received while the store is away exists only in the receiver's memory once the primary is dead.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_outlives_the_primary_and_a_store_that_is_away() {
    let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
    let proxy = tcp_proxy(&stage);
    add_to_wal_table(&stage, "timeout = \"1s\"");
    back_up(&stage);
    stage.archive_now().await;
    let running = receiving(&stage).await;
    proxy.refuse();
    proxy.cut();
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let end_lsn = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the end");
    stage.cluster.kill9().await.expect("kill the primary");
    let journal = writer.stop().await.expect("end the writer");
    tokio::time::sleep(AWAY_FOR).await;

    proxy.resume();
    tokio::time::sleep(Duration::from_secs(25)).await;
    end(running);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    let there = found(&restored).await.expect("read the rows").len();
    let rows = journal.rows();
    eprintln!("{} rows acknowledged up to about {end_lsn}, {there} restored", rows.len());
    let lost = rows.iter().skip(there).map(|row| row.commit_micros).max().unwrap_or(0);
    let kept = rows.get(there.wrapping_sub(1)).map_or(0, |row| row.commit_micros);
    assert!(there > 0 && lost <= kept + 2_000_000, "only {there} of {} rows are restored", rows.len());
}

/// A server that shuts down waits until the receiver has reported everything as flushed, and `pg_ctl stop` waits for a
/// minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_ends_while_a_receiver_waits_for_its_store() {
    for segments in [0, 3] {
        let Some(mut stage) = Stage::start(18, small(Seal::KeyFile)).await else { return };
        let proxy = tcp_proxy(&stage);
        add_to_wal_table(&stage, "timeout = \"10m\"");
        load(&stage.cluster).await;
        back_up(&stage);
        stage.archive_now().await;
        let running = receiving(&stage).await;
        proxy.stall();
        stage.cluster.sql("CREATE TABLE late AS SELECT generate_series(1, 1000)").await.expect("write");
        fill_segments(&stage.cluster, segments).await;
        let expected = sum(&stage.cluster).await;
        let began = Instant::now();
        stage.cluster.stop(Shutdown::Fast).await.expect("the server stops");
        assert!(began.elapsed() < Duration::from_secs(50), "the stop took {:?}", began.elapsed());

        proxy.resume();
        proxy.cut();
        stage.cluster.start().await.expect("start the server again");
        streaming(&stage.cluster).await;
        let end_lsn = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the end");
        let reported = format!("SELECT count(*) > 0 FROM pg_stat_replication WHERE flush_lsn >= '{end_lsn}'");
        stage.cluster.wait_for(&reported, Duration::from_mins(1)).await.expect("the receiver catches up");
        stage.cluster.kill9().await.expect("kill the primary");
        end(running);
        let restored = stage.restore_and_start("restored", &[]).await;
        wait_promoted(&restored).await;
        assert_eq!(sum(&restored).await, expected);
        assert_eq!(restored.value("SELECT count(*) FROM late").await.expect("count"), "1000");
    }
}
