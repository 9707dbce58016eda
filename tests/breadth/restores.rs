//! Special restores: those that only make a plan, those over existing files, and those whose server pauses or shuts
//! down at its target.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Shutdown};

use super::kit::{SUM, local, wait_for};
use crate::stage::proof::{bulk, number, same_trees, text, tree, verify_backup};
use crate::stage::{Plan, Stage, wait_promoted};

/// `--plan` prints what would be done and changes nothing. `--delta` fetches only what differs.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_writes_nothing_and_a_delta_little() {
    let Some(stage) = Stage::start(18, Plan { compression: "none", ..local() }).await else { return };
    let cluster = &stage.cluster;
    bulk(cluster, "load", 12).await;
    cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let path = cluster.value("SELECT pg_relation_filepath('load')").await.expect("ask for the path");
    let report = stage.json(&["backup"]);
    let sum = cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;

    let target = stage.target("restored");
    let place = target.display().to_string();
    let plan = stage.json(&["restore", "--plan", "--pgdata", &place]);
    assert!(!target.exists(), "a plan wrote something");
    assert_eq!(text(&plan, "cluster"), "main");
    assert_eq!(text(&plan, "pgdata"), place);
    assert_eq!(text(&plan, "target_state"), "fresh");
    assert_eq!(text(&plan["recovery"], "backup"), text(&report, "backup_id"));
    assert_eq!(text(&plan, "signal_file"), "recovery.signal");
    for key in ["file_count", "fetch_bytes", "write_bytes", "hole_bytes"] {
        assert!(number(&plan, key) > 0 || key == "hole_bytes", "{key} in {plan}");
    }
    let lines = plan["auto_conf_lines"].to_string();
    assert!(lines.contains("restore_command") && lines.contains("recovery_target_timeline"), "{lines}");
    let shown = stage.ok(&["restore", "--plan", "--pgdata", &place]);
    assert!(shown.ends_with("nothing was written\n") && shown.contains(text(&report, "backup_id")), "{shown}");

    let done = stage.json(&["restore", "--pgdata", &place]);
    for (planned, did) in
        [("fetch_bytes", "fetched_bytes"), ("write_bytes", "written_bytes"), ("file_count", "file_count")]
    {
        assert_eq!(number(&plan, planned), number(&done, did), "{planned}");
    }
    assert_eq!(number(&done, "reused_bytes"), 0);
    let (code, message) = stage.fails(&["restore", "--pgdata", &place]);
    assert_eq!(code, 62, "{message}");

    // Remains of a bad disk, of a person, and of a server.
    let fresh = stage.target("fresh");
    stage.ok(&["restore", "--pgdata", &fresh.display().to_string()]);
    let damaged = fs::OpenOptions::new().read(true).write(true).open(target.join(&path)).expect("open a relation");
    damaged.write_all_at(b"damage", (5 << 20) + 4711).expect("damage");
    damaged.set_len(damaged.metadata().expect("look").len() - 8192).expect("shorten");
    drop(damaged);
    fs::remove_file(target.join("PG_VERSION")).expect("remove a file");
    fs::write(target.join("PG_VERSION"), b"18\n").expect("write it again");
    fs::remove_file(target.join("pg_hba.conf")).expect("remove a file");
    fs::write(target.join("postgresql.conf"), vec![b'#'; 3 << 20]).expect("lengthen a file");
    fs::set_permissions(target.join("pg_ident.conf"), fs::Permissions::from_mode(0o666)).expect("set a mode");
    fs::create_dir_all(target.join("base/4711/deep")).expect("make folders");
    fs::write(target.join("base/4711/deep/extra"), b"extra").expect("write a file");
    fs::write(target.join("base/1/99999"), b"extra").expect("write a file");
    fs::remove_dir_all(target.join("pg_multixact")).expect("remove a folder");
    fs::write(target.join("pg_multixact"), b"a file in place of a folder").expect("write a file");
    symlink("/etc/passwd", target.join("base/1/link")).expect("make a link");
    cluster.scratch().user().own_tree(&target).expect("give it away");
    let damaged = tree(&target);
    let plan = stage.json(&["restore", "--plan", "--delta", "--pgdata", &place]);
    assert_eq!(text(&plan, "target_state"), "delta");
    assert_eq!(tree(&target), damaged, "a plan changed something");
    let (code, _) = stage.fails(&["restore", "--pgdata", &place]);
    assert_eq!(code, 62);
    assert_eq!(tree(&target), damaged, "a refused restore changed something");
    let delta = stage.json(&["restore", "--delta", "--pgdata", &place]);
    let (whole, fetched) = (number(&done, "fetched_bytes"), number(&delta, "fetched_bytes"));
    assert!(fetched > 1 << 20 && fetched < whole / 4, "{fetched} of {whole} bytes were fetched");
    assert!(number(&delta, "reused_bytes") > whole / 2, "{delta}");
    assert!(number(&delta, "removed_entries") >= 4, "{delta}");
    // Their auto.conf contains the time of the restore, and backup_manifest has the checksum of auto.conf.
    same_trees(&target, &fresh, &["postgresql.auto.conf", "backup_manifest"]);
    verify_backup(&stage, &target);

    // A server that ran there and changed much is an obstacle only because its WAL is in no archive.
    let mut used = stage.start_restored(&target).await;
    wait_promoted(&used).await;
    used.sql("UPDATE load SET id = 0 WHERE id < 1000; CREATE TABLE later AS SELECT 1; CHECKPOINT")
        .await
        .expect("change");
    let (code, message) = stage.fails(&["restore", "--delta", "--pgdata", &place]);
    assert_eq!(code, 63, "{message}");
    used.stop(Shutdown::Fast).await.expect("stop");
    drop(used);
    let (code, message) = stage.fails(&["restore", "--delta", "--pgdata", &place]);
    assert_eq!(code, 62, "{message}");
    assert!(message.contains("holds WAL that was not archived"), "{message}");
    stage.ok(&["restore", "--delta", "--discard-wal", "--pgdata", &place]);
    same_trees(&target, &fresh, &["postgresql.auto.conf", "backup_manifest"]);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), sum);
    assert_eq!(restored.value("SELECT to_regclass('later') IS NULL").await.expect("ask"), "t");
}

