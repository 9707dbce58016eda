//! Page checksums: damage is found, named and recorded, and pages that are being written are never reported as damaged.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::stage::proof::{Storm, am_check, bulk, find, number, text, tree};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::postgres::Shutdown;
use serde_json::Value;

fn local() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, compression: "lz4", ..Plan::default() }
}

const PAGE: u64 = 8192;

/// Changes a byte in the middle of a page. A second call restores it.
fn flip(file: &Path, block: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).expect("open a relation");
    let mut byte = [0];
    file.read_exact_at(&mut byte, block * PAGE + 4001).expect("read");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, block * PAGE + 4001).expect("write");
}

/// The bad pages in a backup's record, as file and block.
fn listed(backup: &Value) -> Vec<(String, u64)> {
    let failures = find(backup, "checksum_failures").and_then(|found| found["listed"].as_array()).expect("a list");
    let mut places: Vec<_> = failures.iter().map(|f| (text(f, "path").to_owned(), number(f, "block"))).collect();
    places.sort();
    places
}

fn count(backup: &Value) -> u64 {
    number(find(backup, "checksum_failures").expect("the failures"), "count")
}

/// The last backup of the list.
fn last_of_list(stage: &Stage) -> Value {
    let list = stage.json(&["list"]);
    let backups = find(&list, "backups").and_then(Value::as_array).expect("backups");
    backups.last().expect("a backup").clone()
}

