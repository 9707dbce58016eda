//! `expire`: what is kept restores, starts and has its rows; everything else is removed, with the WAL before it. Killed
//! at any moment, or in parallel to a restore and a backup, it removes nothing that anybody needs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_testkit::proxy::TcpProxy;
use holdfast_testkit::random::Random;
use serde_json::Value;

use crate::stage::held::SlowStore;
use crate::stage::proof::text;
use crate::stage::{Plan, Seal, Stage, StoreKind, succeeded, wait_promoted};

/// A configuration that keeps the newest N backups, and removes the others after this grace time.
fn keeping(stage: &Stage, last: u32, grace: &str) -> PathBuf {
    let retention = format!("\n[retention]\nkeep = {{ last = {last} }}\ngrace = \"{grace}\"\n");
    stage.write_config(&format!("keep-{last}-{grace}.toml"), &(stage.config_text() + &retention))
}

fn run(stage: &Stage, config: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["--output", "json"];
    all.extend_from_slice(arguments);
    let text = succeeded(&stage.command_with(config, &all).output().expect("run holdfast"), &all);
    serde_json::from_str(&text).expect("a JSON report")
}

/// The only repository of a report.
fn only(report: &Value) -> &Value {
    &report["repositories"][0]
}

fn count(value: &Value) -> usize {
    value.as_array().expect("a list").len()
}

/// Takes backups, with one more row before each; returns their ids in order.
async fn back_up(stage: &Stage, backups: usize) -> Vec<String> {
    stage.cluster.sql("CREATE TABLE IF NOT EXISTS t (n int)").await.expect("make the table");
    let mut ids = Vec::new();
    for _ in 0..backups {
        stage.cluster.sql("INSERT INTO t SELECT count(*) FROM t").await.expect("insert a row");
        let report = stage.json(&["backup", "--type", "full"]);
        ids.push(text(&report, "backup_id").to_owned());
        stage.archive_now().await;
    }
    ids
}

fn listed(stage: &Stage) -> Vec<Value> {
    let report = stage.json(&["list"]);
    only(&report)["backups"].as_array().expect("backups").clone()
}

fn listed_ids(stage: &Stage) -> Vec<String> {
    listed(stage).iter().map(|backup| backup["backup_id"].as_str().expect("an id").to_owned()).collect()
}

/// The files below a folder of the cluster in the repository.
fn files(stage: &Stage, folder: &str) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(&stage.repository_folder().join("main").join(folder), &mut found);
    found
}

/// The backup restores to its own end, and to the end of the WAL, with the expected rows.
async fn restores(stage: &Stage, name: &str, id: &str, own_rows: usize, all_rows: usize) {
    let ended =
        stage.restore_and_start(name, &["--backup", id, "--target-immediate", "--target-action", "promote"]).await;
    wait_promoted(&ended).await;
    assert_eq!(ended.value("SELECT count(*) FROM t").await.expect("count"), own_rows.to_string(), "{name}");
    let latest = stage.restore_and_start(&format!("{name}-latest"), &["--backup", id]).await;
    wait_promoted(&latest).await;
    assert_eq!(latest.value("SELECT count(*) FROM t").await.expect("count"), all_rows.to_string(), "{name}");
}