/// At its target the server pauses or shuts down, as requested.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_pauses_or_shuts_down_at_the_target() {
    let Some(stage) = Stage::start(18, local()).await else { return };
    let cluster = &stage.cluster;
    cluster.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.expect("load");
    stage.ok(&["backup"]);
    for statement in ["INSERT INTO t VALUES (2)", "SELECT pg_create_restore_point('here')", "INSERT INTO t VALUES (3)"]
    {
        cluster.sql(statement).await.expect("write");
    }
    stage.archive_now().await;

    let target = stage.target("pause");
    let place = target.display().to_string();
    let said = stage.ok(&["restore", "--pgdata", &place, "--target-name", "here", "--target-action", "pause"]);
    assert!(said.contains("pauses there") && said.contains("to open it for writing"), "{said}");
    let paused = stage.start_restored(&target).await;
    wait_for(&paused, "SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    assert_eq!(paused.value("SELECT pg_is_in_recovery()").await.expect("ask"), "t");
    assert_eq!(paused.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");
    paused.sql("SELECT pg_wal_replay_resume()").await.expect("resume replay");
    wait_promoted(&paused).await;
    assert_eq!(paused.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");

    let target = stage.target("shutdown");
    let place = target.display().to_string();
    let said = stage.ok(&["restore", "--pgdata", &place, "--target-name", "here", "--target-action", "shutdown"]);
    assert!(said.contains("shuts down"), "{said}");
    let mut ends = Cluster::adopt(&stage.installation, &target).expect("take over");
    ends.override_setting("archive_mode", "off");
    ends.spawn().expect("start");
    let status = ends.wait_exited(Duration::from_mins(3)).await.expect("wait for its end");
    assert!(ends.log_text().contains("shutdown at recovery target"), "{status}\n{}", ends.log_text());
    assert!(target.join("recovery.signal").exists(), "it stays in recovery");
    // After another start it does the same again, unless its settings are changed.
    ends.override_setting("recovery_target_action", "promote");
    ends.start().await.expect("start");
    wait_promoted(&ends).await;
    assert_eq!(ends.value("SELECT sum(n) FROM t").await.expect("sum up"), "3");
}

/// The setting is stronger than `pg_ctl -D`, so without more the original would start.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_names_the_original_does_not_start_it() {
    let Some(mut stage) = Stage::start(18, local()).await else { return };
    let original = stage.cluster.data().display().to_string();
    stage.cluster.set("data_directory", &original).expect("set data_directory");
    stage.cluster.sql("CREATE TABLE t AS SELECT 1 AS n").await.expect("load");
    stage.ok(&["backup"]);
    stage.cluster.sql("DROP TABLE t").await.expect("drop");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the original");
    let target = stage.target("restored");
    let place = target.display().to_string();
    let report = stage.json(&["restore", "--pgdata", &place, "--target-immediate", "--target-action", "promote"]);
    let option = format!("-o \"-c data_directory='{place}'\"");
    assert!(text(&report, "next").contains(&option), "{report}");
    assert!(report["notes"].to_string().contains(&format!("sets data_directory to {original}")), "{report}");
    let mut restored = Cluster::adopt(&stage.installation, &target).expect("take over");
    restored.override_setting("archive_mode", "off");
    restored.override_setting("data_directory", &place);
    restored.start().await.expect("start");
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT sum(n) FROM t").await.expect("sum up"), "1");
}
