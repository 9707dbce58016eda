//! What a restore must never touch: the tablespace of a healthy server, a repository in the data directory, a directory
//! whose server is unknown, WAL that is in no archive. The restore is refused, and everything is still there
//! afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_testkit::postgres::{Cluster, Shutdown};

use super::kit::{files_below, quietly};
use crate::stage::{Plan, Stage, StoreKind};

const LIMIT: Duration = Duration::from_mins(3);

async fn stage() -> Option<Stage> {
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() };
    Stage::start(18, plan).await
}

/// Runs `holdfast`, which must end with this code and this text.
fn refused(stage: &Stage, arguments: &[&str], code: i32, words: &[&str]) {
    let output = quietly(stage, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
    }
}

/// Sends a signal to the postmaster.
fn signal(stage: &Stage, signal: &str) {
    let pid = stage.cluster.pid().expect("a running server").to_string();
    let status = std::process::Command::new("kill").args([signal, &pid]).status().expect("run kill");
    assert!(status.success());
}

/// Copies as root, so that owners and modes are kept.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().expect("run cp");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tablespace_of_a_living_server_is_left_alone() {
    let Some(mut stage) = stage().await else { return };
    let space = stage.scratch.folder("fast").expect("make a folder");
    let statement = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
    stage.cluster.sql(&statement).await.expect("make a tablespace");
    let rows = "SELECT generate_series(1, 20000) AS n";
    stage.cluster.sql(&format!("CREATE TABLE t TABLESPACE fast AS {rows}")).await.expect("fill a table");
    stage.ok(&["backup"]);
    stage.cluster.sql(&format!("CREATE TABLE t2 TABLESPACE fast AS {rows}")).await.expect("make another table");
    stage.cluster.sql(&format!("INSERT INTO t {rows}")).await.expect("insert rows");
    stage.cluster.sql("CHECKPOINT").await.expect("write them out");

    let before = files_below(&space);
    let drill = stage.scratch.folder("drill").expect("make a folder");
    let path = drill.display().to_string();
    for flags in [&[][..], &["--delta"], &["--plan"], &["--plan", "--delta"]] {
        let mut all = vec!["restore", "--pgdata", &path];
        all.extend_from_slice(flags);
        refused(&stage, &all, 62, &["tablespace fast would be in ", "which is not empty", "--tablespace fast=DIR"]);
    }
    // Not even if its name is given.
    let data = stage.cluster.data().display().to_string();
    let named = ["restore", "--pgdata", &path, "--reuse-tablespace", "fast"];
    refused(&stage, &named, 63, &["is in use by the PostgreSQL server of ", &data]);
    assert_eq!(files_below(&space), before);
    assert_eq!(files_below(&drill), Vec::<String>::new());
    stage.cluster.restart().await.expect("restart the server");
    let counts = "SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM t2)";
    assert_eq!(stage.cluster.value(counts).await.expect("count"), "40000 20000");

    // A tablespace that is newer than the backup: WAL replay would create it again in its place.
    let newer = stage.scratch.folder("newer").expect("make a folder");
    let statement = format!("CREATE TABLESPACE newer LOCATION '{}'", newer.display());
    let moment = "SELECT clock_timestamp() AT TIME ZONE 'UTC' || '+00' FROM pg_sleep(0.1)";
    stage.cluster.sql("CREATE TABLE sooner ()").await.expect("write something");
    let sooner = stage.cluster.value(moment).await.expect("ask for the time");
    // The time of a link has the resolution of the kernel's ticks.
    stage.cluster.sql("SELECT pg_sleep(0.1)").await.expect("wait");
    stage.cluster.sql(&statement).await.expect("make another tablespace");
    let later = stage.cluster.value(moment).await.expect("ask for the time");
    stage.cluster.sql("CREATE TABLE later ()").await.expect("write something");
    stage.archive_now().await;
    let mapping = format!("fast={}", stage.target("elsewhere").display());
    let elsewhere = ["restore", "--pgdata", &path, "--tablespace", &mapping];
    let before = files_below(&newer);
    let again = format!("makes the tablespace in {} again, which is in use by", newer.display());
    for flags in [&[][..], &["--plan"], &["--standby"], &["--target-time", "2999-01-01 00:00:00+00"]] {
        let hint = "hint:  nothing was changed: the tablespace is newer than the backup";
        // A time in the future is not a target: no WAL reaches it.
        let (code, words) = if flags.len() == 2 { (61, vec![]) } else { (63, vec![again.as_str(), hint]) };
        refused(&stage, &[&elsewhere[..], flags].concat(), code, &words);
    }
    refused(&stage, &[&elsewhere[..], &["--target-time", &later]].concat(), 63, &[again.as_str()]);
    assert_eq!((files_below(&drill), files_below(&newer)), (vec![], before));
    // If the target is before its creation, or if that is unknown without reading the WAL, there is a note.
    let note = format!("has tablespaces that are not in this backup, in {}: ", newer.display());
    for flags in [&["--target-immediate"][..], &["--target-time", &sooner]] {
        let planned = stage.ok(&[&elsewhere[..], flags, &["--plan"]].concat());
        assert!(planned.contains(&note), "{planned}");
    }
    stage.cluster.sql("DROP TABLESPACE newer").await.expect("drop it");

    // A copy of the stopped data directory has its links, and a sweep would empty the original's tablespace.
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let original = stage.scratch.path().join("copied");
    copy(stage.cluster.data(), &original);
    let before = files_below(&space);
    let copied = original.display().to_string();
    let owner = format!("(of {data}, which cluster.pgdata names)");
    for flags in [&[][..], &["--plan"]] {
        let all = [&["restore", "--delta", "--pgdata", &copied][..], flags].concat();
        refused(&stage, &all, 10, &["the tablespace in ", &owner]);
    }
    assert_eq!(files_below(&space), before);
    assert!(original.join("global/pg_control").exists());
    stage.cluster.start().await.expect("start the server");
    assert_eq!(stage.cluster.value(counts).await.expect("count"), "40000 20000");

    // The data directory is lost, the server is gone, the tablespace exists: now the restore accepts it by its name.
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let report = stage.json(&named_json(&path));
    assert_eq!(report.get("target_state").and_then(serde_json::Value::as_str), Some("delta"), "{report}");
    let restored = stage.start_restored(&drill).await;
    crate::stage::wait_promoted(&restored).await;
    assert_eq!(restored.value(counts).await.expect("count"), "40000 20000");
}