async fn kept_restores_and_the_rest_is_gone(store: StoreKind, seal: Seal) {
    let Some(stage) = Stage::start(18, Plan { store, seal, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 4).await;
    let config = keeping(&stage, 2, "0");

    let planned = run(&stage, &config, &["expire", "--plan"]);
    let fates: Vec<bool> =
        only(&planned)["backups"].as_array().expect("fates").iter().map(|one| one["kept"] == true).collect();
    assert_eq!(fates, [false, false, true, true]);
    assert_eq!(only(&planned)["before"][0]["backup"], ids[0].as_str());
    assert_eq!(only(&planned)["after"][0]["backup"], ids[2].as_str());
    assert_eq!(listed_ids(&stage), ids, "a plan changes nothing");
    let shown = succeeded(&stage.command_with(&config, &["expire", "--plan"]).output().expect("plan"), &["plan"]);
    assert!(shown.contains("no rule keeps it") && shown.contains("older than every kept backup"), "{shown}");

    let report = run(&stage, &config, &["expire"]);
    assert_eq!(count(&only(&report)["removed"]["backups"]), 2, "{report}");
    assert_eq!(listed_ids(&stage), ids[2..]);
    let gone = |file: &&String| file.contains(&ids[0]) || file.contains(&ids[1]);
    for folder in ["backups", "packs"] {
        let left = files(&stage, folder);
        assert_eq!(left.iter().filter(gone).count(), 0, "{left:?}");
    }
    assert_eq!(files(&stage, "leases"), [""; 0]);
    let first = listed(&stage)[0]["start_segment"].as_str().expect("a segment").to_owned();
    for file in files(&stage, "wal").iter().filter(|file| !file.contains(".history")) {
        let name = Path::new(file).file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name[..24] >= *first, "{name} is older than {first}");
    }
    let (code, error) = stage.fails(&["restore", "--pgdata", "/nowhere", "--backup", &ids[0]]);
    assert_eq!(code, 60, "{error}");

    let again = run(&stage, &config, &["expire"]);
    for what in ["decided", "removed"] {
        assert_eq!(count(&only(&again)[what]["backups"]), 0, "{again}");
        assert_eq!(only(&again)[what]["packs"], 0, "{again}");
        assert_eq!(only(&again)[what]["wal_files"], 0, "{again}");
    }
    for (index, id) in ids.iter().enumerate().skip(2) {
        restores(&stage, &format!("kept-{index}"), id, index + 1, 4).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_backups_restore_and_the_rest_is_gone_from_s3() {
    kept_restores_and_the_rest_is_gone(StoreKind::S3, Seal::Passphrase).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_backups_restore_and_the_rest_is_gone_from_a_directory() {
    kept_restores_and_the_rest_is_gone(StoreKind::Directory, Seal::None).await;
}

/// Seven backups expire, one after the other, each by a run that is killed and a run that finishes the work.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_continued_by_the_next() {
    let Some(stage) = Stage::start(18, Plan { seal: Seal::KeyFile, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 8).await;
    let mut random = Random::of_this_run();
    let whole = {
        let (config, began) = (keeping(&stage, 7, "0"), Instant::now());
        run(&stage, &config, &["expire"]);
        began.elapsed()
    };
    for round in 0..5_u32 {
        let kept = 6 - round;
        let config = keeping(&stage, kept, "0");
        let mut victim = stage.command_with(&config, &["expire"]).spawn().expect("start expire");
        let delay = random.moment(whole, round, 5);
        tokio::time::sleep(delay).await;
        victim.kill().expect("kill it");
        let ended = victim.wait().expect("wait for it");
        // The store still carries out requests that were already sent.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let newest = &ids[ids.len() - kept as usize..];
        let left = listed_ids(&stage);
        assert!(left.ends_with(newest), "round {round}, killed after {delay:?} ({ended}): {left:?}");
        run(&stage, &config, &["expire"]);
        assert_eq!(listed_ids(&stage), newest, "round {round}, killed after {delay:?} ({ended})");
        let packs = files(&stage, "packs");
        assert!(packs.iter().all(|pack| newest.iter().any(|id| pack.contains(id))), "{packs:?}");
        let again = run(&stage, &config, &["expire"]);
        assert_eq!(only(&again)["removed"]["packs"], 0, "{again}");
        assert_eq!(only(&again)["removed"]["wal_files"], 0, "{again}");
    }
    for (index, id) in ids.iter().enumerate().skip(6) {
        restores(&stage, &format!("kept-{index}"), id, index + 1, 8).await;
    }
}

/// A restore of a backup that no rule keeps continues while `expire` runs, and succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_restore_keeps_what_it_reads() {
    let Some(stage) = Stage::start(18, Plan { seal: Seal::KeyFile, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 3).await;
    let s3 = stage.s3.as_ref().expect("an S3 server");
    let proxy = TcpProxy::start(s3.address()).expect("start a proxy");
    let slow = stage.write_config("slow.toml", &stage.config_text().replace(&s3.endpoint(), &proxy.endpoint()));
    proxy.set_latency(Duration::from_millis(100));
    let target = stage.target("beside");
    let path = target.display().to_string();
    let mut restore = stage
        .command_with(&slow, &["restore", "--pgdata", &path, "--backup", &ids[0]])
        .spawn()
        .expect("start the restore");
    let began = Instant::now();
    while files(&stage, "leases").is_empty() {
        assert!(began.elapsed() < Duration::from_mins(2), "the restore takes no lease");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.stall();
    let config = keeping(&stage, 1, "0");
    let report = run(&stage, &config, &["expire"]);
    assert_eq!(only(&report)["backups"][0]["why"][0], "a restore is reading it", "{report}");
    assert_eq!(listed_ids(&stage), [ids[0].clone(), ids[2].clone()]);
    proxy.set_latency(Duration::ZERO);
    proxy.resume();
    let ended = restore.wait().expect("wait for the restore");
    assert!(ended.success(), "{ended}");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "3");
    assert_eq!(files(&stage, "leases"), [""; 0]);
    run(&stage, &config, &["expire"]);
    assert_eq!(listed_ids(&stage), [ids[2].clone()]);
}

/// A backup that runs at the same time succeeds, and its WAL is in the archive.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_backup_loses_nothing() {
    let Some(stage) = Stage::start(18, Plan { seal: Seal::KeyFile, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 2).await;
    stage
        .cluster
        .sql("CREATE TABLE big AS SELECT n, md5(n::text) AS text FROM generate_series(1, 200000) n")
        .await
        .expect("make it larger");
    let slow = SlowStore::of(&stage);
    let mut backup = slow.hold(&stage, &["backup"]).await;
    assert_eq!(files(&stage, "leases").len(), 1, "it has a lease");
    let config = keeping(&stage, 1, "0");
    let report = run(&stage, &config, &["expire"]);
    assert_eq!(only(&report)["removed"]["wal_files"], 0, "{report}");
    assert_eq!(listed_ids(&stage), ids[1..]);
    slow.let_go();
    let ended = backup.wait().expect("wait for the backup");
    assert!(ended.success(), "{ended}");
    let now = listed_ids(&stage);
    assert_eq!(now.len(), 2, "{now:?}");
    assert_eq!(files(&stage, "leases"), [""; 0]);
    run(&stage, &config, &["expire"]);
    assert_eq!(listed_ids(&stage), now[1..]);
    restores(&stage, "new", &now[1], 2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_and_the_grace_time_keep_a_backup() {
    let Some(stage) = Stage::start(18, Plan { store: StoreKind::Directory, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 3).await;
    let (code, error) = stage.fails(&["expire"]);
    assert_eq!(code, 10, "{error}");
    assert!(error.contains("error: no retention is configured, so nothing is removed"), "{error}");
    assert!(error.contains("say what to keep under [retention]"), "{error}");

    let waiting = keeping(&stage, 1, "24h");
    let report = run(&stage, &waiting, &["expire"]);
    assert_eq!(count(&only(&report)["decided"]["backups"]), 2, "{report}");
    assert_eq!(count(&only(&report)["removed"]["backups"]), 0, "{report}");
    assert_eq!(listed_ids(&stage), ids);

    let held = stage.json(&["backup", "hold", &ids[0], "--reason", "year-end audit"]);
    assert_eq!((&held["held"], &held["reason"]), (&Value::Bool(true), &"year-end audit".into()));
    let now = keeping(&stage, 1, "0");
    let report = run(&stage, &now, &["expire"]);
    assert_eq!(only(&report)["backups"][0]["why"][0], "held", "{report}");
    assert_eq!(listed_ids(&stage), [ids[0].clone(), ids[2].clone()]);
    restores_alone(&stage, &ids[0]).await;

    let (code, error) = stage.fails(&["backup", "hold", &ids[1]]);
    assert_eq!(code, 60, "{error}");
    let said = stage.ok(&["backup", "release", &ids[0]]);
    assert!(said.starts_with(&format!("backup {} is released in ", ids[0])), "{said}");
    assert_eq!(stage.ok(&["backup", "release", &ids[0]]), format!("backup {} was not held\n", ids[0]));
    run(&stage, &now, &["expire"]);
    assert_eq!(listed_ids(&stage), ids[2..]);
}

/// A server that is started long after its restore finds all WAL: the lease has ended, and the hold that the restore
/// names keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_with_wal_keeps_what_a_restored_server_fetches() {
    let Some(stage) = Stage::start(18, Plan { seal: Seal::KeyFile, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 3).await;
    let config = keeping(&stage, 1, "0");
    let target = stage.target("late");
    let path = target.display().to_string();
    let report = run(&stage, &config, &["restore", "--pgdata", &path, "--backup", &ids[0]]);
    let command = format!("`holdfast backup hold {} --with-wal --until 7d`", ids[0]);
    let notes = report["notes"].as_array().expect("notes");
    assert!(notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains(&command))), "{report}");
    let held = stage.json(&["backup", "hold", &ids[0], "--with-wal", "--until", "7d"]);
    assert_eq!(held["with_wal"], true, "{held}");
    let report = run(&stage, &config, &["expire"]);
    assert_eq!(listed_ids(&stage), [ids[0].clone(), ids[2].clone()], "{report}");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "3");
}

/// A held backup whose removal had begun has lost a pack. It is not a remnant, and it restores when the pack is back. A
/// hold that would end in the past is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_backup_that_looks_like_a_remnant_stays() {
    let Some(stage) = Stage::start(18, Plan { store: StoreKind::Directory, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 3).await;
    let (lost, folder) = (&ids[0], stage.repository_folder().join("main"));
    stage.ok(&["backup", "hold", lost]);
    for until in ["2026-01-01", "2026-01-01T00:00:00Z"] {
        let (code, error) = stage.fails(&["backup", "hold", lost, "--until", until]);
        assert!(code == 2 && error.contains("that is past"), "{code}: {error}");
    }
    std::fs::remove_file(folder.join("backups").join(lost).join("start.json")).expect("remove a record");
    let pack = files(&stage, &format!("packs/{lost}")).remove(0);
    let aside = stage.scratch.path().join("aside");
    std::fs::rename(&pack, &aside).expect("move the pack away");
    let config = keeping(&stage, 1, "0");
    let report = run(&stage, &config, &["expire"]);
    assert_eq!(only(&report)["backups"][0]["kept"], true, "{report}");
    let (code, error) = stage.fails(&["restore", "--pgdata", "/nowhere", "--backup", lost]);
    assert_eq!(code, 43, "{error}");
    std::fs::rename(&aside, &pack).expect("put the pack back");
    run(&stage, &config, &["expire"]);
    assert_eq!(listed_ids(&stage), [ids[0].clone(), ids[2].clone()]);
    restores_alone(&stage, lost).await;
}

/// A backup before the window restores to its own end: the WAL after it may be removed.
async fn restores_alone(stage: &Stage, id: &str) {
    let arguments = ["--backup", id, "--target-immediate", "--target-action", "promote"];
    let restored = stage.restore_and_start("held", &arguments).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "1");
}

/// The last write of a run that was taken for dead arrives after others have begun to remove it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_came_too_late_blocks_nothing_and_is_removed() {
    let Some(stage) = Stage::start(18, Plan { store: StoreKind::Directory, ..Plan::default() }).await else { return };
    let ids = back_up(&stage, 4).await;
    let (late, folder) = (&ids[3], stage.repository_folder().join("main"));
    for record in ["start.json", "manifest"] {
        std::fs::remove_file(folder.join("backups").join(late).join(record)).expect("remove a record");
    }
    std::fs::remove_dir_all(folder.join("packs").join(late)).expect("remove the packs");
    let says = |arguments: &[&str]| {
        let output = stage.run(arguments);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(late) && said.contains("taken for dead"), "{arguments:?}: {said}");
        output.status.code()
    };
    says(&["info"]);
    assert_eq!(says(&["verify"]), Some(45));
    let (code, error) = stage.fails(&["restore", "--pgdata", "/nowhere", "--backup", late]);
    assert!(code == 43 && error.contains("taken for dead"), "{code}: {error}");
    let config = keeping(&stage, 2, "0");
    let shown = succeeded(&stage.command_with(&config, &["expire", "--plan"]).output().expect("plan"), &["plan"]);
    assert!(
        shown.contains("goes") && shown.contains(&format!("backup {late} cannot be restored and will be removed")),
        "{shown}"
    );

    restores(&stage, "beside", &ids[2], 3, 4).await;
    let latest = stage.restore_and_start("latest", &[]).await;
    wait_promoted(&latest).await;
    assert_eq!(latest.value("SELECT count(*) FROM t").await.expect("count"), "4");
    let report = run(&stage, &config, &["expire"]);
    assert_eq!(only(&report)["removed"]["backups"], serde_json::json!([ids[0], late]), "{report}");
    assert_eq!(listed_ids(&stage), ids[1..3]);
    assert_eq!(files(&stage, &format!("backups/{late}")), [""; 0]);
    stage.ok(&["verify", "--deep"]);
    restores(&stage, "after", &ids[2], 3, 4).await;
}

