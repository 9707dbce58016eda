//! The server that answers must be the server whose files are read. A connection to another server of the same cluster
//! than that of the data directory is refused, even if the two look alike. The right server is never refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::stage::{Plan, Seal, Stage, StoreKind};
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::run_as_postgres;

const LIMIT: Duration = Duration::from_mins(3);

/// A role that may start and stop backups, but can read neither files nor settings of the server.
const LEAST_ROLE: &str = "CREATE ROLE least LOGIN; \
    GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean), pg_backup_stop(boolean) TO least; \
    GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal() TO least";

fn plan() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() }
}

/// A configuration for one directory and the connection to another server.
fn config(stage: &Stage, name: &str, pgdata: &Path, connection: &str) -> PathBuf {
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
    let lines = format!("pgdata = \"{}\"\nconnection = \"{connection}\"\n", pgdata.display());
    stage.write_config(name, &text.replace(line, &lines))
}

/// Runs a verb. Returns its code and its output.
fn run(stage: &Stage, config: &Path, verb: &str) -> (Option<i32>, String) {
    let output = stage.command_with(config, &[verb]).output().expect("run holdfast");
    (
        output.status.code(),
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    )
}

/// Both verbs refuse for this reason, and nothing of a backup remains.
fn refused(stage: &Stage, config: &Path, reason: &str) {
    for verb in ["backup", "check"] {
        let (code, text) = run(stage, config, verb);
        assert_eq!(code, Some(12), "{verb}: {text}");
        assert!(
            text.contains("the connection does not lead to the server of ") && text.contains(reason),
            "{verb}: {text}"
        );
        assert!(text.contains("set `cluster.connection` and `cluster.pgdata` to the same server"), "{verb}: {text}");
    }
    let listed = stage.ok(&["list"]);
    assert!(!listed.contains("unfinished"), "{listed}");
}

fn accepted(stage: &Stage, config: &Path) {
    for verb in ["backup", "check"] {
        let (code, text) = run(stage, config, verb);
        assert_eq!(code, Some(0), "{verb}: {text}");
    }
}

fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    run_as_postgres(&mut copy).expect("drop to PostgreSQL's user");
    // Files appear and disappear in a directory that is in use. The files that matter here stay.
    drop(copy.output().expect("run cp"));
    assert!(to.join("global/pg_control").exists());
}

fn strings(cluster: &Cluster) -> [String; 2] {
    let all = cluster.connection_string("postgres");
    [all.replace("user=postgres", "user=least"), all]
}

/// The first of these cases once lost 40000 rows: files of the restored copy with the label of the running server.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_directory_is_not_the_server() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql(LEAST_ROLE).await.expect("make a role");
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n").await.expect("fill a table");
    stage.ok(&["backup"]);
    let old = stage.target("old");
    stage.ok(&["restore", "--pgdata", &old.display().to_string(), "--target-immediate"]);
    // A copy of a running server: its postmaster.pid is copied too.
    let alive = stage.target("alive");
    copy(stage.cluster.data(), &alive);
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 40000); CHECKPOINT").await.expect("fill it more");
    let [least, superuser] = strings(&stage.cluster);

    refused(&stage, &config(&stage, "old.toml", &old, &superuser), "the server that answers uses ");
    refused(&stage, &config(&stage, "old.toml", &old, &least), "no server runs there: there is no postmaster.pid");
    refused(&stage, &config(&stage, "alive.toml", &alive, &superuser), "the server that answers uses ");
    refused(&stage, &config(&stage, "alive.toml", &alive, &least), "the server's last checkpoint is at ");
    // A crash leaves the file. It belongs to a server that was started at another time.
    let of_a_crash = "99\n/srv/pg\n1700000000\n5432\n/run\n*\n 1 2\nready   \n";
    fs::write(old.join("postmaster.pid"), of_a_crash).expect("write postmaster.pid");
    stage.scratch.user().own(&old.join("postmaster.pid")).expect("own it");
    let reason =
        "postmaster.pid there belongs to a server started at 2023-11-14T22:13:20Z, port 5432, but the one that answers";
    refused(&stage, &config(&stage, "old.toml", &old, &least), reason);

    // The server itself, with each role, and through a link to its directory.
    let link = stage.target("link");
    std::os::unix::fs::symlink(stage.cluster.data(), &link).expect("make a link");
    for connection in [&least, &superuser] {
        accepted(&stage, &config(&stage, "own.toml", stage.cluster.data(), connection));
        accepted(&stage, &config(&stage, "link.toml", &link, connection));
    }
    let restored = stage.restore_and_start("new", &[]).await;
    crate::stage::wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "60000");

    // A file that is not text does not count as a missing one.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    fs::write(stage.cluster.data().join("postmaster.pid"), b"\xff\xfe\x00").expect("write postmaster.pid");
    let (code, text) = stage.fails(&["backup"]);
    assert_eq!(code, 31, "{text}");
    assert!(text.contains("postmaster.pid does not begin with a process id"), "{text}");
    assert!(text.contains("if no server runs there, remove the file"), "{text}");
}

