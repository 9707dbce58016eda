//! Which backup an incremental one builds on, and when there is none.

use std::fs;
use std::process::Command;

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::rows::{Pace, RowWriter};
use holdfast_testkit::settings;
use holdfast_testkit::user::run_as_postgres;

use super::{SUM, backup, compare, plan, relation_files, restore};
use crate::stage::proof::{finish, holds_all};
use crate::stage::{Plan, Stage, wait_promoted};

const LOAD: &str = "CREATE TABLE load AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g";

/// A backup that has to be a full one, with the reason.
fn full(stage: &Stage, reason: &str) -> serde_json::Value {
    let output = stage.run(&["backup", "--start-fast"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("this will be a full backup: "), "{said}");
    assert!(said.contains(reason), "{said}");
    let last = stage.json(&["list"])["repositories"][0]["backups"].as_array().expect("backups").last().cloned();
    let last = last.expect("a backup");
    assert_eq!((&last["type"], last.get("parent")), (&"full".into(), None));
    last
}

/// The parent of a backup, of which there must be one.
fn parent(record: &serde_json::Value) -> &str {
    assert_eq!(record["type"], "incremental", "{record}");
    record["parent"].as_str().expect("a parent")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_parent_there_is_no_incremental_backup() {
    let Some(mut stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let (code, said) = stage.fails(&["backup", "--start-fast", "--type", "incremental"]);
    assert_ne!(code, 99, "{said}");
    assert!(said.contains("can build on: there is no earlier backup; `--type auto` takes a full one"), "{said}");
    let first = full(&stage, "there is no earlier backup");

    // Every page is written again, without WAL.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let data = stage.cluster.data().display().to_string();
    stage.cluster.tool("pg_checksums", &["--disable", "-D", &data]).await.expect("switch checksums off");
    stage.cluster.start().await.expect("start the server");
    let second = full(&stage, "data checksums were switched on or off since then");
    assert_ne!(first["backup_id"], second["backup_id"]);

    assert_eq!(parent(&backup(&stage, &[])), second["backup_id"]);

    // The first backup has the setting of now, and the WAL has everything that changed since it but hint bits.
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    stage.cluster.tool("pg_checksums", &["--enable", "-D", &data]).await.expect("switch checksums on");
    stage.cluster.start().await.expect("start the server");
    assert_eq!(parent(&backup(&stage, &[])), first["backup_id"]);
}

/// The server removes summaries after `wal_summary_keep_time`.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_summary_costs_reading_but_no_page() {
    let Some(stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let first = backup(&stage, &[]);
    for round in 0..3 {
        let update = format!("UPDATE load SET text = md5(text) WHERE id % 1000 = {round}; CHECKPOINT");
        stage.cluster.sql(&update).await.expect("update");
    }
    let summaries = stage.cluster.data().join("pg_wal/summaries");
    let wait = "SELECT count(*) > 3 FROM pg_available_wal_summaries()";
    stage.cluster.wait_for(wait, std::time::Duration::from_mins(3)).await.expect("wait for summaries");
    let mut names: Vec<_> = fs::read_dir(&summaries).expect("list").flatten().map(|entry| entry.path()).collect();
    names.sort();
    fs::remove_file(&names[names.len() - 2]).expect("remove a summary");
    let output = stage.run(&["backup", "--start-fast"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("all files are read, and only changes are stored (no WAL summary covers"), "{said}");
    let record = stage.json(&["list"])["repositories"][0]["backups"][1].clone();
    assert_eq!(parent(&record), first["backup_id"]);
    compare(stage.cluster.data(), &restore(&stage, &record, "restored"), "a missing summary");
}

/// A backup that `verify` found damaged, or that has lost a pack, must not be a parent: an older one is the parent, or
/// the backup is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_not_a_parent() {
    let Some(stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let first = backup(&stage, &[]);
    stage.cluster.sql("UPDATE load SET text = md5(text) WHERE id % 500 = 3").await.expect("update");
    let second = backup(&stage, &[]);
    assert_eq!(parent(&second), first["backup_id"]);

    // A pack of the newest one is gone.
    let id = |record: &serde_json::Value| record["backup_id"].as_str().expect("an id").to_owned();
    let packs = |of: &str| {
        let folder = stage.repository_folder().join("main/packs").join(of);
        fs::read_dir(folder).expect("list").flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    fs::remove_file(packs(&id(&second)).first().expect("a pack")).expect("remove a pack");
    stage.cluster.sql("UPDATE load SET text = md5(text) WHERE id % 500 = 4").await.expect("update");
    let third = backup(&stage, &[]);
    assert_eq!(parent(&third), first["backup_id"]);
    compare(stage.cluster.data(), &restore(&stage, &third, "third"), "a pack of the newest backup was lost");

    // A bit of the first one flips, which the third one shares. All were read before, and were sound.
    let (code, said) = stage.fails(&["verify", "--deep"]);
    assert_eq!(code, 45, "{said}");
    let pack = packs(&id(&first)).first().expect("a pack").clone();
    let mut bytes = fs::read(&pack).expect("read the pack");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).expect("write the pack");
    let (code, said) = stage.fails(&["verify", "--deep", "--backup", &id(&first)]);
    assert_eq!(code, 45, "{said}");
    let fourth = full(&stage, "damaged");
    compare(stage.cluster.data(), &restore(&stage, &fourth, "fourth"), "damage");
}

/// After a rollback by a copy of its files, a data directory has another history on the same timeline.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_lost_future_is_not_a_parent() {
    let Some(mut stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let first = backup(&stage, &[]);
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let data = stage.cluster.data().to_owned();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let mut command = Command::new("cp");
        command.arg("-a").arg(from).arg(to);
        assert!(command.status().expect("run cp").success());
    };
    let snapshot = stage.target("snapshot");
    copy(&data, &snapshot);
    stage.cluster.start().await.expect("start the server");
    stage.cluster.sql("UPDATE load SET text = 'lost' WHERE id % 2 = 0").await.expect("update");
    let lost = backup(&stage, &[]);
    assert_eq!(parent(&lost), first["backup_id"]);
    stage.archive_now().await;
    let end = stage.cluster.value("SELECT pg_current_wal_lsn()").await.expect("ask for the LSN");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");

    fs::rename(&data, stage.target("lost")).expect("take the lost future away");
    copy(&snapshot, &data);
    stage.cluster.start().await.expect("start the server");
    stage.cluster.sql("CREATE TABLE other (i int)").await.expect("make a table");
    let past = format!("SELECT pg_current_wal_lsn() > '{end}'::pg_lsn + 4000000");
    while stage.cluster.value(&past).await.expect("compare") != "t" {
        stage.cluster.sql("INSERT INTO other SELECT generate_series(1, 10000)").await.expect("insert");
    }
    let failed = "SELECT failed_count > 0 FROM pg_stat_archiver";
    stage
        .cluster
        .wait_for(failed, std::time::Duration::from_mins(3))
        .await
        .expect("the archiver meets the lost future");
    // Past the end of the lost future too, this archive is not the server's. It gets one of its own.
    let (code, said) = stage.fails(&["backup", "--start-fast"]);
    assert_eq!(code, 44, "{said}");
    stage.write_config("holdfast.toml", &stage.config_text().replace("\"main\"", "\"second\""));
    let third = backup(&stage, &[]);
    assert_eq!(third.get("parent"), None, "{third}");
    compare(&data, &restore(&stage, &third, "third"), "a rollback");
}

/// The backup is complete in itself: neither the records nor the manifest of its parents are needed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_chain_whose_parents_are_gone() {
    let Some(stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    let mut last = backup(&stage, &[]);
    let mut parents = Vec::new();
    for round in 0..6 {
        let update = format!("UPDATE load SET text = md5(text) WHERE id % 500 = {round}");
        stage.cluster.sql(&update).await.expect("update");
        parents.push(last["backup_id"].as_str().expect("an id").to_owned());
        let next = backup(&stage, &[]);
        assert_eq!(parent(&next), last["backup_id"]);
        last = next;
    }
    let (journal, end) = finish(writer, &stage.cluster).await;
    let expected = stage.cluster.sql(&format!("{SUM}load")).await.expect("sum up");
    stage.archive_now().await;
    for parent in parents {
        let folder = stage.repository_folder().join("main/backups").join(&parent);
        for entry in fs::read_dir(&folder).expect("list").flatten() {
            fs::remove_file(entry.path()).expect("remove a record of the parent");
        }
    }
    let target = restore(&stage, &last, "restored");
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(&format!("{SUM}load")).await.expect("sum up"), expected);
    holds_all(&restored, &journal, end).await;
}

/// A repository that was added later has no parent; then all get a full backup, and after that incremental ones.
#[tokio::test(flavor = "multi_thread")]
async fn all_repositories_share_the_parent() {
    let Some(stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    backup(&stage, &[]);
    let second = stage.scratch.path().join("second");
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n[backup]", second.display());
    stage.write_config("holdfast.toml", &stage.config_text().replacen("[backup]", &block, 1));
    stage.ok(&["repo", "init"]);
    let common = full(&stage, "not all repositories have it");
    stage.cluster.sql("UPDATE load SET text = md5(text) WHERE id % 500 = 3").await.expect("update");
    let record = backup(&stage, &[]);
    assert_eq!(parent(&record), common["backup_id"]);
    let server = stage.cluster.data().to_owned();
    fs::rename(stage.repository_folder(), stage.target("away")).expect("take the first repository away");
    let url = format!("url = \"file://{}\"", stage.repository_folder().display());
    let text = stage.config_text();
    let start = text.find("[[repo]]").expect("a repository");
    let end = text[start + 1..].find("[[repo]]").expect("another") + start + 1;
    assert!(text[start..end].contains(&url), "{text}");
    stage.write_config("holdfast.toml", &(text[..start].to_owned() + &text[end..]));
    compare(&server, &restore(&stage, &record, "from-second"), "the loss of the first repository");
}

/// A backup of a standby may build on one of the primary, and the promoted standby continues the chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_survives_a_failover() {
    let settings = [("summarize_wal", "on"), ("wal_keep_size", "256MB")];
    let Some(mut stage) = Stage::start(18, plan(&settings)).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let first = backup(&stage, &[]);
    let mut standby = Cluster::standby_of(&stage.cluster).await.expect("copy a standby");
    standby.start().await.expect("start the standby");
    stage.cluster.sql("UPDATE load SET text = md5(text) WHERE id % 500 = 3").await.expect("update");
    let lsn = stage.cluster.value("SELECT pg_current_wal_lsn()").await.expect("ask");
    let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
    standby.wait_for(&replayed, std::time::Duration::from_mins(3)).await.expect("replay");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the primary");
    standby.promote().await.expect("promote");
    standby.wait_promoted(std::time::Duration::from_mins(3)).await.expect("promoted");
    standby.sql("UPDATE load SET text = 'new ' || id WHERE id % 500 = 4").await.expect("update");

    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line").to_owned();
    stage.write_config("holdfast.toml", &text.replace(&line, &format!("pgdata = \"{}\"", standby.data().display())));
    let second = backup(&stage, &[]);
    assert_eq!((parent(&second), &second["timeline"]), (first["backup_id"].as_str().expect("an id"), &2.into()));
    compare(standby.data(), &restore(&stage, &second, "second"), "a promotion");
    standby.sql("UPDATE load SET text = 'newer ' || id WHERE id % 500 = 5").await.expect("update");
    let third = backup(&stage, &[]);
    assert_eq!(parent(&third), second["backup_id"]);
    compare(standby.data(), &restore(&stage, &third, "third"), "the next backup on the new timeline");
}

/// The newest backup may be of a future that this server never had.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_after_the_point_of_a_recovery_is_not_a_parent() {
    let Some(mut stage) = Stage::start(18, plan(&[("summarize_wal", "on")])).await else { return };
    stage.cluster.sql(LOAD).await.expect("load");
    let first = backup(&stage, &[]);
    stage.cluster.sql("UPDATE load SET text = 'lost ' || id").await.expect("update");
    let second = backup(&stage, &[]);
    assert_eq!(parent(&second), first["backup_id"]);
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let target = stage.target("recovered");
    let (pgdata, id) = (target.display().to_string(), first["backup_id"].as_str().expect("an id"));
    let arguments = ["restore", "--pgdata", &pgdata, "--backup", id, "--target-immediate"];
    stage.ok(&[&arguments[..], &["--target-action", "promote"]].concat());
    let mut recovered = Cluster::adopt(&stage.installation, &target).expect("take over");
    recovered.start().await.unwrap_or_else(|e| panic!("{e}\n{}", recovered.log_text()));
    wait_promoted(&recovered).await;
    recovered.sql("UPDATE load SET text = 'kept ' || id WHERE id % 500 = 4").await.expect("update");
    let text = stage.config_text();
    let line = text.lines().find(|line| line.starts_with("pgdata = ")).expect("a pgdata line").to_owned();
    stage.write_config("holdfast.toml", &text.replace(&line, &format!("pgdata = \"{pgdata}\"")));
    let third = backup(&stage, &[]);
    assert_eq!(parent(&third), first["backup_id"], "not the newest one");
    compare(recovered.data(), &restore(&stage, &third, "third"), "a recovery to an earlier moment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_independent_reader_restores_an_incremental_backup() {
    let Some(stage) = Stage::start(18, Plan { compression: "zstd:3", ..plan(&[("summarize_wal", "on")]) }).await else {
        return;
    };
    let Some(python) = settings::get("HOLDFAST_PYTHON") else {
        settings::skip("there is no HOLDFAST_PYTHON; scripts/provision makes it");
        return;
    };
    stage.cluster.sql(LOAD).await.expect("load");
    backup(&stage, &[]);
    stage.cluster.sql("UPDATE load SET text = md5(text) WHERE id % 500 = 3").await.expect("update");
    let record = backup(&stage, &[]);
    parent(&record);
    let restored = restore(&stage, &record, "restored");
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/reader.py");
    let reader = stage.scratch.write("reader.py", fs::read_to_string(source).expect("read the reader"));
    let (reader, target) = (reader.expect("copy the reader"), stage.target("read"));
    let mut command = Command::new(&python);
    command.arg(&reader).arg(stage.repository_folder()).args(["restore", "main", "--to"]).arg(&target);
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run the reader");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(relation_files(&target), relation_files(&restored));
}
