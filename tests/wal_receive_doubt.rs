//! `wal receive` in the situations in which "flushed" could be said too early, and what was acknowledged could be lost:
//! holes in the archive, slots that are new, unused, dropped or temporary, and a server that is restarted.

use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::rows::{Journal, Pace, RowWriter, found};
use rustix::process::Signal;
use serde_json::Value;

use crate::stage::attack::{Victim, back_up, fill_segments, segment_path, segments, wal_object};
use crate::stage::{Plan, Seal, Stage, wait_promoted};

const STREAMING: &str = "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'holdfast' AND state = \
                         'streaming' AND flush_lsn IS NOT NULL";

/// A server that archives into an encrypted repository, one file for each call.
async fn stage(major: u16) -> Option<Stage> {
    let stage = Stage::start(major, Plan { seal: Seal::KeyFile, wal_segment_mib: 1, ..Plan::default() }).await?;
    let text = stage.config_text().replace("[wal]\n", "[wal]\npush_ahead = 1\n");
    stage.write_config("holdfast.toml", &text);
    Some(stage)
}

fn receiver(stage: &Stage, arguments: &[&str]) -> Victim {
    let mut all = vec!["--output", "json", "wal", "receive", "--interval", "0s"];
    all.extend_from_slice(arguments);
    Victim::start(stage, &all)
}

async fn streaming(cluster: &Cluster) {
    cluster.wait_for(STREAMING, Duration::from_mins(1)).await.expect("stream to the receiver");
}

/// Waits until the receiver has reported all WAL that the server has now.
async fn reported(cluster: &Cluster) {
    let end = cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the end");
    let reported = format!(
        "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'holdfast' AND flush_lsn >= '{end}'"
    );
    cluster.wait_for(&reported, Duration::from_mins(1)).await.expect("the receiver reports everything");
}

fn end(receiver: Victim) -> Value {
    receiver.signal(Signal::TERM);
    let ended = receiver.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

async fn set(cluster: &Cluster, name: &str, value: &str) {
    cluster.set(name, value).expect("change a setting");
    cluster.reload().await.expect("reload");
}

/// Writes rows while segments fill.
async fn rows_across_segments(cluster: &Cluster, count: u32) -> Journal {
    let writer = RowWriter::start(cluster, Pace { payload_bytes: 3000, ..Pace::default() }).await;
    let writer = writer.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    fill_segments(cluster, count).await;
    let rows = writer.journal().rows().len() as u64;
    writer.wait_for_rows(rows + 20).await.expect("write rows");
    writer.stop().await.expect("end the writer")
}

async fn all_rows_are_restored(stage: &Stage, journal: &Journal) {
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(found(&restored).await.expect("read the rows").len(), journal.rows().len());
}

/// `archive_command` has failed for a segment, and a later one was stored before. A receiver with a slot that is new
/// must bring the missing one before it reports anything after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_filled_before_anything_after_it_is_reported() {
    for arguments in [&["--temporary"][..], &[]] {
        let Some(mut stage) = stage(18).await else { return };
        back_up(&stage);
        stage.archive_now().await;
        set(&stage.cluster, "archive_command", "/bin/false").await;
        let journal = rows_across_segments(&stage.cluster, 3).await;
        let waiting = segments(stage.cluster.data(), "ready");
        assert!(waiting.len() >= 3, "{waiting:?}");
        stage.ok(&["wal", "push", &segment_path(stage.cluster.data(), &waiting[1]).display().to_string()]);
        let is_stored = |segment: &String| wal_object(&stage, segment).is_some();
        assert_eq!(waiting.iter().take(3).map(is_stored).collect::<Vec<_>>(), [false, true, false]);

        let running = receiver(&stage, arguments);
        streaming(&stage.cluster).await;
        reported(&stage.cluster).await;
        stage.cluster.kill9().await.expect("kill the primary");
        end(running);
        all_rows_are_restored(&stage, &journal).await;
    }
}