fn named_json(path: &str) -> [&str; 5] {
    ["restore", "--pgdata", path, "--reuse-tablespace", "fast"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_and_a_data_directory_never_lie_in_each_other() {
    let Some(stage) = stage().await else { return };
    stage.ok(&["backup"]);
    let old = stage.target("old");
    stage.ok(&["restore", "--pgdata", &old.display().to_string()]);
    let inside = old.join("backups");
    copy(&stage.repository_folder(), &inside);
    std::os::unix::fs::symlink(&inside, stage.target("link")).expect("make a link");

    let url = |path: &Path| format!("url = \"file://{}\"", path.display());
    let with = |name: &str, repository: &Path| {
        let text = stage.config_text().replace(&url(&stage.repository_folder()), &url(repository));
        stage.write_config(name, &text)
    };
    let run = |config: &Path, arguments: &[&str]| {
        let output = stage.command_with(config, arguments).output().expect("run holdfast");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let before = files_below(&old);
    for (name, repository) in [("inside.toml", inside.clone()), ("link.toml", stage.target("link"))] {
        let config = with(name, &repository);
        let (code, text) = run(&config, &["restore", "--delta", "--pgdata", &old.display().to_string()]);
        assert_eq!(code, Some(10), "{text}");
        assert!(text.contains("is inside the directory to restore into"), "{text}");
        // The same in the other direction.
        let target = repository.join("main/restored").display().to_string();
        let (code, text) = run(&config, &["restore", "--pgdata", &target]);
        assert_eq!(code, Some(10), "{text}");
        assert!(text.contains("is inside the repository"), "{text}");
    }
    // A file that only the next backup needs would be removed too.
    let passwords = old.join("passwords");
    fs::write(&passwords, "*:*:*:*:hush").expect("write a password file");
    let connection = format!("connection = \"host=/tmp passfile={}\"\n\n[[repo]]", passwords.display());
    let config = stage.write_config("passwords.toml", &stage.config_text().replacen("[[repo]]", &connection, 1));
    let (code, text) = run(&config, &["restore", "--delta", "--pgdata", &old.display().to_string()]);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("the password file ") && text.contains("is inside the directory to restore into"), "{text}");
    fs::remove_file(&passwords).expect("remove it");
    assert_eq!(files_below(&old), before, "nothing may be touched");
    // The same of everything else that the configuration names.
    let text = stage.config_text();
    let folder = stage.scratch.path().display().to_string();
    let into_old = |name: &str| text.replace(&format!("{folder}/{name}\""), &format!("{}/{name}\"", old.display()));
    fs::copy(stage.scratch.path().join("passphrase"), old.join("passphrase")).expect("copy the passphrase");
    fs::create_dir(old.join("spool")).expect("make a folder");
    for name in ["passphrase", "spool"] {
        stage.scratch.user().own(&old.join(name)).expect("give it away");
    }
    fs::write(old.join("holdfast.toml"), &text).expect("write a configuration");
    stage.scratch.user().own(&old.join("holdfast.toml")).expect("give it away");
    let before_them = files_below(&old);
    for (config, what) in [
        (stage.write_config("passphrase.toml", &into_old("passphrase")), "the passphrase file "),
        (stage.write_config("spool.toml", &into_old("spool")), "the spool "),
        (old.join("holdfast.toml"), "the configuration file "),
    ] {
        let (code, text) = run(&config, &["restore", "--delta", "--pgdata", &old.display().to_string()]);
        assert_eq!(code, Some(10), "{what}: {text}");
        assert!(text.contains(what) && text.contains("is inside the directory to restore into"), "{text}");
    }
    assert_eq!(files_below(&old), before_them, "nothing may be touched");

    let repository = stage.cluster.data().join("backups");
    let config = with("own.toml", &repository);
    let (code, text) = run(&config, &["repo", "init"]);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("is inside the data directory"), "{text}");
    assert!(!repository.exists(), "repo init made it");
    copy(&stage.repository_folder(), &repository);
    let before = files_below(&repository);
    let (code, text) = run(&config, &["backup"]);
    assert_eq!(code, Some(10), "{text}");
    assert!(text.contains("is inside the data directory"), "{text}");
    assert_eq!(files_below(&repository), before, "backup wrote into it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_lock_file_and_wal_without_an_archive_are_noticed() {
    let Some(mut stage) = stage().await else { return };
    stage.ok(&["backup"]);
    let data = stage.cluster.data().to_owned();
    let path = data.display().to_string();
    let delta = ["restore", "--delta", "--pgdata", &path];
    let before = files_below(&data.join("base"));
    // A postmaster without its lock file stops by itself. A signal keeps this one stopped meanwhile.
    let (lock, aside) = (data.join("postmaster.pid"), stage.target("postmaster.pid"));
    signal(&stage, "-STOP");
    let content = fs::read(&lock).expect("read the lock file");
    fs::rename(&lock, &aside).expect("take the lock file away");
    refused(&stage, &delta, 63, &["a PostgreSQL server is running in "]);
    fs::write(&lock, "999999999\n").expect("write a stale one");
    refused(&stage, &delta, 63, &["a PostgreSQL server is running in "]);
    fs::write(&lock, [0xff, 0xfe, 0]).expect("write one that is not text");
    refused(&stage, &delta, 63, &["contains no process id"]);
    fs::remove_file(&lock).expect("remove it");
    fs::rename(&aside, &lock).expect("put the lock file back");
    assert_eq!(fs::read(&lock).expect("read the lock file"), content);
    signal(&stage, "-CONT");
    assert_eq!(files_below(&data.join("base")), before);
    assert_eq!(stage.cluster.value("SELECT 1").await.expect("ask the server"), "1");

    // The archive is unreachable, and the server dies with WAL that exists nowhere else.
    let repository = stage.repository_folder();
    let away = stage.target("away");
    fs::rename(&repository, &away).expect("take the repository away");
    stage.cluster.sql("CREATE TABLE late (n int)").await.expect("write");
    stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    stage.cluster.kill9().await.expect("kill the server");
    // In a container the lock file alone would be a reason to refuse.
    fs::remove_file(&lock).expect("remove the lock file that it left");
    fs::rename(&away, &repository).expect("bring the repository back");
    refused(&stage, &delta, 62, &["holds WAL that was not archived", "--discard-wal"]);
    assert!(data.join("global/pg_control").exists(), "nothing may be touched");
    stage.ok(&["restore", "--delta", "--discard-wal", "--no-archiving", "--pgdata", &path]);
    let text = fs::read_to_string(data.join("postgresql.auto.conf")).expect("read the settings");
    assert!(text.contains("archive_mode = 'off'") && text.contains("recovery_min_apply_delay = '0'"), "{text}");
}

/// The segments that the server counts as archived, oldest first.
fn counted(data: &Path) -> Vec<PathBuf> {
    let marks = fs::read_dir(data.join("pg_wal/archive_status")).expect("list the marks").flatten();
    let names = marks.filter_map(|mark| mark.file_name().to_str()?.strip_suffix(".done").map(str::to_owned));
    let mut found: Vec<PathBuf> =
        names.filter(|name| name.len() == 24).map(|name| data.join("pg_wal").join(name)).collect();
    found.sort();
    found
}

/// `.done` says that a command reported success, and not that the archive has anything.
#[tokio::test(flavor = "multi_thread")]
async fn wal_that_another_command_took_is_not_deleted() {
    let Some(mut stage) = stage().await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT 1 AS n").await.expect("write");
    stage.ok(&["backup"]);
    stage.archive_now().await;
    stage.cluster.sql("ALTER SYSTEM SET archive_command = '/bin/true'").await.expect("configure");
    // Otherwise the server removes by itself what it counts as archived.
    stage.cluster.sql("ALTER SYSTEM SET wal_keep_size = '64MB'").await.expect("configure");
    stage.cluster.sql("SELECT pg_reload_conf()").await.expect("reload");
    stage.cluster.wait_for("SELECT current_setting('archive_command') = '/bin/true'", LIMIT).await.expect("reload");
    stage.cluster.sql("INSERT INTO t VALUES (2)").await.expect("write");
    stage.archive_now().await;
    let data = stage.cluster.data().to_owned();
    let path = data.display().to_string();
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let waiting = fs::read_dir(data.join("pg_wal/archive_status")).expect("list").flatten();
    assert_eq!(waiting.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "ready")).count(), 0);
    let before = files_below(&data);
    for flags in [&["--delta"][..], &["--delta", "--plan"]] {
        let words = ["holds WAL that was not archived", "while: ", "--discard-wal"];
        refused(&stage, &[&["restore", "--pgdata", &path], flags].concat(), 62, &words);
    }
    assert_eq!(files_below(&data), before, "nothing may be touched");
    // As the message says. The last segment has only the checkpoint of the stop.
    for segment in counted(&data) {
        stage.ok(&["wal", "push", &segment.display().to_string()]);
    }
    stage.ok(&["restore", "--delta", "--pgdata", &path]);
    let restored = stage.start_restored(&data).await;
    crate::stage::wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "2");
}

