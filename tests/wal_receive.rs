//! `wal receive`: how much is lost with the primary, and what happens to the receiver, its slot and its server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Installation};
use holdfast_testkit::random::Random;
use holdfast_testkit::rows::{Journal, Pace, RowWriter, found};
use rustix::process::Signal;
use serde_json::Value;

use crate::stage::attack::{Victim, back_up, fill_segments, objects};
use crate::stage::{Plan, Seal, Stage, StoreKind, config_text, repository_lines, succeeded, wait_promoted};

/// The commits of the last two seconds may be lost, with the default interval of one second.
const LOSS_MICROS: i64 = 2_000_000;

const STREAMING: &str = "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'holdfast' AND state = \
                         'streaming' AND flush_lsn IS NOT NULL";

fn plan(settings: &[(&'static str, &str)]) -> Plan {
    let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Plan { seal: Seal::KeyFile, wal_segment_mib: 1, settings, ..Plan::default() }
}

/// The stage's configuration with a connection string.
fn connected_to(stage: &Stage, name: &str, connection: &str) -> PathBuf {
    let text = stage.config_text().replacen("[[repo]]", &format!("connection = \"{connection}\"\n\n[[repo]]"), 1);
    stage.write_config(name, &text)
}

fn receiver(stage: &Stage, arguments: &[&str]) -> Victim {
    let mut all = vec!["--output", "json", "wal", "receive"];
    all.extend_from_slice(arguments);
    Victim::start(stage, &all)
}

async fn streaming(cluster: &Cluster) {
    cluster.wait_for(STREAMING, Duration::from_mins(1)).await.expect("stream to the receiver");
}

/// Ends the receiver as a service manager does, and returns its report.
fn end(receiver: Victim) -> Value {
    receiver.signal(Signal::TERM);
    let ended = receiver.wait();
    assert_eq!(ended.code(), 0, "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// Everything that PostgreSQL itself would archive is left to the receiver.
async fn leave_it_to_the_receiver(cluster: &Cluster) {
    cluster.set("archive_command", "/bin/false").expect("set archive_command");
    cluster.reload().await.expect("reload");
}

/// The acknowledged rows that the restored server does not have.
async fn lost(restored: &Cluster, journal: &Journal) -> Vec<i64> {
    let there = found(restored).await.expect("read the rows").len();
    let rows = journal.rows();
    let kept = rows.get(there.wrapping_sub(1)).map_or(0, |row| row.commit_micros);
    let lost: Vec<i64> = rows.iter().skip(there).map(|row| row.commit_micros - kept).collect();
    eprintln!("{} rows acknowledged, {there} restored, lost within {:?} microseconds", rows.len(), lost.last());
    assert!(there > 0, "nothing was restored");
    lost
}

/// Takes another backup, and lets `expire` remove the first one. From then on, a restore looks once more for all WAL.
fn remove_with_a_newer_one(stage: &Stage) {
    back_up(stage);
    let retention = "\n[retention]\nkeep = { last = 1 }\ngrace = \"0\"\n";
    let config = stage.write_config("expire.toml", &(stage.config_text() + retention));
    for _ in 0..2 {
        succeeded(&stage.command_with(&config, &["expire"]).output().expect("expire"), &["expire"]);
    }
    assert_eq!(objects(stage).keys().filter(|name| name.ends_with("/backup.json")).count(), 1);
}

/// Kills the primary at a random moment, restores, and returns what was lost.
async fn lost_with_the_primary(major: u16, settings: &[(&'static str, &str)], arguments: &[&str]) -> Option<Vec<i64>> {
    let mut stage = Stage::start(major, plan(settings)).await?;
    back_up(&stage);
    remove_with_a_newer_one(&stage);
    leave_it_to_the_receiver(&stage.cluster).await;
    let receiver = receiver(&stage, arguments);
    streaming(&stage.cluster).await;
    if arguments.contains(&"0s") {
        stage.cluster.set("synchronous_standby_names", "holdfast").expect("set synchronous_standby_names");
        stage.cluster.reload().await.expect("reload");
    }
    let pace = Pace { payload_bytes: 3000, ..Pace::default() };
    let writer = RowWriter::start(&stage.cluster, pace).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    tokio::time::sleep(Duration::from_millis(1000 + Random::of_this_run().below(2500))).await;
    stage.cluster.kill9().await.expect("kill the primary");
    let journal = writer.stop().await.expect("end the writer");
    let report = end(receiver);
    assert!(report["pieces"].as_u64().is_some_and(|pieces| pieces > 0), "{report}");
    let planned = stage.json(&["restore", "--plan", "--pgdata", &stage.target("planned").display().to_string()]);
    assert!(planned["recovery"]["tail_lsn"].is_string(), "{planned}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    Some(lost(&restored, &journal).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_seconds_at_most_are_lost_with_the_primary() {
    for major in [19, 18, 13] {
        let Some(lost) = lost_with_the_primary(major, &[("track_commit_timestamp", "on")], &[]).await else { continue };
        assert!(lost.last().is_none_or(|last| *last <= LOSS_MICROS), "lost: {lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_synchronous_replication() {
    for major in [19, 18, 15] {
        let Some(lost) = lost_with_the_primary(major, &[], &["--interval", "0s"]).await else { continue };
        assert_eq!(lost, Vec::<i64>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_continues_without_a_gap() {
    let Some(mut stage) = Stage::start(17, plan(&[])).await else { return };
    back_up(&stage);
    leave_it_to_the_receiver(&stage.cluster).await;
    let writer = RowWriter::start(&stage.cluster, Pace { payload_bytes: 8000, ..Pace::default() }).await;
    let writer = writer.expect("start the writer");
    let mut random = Random::of_this_run();
    for _ in 0..6 {
        let running = receiver(&stage, &["--interval", "100ms"]);
        streaming(&stage.cluster).await;
        fill_segments(&stage.cluster, 2).await;
        tokio::time::sleep(Duration::from_millis(random.below(700))).await;
        running.kill();
    }
    let running = receiver(&stage, &["--interval", "100ms"]);
    streaming(&stage.cluster).await;
    let (code, text) = stage.fails(&["wal", "receive", "--slot", "another"]);
    assert_eq!(code, 70, "{text}");
    assert!(text.contains("another wal receive of ") && text.contains("is running"), "{text}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let journal = writer.stop().await.expect("end the writer");
    stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    tokio::time::sleep(Duration::from_secs(4)).await;
    stage.cluster.kill9().await.expect("kill the primary");
    let report = end(running);
    assert!(report["segments"].as_u64().is_some_and(|segments| segments > 0), "{report}");
    let listed = stage.json(&["wal", "list"]);
    let gaps = &listed["repositories"][0]["claims"][0]["timelines"][0]["gaps"];
    assert_eq!(gaps, &serde_json::json!([]), "{listed}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(lost(&restored, &journal).await, Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_followed_onto_its_timeline() {
    let Some(mut stage) = Stage::start(18, plan(&[])).await else { return };
    back_up(&stage);
    leave_it_to_the_receiver(&stage.cluster).await;
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("make a standby");
    standby.start().await.expect("start the standby");
    let (one, other) = (stage.cluster.socket_folder(), standby.socket_folder());
    let connection = format!(
        "host={},{} port={},{} user=postgres dbname=postgres target_session_attrs=read-write",
        one.display(),
        other.display(),
        stage.cluster.port(),
        standby.port()
    );
    let config = connected_to(&stage, "both.toml", &connection);
    let running = Victim::of(stage.command_with(&config, &["--output", "json", "wal", "receive"]));
    streaming(&stage.cluster).await;
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    stage.cluster.kill9().await.expect("kill the primary");
    let journal = writer.stop().await.expect("end the writer");
    standby.promote().await.expect("promote");
    standby.wait_promoted(Duration::from_mins(1)).await.expect("promote");
    standby.wait_for(STREAMING, Duration::from_mins(2)).await.expect("stream from the new primary");
    let writer = RowWriter::continue_from(&standby, Pace::default(), &journal).await.expect("write on");
    let known = writer.journal().rows().len() as u64;
    writer.wait_for_rows(known + 50).await.expect("write rows");
    let journal = writer.stop().await.expect("end the writer");
    tokio::time::sleep(Duration::from_secs(3)).await;
    standby.kill9().await.expect("kill the new primary");
    let report = end(running);
    assert_eq!(report["timeline"], 2, "{report}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(lost(&restored, &journal).await, Vec::<i64>::new());
}

/// The history of timeline 2 is in the archive, but no WAL of it: everything acknowledged before the promotion is in
/// pieces of timeline 1.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_promotion_is_restored_without_wal_of_the_new_timeline() {
    let Some(mut stage) = Stage::start(18, plan(&[])).await else { return };
    back_up(&stage);
    leave_it_to_the_receiver(&stage.cluster).await;
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("make a standby");
    standby.start().await.expect("start the standby");
    let running = receiver(&stage, &["--interval", "0s"]);
    streaming(&stage.cluster).await;
    stage.cluster.set("synchronous_standby_names", "2 (holdfast, walreceiver)").expect("set the names");
    stage.cluster.reload().await.expect("reload");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(100).await.expect("write rows");
    stage.cluster.kill9().await.expect("kill the primary");
    let journal = writer.stop().await.expect("end the writer");
    end(running);
    standby.promote().await.expect("promote");
    let history = standby.data().join("pg_wal/00000002.history");
    stage.ok(&["wal", "push", &history.display().to_string()]);
    standby.kill9().await.expect("kill the new primary");

    let planned = stage.json(&["restore", "--plan", "--pgdata", &stage.target("planned").display().to_string()]);
    assert_eq!(planned["recovery"]["timeline"], 2, "{planned}");
    let tails = planned["recovery"]["tails"].as_array().expect("there is a tail");
    assert_eq!(tails.iter().map(|tail| &tail["timeline"]).collect::<Vec<_>>(), [1], "{planned}");
    assert!(tails.iter().all(|tail| tail["switch_lsn"].is_string()), "{planned}");
    assert!(planned["notes"].to_string().contains("timeline 2 begins at "), "{planned}");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(lost(&restored, &journal).await, Vec::<i64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_an_error_and_never_a_gap_in_silence() {
    for major in [19, 18, 14] {
        let settings = [("max_slot_wal_keep_size", "2MB"), ("max_wal_size", "4MB"), ("min_wal_size", "2MB")];
        let Some(stage) = Stage::start(major, Plan { archive: false, ..plan(&settings) }).await else { continue };
        let running = receiver(&stage, &[]);
        streaming(&stage.cluster).await;
        end(running);
        fill_segments(&stage.cluster, 12).await;
        stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
        let gone = "SELECT wal_status = 'lost' FROM pg_replication_slots";
        stage.cluster.wait_for(gone, Duration::from_mins(1)).await.expect("lose the slot");
        let before = objects(&stage).len();
        let (code, text) = stage.fails(&["wal", "receive"]);
        assert_eq!(code, 43, "{text}");
        assert!(text.starts_with("error: the replication slot holdfast is lost: "), "{text}");
        assert!(text.contains("\nwhile: ") && text.contains("\nhint:  "), "{text}");
        assert_eq!(objects(&stage).len(), before, "nothing was stored");

        let running = receiver(&stage, &["--accept-gap"]);
        streaming(&stage.cluster).await;
        end(running);
        let gaps = || objects(&stage).keys().filter(|name| name.ends_with("-gap.json")).count();
        assert_eq!(gaps(), 1, "the gap is recorded");
        // It was accepted once and for all, although no whole segment after it is stored.
        let running = receiver(&stage, &[]);
        streaming(&stage.cluster).await;
        end(running);
        assert_eq!(gaps(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_refused_before_anything_is_stored() {
    let Some(stage) = Stage::start(18, plan(&[])).await else { return };
    let running = receiver(&stage, &[]);
    streaming(&stage.cluster).await;
    end(running);
    let installation = Installation::or_skip(18).expect("the same as before");
    let mut other = Cluster::builder(&installation).wal_segment_mib(1).create().await.expect("make another cluster");
    other.start().await.expect("start it");
    let config = connected_to(&stage, "other.toml", &other.connection_string("postgres"));
    let before = objects(&stage).len();
    let output = stage.command_with(&config, &["wal", "receive"]).output().expect("run holdfast");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(12), "{text}");
    assert!(text.contains("belongs to system identifier"), "{text}");
    assert_eq!(objects(&stage).len(), before, "nothing was stored");
    assert_eq!(other.value("SELECT count(*) FROM pg_replication_slots").await.expect("count"), "0");
}

/// A copy of the data directory from before is started again: the same timeline, other WAL.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewound_server_is_refused() {
    let Some(mut stage) = Stage::start(18, plan(&[])).await else { return };
    stage.cluster.stop(holdfast_testkit::postgres::Shutdown::Fast).await.expect("stop");
    let copy = stage.scratch.path().join("copy");
    copy_folder(stage.cluster.data(), &copy);
    stage.cluster.start().await.expect("start");
    let running = receiver(&stage, &["--interval", "0s"]);
    streaming(&stage.cluster).await;
    stage.cluster.sql("CREATE TABLE a AS SELECT generate_series(1, 1000)").await.expect("write");
    tokio::time::sleep(Duration::from_secs(2)).await;
    end(running);
    stage.cluster.stop(holdfast_testkit::postgres::Shutdown::Fast).await.expect("stop");

    let mut rewound = Cluster::adopt(&stage.installation, &copy).expect("take over the copy");
    rewound.override_setting("archive_mode", "off");
    rewound.start().await.expect("start the copy");
    let config = connected_to(&stage, "rewound.toml", &rewound.connection_string("postgres"));
    let refused = |why: &str| {
        let before = objects(&stage);
        let output = stage.command_with(&config, &["wal", "receive"]).output().expect("run holdfast");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(44), "{text}");
        assert!(text.contains(why), "{text}");
        assert_eq!(objects(&stage), before, "nothing was changed");
    };
    refused("but the server ends at");
    rewound.sql("CREATE TABLE b AS SELECT generate_series(1, 20000)").await.expect("write something else");
    let end = rewound.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the end");
    eprintln!("the rewound server is at {end} now");
    refused("the server has other WAL in segment");
}

fn copy_folder(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().expect("run cp");
    assert!(status.success(), "cp failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reported_is_in_every_repository() {
    let layout = Plan { store: StoreKind::Directory, ..plan(&[]) };
    let Some(mut stage) = Stage::start(16, layout.clone()).await else { return };
    let lines = [
        repository_lines(&layout, None, &stage.scratch, "repository"),
        repository_lines(&layout, None, &stage.scratch, "second"),
    ];
    std::fs::write(&stage.config, config_text(&layout, &stage.scratch, stage.cluster.data(), &lines)).expect("write");
    stage.ok(&["repo", "init"]);
    stage.ok(&["backup", "--no-progress"]);
    leave_it_to_the_receiver(&stage.cluster).await;
    let running = receiver(&stage, &["--interval", "0s"]);
    streaming(&stage.cluster).await;
    stage.cluster.set("synchronous_standby_names", "holdfast").expect("set synchronous_standby_names");
    stage.cluster.reload().await.expect("reload");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(50).await.expect("write rows");
    stage.cluster.kill9().await.expect("kill the primary");
    let journal = writer.stop().await.expect("end the writer");
    end(running);
    for (number, line) in lines.iter().enumerate() {
        let text = config_text(&layout, &stage.scratch, stage.cluster.data(), std::slice::from_ref(line));
        std::fs::write(&stage.config, text).expect("write");
        let restored = stage.restore_and_start(&format!("restored-{number}"), &[]).await;
        wait_promoted(&restored).await;
        assert_eq!(lost(&restored, &journal).await, Vec::<i64>::new(), "repository {number}");
    }
}
