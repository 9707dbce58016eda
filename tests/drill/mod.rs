//! `holdfast drill` with real servers: a sound archive is proven, damage and errors are found, and neither the living
//! server nor anything else outside notices the drill.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holdfast_testkit::postgres::Shutdown;
use holdfast_testkit::user::is_root;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stage::attack::{Victim, back_up, files_below, objects};
use crate::stage::{Plan, Seal, Stage, StoreKind, config_text, repository_lines};

mod host;
mod original;
mod replay;

/// The folder for the drills of a stage.
fn place(stage: &Stage) -> PathBuf {
    stage.scratch.folder("drills").expect("make a folder")
}

fn arguments<'a>(stage: &'a Stage, place: &'a Path, flags: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["--output", "json", "drill", "--directory", place.to_str().expect("a path"), "--bin-dir"];
    arguments.push(stage.installation.bin().to_str().expect("a path"));
    arguments.extend_from_slice(flags);
    arguments
}

/// The exit code of a drill, its report, and its messages.
fn drill(stage: &Stage, flags: &[&str]) -> (i32, Value, String) {
    let place = place(stage);
    let ended = understood(&stage.run(&arguments(stage, &place, flags)));
    let left = fs::read_dir(&place).expect("list").count();
    assert_eq!(left, 0, "the drill left something in {}", place.display());
    ended
}

fn understood(output: &Output) -> (i32, Value, String) {
    let (text, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}\n{error}"));
    (output.status.code().unwrap_or(-1), report, error.into_owned())
}

/// The kinds of the findings, each once.
fn kinds(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().expect("findings");
    let mut kinds: Vec<String> =
        findings.iter().map(|finding| finding["kind"].as_str().expect("a kind").to_owned()).collect();
    kinds.dedup();
    kinds
}

fn proven(ended: &(i32, Value, String)) {
    let (code, report, error) = ended;
    assert_eq!((*code, &report["result"], kinds(report).len()), (0, &Value::from("proven"), 0), "{report:#}\n{error}");
    assert_eq!(report["pages"]["outcome"], "passed", "{report:#}");
    assert!(report["pages"]["page_count"].as_u64() > Some(500), "{report:#}");
    assert_eq!(report["recorded"], true, "{report:#}");
}

/// The server processes whose data directory is below this one.
fn servers_below(place: &Path) -> Vec<i32> {
    let place = place.canonicalize().expect("a folder");
    let processes = fs::read_dir("/proc").expect("list").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&place))).collect()
}