/// A standby marks all WAL that it receives as done. Its primary dies before it has archived the last segments.
#[tokio::test(flavor = "multi_thread")]
async fn wal_that_only_a_standby_has_is_not_deleted() {
    let Some(mut stage) = stage().await else { return };
    stage.ok(&["backup"]);
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.override_setting("archive_mode", "on");
    standby.start().await.expect("start the standby");
    stage.archive_now().await;
    stage.cluster.sql("ALTER SYSTEM SET archive_command = '/bin/false'").await.expect("configure");
    stage.cluster.sql("SELECT pg_reload_conf()").await.expect("reload");
    stage.cluster.wait_for("SELECT current_setting('archive_command') = '/bin/false'", LIMIT).await.expect("reload");
    stage.cluster.sql("CREATE TABLE late (n int)").await.expect("write");
    stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    let written = stage.cluster.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the LSN");
    let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
    standby.wait_for(&replayed, LIMIT).await.expect("replay");
    stage.cluster.kill9().await.expect("kill the primary");
    let data = standby.data().to_owned();
    standby.stop(Shutdown::Fast).await.expect("stop the standby");
    let before = files_below(&data);
    let path = data.display().to_string();
    let delta = ["restore", "--delta", "--pgdata", &path];
    refused(&stage, &delta, 62, &["holds WAL that was not archived", "--discard-wal"]);
    assert_eq!(files_below(&data), before, "nothing may be touched");
    stage.ok(&["restore", "--delta", "--discard-wal", "--pgdata", &path]);
}