/// Each repository keeps what its own retention says.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_have_retentions_of_their_own() {
    let Some(stage) = Stage::start(18, Plan { store: StoreKind::Directory, ..Plan::default() }).await else { return };
    let block = |name: &str, retention: &str| {
        let place = stage.scratch.path().join(name).display().to_string();
        format!("[[repo]]\nurl = \"file://{place}\"\nencryption = \"none\"\n{retention}\n")
    };
    let more =
        block("second", "retention = { keep = { last = 1 }, grace = \"0\" }") + &block("third", "retention = {}");
    let text = stage.config_text().replacen("[backup]", &(more + "\n[backup]"), 1);
    stage.write_config("holdfast.toml", &(text + "\n[retention]\nkeep = { last = 2 }\ngrace = \"0\"\n"));
    stage.ok(&["repo", "init"]);
    let ids = back_up(&stage, 3).await;
    let report = stage.json(&["expire"]);
    for (index, kept) in [2, 1, 3].into_iter().enumerate() {
        let fates = report["repositories"][index]["backups"].as_array().expect("fates");
        let count = fates.iter().filter(|one| one["kept"] == true).count();
        assert_eq!((fates.len(), count), (3, kept), "{index}: {report}");
    }
    let listed = stage.json(&["list"]);
    for (index, kept) in [2, 1, 3].into_iter().enumerate() {
        let listed = listed["repositories"][index]["backups"].as_array().expect("backups");
        let left: Vec<&str> = listed.iter().filter_map(|backup| backup["backup_id"].as_str()).collect();
        assert_eq!(left, ids[3 - kept..], "{index}");
    }
    let (code, error) = stage.fails(&["expire", "--repo", "3"]);
    assert!(code == 10 && error.contains("no retention is configured"), "{code}: {error}");
    let restored = stage.restore_and_start("restored", &["--backup", &ids[2]]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT count(*) FROM t").await.expect("count"), "3");
}

