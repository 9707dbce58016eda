//! A data volume that was rolled back and started without recovery: the server writes other WAL under names that the
//! archive has. No verb may take the archive for its own, and nothing of the lost future is overwritten or restored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_testkit::postgres::Shutdown;

use crate::stage::attack::objects;
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};

const LIMIT: Duration = Duration::from_mins(3);

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("run cp");
    assert!(status.success());
}

/// A server whose volume was rolled back to a state after its first backup. The archive has several segments of the
/// lost future, with rows 2 to 6; the server has row 1 only.
async fn rolled_back(archive: bool) -> Option<Stage> {
    let (seal, store) = (Seal::None, StoreKind::Directory);
    let mut stage = Stage::start(18, Plan { seal, store, archive, wal_segment_mib: 1, ..Plan::default() }).await?;
    stage.cluster.sql("CREATE TABLE rows (n int); INSERT INTO rows VALUES (1)").await.expect("write");
    stage.ok(&["backup"]);
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let (data, snapshot) = (stage.cluster.data().to_owned(), stage.target("snapshot"));
    copy(&data, &snapshot);
    stage.cluster.start().await.expect("start the server");
    for n in 2..=6 {
        stage.cluster.sql(&format!("INSERT INTO rows VALUES ({n})")).await.expect("write");
        if archive {
            stage.archive_now().await;
        } else {
            // Without an archiver the backup sends the WAL.
            stage.ok(&["backup"]);
        }
    }
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    std::fs::remove_dir_all(&data).expect("lose the volume");
    std::fs::rename(&snapshot, &data).expect("roll it back");
    stage.cluster.start().await.expect("start the server");
    Some(stage)
}

/// The objects that are there for good, with their sizes.
fn wal_and_complete(stage: &Stage) -> BTreeMap<String, String> {
    let all = objects(stage).into_iter();
    let kept = all.filter(|(name, _)| name.contains("/wal/") || name.ends_with("/backup.json"));
    kept.map(|(name, file)| (name, format!("{file:?}"))).collect()
}

fn with_name(stage: &Stage, name: &str) -> PathBuf {
    let text = stage.config_text().replace("\"main\"", &format!("\"{name}\""));
    stage.write_config("holdfast.toml", &text);
    stage.config.clone()
}

/// Refused with 44 and all three parts.
fn refused(stage: &Stage, arguments: &[&str]) {
    let (code, said) = stage.fails(arguments);
    assert_eq!(code, 44, "{arguments:?}: {said}");
    for words in [
        "is already stored in ",
        "with other content",
        "while: comparing the archive with the WAL of this server",
        "a data volume was rolled back",
        "give this one a `cluster.name` of its own",
    ] {
        assert!(said.contains(words), "{arguments:?} does not say {words:?}: {said}");
    }
}

/// The server is still before the end of the archived WAL, so the archive has all names that its backup needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_server_gets_no_backup_in_the_archive_of_its_lost_future() {
    let Some(stage) = rolled_back(true).await else { return };
    stage.cluster.sql("INSERT INTO rows VALUES (100)").await.expect("write");
    let before = wal_and_complete(&stage);
    refused(&stage, &["backup"]);
    refused(&stage, &["backup", "--type", "full"]);
    refused(&stage, &["check"]);
    assert_eq!(wal_and_complete(&stage), before, "nothing may be stored");

    // Past the end of the archived WAL the names are free, but what comes before them is not this server's.
    for n in 101..=110 {
        stage.cluster.sql(&format!("INSERT INTO rows VALUES ({n})")).await.expect("write");
        stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    }
    refused(&stage, &["backup"]);
    refused(&stage, &["check"]);
    assert_eq!(wal_and_complete(&stage), before, "nothing may be stored");

    // As the message says. The archiver sends everything that waits into the new archive.
    with_name(&stage, "second");
    let report = stage.json(&["backup"]);
    assert_eq!(report["repositories"][0]["backup"]["type"], "full", "{report}");
    stage.archive_now().await;
    stage.ok(&["check"]);
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    let rows = restored.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM rows").await.expect("read");
    assert_eq!(rows, "1,100,101,102,103,104,105,106,107,108,109,110");
    // The lost future is still there.
    with_name(&stage, "main");
    let config = stage.write_config("main.toml", &stage.config_text().replace("\"second\"", "\"main\""));
    let target = stage.target("lost").display().to_string();
    let arguments = ["restore", "--pgdata", &target];
    succeeded(&stage.command_with(&config, &arguments).output().expect("run holdfast"), &arguments);
    let lost = stage.start_restored(&stage.target("lost")).await;
    wait_promoted(&lost).await;
    let rows = lost.value("SELECT string_agg(n::text, ',' ORDER BY n) FROM rows").await.expect("read");
    assert_eq!(rows, "1,2,3,4,5,6");
}