/// The segment that is being written never has a mark, and a server that does not archive makes none at all.
#[tokio::test(flavor = "multi_thread")]
async fn wal_without_a_mark_is_not_deleted() {
    let Some(mut stage) = stage().await else { return };
    stage.ok(&["backup"]);
    stage.archive_now().await;
    let data = stage.cluster.data().to_owned();
    let path = data.display().to_string();
    let delta = ["restore", "--delta", "--pgdata", &path];
    stage.cluster.sql("CREATE TABLE late AS SELECT 7 AS n").await.expect("write");
    stage.cluster.kill9().await.expect("kill the server");
    let lock = data.join("postmaster.pid");
    fs::remove_file(&lock).expect("remove the lock file that it left");
    let before = files_below(&data);
    refused(&stage, &delta, 62, &["holds WAL that was not archived: 1 files, "]);
    assert_eq!(files_below(&data), before, "nothing may be touched");
    // Started again and stopped cleanly, the server archives everything.
    stage.cluster.start().await.expect("start the server");
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    stage.ok(&delta);
    let mut again = stage.start_restored(&data).await;
    crate::stage::wait_promoted(&again).await;
    assert_eq!(again.value("SELECT n FROM late").await.expect("read"), "7");
    // It was promoted without an archive: nobody else has its WAL.
    again.sql("INSERT INTO late VALUES (8)").await.expect("write");
    again.stop(Shutdown::Fast).await.expect("stop it");
    refused(&stage, &delta, 62, &["holds WAL that was not archived"]);
    stage.ok(&["restore", "--delta", "--discard-wal", "--pgdata", &path]);
}