/// Drills to the newest moment, and to one by a seed. The living server, its archive and its tablespace stay unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_sound_archive_is_proven_at_any_moment() {
    let Some((stage, backups)) = Stage::with_two_backups(Seal::Passphrase, StoreKind::S3).await else { return };
    let probes = stage.scratch.folder("probes").expect("make a folder");
    let rows = stage.cluster.value("SELECT count(*) FROM t").await.expect("count");
    fs::write(
        probes.join("1.sql"),
        format!(
            "-- all rows are there\nSELECT count(*) = {rows}, count(*) FROM t;\nSET search_path = pg_catalog;\n\
             SELECT current_setting('holdfast.restored_to')::timestamptz <= now(); -- the moment is known\n\
             SELECT current_setting('transaction_read_only') = 'on';\n"
        ),
    )
    .expect("write the probes");
    let before = objects(&stage);
    let probes = probes.to_str().expect("a path");

    let newest = drill(&stage, &["--probe", probes]);
    proven(&newest);
    let report = &newest.1;
    assert_eq!((&report["backup"], &report["target"]["flags"]), (&Value::from(backups[1].as_str()), &Value::from("")));
    let passed: Vec<&Value> = report["probes"].as_array().expect("probes").iter().map(|p| &p["passed"]).collect();
    assert_eq!(passed, [true, true, true], "{report:#}");
    assert_eq!(report["probes"][0]["name"], "all rows are there");
    let tool = stage.installation.program("pg_amcheck").is_some();
    assert_eq!(report["amcheck"]["outcome"], if tool { "passed" } else { "not-run" }, "{report:#}");
    for step in ["replay_milliseconds", "recovery_milliseconds", "probes_milliseconds", "pages_milliseconds"] {
        assert!(report["durations"][step].is_u64(), "{step} in {report:#}");
    }
    assert!(report["restore_bytes_per_second"].as_u64() > Some(0), "{report:#}");

    // The repository has nothing new except the entry.
    let after = objects(&stage);
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.len() == 1 && new[0].starts_with("main/ledger/") && new[0].ends_with("-proven.json"), "{new:?}");
    assert!(before.iter().all(|(name, file)| after.get(name) == Some(file)));
    let info = stage.ok(&["info"]);
    let line = info.lines().find(|line| line.starts_with("  last proven restorable: ")).expect("a line");
    assert!(line.contains(&format!(", from backup {}, by the drill of ", backups[1])), "{line}");
    let info = stage.json(&["info"]);
    let remembered = &info["repositories"][0]["last_proven"];
    assert_eq!(remembered["restored_lsn"], report["restored_lsn"], "{remembered}");
    assert!(info["repositories"][0]["last_failed_drill"].is_null());

    // A seed repeats the moment, and so do the printed flags.
    let random = drill(&stage, &["--random", "--seed", "20261130", "--no-amcheck"]);
    proven(&random);
    let again = drill(&stage, &["--random", "--seed", "20261130", "--no-amcheck", "--no-record"]);
    assert_eq!((again.0, &again.1["target"], &again.1["recorded"]), (0, &random.1["target"], &Value::from(false)));
    let time = random.1["target"]["time"].as_str().expect("a time");
    let asked = drill(&stage, &["--target-time", time, "--target-timeline", "1", "--no-amcheck"]);
    proven(&asked);
    for what in ["restored_time", "backup"] {
        assert_eq!(asked.1[what], random.1[what], "{:#}", asked.1);
    }
    // Without a seed, it is another moment each time.
    let seeds: Vec<Value> = (0..2)
        .map(|_| drill(&stage, &["--random", "--no-amcheck", "--no-record"]).1["target"]["seed"].clone())
        .collect();
    assert_ne!(seeds[0], seeds[1]);
    assert_eq!(servers_below(&place(&stage)), [0; 0]);
}

