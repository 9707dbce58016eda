//! `wal find`, as somebody uses it who has dropped the wrong table: find the drop, paste the flags into `restore`,
//! start the server, and the rows are there.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

const ROWS: u32 = 1000;

fn places(report: &Value) -> &[Value] {
    report["places"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The flags of the first way, as words.
fn flags(place: &Value) -> Vec<String> {
    let flags = place["ways"][0]["flags"].as_array().expect("flags");
    flags.iter().map(|flag| flag.as_str().expect("a flag").to_owned()).collect()
}

fn kind(place: &Value) -> &str {
    text(place, "what")
}

/// Runs the `holdfast restore` line of a text, as a person would paste it, with a directory in place of DIR.
fn paste(stage: &Stage, found: &str, directory: &Path) {
    let line = found.lines().find_map(|line| line.split_once("holdfast restore --pgdata DIR ")).expect("a command").1;
    let script = format!(
        "exec {} --config {} restore --pgdata {} {line} --target-action promote",
        stage.holdfast.display(),
        stage.config.display(),
        directory.display()
    );
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(&script);
    holdfast_testkit::user::run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run a shell");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Restores with the pasted line of a text, and returns what a query answers there.
async fn restored(stage: &Stage, found: &str, name: &str, database: &str, query: &str) -> String {
    let directory = stage.target(name);
    paste(stage, found, &directory);
    let server = stage.start_restored(&directory).await;
    wait_promoted(&server).await;
    let rows = server.sql_in(database, query).await.unwrap_or_else(|e| panic!("{query}: {e}\n{}", server.log_text()));
    rows.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

async fn a_dropped_table_comes_back(major: u16, plan: Plan) {
    let Some(stage) = Stage::start(major, plan).await else { return };
    let fill = format!("INSERT INTO orders SELECT g FROM generate_series(1, {ROWS}) g");
    stage.cluster.sql(&format!("CREATE TABLE orders (id int PRIMARY KEY); {fill}")).await.expect("make a table");
    stage.cluster.sql("CREATE DATABASE shop").await.expect("make a database");
    stage.cluster.sql_in("shop", "CREATE TABLE goods AS SELECT 7 AS n").await.expect("make a table");
    stage.ok(&["backup"]);
    // No backup knows this table, and its rewrite gives the other one another file than the backup has.
    stage
        .cluster
        .sql("CREATE SCHEMA new; CREATE TABLE new.items AS SELECT 5 AS n; INSERT INTO orders VALUES (0)")
        .await
        .expect("write");
    stage.cluster.sql("VACUUM FULL orders").await.expect("rewrite");
    let oid = stage.cluster.value("SELECT 'orders'::regclass::oid").await.expect("ask");
    let path = stage.cluster.value("SELECT pg_relation_filepath('orders')").await.expect("ask");
    stage.cluster.sql("BEGIN; INSERT INTO orders VALUES (-1); COMMIT").await.expect("write");
    stage.cluster.sql("DROP TABLE orders").await.expect("drop");
    stage.cluster.sql("CREATE TABLE later AS SELECT 1 AS n").await.expect("write");
    stage.cluster.sql("DROP TABLE new.items").await.expect("drop");
    stage.cluster.sql("DROP DATABASE shop").await.expect("drop");
    stage.archive_now().await;

    // By name, OID and file.
    let by_name = stage.json(&["wal", "find", "--before-drop", "orders"]);
    let kinds: Vec<&str> = places(&by_name).iter().map(kind).collect();
    assert_eq!(kinds, ["drop", "rewrite"], "{by_name}");
    let drop = &places(&by_name)[0];
    assert_eq!(drop["change"]["recognised"]["schema_name"], "public");
    assert_eq!(drop["change"]["recognised"]["row_type"], true);
    assert_eq!(places(&by_name)[1]["change"]["recognised"]["row_type"], false);
    assert_eq!(drop["change"]["database_name"], "postgres");
    let known = &drop["change"]["known_relations"];
    assert!(
        known
            .as_array()
            .expect("names")
            .iter()
            .any(|known| known["name"] == "orders" && known["file_is_gone"] == false),
        "{known}"
    );
    for other in ["public.orders", "ORDERS", &oid, &path] {
        let found = stage.json(&["wal", "find", "--before-drop", other]);
        assert_eq!(places(&found)[0]["lsn"], drop["lsn"], "{other}: {found}");
    }
    assert_eq!(by_name["searched"]["segments_read"], 0, "{by_name}");
    let (code, error) = stage.fails(&["wal", "find", "--before-drop", "\"ORDERS\""]);
    assert_eq!(code, 61);
    assert!(error.contains("error: no drop, truncation or rewrite of this was found in "), "{error}");

    let found = stage.ok(&["wal", "find", "--before-drop", "orders"]);
    let count = "SELECT count(*) || '/' || min(id) || '/' || to_regclass('later') IS NULL FROM orders";
    let expected = format!("{}/-1/true", ROWS + 2);
    let count = count.replace("to_regclass('later') IS NULL", "(to_regclass('later') IS NULL)");
    assert_eq!(restored(&stage, &found, "orders", "postgres", &count).await, expected);

    // A table in a schema that no backup knows.
    let found = stage.json(&["wal", "find", "--before-drop", "items"]);
    let schema = stage.cluster.value("SELECT 'new'::regnamespace::oid").await.expect("ask");
    assert_eq!(found["places"][0]["change"]["recognised"]["schema"].to_string(), schema, "{found}");
    // It may be another one, so its flags have to be asked for.
    assert_eq!(found["places"][0]["ways"], serde_json::json!([]), "{found}");
    assert!(found["notes"].to_string().contains("may be about another relation"), "{found}");
    let found = stage.ok(&["wal", "find", "--lsn", text(&found["places"][0], "lsn")]);
    assert_eq!(restored(&stage, &found, "items", "postgres", "SELECT n FROM new.items").await, "5");

    // A database, which must not be marked invalid.
    let found = stage.ok(&["wal", "find", "--before-drop", "shop"]);
    assert_eq!(restored(&stage, &found, "shop", "shop", "SELECT n FROM goods").await, "7");

    let all = stage.json(&["wal", "find"]);
    let kinds: Vec<&str> = places(&all).iter().map(kind).collect();
    assert_eq!(kinds, ["drop-database", "drop", "drop", "rewrite"], "{all}");
    let none = stage.json(&["wal", "find", "--ddl", "--since", "2099-01-01T00:00:00Z"]);
    assert!(places(&none).is_empty(), "{none}");
    let until = text(&places(&all)[1], "time").to_owned();
    let some = stage.json(&["wal", "find", "--ddl", "--until", &until]);
    assert_eq!(places(&some).len(), 3, "{some}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_comes_back_on_19() {
    a_dropped_table_comes_back(19, Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_comes_back_on_18() {
    a_dropped_table_comes_back(18, Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_comes_back_on_13_with_small_segments() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    a_dropped_table_comes_back(13, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_found_by_time_transaction_lsn_and_name() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let Some(stage) = Stage::start(16, plan).await else { return };
    stage.cluster.sql("CREATE TABLE t (n int)").await.expect("make a table");
    stage.ok(&["backup"]);
    stage.cluster.sql("INSERT INTO t VALUES (1)").await.expect("write");
    let row = stage
        .cluster
        .sql("INSERT INTO t VALUES (2) RETURNING pg_current_xact_id(), now() AT TIME ZONE 'UTC' || '+00'")
        .await
        .expect("write");
    let (xid, began) = (&row[0][0], &row[0][1]);
    stage.cluster.sql("SELECT pg_create_restore_point('the place')").await.expect("make a restore point");
    let lsn = stage.cluster.value("SELECT pg_current_wal_insert_lsn()").await.expect("ask");
    stage.cluster.sql("INSERT INTO t VALUES (3)").await.expect("write");
    stage.archive_now().await;

    let by_xid = stage.json(&["wal", "find", "--xid", xid]);
    let place = &places(&by_xid)[0];
    assert_eq!((place["xid"].to_string(), text(place, "what")), (xid.clone(), "commit"));
    assert_eq!(flags(place), ["--target-xid", xid, "--target-exclusive"]);
    assert_eq!(place["ways"][1]["flags"].as_array().expect("flags").len(), 2);
    // Recovery to the moment at which it began stops before its commit.
    let by_time = stage.json(&["wal", "find", "--time", began]);
    assert_eq!(places(&by_time)[0]["lsn"], place["lsn"], "{by_time}");
    let by_name = stage.json(&["wal", "find", "--name", "the place"]);
    assert_eq!(flags(&places(&by_name)[0]), ["--target-name", "the place"]);
    assert_eq!(
        (kind(&places(&by_name)[0]), &places(&by_name)[0]["name"]),
        ("restore-point", &Value::from("the place"))
    );
    let by_lsn = stage.json(&["wal", "find", "--lsn", &lsn]);
    assert_eq!(places(&by_lsn)[0]["lsn"], *lsn);

    let counted = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t";
    for (what, name, expected) in
        [("--xid", "by-xid", "1"), ("--time", "by-time", "1"), ("--name", "by-name", "1 2"), ("--lsn", "by-lsn", "1 2")]
    {
        let value = match what {
            "--xid" => xid,
            "--time" => began,
            "--name" => "the place",
            _ => &lsn,
        };
        let found = stage.ok(&["wal", "find", what, value]);
        assert_eq!(restored(&stage, &found, name, "postgres", counted).await, expected, "{found}");
    }
    let (code, error) = stage.fails(&["wal", "find", "--xid", "400000"]);
    assert_eq!(code, 61, "{error}");
}