/// In a directory that consists of links, `global` leads to another data directory: its control file is neither read
/// nor removed, whether or not a server runs there.
#[tokio::test(flavor = "multi_thread")]
async fn the_control_file_of_another_data_directory_is_left_alone() {
    let Some(mut stage) = stage().await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n").await.expect("fill a table");
    stage.ok(&["backup"]);
    let copy = stage.target("copy");
    let path = copy.display().to_string();
    stage.ok(&["restore", "--pgdata", &path]);
    let (global, data) = (copy.join("global"), stage.cluster.data().to_owned());
    fs::rename(&global, stage.target("global")).expect("take the folder away");
    std::os::unix::fs::symlink(data.join("global"), &global).expect("make a link");
    for running in [true, false] {
        if !running {
            stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
        }
        let before = (files_below(&data.join("global")), files_below(&copy.join("base")));
        for flags in [&["--delta"][..], &["--delta", "--plan"]] {
            let words = ["a link to ", "which this restore would remove", "hint:  nothing was changed"];
            refused(&stage, &[&["restore", "--pgdata", &path], flags].concat(), 62, &words);
        }
        assert_eq!((files_below(&data.join("global")), files_below(&copy.join("base"))), before);
        assert!(!copy.join("holdfast.restore").exists(), "nothing may be begun");
    }
    stage.cluster.start().await.expect("start the server");
    assert_eq!(stage.cluster.value("SELECT count(*) FROM t").await.expect("count"), "20000");
}

/// A restore in a container, over the volume of a server that runs outside: the container does not see its process, but
/// the lock file exists.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_outside_of_the_container_is_left_alone() {
    let Some(stage) = stage().await else { return };
    stage.ok(&["backup"]);
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n").await.expect("write");
    stage.archive_now().await;
    let data = stage.cluster.data().to_owned();
    let before = files_below(&data.join("base"));
    let in_container = |arguments: &[&str]| {
        let inside = stage.command(arguments);
        let mut command = std::process::Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]).arg(inside.get_program()).args(inside.get_args());
        command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().expect("run unshare");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = in_container(&["list"]);
    if code != Some(0) && text.contains("unshare") {
        return holdfast_testkit::settings::skip(&text);
    }
    let path = data.display().to_string();
    for flags in [&["--delta"][..], &["--delta", "--plan"]] {
        let (code, text) = in_container(&[&["restore", "--pgdata", &path], flags].concat());
        assert_eq!(code, Some(63), "{text}");
        for part in
            ["a container does not show whether that process runs elsewhere", "while: ", "hint:  run this on the host"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(files_below(&data.join("base")), before);
    assert_eq!(stage.cluster.value("SELECT count(*) FROM t").await.expect("ask the server"), "20000");
}