/// Without an archiver there are no marks; the contents are compared all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_server_that_does_not_archive_is_noticed() {
    let Some(stage) = rolled_back(false).await else { return };
    stage.cluster.sql("INSERT INTO rows VALUES (100)").await.expect("write");
    let before = wal_and_complete(&stage);
    refused(&stage, &["backup"]);
    assert_eq!(wal_and_complete(&stage), before, "nothing may be stored");
}

/// A snapshot of the volumes is recorded only if the archive has the WAL of the same server.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_a_rolled_back_server_are_not_recorded() {
    let Some(stage) = rolled_back(true).await else { return };
    let session = stage.cluster.connect("postgres").await.expect("connect");
    session.execute("SELECT pg_backup_start('s', true)", &[]).await.expect("start");
    let row = session.query_one("SELECT labelfile, spcmapfile, lsn::text FROM pg_backup_stop(false)", &[]).await;
    // It does not wait for the archiver, which is refused for ever.
    let row = row.expect("stop");
    let request = serde_json::json!({
        "name": "s", "online": true, "backup_label": row.get::<_, String>(0), "tablespace_map": row.get::<_, String>(1),
        "end_lsn": row.get::<_, String>(2), "started_at": "2026-11-22T10:15:00Z", "stopped_at": "2026-11-22T10:15:09Z",
        "snapshots": [{ "name": "s-data", "type": "PG_DATA" }],
    });
    let (code, said) = record(&stage, &request);
    assert_eq!(code, Some(44), "{said}");
    assert!(said.contains("with other content") && said.contains("a data volume was rolled back"), "{said}");
    assert_eq!(stage.json(&["snapshot", "list"])["repositories"][0]["snapshots"], serde_json::json!([]));
}

fn record(stage: &Stage, request: &serde_json::Value) -> (Option<i32>, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = stage.command(&["snapshot", "record"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("start holdfast");
    let mut input = child.stdin.take().expect("an input");
    input.write_all(request.to_string().as_bytes()).expect("write the request");
    drop(input);
    let output = child.wait_with_output().expect("wait for holdfast");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What looks like another history and is not: a standby with an unfinished segment and recycled files, a promoted
/// server, and a server that crashed. None of them is refused.
#[tokio::test(flavor = "multi_thread")]
async fn standbys_and_promoted_servers_are_not_taken_for_others() {
    use holdfast_testkit::postgres::Cluster;
    let (seal, store) = (Seal::None, StoreKind::Directory);
    let settings = [("max_wal_size", "8MB"), ("min_wal_size", "2MB"), ("wal_keep_size", "4MB")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let plan = Plan { seal, store, settings, wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    stage.cluster.sql("CREATE TABLE rows (n int); INSERT INTO rows VALUES (1)").await.expect("write");
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.override_setting("archive_mode", "on");
    standby.start().await.expect("start the standby");
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
    let primary = format!("primary_connection = \"{}\"", stage.cluster.connection_string("postgres"));
    let lines = format!("pgdata = \"{}\"\n{primary}", standby.data().display());
    let config = stage.write_config("standby.toml", &text.replace(line, &lines));
    for round in 0..4 {
        stage.cluster.sql("INSERT INTO rows SELECT generate_series(1, 20000)").await.expect("write");
        let written = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the LSN");
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
        standby.wait_for(&replayed, LIMIT).await.expect("replay");
        // Only now: the standby has no slot, and a busy machine lets it fall back.
        stage.cluster.sql("CHECKPOINT").await.expect("recycle segments");
        standby.sql("CHECKPOINT").await.expect("make a restart point");
        for verb in ["backup", "check"] {
            let output = stage.command_with(&config, &[verb]).output().expect("run holdfast");
            succeeded(&output, &[verb, &round.to_string()]);
        }
        if round == 1 {
            stage.cluster.kill9().await.expect("crash");
            stage.cluster.start().await.expect("start after the crash");
        }
        stage.ok(&["backup"]);
        stage.ok(&["check"]);
    }
    stage.archive_now().await;
    stage.cluster.kill9().await.expect("kill the primary");
    let program = format!("{} --config {} wal push %p", stage.holdfast.display(), config.display());
    standby.set("archive_command", &program).expect("configure");
    standby.reload().await.expect("reload");
    standby.promote().await.expect("promote");
    for verb in ["backup", "check", "backup"] {
        let output = stage.command_with(&config, &[verb]).output().expect("run holdfast");
        succeeded(&output, &[verb, "promoted"]);
    }
}