async fn damaged_pages(major: u16, plan: Plan) {
    let Some(mut stage) = Stage::start(major, plan).await else { return };
    bulk(&stage.cluster, "load", 3).await;
    for statement in ["CREATE INDEX load_id ON load (id)", "VACUUM load", "CHECKPOINT"] {
        stage.cluster.sql(statement).await.expect("prepare");
    }
    let relation = stage.cluster.value("SELECT pg_relation_filepath('load')").await.expect("ask for the path");
    let index = stage.cluster.value("SELECT pg_relation_filepath('load_id')").await.expect("ask for the path");
    let sound = stage.json(&["backup"]);
    assert_eq!(count(&sound), 0, "{sound}");

    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let pgdata = stage.cluster.data().to_owned();
    let map = format!("{relation}_vm");
    // In the first extent, in the third, in an index, and in another fork.
    let damage = [(&relation, 1), (&relation, 300), (&index, 2), (&map, 0)];
    for (path, block) in damage {
        flip(&pgdata.join(path), block);
    }
    // A page whose beginning is lost does not count as a new page.
    let torn = OpenOptions::new().write(true).open(pgdata.join(&relation)).expect("open a relation");
    torn.write_all_at(&[0; 512], 200 * PAGE).expect("write");
    drop(torn);
    stage.cluster.start().await.expect("start");

    let output = stage.run(&["backup", "--label", "marked"]);
    assert_eq!(output.status.code(), Some(0), "a backup with bad pages is a complete backup");
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(warned.contains("warning: 5 page(s) have a wrong checksum"), "{warned}");
    assert!(said.contains("bad pages   5; this backup is marked"), "{said}");
    let mut expected: Vec<(String, u64)> = damage.iter().map(|(path, block)| ((*path).clone(), *block)).collect();
    expected.push((relation.clone(), 200));
    expected.sort();
    for (path, block) in &expected {
        assert!(said.contains(&format!("{path} block {block}: checksum ")), "{path} {block} in:\n{said}");
    }
    let marked = last_of_list(&stage);
    assert_eq!((count(&marked), listed(&marked)), (5, expected.clone()), "{marked}");
    assert!(stage.ok(&["list"]).contains("5 bad pages"));
    let report = stage.json(&["backup"]);
    assert_eq!((count(&report), listed(&report)), (5, expected), "{report}");

    // Not checked, so there is neither a warning nor a mark.
    let output = stage.run(&["backup", "--no-page-checks"]);
    assert!(output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("checksum"), "{output:?}");
    assert_eq!(count(&last_of_list(&stage)), 0);

    // A backup stores the pages as they are.
    let target = stage.target("restored");
    let id = text(&marked, "backup_id").to_owned();
    stage.ok(&["restore", "--backup", &id, "--pgdata", &target.display().to_string()]);
    let (there, restored) = (tree(&pgdata), tree(&target));
    for path in [&relation, &index, &map] {
        assert_eq!(there[Path::new(path)], restored[Path::new(path)], "{path}");
    }
    // The earlier, sound backup restores a sound page.
    let target = stage.target("sound");
    let id = text(&sound, "backup_id").to_owned();
    stage.ok(&["restore", "--backup", &id, "--target-immediate", "--pgdata", &target.display().to_string()]);
    let restored = tree(&target);
    assert_ne!(there[Path::new(&relation)], restored[Path::new(&relation)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_named_and_the_backup_is_marked_on_19() {
    damaged_pages(19, Plan { wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_named_and_the_backup_is_marked_on_18() {
    damaged_pages(18, Plan { wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_are_named_and_the_backup_is_marked_on_15() {
    damaged_pages(15, local()).await;
}

/// A disk that loses a whole table: every page is bad, and is counted. A page that may be half written is waited for.
/// To wait for each bad page would take a ninth of a second, an hour on one thread; so only a few are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_bad_pages_is_backed_up_in_bounded_time() {
    let Some(mut stage) = Stage::start(18, local()).await else { return };
    stage.cluster.sql("CREATE TABLE sound AS SELECT 5 AS n").await.expect("make a table");
    bulk(&stage.cluster, "load", 250).await;
    stage.cluster.sql("CHECKPOINT").await.expect("checkpoint");
    let relation = stage.cluster.value("SELECT pg_relation_filepath('load')").await.expect("ask for the path");
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let path = stage.cluster.data().join(&relation);
    let pages = std::fs::metadata(&path).expect("look at the table").len() / PAGE;
    assert!(pages > 25_000, "{pages}");
    for block in 0..pages {
        flip(&path, block);
    }
    stage.cluster.start().await.expect("start");
    let began = Instant::now();
    let report = stage.json(&["backup", "--jobs", "1"]);
    assert!(began.elapsed() < Duration::from_mins(10), "it took {:?}", began.elapsed());
    // One of 65,536 changes of a page leaves its checksum unchanged.
    assert!((pages - 10..=pages).contains(&count(&report)), "{} of {pages}", count(&report));
    assert!(listed(&report).len() <= 1000, "the list is bounded");
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM sound").await.expect("ask"), "5");
}

async fn no_false_alarms(major: u16) {
    let settings = vec![
        ("shared_buffers", "1MB".to_owned()),
        ("bgwriter_delay", "10ms".to_owned()),
        // It would continue to write WAL after the storm, and a restore could meet a segment that is just being
        // archived.
        ("autovacuum", "off".to_owned()),
    ];
    let plan = Plan { settings, ..local() };
    let Some(stage) = Stage::start(major, plan).await else { return };
    bulk(&stage.cluster, "load", 16).await;
    stage
        .cluster
        .sql(
            "CREATE INDEX load_id ON load (id); CREATE INDEX load_text ON load (text); \
             CREATE TABLE accounts AS SELECT g AS id, 0 AS n, repeat('x', 80) AS filler FROM generate_series(1, 50000) g; \
             CREATE INDEX ON accounts (id)",
        )
        .await
        .expect("load");
    let storm = Storm::start(
        &stage.cluster,
        &[
            "UPDATE accounts SET n = n + 1 WHERE id % 17 = {n} % 17;; SELECT pg_sleep(0.02)",
            "UPDATE accounts SET n = n - 1 WHERE id BETWEEN ({n} * 4000) % 50000 AND ({n} * 4000) % 50000 + 4000;; VACUUM accounts;; SELECT pg_sleep(0.02)",
            "UPDATE load SET text = md5(text) || text WHERE id % 101 = {n} % 101;; SELECT pg_sleep(0.02)",
            "INSERT INTO load SELECT -g, repeat(md5(g::text), 7) FROM generate_series(1, 2000) g;; DELETE FROM load WHERE id < 0;; SELECT pg_sleep(0.02)",
            // After every checkpoint each page is written completely into the WAL again. Without pauses the archiver
            // would be minutes late, and gigabytes of WAL would fill a small disk.
            "CHECKPOINT;; SELECT pg_sleep(0.5)",
        ],
    );
    for round in 0..4 {
        let report = stage.json(&["backup"]);
        assert_eq!(count(&report), 0, "backup {round}: {report}");
        assert_eq!(report["warnings"], serde_json::json!([]), "{report}");
    }
    storm.end();
    let sum = "SELECT count(*), sum(n), (SELECT md5(string_agg(text, '' ORDER BY id, text)) FROM load) FROM accounts";
    let expected = stage.cluster.sql(sum).await.expect("sum up");
    stage.archive_now().await;
    let restored = stage.restore_and_start("restored", &[]).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(sum).await.expect("sum up"), expected);
    am_check(&restored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_writes_gives_no_false_alarm_on_18() {
    no_false_alarms(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_writes_gives_no_false_alarm_on_14() {
    no_false_alarms(14).await;
}

/// A cluster without checksums: each backup warns once, unless the check is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn without_checksums_there_is_one_warning() {
    let Some(stage) = Stage::start(18, Plan { checksums: false, ..local() }).await else { return };
    let output = stage.run(&["backup"]);
    assert!(output.status.success(), "{output:?}");
    let warned = String::from_utf8_lossy(&output.stderr);
    assert_eq!(warned.matches("no data checksums").count(), 1, "{warned}");
    assert!(stage.ok(&["list"]).contains("no page checksums"));
    let backup = last_of_list(&stage);
    assert_eq!(find(&backup, "data_checksums"), Some(&Value::Bool(false)), "{backup}");
    let output = stage.run(&["backup", "--no-page-checks"]);
    assert!(output.status.success(), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("checksum"), "{output:?}");
}