/// Each side's configuration with the other side's socket, in both directions, and an old primary that was fenced.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_and_its_primary_are_distinguished() {
    let Some(mut stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql(LEAST_ROLE).await.expect("make a role");
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.override_setting("archive_mode", "off");
    standby.start().await.expect("start the standby");
    let written = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the LSN");
    let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
    standby.wait_for(&replayed, LIMIT).await.expect("replay");

    let [least, superuser] = strings(&stage.cluster);
    refused(&stage, &config(&stage, "standby.toml", standby.data(), &superuser), "the server that answers uses ");
    refused(&stage, &config(&stage, "standby.toml", standby.data(), &least), "but the one that answers was started ");
    let [least, superuser] = strings(&standby);
    refused(&stage, &config(&stage, "primary.toml", stage.cluster.data(), &superuser), "the server that answers uses ");
    refused(
        &stage,
        &config(&stage, "primary.toml", stage.cluster.data(), &least),
        "but the one that answers was started ",
    );

    // Fenced: the old primary's files as after a crash, and a connection that leads to the new primary.
    stage.cluster.kill9().await.expect("kill the primary");
    standby.promote().await.expect("promote");
    refused(&stage, &config(&stage, "primary.toml", stage.cluster.data(), &superuser), "the server that answers uses ");
    refused(
        &stage,
        &config(&stage, "primary.toml", stage.cluster.data(), &least),
        "but the one that answers was started ",
    );
    // The new primary itself.
    for connection in [&least, &superuser] {
        let (code, text) = run(&stage, &config(&stage, "new.toml", standby.data(), connection), "backup");
        assert_eq!(code, Some(0), "{text}");
    }
}

/// A server that was started through a link names its directory by the link. Also compares its start time in
/// `postmaster.pid` with the one that it reports.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_path_to_its_directory_is_accepted() {
    for major in [19, 18, 15, 13] {
        let Some(mut stage) = Stage::start(major, plan()).await else { continue };
        stage.cluster.stop(Shutdown::Fast).await.expect("stop");
        let name = stage.target("there");
        std::os::unix::fs::symlink(stage.cluster.data(), &name).expect("make a link");
        let mut inside = Cluster::adopt(&stage.installation, &name).expect("take the directory over");
        inside.start().await.expect("start");
        assert_eq!(inside.value("SHOW data_directory").await.expect("ask"), name.display().to_string());
        let own = config(&stage, "inside.toml", stage.cluster.data(), &inside.connection_string("postgres"));
        accepted(&stage, &own);
        let relation = "SELECT extract(epoch FROM pg_postmaster_start_time())::text || ' ' || \
                        split_part(pg_read_file('postmaster.pid'), E'\\n', 3)";
        let times = inside.value(relation).await.expect("ask");
        let (server, file) = times.split_once(' ').expect("two times");
        let (server, file): (f64, f64) = (server.parse().expect("a number"), file.parse().expect("a number"));
        assert!(file <= server && server - file < 120.0, "PostgreSQL {major}: {times}");
        inside.stop(Shutdown::Fast).await.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Two standbys of one primary that were started together, with the same port, as on two hosts of the same kind. The
/// connection of the first one's configuration leads to the second one. Their settings and control files agree.
#[tokio::test(flavor = "multi_thread")]
async fn two_standbys_with_the_same_port_are_distinguished() {
    let Some(stage) = Stage::start(18, plan()).await else { return };
    stage.cluster.sql(LEAST_ROLE).await.expect("make a role");
    let mut one = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    let mut two = Cluster::standby_of(&stage.cluster).await.expect("copy another one");
    two.share_port_of(&one);
    one.override_setting("listen_addresses", "");
    for standby in [&mut one, &mut two] {
        standby.override_setting("archive_mode", "off");
        standby.start().await.expect("start a standby");
    }
    stage.cluster.sql("CREATE TABLE t AS SELECT 7 AS n; CHECKPOINT").await.expect("write");
    let written = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the LSN");
    let mut at = Vec::new();
    for standby in [&one, &two] {
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
        standby.wait_for(&replayed, LIMIT).await.expect("replay");
        standby.sql("CHECKPOINT").await.expect("make a restart point");
        at.push(standby.value("SELECT checkpoint_lsn FROM pg_control_checkpoint()").await.expect("ask"));
    }
    assert_eq!(at[0], at[1], "the same restart point");
    let [least, _] = strings(&two);
    refused(
        &stage,
        &config(&stage, "one.toml", one.data(), &least),
        "made a temporary file, and it did not appear in ",
    );
    // Each by its own connection, on a database in a tablespace too.
    let [least, superuser] = strings(&one);
    for connection in [&least, &superuser] {
        let (code, text) = run(&stage, &config(&stage, "own.toml", one.data(), connection), "check");
        assert_eq!(code, Some(0), "{text}");
    }
}

/// The temporary file of a database in a tablespace is in the tablespace. A server without room for temporary files is
/// known by its `postmaster.pid`.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_proved_by_its_temporary_file_or_its_lock_file() {
    for major in [19, 18, 13] {
        let Some(stage) = Stage::start(major, plan()).await else { continue };
        stage.cluster.sql(LEAST_ROLE.split(';').next().expect("a statement")).await.expect("make a role");
        let space = stage.scratch.folder("space").expect("make a folder");
        stage.cluster.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display())).await.expect("make it");
        stage.cluster.sql("CREATE DATABASE far TABLESPACE space").await.expect("make a database");
        let far = config(&stage, "far.toml", stage.cluster.data(), &stage.cluster.connection_string("far"));
        accepted(&stage, &far);
        stage.cluster.sql("ALTER SYSTEM SET temp_file_limit = '100kB'").await.expect("limit it");
        stage.cluster.sql("SELECT pg_reload_conf()").await.expect("reload");
        let limited = "SELECT current_setting('temp_file_limit') = '100kB'";
        stage.cluster.wait_for(limited, LIMIT).await.expect("the limit is in force");
        accepted(&stage, &far);
        let [least, _] = strings(&stage.cluster);
        let own = config(&stage, "own.toml", stage.cluster.data(), &least);
        refused(&stage, &own, "the server that answers may not make a temporary file (");
    }
}
