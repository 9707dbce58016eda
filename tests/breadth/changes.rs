//! Changes during a running backup: files that shrink and vanish while it waits, and storms of DDL. The WAL makes
//! consistent what was copied meanwhile.

use std::time::Duration;

use holdfast_testkit::rows::{Pace, RowWriter};

use super::kit::{SUM, local, tablespace};
use crate::stage::held::SlowStore;
use crate::stage::proof::{Storm, am_check, bulk, find, finish, holds_all, number, text, verify_backup};
use crate::stage::{self, Plan, Seal, Stage, wait_promoted};

/// The backup stops in the middle of the copy while most of the files that it still has to read change.
#[tokio::test(flavor = "multi_thread")]
async fn files_change_and_vanish_while_a_backup_waits() {
    let plan = Plan { seal: Seal::Passphrase, compression: "none", wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let store = SlowStore::of(&stage);
    // `base/1` comes before `base/5` (postgres) and the others: the first MiBs fill the budget.
    let cluster = &stage.cluster;
    cluster.sql("CREATE DATABASE doomed").await.expect("make a database");
    cluster.sql_in("template1", "SELECT 1").await.expect("connect");
    bulk(cluster, "first", 48).await;
    for (name, mib) in [("shrunk", 3), ("emptied", 2), ("dropped", 2), ("rewritten", 3), ("vacuumed", 3)] {
        bulk(cluster, name, mib).await;
    }
    cluster.sql_in("doomed", "CREATE TABLE t AS SELECT generate_series(1, 1000) n").await.expect("fill the database");
    cluster.sql("CREATE INDEX rewritten_id ON rewritten (id); CHECKPOINT").await.expect("index");
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(10).await.expect("write rows");

    let backup = store.hold(&stage, &["--output", "json", "backup"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for statement in [
        "DROP DATABASE doomed",
        "DROP TABLE dropped",
        "TRUNCATE emptied",
        "DELETE FROM shrunk WHERE id > 100",
        "VACUUM shrunk",
        "ALTER TABLE rewritten ALTER id TYPE bigint",
        "UPDATE vacuumed SET id = -id",
        "VACUUM FULL vacuumed",
        "CREATE TABLE created AS SELECT g AS id, 'new' AS text FROM generate_series(1, 5000) g",
        "CREATE DATABASE newborn",
        "CHECKPOINT",
    ] {
        cluster.sql(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    cluster.sql_in("newborn", "CREATE TABLE t AS SELECT generate_series(1, 1000) n").await.expect("fill a database");
    store.proxy.resume();
    let output = backup.wait_with_output().expect("wait for the backup");
    let report = stage::succeeded(&output, &["backup"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(number(&report, "removed_file_count") > 0, "nothing was removed under the backup: {report}");
    let (journal, end) = finish(writer, cluster).await;
    let tables = ["first", "shrunk", "emptied", "rewritten", "vacuumed", "created"];
    let mut sums = Vec::new();
    for table in tables {
        sums.push(cluster.sql(&format!("{SUM}{table}")).await.expect("sum up"));
    }
    stage.archive_now().await;

    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    verify_backup(&stage, &target);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    holds_all(&restored, &journal, end).await;
    for (table, sum) in tables.iter().zip(sums) {
        assert_eq!(restored.sql(&format!("{SUM}{table}")).await.expect("sum up"), sum, "{table}");
    }
    assert_eq!(restored.value("SELECT to_regclass('dropped') IS NULL").await.expect("ask"), "t");
    assert_eq!(restored.value("SELECT count(*) FROM pg_database WHERE datname = 'doomed'").await.expect("ask"), "0");
    let newborn = restored.sql_in("newborn", "SELECT count(*) FROM t").await.expect("count");
    assert_eq!(newborn, [["1000"]]);
    am_check(&restored);
}

/// Two thousand tables, several databases, and every kind of DDL at the same time, during three backups.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_ddl_does_not_matter() {
    let plan = Plan { wal_segment_mib: 16, settings: vec![("max_locks_per_transaction", "256".to_owned())], ..local() };
    let Some(stage) = Stage::start(18, plan).await else { return };
    let cluster = &stage.cluster;
    let storm_space = tablespace(&stage, "storm", "ts_storm").await;
    stage.scratch.folder("ts_brief").expect("make a folder");
    let brief = stage.scratch.path().join("ts_brief");
    cluster
        .sql(
            "DO $$ BEGIN FOR n IN 1..2000 LOOP EXECUTE format('CREATE TABLE many_%s (n int)', n); \
             EXECUTE format('INSERT INTO many_%s VALUES (%s)', n, n); END LOOP; END $$; \
             CREATE TABLE left_side (id int PRIMARY KEY, text text); CREATE TABLE right_side (LIKE left_side); \
             CREATE TABLE counters (id int PRIMARY KEY, n bigint); \
             INSERT INTO counters SELECT g, 0 FROM generate_series(1, 100) g; \
             CREATE TABLE churn AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) g; \
             CREATE INDEX churn_id ON churn (id); CREATE UNLOGGED TABLE passing (n int)",
        )
        .await
        .expect("load");
    for name in ["one", "two"] {
        cluster.sql(&format!("CREATE DATABASE {name}")).await.expect("make a database");
        cluster
            .sql_in(name, &format!("CREATE TABLE t AS SELECT '{name}' AS name FROM generate_series(1, 1000)"))
            .await
            .expect("fill a database");
    }
    let brief_loop = format!(
        "CREATE TABLESPACE brief LOCATION '{}';; CREATE TABLE brief_t TABLESPACE brief AS SELECT 1 AS n;; \
         DROP TABLE brief_t;; DROP TABLESPACE brief",
        brief.display()
    );
    let storm = Storm::start(
        cluster,
        &[
            "BEGIN; INSERT INTO left_side VALUES ({n}, md5('{n}')); INSERT INTO right_side VALUES ({n}, md5('{n}')); COMMIT",
            "VACUUM FULL churn;; REINDEX TABLE churn;; UPDATE churn SET text = md5(text) WHERE id % 7 = {n} % 7;; \
             ALTER TABLE churn SET TABLESPACE storm;; CLUSTER churn USING churn_id;; ALTER TABLE churn SET TABLESPACE pg_default",
            "CREATE TABLE gone AS SELECT g FROM generate_series(1, 3000) g;; TRUNCATE gone;; \
             INSERT INTO gone SELECT g FROM generate_series(1, 3000) g;; DROP TABLE gone",
            "CREATE DATABASE gone_{n} STRATEGY file_copy;; DROP DATABASE gone_{n};; \
             CREATE DATABASE gone_{n} STRATEGY wal_log;; DROP DATABASE gone_{n}",
            "ALTER TABLE passing SET LOGGED;; INSERT INTO passing VALUES ({n});; ALTER TABLE passing SET UNLOGGED;; \
             UPDATE counters SET n = n + 1;; VACUUM counters;; CHECKPOINT",
            "CREATE TEMP TABLE IF NOT EXISTS mine (n int);; INSERT INTO mine SELECT generate_series(1, 30000);; \
             TRUNCATE mine;; SELECT count(*) FROM (SELECT md5(g::text) FROM generate_series(1, 60000) g ORDER BY 1) s",
            &brief_loop,
        ],
    );
    let writer = RowWriter::start(cluster, Pace::default()).await.expect("start the writer");
    let mut removed = 0;
    for _ in 0..3 {
        let report = stage.json(&["backup"]);
        removed += number(&report, "removed_file_count");
        assert_eq!(find(&report, "checksum_failures").map(|found| number(found, "count")), Some(0), "{report}");
        assert!(number(&report, "file_count") > 2000, "{report}");
    }
    eprintln!("{removed} files vanished under the backups");
    storm.end();
    let (journal, end) = finish(writer, cluster).await;
    let invariant = "SELECT (SELECT count(*) FROM left_side) = (SELECT count(*) FROM right_side), \
                     (SELECT count(*) FROM left_side JOIN right_side USING (id, text)) = (SELECT count(*) FROM left_side), \
                     (SELECT min(n) = max(n) FROM counters), (SELECT count(*) FROM churn)";
    let sums = [format!("{SUM}churn"), format!("{SUM}left_side"), "SELECT sum(n) FROM counters".to_owned()];
    let mut expected = Vec::new();
    for sum in &sums {
        expected.push(cluster.sql(sum).await.expect("sum up"));
    }
    stage.archive_now().await;
    let listed = stage.json(&["list"]);
    let backups = find(&listed, "backups").and_then(|backups| backups.as_array()).expect("backups").clone();
    assert_eq!(backups.len(), 3);
    let mapping = format!("storm={}", stage.target("storm-end").display());
    for (n, backup) in backups.iter().enumerate().filter(|(n, _)| *n != 1) {
        // A tablespace that existed only for a moment is in some of the backups. It must be mapped to another place
        // too.
        let moved = stage.target(&format!("brief-{n}"));
        let spaces = find(backup, "tablespaces").and_then(|list| list.as_array()).expect("tablespaces");
        let brief_mapping = spaces
            .iter()
            .find(|space| text(space, "path") == brief.display().to_string())
            .map(|space| format!("{}={}", number(space, "oid"), moved.display()));
        let id = text(backup, "backup_id");
        let (last, target) = (n + 1 == backups.len(), stage.target(&format!("storm-{n}")));
        let storm_mapping =
            if last { mapping.clone() } else { format!("storm={}", stage.target(&format!("s{n}")).display()) };
        let mut arguments = vec![
            "restore",
            "--pgdata",
            target.to_str().expect("UTF-8"),
            "--backup",
            id,
            "--tablespace",
            &storm_mapping,
        ];
        if let Some(mapping) = &brief_mapping {
            arguments.extend(["--tablespace", mapping]);
        }
        if !last {
            arguments.extend(["--target-immediate", "--target-action", "promote"]);
        }
        stage.ok(&arguments);
        verify_backup(&stage, &target);
        let restored = stage.start_restored(&target).await;
        wait_promoted(&restored).await;
        assert_eq!(restored.sql(invariant).await.expect("ask"), [["t", "t", "t", "20000"]], "backup {n}");
        let many = "SELECT count(*) FROM pg_class WHERE relname LIKE 'many\\_%' AND pg_relation_size(oid) = 8192";
        assert_eq!(restored.value(many).await.expect("count"), "2000");
        for name in ["one", "two"] {
            let found = restored.sql_in(name, "SELECT count(*), min(name) FROM t").await.expect("count");
            assert_eq!(found, [["1000", name]]);
        }
        if last {
            for (sum, expected) in sums.iter().zip(&expected) {
                assert_eq!(&restored.sql(sum).await.expect("sum up"), expected, "{sum}");
            }
            holds_all(&restored, &journal, end).await;
            am_check(&restored);
        }
    }
    assert!(storm_space.exists());
}