/// The receiver lags, `archive_command` sends several segments at the same time, and the machine dies with the later
/// one stored: what the receiver has reported is in pieces of the earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_is_restored_although_the_next_segment_is_there_and_this_one_is_not() {
    let Some(mut stage) = stage(18).await else { return };
    back_up(&stage);
    stage.archive_now().await;
    set(&stage.cluster, "archive_command", "/bin/false").await;
    let running = receiver(&stage, &[]);
    streaming(&stage.cluster).await;
    set(&stage.cluster, "synchronous_standby_names", "holdfast").await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    let journal = writer.stop().await.expect("end the writer");
    running.kill();
    let first = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())").await.expect("its name");
    set(&stage.cluster, "synchronous_standby_names", "").await;
    fill_segments(&stage.cluster, 3).await;
    let waiting = segments(stage.cluster.data(), "ready");
    let at = waiting.iter().position(|segment| *segment == first).expect("the receiver's segment is full now");
    stage.ok(&["wal", "push", &segment_path(stage.cluster.data(), &waiting[at + 1]).display().to_string()]);
    stage.cluster.kill9().await.expect("kill the primary");

    let planned = stage.json(&["restore", "--plan", "--pgdata", &stage.target("planned").display().to_string()]);
    assert_eq!(planned["recovery"]["ends_at"]["first_missing"], first.as_str(), "{planned}");
    assert!(planned["notes"].to_string().contains("is NOT replayed: WAL segment "), "{planned}");
    all_rows_are_restored(&stage, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_is_received_from_again() {
    for how in [Shutdown::Fast, Shutdown::Immediate] {
        let Some(mut stage) = stage(17).await else { return };
        back_up(&stage);
        set(&stage.cluster, "archive_command", "/bin/false").await;
        let running = receiver(&stage, &[]);
        streaming(&stage.cluster).await;
        let before = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
        before.wait_for_rows(50).await.expect("write rows");
        let before = before.stop().await.expect("end the writer");
        stage.cluster.stop(how).await.expect("stop");
        stage.cluster.start().await.expect("start");
        streaming(&stage.cluster).await;
        let writer = RowWriter::continue_from(&stage.cluster, Pace::default(), &before).await.expect("write on");
        writer.wait_for_rows(before.rows().len() as u64 + 50).await.expect("write rows");
        let journal = writer.stop().await.expect("end the writer");
        reported(&stage.cluster).await;
        stage.cluster.kill9().await.expect("kill the primary");
        let report = end(running);
        assert!(report["reconnects"].as_u64().is_some_and(|reconnects| reconnects > 0), "{report}");
        all_rows_are_restored(&stage, &journal).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_dropped_when_it_is_free_and_a_temporary_one_by_itself() {
    let Some(stage) = stage(18).await else { return };
    let slots = || stage.cluster.value("SELECT count(*) FROM pg_replication_slots");
    let running = receiver(&stage, &[]);
    streaming(&stage.cluster).await;
    let (code, text) = stage.fails(&["wal", "receive", "--drop-slot"]);
    assert!(code != 0 && text.contains("is active for PID"), "{code} {text}");
    end(running);
    assert_eq!(slots().await.expect("count"), "1", "it stays");
    for dropped in [true, false] {
        let report = stage.json(&["wal", "receive", "--drop-slot"]);
        assert_eq!((&report["slot"], &report["dropped"]), (&"holdfast".into(), &dropped.into()), "{report}");
    }
    assert_eq!(slots().await.expect("count"), "0");

    let running = receiver(&stage, &["--temporary"]);
    streaming(&stage.cluster).await;
    assert_eq!(slots().await.expect("count"), "1");
    end(running);
    let gone = "SELECT count(*) = 0 FROM pg_replication_slots";
    stage.cluster.wait_for(gone, Duration::from_secs(20)).await.expect("it ends with its connection");
}

/// An administrator made the slot, and did not let it keep WAL at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_never_used_is_not_taken_for_a_lost_one() {
    for major in [14, 18] {
        let Some(stage) = stage(major).await else { continue };
        stage.cluster.sql("SELECT pg_create_physical_replication_slot('holdfast')").await.expect("make a slot");
        if major >= 15 {
            // The protocol does not tell the two apart.
            let (code, text) = stage.fails(&["wal", "receive"]);
            assert_eq!(code, 43, "{text}");
            assert!(text.contains("or it was made without immediately_reserve and never used"), "{text}");
            stage.ok(&["wal", "receive", "--drop-slot"]);
        }
        let running = receiver(&stage, &[]);
        streaming(&stage.cluster).await;
        reported(&stage.cluster).await;
        let kept = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots";
        assert_eq!(stage.cluster.value(kept).await.expect("ask for the slot"), "t");
        end(running);
    }
}
