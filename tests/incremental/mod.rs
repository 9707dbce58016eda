//! Incremental backups: after every kind of change that a server can make to its files, the restored backup has each
//! page of the server's own files, starts, and gives the same answers as the server.

mod oracle;
mod parents;
mod references;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use holdfast_testkit::postgres::{Cluster, Shutdown};
use holdfast_testkit::user::run_as_postgres;

use crate::stage::{Plan, Seal, Stage, StoreKind};

/// The contents of all relation files below a data directory, tablespaces included, by path. Main forks of unlogged
/// relations are left out, as in a backup.
fn relation_files(pgdata: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec!["base".to_owned(), "global".to_owned()];
    for space in names(&pgdata.join("pg_tblspc")) {
        for version in names(&pgdata.join("pg_tblspc").join(&space)) {
            waiting.push(format!("pg_tblspc/{space}/{version}"));
        }
    }
    while let Some(directory) = waiting.pop() {
        let names = names(&pgdata.join(&directory));
        for name in &names {
            let path = format!("{directory}/{name}");
            let full = pgdata.join(&path);
            if full.is_dir() {
                waiting.push(path);
                continue;
            }
            let number = name.split(['.', '_']).next().unwrap_or_default();
            let is_relation = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let is_unlogged = names.contains(&format!("{number}_init")) && !name.ends_with("_init");
            if is_relation && !is_unlogged {
                found.insert(path, fs::read(&full).expect("read a relation"));
            }
        }
    }
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The restored copy has every page of the server's files, and no other. The server must be idle.
fn compare(server: &Path, restored: &Path, after: &str) {
    let (expected, found) = (relation_files(server), relation_files(restored));
    let paths = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(paths(&expected), paths(&found), "the files after {after}");
    for (path, expected) in &expected {
        let found = &found[path];
        assert_eq!(expected.len(), found.len(), "{path} after {after}");
        let differing: Vec<usize> = expected
            .chunks(8192)
            .zip(found.chunks(8192))
            .enumerate()
            .filter(|(_, (expected, found))| expected != found)
            .map(|(block, _)| block)
            .collect();
        assert!(differing.is_empty(), "{path} after {after}: blocks {differing:?} differ");
    }
}

fn backup(stage: &Stage, arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["backup", "--start-fast"];
    all.extend_from_slice(arguments);
    let report = stage.json(&all);
    report["repositories"][0]["backup"].clone()
}

/// Restores a backup with its tablespaces beside it.
fn restore(stage: &Stage, record: &serde_json::Value, name: &str) -> std::path::PathBuf {
    let target = stage.target(name);
    let mut arguments = vec!["restore".to_owned(), "--pgdata".to_owned(), target.display().to_string()];
    arguments.extend(["--backup".to_owned(), record["backup_id"].as_str().expect("an id").to_owned()]);
    for space in record["tablespaces"].as_array().expect("tablespaces") {
        let oid = space["oid"].as_u64().expect("an OID");
        let place = stage.target(&format!("{name}-{oid}"));
        arguments.extend(["--tablespace".to_owned(), format!("{oid}={}", place.display())]);
    }
    stage.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    target
}

/// `pg_amcheck` finds nothing.
fn am_check(restored: &Cluster) {
    let Some(tool) = restored.installation().program("pg_amcheck") else { return };
    let mut command = std::process::Command::new(tool);
    command.args(["--install-missing", "--heapallindexed", "-U", "postgres", "--all"]);
    command.arg("-h").arg(restored.socket_folder()).arg("-p").arg(restored.port().to_string());
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run pg_amcheck");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const SUM: &str = "SELECT count(*), sum(id), md5(string_agg(text, '' ORDER BY id)) FROM ";

/// The changes between two backups: name, database, and statements.
const CHANGES: &[(&str, &[&str])] = &[
    ("nothing", &[]),
    (
        "scattered updates",
        &[
            "UPDATE load SET text = md5(text) WHERE id % 997 = 0",
            "INSERT INTO load SELECT 1000000 + g, 'x' FROM generate_series(1, 10) g",
        ],
    ),
    ("a table that grows", &["INSERT INTO grows SELECT g, md5(g::text) FROM generate_series(1, 30000) g"]),
    ("truncation by VACUUM", &["DELETE FROM shrinks WHERE id > 5000", "VACUUM shrinks"]),
    (
        "truncation, and growth to the same length",
        &[
            "DELETE FROM regrows WHERE id > 100",
            "VACUUM regrows",
            "INSERT INTO regrows SELECT g, 'new' || g FROM generate_series(101, 20000) g",
        ],
    ),
    ("TRUNCATE", &["TRUNCATE truncated", "INSERT INTO truncated VALUES (1, 'after')"]),
    ("VACUUM FULL", &["VACUUM FULL load"]),
    ("REINDEX and CLUSTER", &["REINDEX TABLE load", "CLUSTER grows USING grows_id"]),
    (
        "drop and create",
        &[
            "DROP TABLE dropped",
            "CREATE TABLE dropped AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 9000) g",
        ],
    ),
    ("hint bits alone", &["SELECT count(*) FROM load", "SELECT count(*) FROM grows"]),
    ("all visible", &["VACUUM grows", "VACUUM load"]),
    ("deleted after all visible", &["DELETE FROM grows WHERE id % 100 = 7"]),
    ("CREATE DATABASE", &["CREATE DATABASE another"]),
    ("DROP DATABASE", &["DROP DATABASE another", "CREATE DATABASE another"]),
    ("CREATE DATABASE by copying files", &["CREATE DATABASE copied STRATEGY FILE_COPY"]),
    (
        "a database by copying files, again",
        &["DROP DATABASE copied", "CREATE DATABASE copied TEMPLATE another STRATEGY FILE_COPY"],
    ),
    ("a tablespace", &["ALTER TABLE dropped SET TABLESPACE elsewhere"]),
    (
        "and back",
        &["ALTER TABLE dropped SET TABLESPACE pg_default", "UPDATE load SET text = md5(text) WHERE id % 501 = 0"],
    ),
    ("an unlogged table", &["CREATE UNLOGGED TABLE unlogged AS SELECT g AS id FROM generate_series(1, 1000) g"]),
    ("logged and unlogged", &["ALTER TABLE unlogged SET LOGGED", "UPDATE unlogged SET id = id + 1"]),
    ("all rows", &["UPDATE load SET text = md5(text)", "VACUUM load"]),
    ("the same pages again", &["UPDATE load SET text = 'y' || id WHERE id % 997 = 0"]),
];

async fn each_change(major: u16, plan: Plan, note: &str) {
    let Some(mut stage) = Stage::start(major, plan).await else { return };
    let place = stage.scratch.folder("elsewhere").expect("make a folder");
    for statement in [
        &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()),
        "CREATE TABLE load AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 60000) g",
        "CREATE INDEX ON load (id)",
        "CREATE TABLE grows AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 3000) g",
        "CREATE INDEX grows_id ON grows (id)",
        "CREATE TABLE shrinks AS SELECT * FROM load",
        "CREATE TABLE regrows AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g",
        "CREATE TABLE truncated AS SELECT * FROM load",
        "CREATE TABLE dropped AS SELECT * FROM load",
    ] {
        stage.cluster.sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let full = backup(&stage, &[]);
    assert_eq!(full["type"], "full");
    let mut parent = full.clone();
    for (number, (name, statements)) in CHANGES.iter().enumerate() {
        for statement in *statements {
            stage.cluster.sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        let output = stage.run(&["backup", "--start-fast", "--type", "incremental"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "after {name}: {said}");
        assert!(said.contains(note), "after {name}: {said}");
        let listed = stage.json(&["list"]);
        let backups = listed["repositories"][0]["backups"].as_array().unwrap_or_else(|| panic!("{listed}")).clone();
        let record = backups.last().expect("a backup").clone();
        assert_eq!((&record["type"], &record["parent"]), (&"incremental".into(), &parent["backup_id"]), "after {name}");
        if matches!(*name, "nothing" | "scattered updates" | "the same pages again") {
            let (stored, all) = (record["stored_bytes"].as_u64(), full["stored_bytes"].as_u64());
            assert!(stored < all.map(|all| all / 4), "after {name}: {stored:?} of {all:?} bytes");
        }
        let restored = restore(&stage, &record, &format!("restored-{number}"));
        compare(stage.cluster.data(), &restored, name);
        parent = record;
    }
    let mut expected = Vec::new();
    for table in ["load", "grows", "shrinks", "regrows", "truncated", "dropped"] {
        expected.push((table, stage.cluster.sql(&format!("{SUM}{table}")).await.expect("sum up")));
    }
    // A backup is complete in itself, also after the server is gone.
    stage.archive_now().await;
    stage.cluster.stop(Shutdown::Fast).await.expect("stop the server");
    let target = restore(&stage, &parent, "started");
    let restored = stage.start_restored(&target).await;
    crate::stage::wait_promoted(&restored).await;
    for (table, expected) in expected {
        assert_eq!(restored.sql(&format!("{SUM}{table}")).await.expect("sum up"), expected, "{table}");
    }
    am_check(&restored);
}

fn plan(settings: &[(&'static str, &str)]) -> Plan {
    let own = [("autovacuum", "off")];
    let settings = own.iter().chain(settings).map(|(name, value)| (*name, (*value).to_owned())).collect();
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, settings, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_by_wal_summaries_of_19() {
    each_change(19, Plan { seal: Seal::KeyFile, ..plan(&[("summarize_wal", "on")]) }, "by WAL summaries").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_by_wal_summaries_of_18() {
    each_change(18, Plan { seal: Seal::Passphrase, ..plan(&[("summarize_wal", "on")]) }, "by WAL summaries").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_by_wal_summaries_of_17() {
    each_change(17, plan(&[("summarize_wal", "on")]), "by WAL summaries").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_by_page_lsns_of_16() {
    each_change(16, plan(&[]), "writes no WAL summaries").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_without_checksums_nor_summaries() {
    let plan = Plan { checksums: false, store: StoreKind::S3, ..plan(&[]) };
    each_change(18, plan, "summarize_wal is off").await;
}