/// A query that does not answer true is shown, and the other queries still run.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_fails_is_shown() {
    let Some((stage, backups)) = Stage::with_two_backups(Seal::None, StoreKind::Directory).await else { return };
    let file = stage.scratch.path().join("probes.sql");
    fs::write(
        &file,
        "-- too few rows\nSELECT count(*) > 1000000, count(*) FROM t;\nSELECT * FROM missing;\nSELECT true FROM t LIMIT 2;\n\
         DELETE FROM t;\nSELECT true;\n",
    )
    .expect("write the probes");
    let (code, report, error) = drill(&stage, &["--probe", file.to_str().expect("a path"), "--no-amcheck"]);
    assert_eq!((code, kinds(&report)), (46, vec!["probe".to_owned()]), "{report:#}\n{error}");
    let answers: Vec<(bool, String)> = report["probes"]
        .as_array()
        .expect("probes")
        .iter()
        .map(|probe| (probe["passed"] == true, probe["answer"].as_str().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(answers[0], (false, "it answered f | 7000".to_owned()), "{report:#}");
    assert!(answers[1].1.contains("relation \"missing\" does not exist"), "{report:#}");
    assert_eq!(answers[2], (false, "it answered 2 rows, the first of them t".to_owned()), "{report:#}");
    assert!(answers[3].1.contains("read-only transaction"), "{report:#}");
    assert_eq!((answers.len(), answers[4].0), (5, true), "{report:#}");
    assert_eq!((&report["pages"]["outcome"], &report["amcheck"]["outcome"]), (&"passed".into(), &"not-run".into()));
    assert!(error.contains("is not proven: probe: too few rows ("), "{error}");
    let info = stage.ok(&["info"]);
    assert!(info.contains("  DRILL FAILED: of backup ") && info.contains(": probe: too few rows ("), "{info}");
    assert!(!info.contains("last proven"), "{info}");

    // A backup that a drill proved counts as verified; a failed one does not.
    proven(&drill(&stage, &["--backup", &backups[0], "--target-immediate", "--no-amcheck"]));
    let text = format!("{}\n[retention]\nkeep = {{ verified = 1 }}\n", stage.config_text());
    let config = stage.write_config("retention.toml", &text);
    let planned =
        stage.command_with(&config, &["--output", "json", "expire", "--plan"]).output().expect("run holdfast");
    let (_, plan, error) = understood(&planned);
    let fates = plan["repositories"][0]["backups"].as_array().expect("backups");
    let kept = fates.iter().find(|fate| fate["backup_id"] == backups[0].as_str()).expect("the backup");
    assert!(kept["kept"] == true && kept["why"].to_string().contains("verified"), "{plan:#}\n{error}");
}

/// A page that was bad when it was backed up, and a pack that was damaged in the store.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 20000) AS id").await.expect("load");
    stage.cluster.sql("CHECKPOINT").await.expect("write");
    let relation = stage.cluster.value("SELECT pg_relation_filepath('t')").await.expect("ask for the path");
    let sound = back_up(&stage);
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let path = stage.cluster.data().join(&relation);
    let mut bytes = fs::read(&path).expect("read");
    bytes[3 * 8192 + 4001] ^= 0x10;
    fs::write(&path, bytes).expect("write");
    stage.cluster.start().await.expect("start");
    // An incremental backup would take the page from its parent, since its LSN is old.
    let report = stage.json(&["backup", "--type", "full"]);
    let bad = report["repositories"][0]["backup"]["backup_id"].as_str().expect("an id").to_owned();
    stage.archive_now().await;

    let (code, report, error) = drill(&stage, &["--no-amcheck"]);
    assert_eq!((code, kinds(&report)), (46, vec!["page".to_owned()]), "{report:#}\n{error}");
    assert_eq!((&report["backup"], &report["pages"]["bad_count"]), (&Value::from(bad.as_str()), &Value::from(1)));
    let what = report["findings"][0]["what"].as_str().expect("words");
    assert!(what.starts_with(&format!("{relation} block 3: the checksum should be ")), "{what}");
    let known = format!("1 pages of backup {bad} had a wrong checksum when it was taken");
    assert!(report["notes"].to_string().contains(&known), "{report:#}");
    if stage.installation.program("pg_amcheck").is_some() {
        let (code, report, _) = drill(&stage, &[]);
        assert_eq!((code, kinds(&report)), (46, vec!["amcheck".to_owned(), "page".to_owned()]), "{report:#}");
    }
    proven(&drill(&stage, &["--backup", &sound, "--target-immediate"]));

    let packs = stage.repository_folder().join("main/packs").join(&sound);
    let pack = fs::read_dir(packs).expect("list").flatten().next().expect("a pack").path();
    let mut bytes = fs::read(&pack).expect("read a pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&pack, bytes).expect("change a pack");
    let (code, report, error) = drill(&stage, &["--backup", &sound, "--target-immediate"]);
    assert_eq!((code, kinds(&report)), (46, vec!["object".to_owned()]), "{report:#}\n{error}");
    assert_eq!((&report["recorded"], &report["pages"]["outcome"]), (&true.into(), &"not-run".into()), "{report:#}");

    // WAL that recovery needs is damaged: the server does not start, and its log says why.
    let wal = files_below(&stage.repository_folder().join("main/wal"));
    let last = report_of(&stage, &bad)["stop_segment"].as_str().expect("a segment").to_owned();
    let segment = wal.keys().find(|name| name.contains(&last) && !name.contains(".backup.")).expect("the segment");
    let segment = stage.repository_folder().join("main/wal").join(segment);
    let mut bytes = fs::read(&segment).expect("read a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, bytes).expect("change a segment");
    let (code, report, error) = drill(&stage, &["--backup", &bad, "--target-immediate"]);
    assert_eq!((code, kinds(&report)), (46, vec!["server".to_owned()]), "{report:#}\n{error}");
    assert!(report["findings"][0]["what"].as_str().is_some_and(|what| what.contains("exit code 168")), "{report:#}");
}

fn report_of(stage: &Stage, id: &str) -> Value {
    let list = stage.json(&["list"]);
    let backups = list["repositories"][0]["backups"].as_array().expect("backups").clone();
    backups.into_iter().find(|backup| backup["backup_id"] == id).expect("the backup")
}

/// The production server's settings would lead its copy to the living data directory, to the publisher of its
/// subscription, and to other places of this host.
#[tokio::test(flavor = "multi_thread")]
async fn the_copy_acts_on_nothing_outside() {
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    let publisher = TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = publisher.local_addr().expect("an address").port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    // The thread ends with the process of the test.
    std::thread::spawn(move || {
        for call in publisher.incoming() {
            drop(call);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let space = stage.scratch.folder("fast").expect("make a folder");
    stage.cluster.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).await.expect("tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    let subscribe = format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port={port} user=u dbname=d' PUBLICATION p WITH (connect = false)"
    );
    for statement in [&subscribe, "ALTER SUBSCRIPTION s SET (slot_name = 's')", "ALTER SUBSCRIPTION s ENABLE"] {
        stage.cluster.sql(statement).await.expect("subscribe");
    }
    let began = Instant::now();
    while calls.load(Ordering::SeqCst) == 0 {
        assert!(began.elapsed() < Duration::from_mins(3), "the original never calls its publisher");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let living_pid_file = stage.scratch.path().join("living.pid");
    let data = stage.cluster.data().display().to_string();
    for (name, value) in [
        ("data_directory", data.as_str()),
        ("external_pid_file", living_pid_file.to_str().expect("a path")),
        ("listen_addresses", "*"),
        ("hba_file", "/nowhere/pg_hba.conf"),
        ("shared_preload_libraries", "no_such_library"),
        ("session_preload_libraries", "no_such_library"),
        ("synchronous_standby_names", "nobody"),
        ("log_directory", "/nowhere"),
        ("logging_collector", "on"),
    ] {
        stage.cluster.set(name, value).expect("write a setting");
    }
    stage.cluster.sql("ALTER ROLE postgres SET default_transaction_read_only = on").await.expect("change the role");
    back_up(&stage);
    stage.archive_now().await;
    let archived = stage.cluster.value("SELECT archived_count FROM pg_stat_archiver").await.expect("ask");
    // From now on only the copy could call.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let (before, calls_before) = (files_below(&space), calls.load(Ordering::SeqCst));
    let control = fs::read(stage.cluster.data().join("global/pg_control")).expect("read");

    let probes = stage.scratch.path().join("probes.sql");
    fs::write(
        &probes,
        format!(
            "SELECT count(*) = 1000 FROM t;\nSELECT count(*) = 1 FROM pg_subscription WHERE subenabled;\n\
             SELECT current_setting('data_directory') <> '{data}';\nSELECT current_setting('listen_addresses') = '';\n\
             SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%';\n\
             SELECT pg_sleep(6) IS NOT NULL;\n"
        ),
    )
    .expect("write the probes");
    let ended = drill(&stage, &["--probe", probes.to_str().expect("a path")]);
    proven(&ended);
    assert_eq!(calls.load(Ordering::SeqCst), calls_before, "the copy called the publisher");
    assert!(!living_pid_file.exists());
    assert_eq!(files_below(&space), before);
    assert_eq!(fs::read(stage.cluster.data().join("global/pg_control")).expect("read"), control);
    assert!(archived.parse::<u64>().is_ok_and(|count| count > 0));

    // Settings that would lead it outside are refused before anything is created.
    for (flags, code, words) in [
        (vec!["--set", "listen_addresses=*"], 2, "the setting listen_addresses keeps the restored server apart"),
        (vec!["--bin-dir", "/nowhere"], 2, "cannot be used multiple times"),
    ] {
        let place = place(&stage);
        let (ended, text) = stage.fails(&arguments(&stage, &place, &flags));
        assert!(ended == code && text.contains(words), "{ended} {text}");
        assert_eq!(fs::read_dir(&place).expect("list").count(), 0);
    }
    let (code, text) = stage.fails(&["drill", "--directory", &data]);
    assert!(code == 10 && text.contains("is inside"), "{code} {text}");
    let place = place(&stage).display().to_string();
    let (code, text) = stage.fails(&["drill", "--directory", &place, "--bin-dir", &place]);
    assert!(code == 10 && text.contains("PostgreSQL 18 is needed here"), "{code} {text}");
}

/// Replay would create a newer tablespace again in the place of the living server, and remove what is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_tablespace_of_this_host_is_not_replayed() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(mut stage) = Stage::start(18, plan).await else { return };
    let backup = back_up(&stage);
    stage.archive_now().await;
    let space = stage.scratch.folder("fast").expect("make a folder");
    stage.cluster.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display())).await.expect("tablespace");
    stage.cluster.sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    stage.archive_now().await;
    let drills = place(&stage);
    let refused = |stage: &Stage, flags: &[&str], code: i32, words: &str| {
        let (ended, text) = stage.fails(&arguments(stage, &drills, flags));
        assert!(ended == code && text.contains(words), "{ended} {text}");
        assert_eq!(fs::read_dir(&drills).expect("list").count(), 0);
    };
    // This is refused even if the target is before its creation: a link may be younger than its tablespace, so its age
    // says nothing.
    refused(&stage, &["--no-amcheck"], 63, "tablespace");
    refused(&stage, &["--no-amcheck", "--target-immediate", "--backup", &backup], 63, "tablespace");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let before = files_below(&space);
    assert!(!before.is_empty());
    refused(&stage, &["--no-amcheck"], 2, "is not in this backup");
    assert_eq!(files_below(&space), before);
    stage.cluster.start().await.expect("start");
    let newer = back_up(&stage);
    stage.archive_now().await;
    let ended = drill(&stage, &["--no-amcheck"]);
    proven(&ended);
    assert_eq!(ended.1["backup"], newer.as_str());

    // WAL that was archived after the plan is not replayed.
    let stop = report_of(&stage, &newer)["stop_segment"].as_str().expect("a segment").to_owned();
    let first = report_of(&stage, &backup)["stop_segment"].as_str().expect("a segment").to_owned();
    let destination = stage.scratch.path().join("segment");
    let destination = destination.to_str().expect("a path");
    let (code, text) = stage.fails(&["wal", "get", "--until", &first, &stop, destination]);
    assert!(code == 1 && text.contains(&format!("{stop} is after {first}")), "{code} {text}");
    stage.ok(&["wal", "get", "--until", &stop, &stop, destination]);
}

/// Killed in the middle: everything remains, and the next drill reports it. Ended by a signal: nothing remains.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_drill_leaves_is_named() {
    let Some((stage, _)) = Stage::with_two_backups(Seal::None, StoreKind::Directory).await else { return };
    let place = place(&stage);
    let slow = stage.scratch.path().join("slow.sql");
    fs::write(&slow, "SELECT pg_sleep(3600) IS NOT NULL;\n").expect("write a probe");
    let flags = ["--no-amcheck", "--probe", slow.to_str().expect("a path")];
    let is_up = || {
        let below = files_below(&place);
        let lock = below.keys().find(|name| name.ends_with("data/postmaster.pid"));
        lock.is_some_and(|lock| fs::read_to_string(place.join(lock)).is_ok_and(|text| text.contains("ready")))
    };

    let mut victim = Victim::start(&stage, &arguments(&stage, &place, &flags));
    assert!(victim.runs_until(is_up).await, "{:?}", victim.wait());
    victim.signal(Signal::TERM);
    let ended = victim.wait();
    assert_eq!(ended.code(), 143, "{ended:?}");
    assert_eq!((fs::read_dir(&place).expect("list").count(), servers_below(&place)), (0, Vec::new()), "{ended:?}");

    let mut victim = Victim::start(&stage, &arguments(&stage, &place, &flags));
    assert!(victim.runs_until(is_up).await, "{:?}", victim.wait());
    victim.kill();
    let left = fs::read_dir(&place).expect("list").flatten().next().expect("what is left").path();
    let pid = fs::read_to_string(left.join("data/postmaster.pid")).expect("read the lock file");
    let pid: i32 = pid.lines().next().and_then(|line| line.parse().ok()).expect("a process id");

    let arguments = arguments(&stage, &place, &["--no-amcheck"]);
    let (code, report, error) = understood(&stage.run(&arguments));
    assert_eq!((code, &report["result"]), (0, &Value::from("proven")), "{report:#}\n{error}");
    let found = &report["left_behind"][0];
    assert_eq!(found["directory"], left.to_str().expect("a path"), "{report:#}");
    assert!(found["server_pid"].is_i64() && found["kept"] == false, "{report:#}");
    assert!(error.contains("was left by the drill of ") && error.contains("a server still runs there"), "{error}");
    assert!(left.join("data/PG_VERSION").exists(), "it was removed although a server uses it");

    kill_process(Pid::from_raw(pid).expect("a process id"), Signal::QUIT).expect("end the server");
    let began = Instant::now();
    while !servers_below(&place).is_empty() {
        assert!(began.elapsed() < Duration::from_mins(3), "the server that was left does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, report, error) = understood(&stage.run(&arguments));
    assert!(report["left_behind"][0]["server_pid"].is_null(), "{report:#}");
    assert!(error.contains("nobody uses it: remove it"), "{error}");
    fs::remove_dir_all(&left).expect("remove it");

    // A directory that was kept on purpose is only a note.
    let mut kept = arguments.clone();
    kept.push("--keep");
    let (code, report, error) = understood(&stage.run(&kept));
    assert_eq!((code, &report["kept"]), (0, &Value::from(true)), "{report:#}\n{error}");
    let kept = report["directory"].as_str().expect("a path").to_owned();
    assert!(Path::new(&kept).join("data/PG_VERSION").exists() && servers_below(&place).is_empty());
    let (_, report, error) = understood(&stage.run(&arguments));
    assert_eq!(report["left_behind"][0]["kept"], true, "{report:#}");
    assert!(!error.contains("warning"), "{error}");
}

/// Backup and WAL come from the repository that is drilled: another one must not supply what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_proven_by_its_own_content() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan.clone()).await else { return };
    let repositories = ["repository", "second"].map(|name| repository_lines(&plan, None, &stage.scratch, name));
    let text = config_text(&plan, &stage.scratch, stage.cluster.data(), &repositories);
    stage.write_config("holdfast.toml", &text);
    stage.ok(&["repo", "init"]);
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    let backup = back_up(&stage);
    stage.archive_now().await;

    // The second repository loses the WAL with the end of the backup.
    let stop = report_of(&stage, &backup)["stop_segment"].as_str().expect("a segment").to_owned();
    let wal = stage.scratch.path().join("second/main/wal");
    let below = files_below(&wal);
    let segment = below.keys().find(|name| name.contains(&stop) && !name.contains(".backup.")).expect("the segment");
    let segment = wal.join(segment);
    let whole = fs::read(&segment).expect("read a segment");
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, bytes).expect("change a segment");
    proven(&drill(&stage, &["--target-immediate", "--no-amcheck"]));
    let flags = ["--target-immediate", "--no-amcheck", "--repo", "2"];
    let (code, report, error) = drill(&stage, &flags);
    assert_eq!((code, kinds(&report)), (46, vec!["server".to_owned()]), "{report:#}\n{error}");
    fs::write(&segment, whole).expect("bring the segment back");
    proven(&drill(&stage, &flags));
    let info = stage.json(&["info"]);
    for (repository, failed) in [(0, false), (1, true)] {
        let repository = &info["repositories"][repository];
        assert_eq!(
            (repository["last_proven"].is_object(), repository["last_failed_drill"].is_object()),
            (true, failed)
        );
    }
    let (code, text) = stage.fails(&["wal", "get", "--repo", "3", &stop, "/tmp/nowhere"]);
    assert!(code == 130 && text.contains("there is no repository 3"), "{code} {text}");
}

/// A time limit ends the drill wherever it is, and is a finding.
#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_takes_too_long_has_failed() {
    let Some((stage, _)) = Stage::with_two_backups(Seal::None, StoreKind::Directory).await else { return };
    let slow = stage.scratch.path().join("slow.sql");
    fs::write(&slow, "-- slow\nSELECT pg_sleep(3600) IS NOT NULL;\nSELECT true;\n").expect("write a probe");
    let flags = ["--no-amcheck", "--time-limit", "30s", "--probe", slow.to_str().expect("a path")];
    let (code, report, error) = drill(&stage, &flags);
    assert_eq!((code, kinds(&report)), (46, vec!["time-limit".to_owned()]), "{report:#}\n{error}");
    // This says nothing about the backup.
    assert_eq!(report["recorded"], false, "{report:#}");
    assert!(objects(&stage).keys().all(|name| !name.contains("-drill-")), "{report:#}");
    assert_eq!(servers_below(&place(&stage)), [0; 0]);
}

