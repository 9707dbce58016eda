//! Recoveries that begin with volume snapshots. Copies of the data directory act as the snapshots, taken under load
//! between the start and the stop call, or from a stopped server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::stage::proof::{am_check, bulk, finish, holds_all, text};
use crate::stage::{Plan, Stage, StoreKind, wait_promoted};
use chrono::{SecondsFormat, Utc};
use holdfast_pgtypes::ControlFile;
use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::rows::{Bound, Journal, Pace, RowWriter, Target, found, time_text};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);

/// A copy as a storage system would make it, except that files change while it is made, which is the harder case.
fn copy(from: &Path, to: &Path) {
    // Backup mode exists because files vanish during a copy.
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output().expect("run cp");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.lines().all(|line| line.contains("No such file or directory")), "{said}");
}

/// Moves the copied `pg_wal` to a separate volume, as pods have it.
fn move_wal_out(data: &Path, volume: &Path) {
    std::fs::rename(data.join("pg_wal"), volume).expect("move pg_wal");
    std::os::unix::fs::symlink(volume, data.join("pg_wal")).expect("link pg_wal");
}

pub(crate) fn run_with_input(mut command: Command, input: &Value) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    child.stdin.take().expect("stdin").write_all(input.to_string().as_bytes()).expect("write the request");
    let output = child.wait_with_output().expect("wait");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

const RECORD: [&str; 6] = ["--output", "json", "snapshot", "record", "--archive-timeout", "60s"];

fn record(stage: &Stage, request: &Value) -> Value {
    let (status, stdout, stderr) = run_with_input(stage.command(&RECORD), request);
    assert_eq!(status, 0, "{stderr}");
    serde_json::from_str(&stdout).expect("JSON")
}

/// Takes a hot snapshot into every folder. Returns the request for its record.
pub(crate) async fn hot(stage: &Stage, name: &str, folders: &[PathBuf]) -> Value {
    hot_of(&stage.cluster, name, folders, async {}).await
}

/// The same for any server. Something happens before the stop call.
async fn hot_of(server: &Cluster, name: &str, folders: &[PathBuf], meanwhile: impl Future<Output = ()>) -> Value {
    let started = Utc::now();
    let client = server.connect("postgres").await.expect("connect");
    client.execute("SELECT pg_backup_start($1, true)", &[&name]).await.expect("start the backup");
    meanwhile.await;
    for folder in folders {
        copy(server.data(), folder);
    }
    let row = client
        .query_one("SELECT labelfile, spcmapfile, lsn::text FROM pg_backup_stop()", &[])
        .await
        .expect("stop the backup");
    let (label, map, stop_lsn): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    json!({
        "name": name, "online": true, "backup_label": label, "tablespace_map": map, "end_lsn": stop_lsn,
        "started_at": started.to_rfc3339_opts(SecondsFormat::Micros, true),
        "stopped_at": Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        "snapshots": [{ "name": format!("{name}-data"), "type": "PG_DATA" }, { "name": format!("{name}-wal"), "type": "PG_WAL" }],
    })
}

fn lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