/// Data that incremental backups share is kept while one of them needs it, and removed with the last.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_outlives_its_parents() {
    let settings = vec![("summarize_wal", "on".to_owned()), ("autovacuum", "off".to_owned())];
    let plan = Plan { store: StoreKind::Directory, wal_segment_mib: 1, settings, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let load = "CREATE TABLE load AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 40000) g";
    stage.cluster.sql(load).await.expect("load");
    let sum = "SELECT count(*), md5(string_agg(text, '' ORDER BY id)) FROM load";
    let (mut expected, mut ids) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let update = format!("UPDATE load SET text = md5(text) WHERE id % 500 = {round}");
        stage.cluster.sql(&update).await.expect("update");
        let report = stage.json(&["backup", "--start-fast"]);
        ids.push(text(&report, "backup_id").to_owned());
        assert_eq!(text(&report, "type"), if round == 0 { "full" } else { "incremental" });
        expected = stage.cluster.sql(sum).await.expect("sum up");
        stage.archive_now().await;
    }
    let packs = files(&stage, "packs").len();
    run(&stage, &keeping(&stage, 1, "0s"), &["expire"]);
    assert_eq!(listed_ids(&stage), ids[4..]);
    let own = files(&stage, &format!("packs/{}", ids[4])).len();
    assert!(files(&stage, "packs").len() > own, "the data of the first one is still needed");
    assert!(files(&stage, "packs").len() <= packs);
    // The parent is one of the remaining backups.
    let report = stage.json(&["backup", "--start-fast"]);
    assert_eq!(report["repositories"][0]["backup"]["parent"], ids[4]);
    let restored = stage.restore_and_start("chain", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(sum).await.expect("sum up"), expected);
    stage.json(&["backup", "--start-fast", "--type", "full"]);
    run(&stage, &keeping(&stage, 1, "0s"), &["expire"]);
    let left = listed_ids(&stage);
    assert_eq!((left.len(), files(&stage, "packs").len()), (1, files(&stage, &format!("packs/{}", left[0])).len()));
    stage.ok(&["verify", "--deep"]);
}