/// Root restores, and PostgreSQL runs as the owner of the directory.
#[tokio::test(flavor = "multi_thread")]
async fn root_drills_for_the_owner_of_the_directory() {
    if !is_root() {
        eprintln!("skipped: only root can type a command as root");
        return;
    }
    let Some((stage, _)) = Stage::with_two_backups(Seal::Passphrase, StoreKind::Directory).await else { return };
    let place = place(&stage);
    let mut command = Command::new(&stage.holdfast);
    command.arg("--config").arg(&stage.config).args(arguments(&stage, &place, &[])).current_dir("/");
    proven(&understood(&command.output().expect("run holdfast as root")));
    assert_eq!(fs::read_dir(&place).expect("list").count(), 0);
    // The archive still belongs to PostgreSQL.
    stage.archive_now().await;
    stage.ok(&["info"]);
}

async fn on(major: u16, checksums: bool) {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, checksums, ..Plan::default() };
    let Some(stage) = Stage::start(major, plan).await else { return };
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    back_up(&stage);
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 1000)").await.expect("insert");
    stage.archive_now().await;
    let probe = stage.scratch.path().join("probe.sql");
    fs::write(&probe, "SELECT count(*) = 2000 FROM t").expect("write a probe");
    let ended = drill(&stage, &["--probe", probe.to_str().expect("a path")]);
    proven(&ended);
    assert_eq!(ended.1["pages"]["checksums"], checksums, "{:#}", ended.1);
    let tool = stage.installation.program("pg_amcheck").is_some();
    assert!(
        tool || ended.1["amcheck"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("there is no pg_amcheck"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_13() {
    on(13, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_15() {
    on(15, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_17() {
    on(17, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_19() {
    on(19, true).await;
}