async fn compare(stage: &Stage, folder: &Path, target: &Target, journal: &Journal) -> Cluster {
    let restored = stage.start_restored(folder).await;
    wait_promoted(&restored).await;
    let rows = found(&restored).await.expect("read the rows");
    journal.check(target, &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
    am_check(&restored);
    let slots = restored.value("SELECT count(*) FROM pg_replication_slots").await.expect("ask for slots");
    assert_eq!(slots, "0", "the slots of the original would hold WAL back for ever");
    restored
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_snapshot_recovers_to_any_later_target() {
    let Some(stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    bulk(&stage.cluster, "load", 4).await;
    stage.cluster.sql("SELECT pg_create_physical_replication_slot('of_a_standby', true)").await.expect("make a slot");
    let writer =
        RowWriter::start(&stage.cluster, Pace { payload_bytes: 2000, ..Pace::default() }).await.expect("write");
    writer.wait_for_rows(100).await.expect("write rows");
    let folders: Vec<PathBuf> = ["lsn", "time", "latest", "interrupted", "original", "stopped", "crashed"]
        .map(|name| stage.target(name))
        .into();
    let request = hot(&stage, "nightly", &folders).await;
    let first = writer.journal().rows().len();
    let recorded = record(&stage, &request);
    assert_eq!(recorded["recorded_now"], true);
    let again = record(&stage, &request);
    assert_eq!((&again["recorded_now"], &again["snapshot_id"]), (&json!(false), &recorded["snapshot_id"]));
    let id = text(&recorded, "snapshot_id").to_owned();
    let listed = stage.json(&["snapshot", "list"]);
    assert_eq!(listed["repositories"][0]["snapshots"][0]["label"], "nightly");

    writer.wait_for_rows(first as u64 + 300).await.expect("write rows");
    let (journal, end) = finish(writer, &stage.cluster).await;
    stage.archive_now().await;
    let info = stage.json(&["info"]);
    let claim = &info["repositories"][0]["claims"][0];
    let cache = stage.scratch.path().join("wal-cache.json").display().to_string();
    for _ in 0..2 {
        let cached = stage.json(&["info", "--wal-cache", &cache]);
        assert_eq!(cached["repositories"][0]["claims"][0]["wal"], claim["wal"]);
        assert_eq!(cached["repositories"][0]["claims"][0]["snapshots"], claim["snapshots"]);
    }
    assert_eq!(claim["snapshots"]["recorded"], 1);
    assert_eq!(claim["snapshots"]["reach"][0]["windows"][0]["first_backup"], id.as_str());
    assert_eq!(claim["reach"], json!([]), "without a backup nothing can be restored from the repository alone");
    let row = &journal.rows()[first + 150];

    // A directory that was filled from the snapshot is prepared, wherever pg_wal is.
    let [by_lsn, by_time, latest, interrupted, original, stopped, crashed] = folders.as_slice() else {
        panic!("seven folders")
    };
    move_wal_out(by_lsn, &stage.target("wal-volume"));
    let folder = by_lsn.display().to_string();
    let at = lsn(row.lsn_after);
    let arguments =
        ["restore", "--snapshot", &id, "--pgdata", &folder, "--target-lsn", &at, "--target-action", "promote"];
    let planned = stage.ok(&[&arguments[..], &["--plan"]].concat());
    assert!(planned.ends_with("nothing was written\n"), "{planned}");
    assert!(!by_lsn.join("recovery.signal").exists() && by_lsn.join("postmaster.pid").exists());
    let done = stage.json(&arguments);
    assert_eq!(done["recovery"]["begins_with"], "snapshot");
    assert!(by_lsn.join("backup_label").exists() && !by_lsn.join("postmaster.pid").exists());
    assert!(std::fs::symlink_metadata(by_lsn.join("pg_wal")).expect("look at pg_wal").is_symlink());
    // A second run has the same result.
    stage.ok(&arguments);
    let target = Target::Lsn(row.lsn_after, Bound::Inclusive);
    compare(&stage, by_lsn, &target, &journal).await;

    let folder = by_time.display().to_string();
    let file =
        stage.scratch.write("record.json", listed["repositories"][0]["snapshots"][0].to_string()).expect("write");
    let (file, at) = (file.display().to_string(), time_text(row.commit_micros));
    let words = ["restore", "--snapshot-record", &file, "--pgdata", &folder, "--target-time", &at];
    stage.ok(&[&words[..], &["--target-action", "promote"]].concat());
    compare(&stage, by_time, &Target::Time(row.commit_micros, Bound::Inclusive), &journal).await;

    let folder = latest.display().to_string();
    stage.ok(&["restore", "--snapshot", &id, "--pgdata", &folder]);
    compare(&stage, latest, &Target::Latest(end), &journal).await;

    // A run that fails in the middle leaves a directory in which no server starts. The next run continues.
    let folder = interrupted.display().to_string();
    std::fs::create_dir(interrupted.join("backup_label")).expect("put an obstacle there");
    let (code, said) = stage.fails(&["restore", "--snapshot", &id, "--pgdata", &folder]);
    assert_eq!(code, 32, "{said}");
    assert!(!interrupted.join("global/pg_control").exists() && interrupted.join("holdfast.restore").exists());
    std::fs::remove_dir(interrupted.join("backup_label")).expect("take the obstacle away");
    let done = stage.json(&["restore", "--snapshot", &id, "--pgdata", &folder]);
    assert_eq!(done["resumed"], true);
    assert!(!interrupted.join("holdfast.restore").exists());
    compare(&stage, interrupted, &Target::Latest(end), &journal).await;

    // Somebody has started the copy, which works without its backup_label, and has written in it.
    for (folder, how) in [(stopped, Shutdown::Fast), (crashed, Shutdown::Immediate)] {
        // It names a process that runs here.
        std::fs::remove_file(folder.join("postmaster.pid")).expect("remove the lock file");
        let mut stray = stage.start_restored(folder).await;
        stray.sql("CREATE TABLE stray AS SELECT 1 AS n").await.expect("write");
        stray.stop(how).await.expect("stop");
        let folder = folder.display().to_string();
        let (code, said) = stage.fails(&["restore", "--snapshot", &id, "--pgdata", &folder]);
        assert_eq!(code, 2, "{how:?}: {said}");
        assert!(said.contains("a server has run here since"), "{how:?}: {said}");
    }

    // A target before the snapshot is unreachable, and the message names the reachable ones.
    let early = lsn(journal.rows()[10].lsn_after);
    let folder = original.display().to_string();
    let (code, said) = stage.fails(&["restore", "--snapshot", &id, "--pgdata", &folder, "--target-lsn", &early]);
    assert_eq!(code, 61, "{said}");
    // A directory that does not come from this snapshot is not changed: the original, running and stopped.
    let mut stage = stage;
    let data = stage.cluster.data().display().to_string();
    let (code, said) = stage.fails(&["restore", "--snapshot", &id, "--pgdata", &data]);
    assert_eq!(code, 63, "{said}");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let (code, said) = stage.fails(&["restore", "--snapshot", &id, "--pgdata", &data]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("a server has run here since"), "{said}");
}

/// A standby's upstream is promoted while the standby's snapshot is taken, and the standby follows. The snapshot begins
/// on one timeline and ends on another, and its record says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_standby_that_follows_to_another_timeline_recovers() {
    let settings = vec![("wal_retrieve_retry_interval", "100ms".to_owned())];
    let plan = Plan { wal_segment_mib: 1, settings, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    bulk(&stage.cluster, "load", 4).await;
    let config_of = |server: &Cluster, name: &str| {
        let text = stage.config_text();
        let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
        let text = text.replace(line, &format!("pgdata = \"{}\"", server.data().display()));
        stage.write_config(name, &text)
    };
    let mut upstream = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    let push = format!(
        "{} --config {} wal push %p",
        stage.holdfast.display(),
        config_of(&upstream, "upstream.toml").display()
    );
    upstream.override_setting("archive_command", &push);
    upstream.start().await.expect("start the upstream");
    let mut standby = Cluster::standby_of(&upstream).await.expect("copy a standby of the standby");
    let config = config_of(&standby, "standby.toml");
    standby.start().await.expect("start the standby");
    stage.archive_now().await;
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let folder = stage.target("restored");

    let request = {
        let primary = &mut stage.cluster;
        let meanwhile = async {
            let at = primary.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
            let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{at}', false)");
            standby.wait_for(&replayed, LIMIT).await.expect("replay");
            primary.stop(Shutdown::Immediate).await.expect("stop the primary");
            upstream.promote().await.expect("promote");
            upstream.wait_promoted(LIMIT).await.expect("promote");
            let sql = "CREATE TABLE new AS SELECT generate_series(1, 5000) AS n; SELECT pg_switch_wal(); CHECKPOINT";
            upstream.sql(sql).await.expect("write on the new timeline");
            let at = upstream.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
            let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{at}', false)");
            standby.wait_for(&replayed, LIMIT).await.expect("replay");
            standby.sql("CHECKPOINT").await.expect("a restart point");
            let reached = "SELECT min_recovery_end_timeline FROM pg_control_recovery()";
            assert_eq!(standby.value(reached).await.expect("ask"), "2");
        };
        hot_of(&standby, "of-a-standby", std::slice::from_ref(&folder), meanwhile).await
    };
    upstream.sql("CREATE TABLE later AS SELECT 1 AS n").await.expect("write");
    let segment = upstream.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await.expect("ask");
    upstream.sql("SELECT pg_switch_wal()").await.expect("finish the segment");
    let stored = format!("SELECT coalesce(last_archived_wal, '') >= '{segment}' FROM pg_stat_archiver");
    upstream.wait_for(&stored, LIMIT).await.unwrap_or_else(|e| panic!("{e}\n{}", upstream.log_text()));
    let (status, stdout, stderr) = run_with_input(stage.command_with(&config, &RECORD), &request);
    assert_eq!(status, 0, "{stderr}");
    let recorded: Value = serde_json::from_str(&stdout).expect("JSON");
    let snapshot = &recorded["repositories"][0]["snapshot"];
    assert_eq!(snapshot["timeline"], 1);
    assert!(text(snapshot, "start_segment").starts_with("00000001"), "{snapshot}");
    assert!(text(snapshot, "stop_segment").starts_with("00000002"), "{snapshot}");

    let id = text(&recorded, "snapshot_id");
    stage.ok(&["restore", "--snapshot", id, "--pgdata", &folder.display().to_string()]);
    let restored = stage.start_restored(&folder).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM new").await.expect("count"), "5000");
    assert_eq!(restored.value("SELECT count(*) FROM later").await.expect("count"), "1");
    am_check(&restored);
}

/// The data directory that `cluster.pgdata` names is a copy that is older than the server of the snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_another_server_than_the_data_directorys_is_not_recorded() {
    let Some(stage) = Stage::start(18, Plan::default()).await else { return };
    let old = stage.target("old");
    copy(stage.cluster.data(), &old);
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let request = hot(&stage, "nightly", &[]).await;
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line");
    let config = stage.write_config("old.toml", &text.replace(line, &format!("pgdata = \"{}\"", old.display())));
    let (status, _, stderr) = run_with_input(stage.command_with(&config, &RECORD), &request);
    assert_eq!(status, 12, "{stderr}");
    assert!(stderr.contains("the last checkpoint of these files is before it"), "{stderr}");
    assert_eq!(record(&stage, &request)["recorded_now"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_snapshot_recovers_to_the_end_of_the_archive() {
    let Some(mut stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    let writer =
        RowWriter::start(&stage.cluster, Pace { payload_bytes: 2000, ..Pace::default() }).await.expect("write");
    writer.wait_for_rows(100).await.expect("write rows");
    let (journal, _) = finish(writer, &stage.cluster).await;
    let started = Utc::now();
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let folder = stage.target("cold");
    copy(stage.cluster.data(), &folder);
    let bytes = std::fs::read(folder.join(ControlFile::PATH)).expect("read the control file");
    let control = ControlFile::parse(&bytes).expect("a control file");
    stage.cluster.start().await.expect("start again");
    // The redo position is in a segment that an idle server would leave unfinished.
    stage.archive_now().await;
    let request = json!({
        "name": "cold", "online": false, "begin_lsn": control.redo.to_string(), "timeline": control.timeline.get(),
        "started_at": started.to_rfc3339_opts(SecondsFormat::Micros, true),
        "stopped_at": Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        "snapshots": [{ "name": "cold-data", "type": "PG_DATA" }],
    });
    let recorded = record(&stage, &request);
    let writer = RowWriter::continue_from(&stage.cluster, Pace::default(), &journal).await.expect("continue writing");
    writer.wait_for_rows(journal.rows().len() as u64 + 100).await.expect("write rows");
    let (journal, end) = finish(writer, &stage.cluster).await;
    stage.archive_now().await;
    let id = text(&recorded, "snapshot_id").to_owned();
    let path = folder.display().to_string();
    stage.ok(&["restore", "--snapshot", &id, "--pgdata", &path]);
    assert!(!folder.join("backup_label").exists());
    let restored = stage.start_restored(&folder).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
    am_check(&restored);
    // A request for a stopped server that lacks facts, or that belongs to another cluster.
    let mut other = request.clone();
    other["begin_lsn"] = Value::Null;
    let (status, _, said) = run_with_input(stage.command(&["snapshot", "record"]), &other);
    assert_eq!(status, 2, "{said}");
    let mut other = request;
    other["system_identifier"] = json!("4711");
    let (status, _, said) = run_with_input(stage.command(&["snapshot", "record"]), &other);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("belong to system identifier 4711"), "{said}");
}

/// A stopped server's copy has no `tablespace_map`, and its link leads to the tablespace of the original, which runs
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_snapshot_gets_its_own_tablespaces() {
    let Some(mut stage) = Stage::start(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await else { return };
    let space = stage.scratch.folder("space").expect("make a folder");
    let statement = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
    stage.cluster.sql(&statement).await.expect("make a tablespace");
    let rows = "SELECT generate_series(1, 20000) AS n";
    stage.cluster.sql(&format!("CREATE TABLE t TABLESPACE fast AS {rows}")).await.expect("fill a table");
    let oid = stage.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'").await.expect("ask");
    let started = Utc::now();
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let (folder, own) = (stage.target("cold"), stage.target("own"));
    copy(stage.cluster.data(), &folder);
    copy(&space, &own);
    let bytes = std::fs::read(folder.join(ControlFile::PATH)).expect("read the control file");
    let control = ControlFile::parse(&bytes).expect("a control file");
    stage.cluster.start().await.expect("start again");
    stage.archive_now().await;
    let request = json!({
        "name": "cold", "online": false, "begin_lsn": control.redo.to_string(), "timeline": control.timeline.get(),
        "started_at": started.to_rfc3339_opts(SecondsFormat::Micros, true),
        "stopped_at": Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        "snapshots": [{ "name": "cold-data", "type": "PG_DATA" }],
    });
    let id = text(&record(&stage, &request), "snapshot_id").to_owned();
    stage.cluster.sql(&format!("INSERT INTO t {rows}")).await.expect("insert rows");
    stage.archive_now().await;

    let (path, link) = (folder.display().to_string(), folder.join("pg_tblspc").join(&oid));
    let words = ["restore", "--snapshot", &id, "--pgdata", &path];
    let (code, said) = stage.fails(&words);
    assert_eq!(code, 63, "{said}");
    assert!(said.contains("/space is") && said.contains("--tablespace"), "{said}");
    let empty = format!("{oid}={}", stage.scratch.folder("empty").expect("make a folder").display());
    let (code, said) = stage.fails(&[&words[..], &["--tablespace", &empty]].concat());
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("has no PG_18_* in it"), "{said}");
    assert_eq!(std::fs::read_link(&link).expect("read the link"), space);

    // A run that fails after it has changed the link is continued, and another one changes nothing.
    let mapping = format!("{oid}={}", own.display());
    let words = [&words[..], &["--tablespace", &mapping]].concat();
    stage.ok(&[&words[..], &["--plan"]].concat());
    assert_eq!(std::fs::read_link(&link).expect("read the link"), space);
    std::fs::create_dir(folder.join("recovery.signal")).expect("put an obstacle there");
    let (code, said) = stage.fails(&words);
    assert_eq!(code, 32, "{said}");
    assert_eq!(std::fs::read_link(&link).expect("read the link"), own);
    std::fs::remove_dir(folder.join("recovery.signal")).expect("take the obstacle away");
    assert_eq!(stage.json(&words)["resumed"], true);
    stage.ok(&words);
    assert_eq!(names_in(&folder.join("pg_tblspc")), [oid.as_str()]);
    let restored = stage.start_restored(&folder).await;
    wait_promoted(&restored).await;
    let counts =
        "SELECT count(*) || ' ' || pg_tablespace_location(max(s.oid)) FROM t, pg_tablespace s WHERE spcname = 'fast'";
    assert_eq!(restored.value(counts).await.expect("count"), format!("40000 {}", own.display()));
    am_check(&restored);
    stage.cluster.restart().await.expect("restart the server");
    assert_eq!(stage.cluster.value(counts).await.expect("count"), format!("40000 {}", space.display()));
}

/// The names in a directory; links are not followed.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("list a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// The copy of a data directory has links to the WAL and to the tablespace of its original, whose server runs on this
/// host.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_server_uses_is_left_alone() {
    let settings = vec![("checkpoint_timeout", "1h".to_owned())];
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, settings, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let wal = stage.target("wal-disk");
    move_wal_out(stage.cluster.data(), &wal);
    stage.cluster.start().await.expect("start with the WAL on another disk");
    let space = stage.scratch.folder("space").expect("make a folder");
    let rows = "SELECT generate_series(1, 20000) AS n";
    let statement = format!("CREATE TABLESPACE fast LOCATION '{}'", space.display());
    stage.cluster.sql(&statement).await.expect("make a tablespace");
    stage.cluster.sql(&format!("CREATE TABLE t TABLESPACE fast AS {rows}")).await.expect("fill a table");
    let oid = stage.cluster.value("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'").await.expect("ask");

    let (folder, own, other) = (stage.target("copy"), stage.target("own"), stage.target("other"));
    let own_space = async { copy(&space, &own) };
    let request = hot_of(&stage.cluster, "nightly", &[folder.clone(), other.clone()], own_space).await;
    let id = text(&record(&stage, &request), "snapshot_id").to_owned();
    stage.cluster.sql(&format!("INSERT INTO t {rows}")).await.expect("insert rows");
    stage.archive_now().await;
    stage.cluster.sql("CHECKPOINT").await.expect("write them out");
    // WAL that is not archived yet: it exists nowhere else.
    let repository = stage.repository_folder();
    let away = stage.target("away");
    std::fs::rename(&repository, &away).expect("take the repository away");
    stage.cluster.sql(&format!("INSERT INTO t {rows}; SELECT pg_switch_wal()")).await.expect("insert more rows");
    let waiting =
        |status: &Path| names_in(status).into_iter().filter(|name| name.strip_suffix(".ready").is_some()).count();
    assert!(waiting(&wal.join("archive_status")) > 0);
    std::fs::rename(&away, &repository).expect("bring the repository back");

    let path = folder.display().to_string();
    let here = stage.cluster.data().display().to_string();
    let used = format!("in use by the PostgreSQL server of {here}");
    let refused = |arguments: &[&str], words: &[&str]| {
        let before = names_in(&wal);
        for plan in [&["--plan"][..], &[]] {
            let all = [&["restore", "--snapshot", &id, "--pgdata", &path][..], arguments, plan].concat();
            let (code, said) = stage.fails(&all);
            assert_eq!(code, 63, "{said}");
            for word in words.iter().chain(&[used.as_str(), "nothing was changed"]) {
                assert!(said.contains(word), "{all:?} does not say {word:?}: {said}");
            }
        }
        assert_eq!(names_in(&wal), before);
        assert!(!folder.join("holdfast.restore").exists() && folder.join(ControlFile::PATH).exists());
    };
    refused(&[], &["/space is", "--tablespace"]);
    let mapping = format!("{oid}={}", own.display());
    let link = folder.join("pg_wal");
    refused(&["--tablespace", &mapping], &[&format!("{} leads to ", link.display()), "an empty one is enough"]);
    let counts =
        "SELECT count(*) || ' ' || pg_tablespace_location(max(s.oid)) FROM t, pg_tablespace s WHERE spcname = 'fast'";
    stage.cluster.restart().await.expect("restart the server");
    assert_eq!(stage.cluster.value(counts).await.expect("count"), format!("60000 {}", space.display()));

    // Both ways in which the hint says to continue.
    stage.archive_now().await;
    std::fs::remove_file(&link).expect("remove the link");
    std::fs::rename(stage.scratch.folder("own-wal").expect("make a folder"), &link).expect("put a directory there");
    let before = names_in(&wal);
    let arguments = ["restore", "--snapshot", &id, "--pgdata", &path, "--tablespace", &mapping];
    stage.ok(&[&arguments[..], &["--plan"]].concat());
    stage.ok(&arguments);
    assert_eq!(names_in(&wal), before);
    let restored = stage.start_restored(&folder).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value(counts).await.expect("count"), format!("60000 {}", own.display()));
    am_check(&restored);
    stage.cluster.restart().await.expect("restart the server");
    assert_eq!(stage.cluster.value(counts).await.expect("count"), format!("60000 {}", space.display()));

    // The same links while their server is stopped: the configuration names their owner.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let before = names_in(&wal);
    let path = other.display().to_string();
    let mapping = format!("{oid}={}", stage.scratch.folder("another").expect("make a folder").display());
    for (arguments, place) in [(&[][..], "the tablespace in "), (&["--tablespace", &mapping], "the WAL directory ")] {
        let all = [&["restore", "--snapshot", &id, "--pgdata", &path][..], arguments].concat();
        let (code, said) = stage.fails(&all);
        assert_eq!(code, 10, "{said}");
        assert!(said.contains(place) && said.contains(&format!("(of {here}, which cluster.pgdata names)")), "{said}");
    }
    assert_eq!(names_in(&wal), before);
    stage.cluster.start().await.expect("start the server");
    assert_eq!(stage.cluster.value(counts).await.expect("count"), format!("60000 {}", space.display()));
}
