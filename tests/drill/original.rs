//! The original must not decide the result: its event triggers, its old extension, its settings for roles and
//! databases, a configuration that is elsewhere, and damaged catalogs.

use std::fs;

use holdfast_testkit::postgres::Shutdown;
use serde_json::Value;

use super::{drill, kinds, proven};
use crate::stage::attack::{back_up, files_below};
use crate::stage::{Plan, Seal, Stage, StoreKind};

fn plain() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() }
}

/// An event trigger can reach the outside world through any program, and may forbid what the drill needs. Before 17 no
/// setting switches event triggers off.
async fn nothing_of_the_original_fires(major: u16) {
    let Some(stage) = Stage::start(major, plain()).await else { return };
    let sign = stage.scratch.path().join("acted");
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    stage.cluster.sql("CREATE DATABASE app").await.expect("make a database");
    // As after pg_upgrade: without the functions that pg_amcheck calls.
    stage.cluster.sql_in("app", "CREATE EXTENSION amcheck VERSION '1.2'").await.expect("make an old extension");
    let aged = "UPDATE pg_collation SET collversion = '0.1' WHERE pg_collation_actual_version(oid) IS NOT NULL";
    stage.cluster.sql_in("app", aged).await.expect("age the collations");
    let aged = "SELECT count(*) FROM pg_collation WHERE collversion = '0.1'";
    let aged = stage.cluster.sql_in("app", aged).await.expect("count")[0][0] != "0";
    let act = format!(
        "CREATE FUNCTION act() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN \
         EXECUTE $c$ COPY (SELECT 1) TO PROGRAM 'touch {}' $c$; RAISE EXCEPTION 'no changes here'; END $f$",
        sign.display()
    );
    for (database, enabled) in [("app", "ALWAYS"), ("postgres", "REPLICA")] {
        for statement in [
            act.as_str(),
            "CREATE EVENT TRIGGER \"a Trigger\" ON ddl_command_end EXECUTE FUNCTION act()",
            "CREATE EVENT TRIGGER another ON ddl_command_start EXECUTE FUNCTION act()",
            &format!("ALTER EVENT TRIGGER \"a Trigger\" ENABLE {enabled}"),
        ] {
            stage.cluster.sql_in(database, statement).await.expect("make an event trigger");
        }
    }
    back_up(&stage);
    // Settings of a role or a database override the server's command line.
    let mut said =
        vec!["ALTER ROLE postgres SET zero_damaged_pages = on", "ALTER DATABASE app SET idle_session_timeout = 1"];
    if major >= 17 {
        said.extend(["ALTER DATABASE app SET event_triggers = on", "ALTER DATABASE app SET transaction_timeout = 1"]);
    }
    for statement in said {
        // Such a command fires no event trigger: it changes an object that all databases share.
        stage.cluster.sql(statement).await.expect("set");
    }
    stage.archive_now().await;
    assert!(!sign.exists(), "the original has acted itself");

    let probes = stage.scratch.path().join("probes.sql");
    fs::write(
        &probes,
        "SELECT current_setting('zero_damaged_pages') = 'off';\nSELECT current_setting('idle_session_timeout') = '0';\n\
         SELECT count(*) = 2 FROM pg_event_trigger;\n",
    )
    .expect("write the probes");
    let ended = drill(&stage, &["--database", "app", "--probe", probes.to_str().expect("a path")]);
    assert!(!sign.exists(), "the copy has acted outside: {:#}", ended.1);
    proven(&ended);
    assert_eq!(ended.1["amcheck"]["outcome"], "passed", "{:#}", ended.1);
    assert_eq!(ended.1["notes"].to_string().contains("has version "), aged, "{:#}", ended.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_original_fires_on_15() {
    nothing_of_the_original_fires(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_original_fires_on_18() {
    nothing_of_the_original_fires(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_original_fires_on_19() {
    nothing_of_the_original_fires(19).await;
}

/// Debian keeps the configuration outside of the data directory: the control file says what replay needs.
async fn without_a_configuration(major: u16) {
    let origins = if major >= 18 { "max_active_replication_origins" } else { "max_replication_slots" };
    let settings = vec![("max_prepared_transactions", "150".to_owned()), (origins, "40".to_owned())];
    let Some(mut stage) = Stage::start(major, Plan { settings, ..plain() }).await else { return };
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let data = stage.cluster.data().to_owned();
    let elsewhere = stage.scratch.folder("etc").expect("make a folder");
    for (name, setting) in
        [("postgresql.conf", "config_file"), ("pg_hba.conf", "hba_file"), ("pg_ident.conf", "ident_file")]
    {
        fs::rename(data.join(name), elsewhere.join(name)).expect("move a file");
        stage.cluster.override_setting(setting, elsewhere.join(name).to_str().expect("a path"));
    }
    stage.cluster.start().await.expect("start");
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    // More than a server without a configuration has room for.
    let origins = "SELECT pg_replication_origin_create('o' || g) FROM generate_series(1, 30) g";
    stage.cluster.sql(origins).await.expect("make origins");
    let advance = "SELECT pg_replication_origin_advance('o' || g, '0/10') FROM generate_series(1, 30) g";
    stage.cluster.sql(advance).await.expect("advance origins");
    stage.cluster.sql("CHECKPOINT").await.expect("write");
    back_up(&stage);
    for number in 0..120 {
        let prepare = format!("BEGIN; INSERT INTO t VALUES ({number}); PREPARE TRANSACTION 'p{number}'");
        stage.cluster.sql(&prepare).await.expect("prepare a transaction");
    }
    stage.archive_now().await;
    let probe = stage.scratch.path().join("probe.sql");
    fs::write(&probe, "SELECT count(*) = 120 FROM pg_prepared_xacts;\nSELECT count(*) = 1000 FROM t").expect("write");
    let ended = drill(&stage, &["--no-amcheck", "--probe", probe.to_str().expect("a path")]);
    proven(&ended);
    assert!(ended.1["notes"].to_string().contains("the backup has no postgresql.conf"), "{:#}", ended.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_on_15() {
    without_a_configuration(15).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_on_18() {
    without_a_configuration(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_on_19() {
    without_a_configuration(19).await;
}

/// A session needs the catalog. A damaged catalog is the worst finding, and not a fault of the drill.
#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_catalog_is_found() {
    let Some(mut stage) = Stage::start(18, plain()).await else { return };
    stage.cluster.sql("CREATE DATABASE app").await.expect("make a database");
    stage.cluster.sql("CHECKPOINT").await.expect("write");
    let relation = stage.cluster.sql_in("app", "SELECT pg_relation_filepath('pg_attribute')").await.expect("ask");
    let path = stage.cluster.data().join(&relation[0][0]);
    stage.cluster.stop(Shutdown::Fast).await.expect("stop");
    let mut bytes = fs::read(&path).expect("read");
    for page in bytes.chunks_mut(8192) {
        page[4001] ^= 0x10;
    }
    fs::write(&path, bytes).expect("write");
    stage.cluster.start().await.expect("start");
    back_up(&stage);
    stage.archive_now().await;

    let (code, report, error) = drill(&stage, &["--database", "app"]);
    assert_eq!((code, kinds(&report)), (46, vec!["server".to_owned(), "page".to_owned()]), "{report:#}\n{error}");
    let what = report["findings"][0]["what"].as_str().expect("words");
    assert!(what.contains("it came up and lets nobody in") && what.contains("XX001"), "{what}");
    assert_eq!((&report["recorded"], &report["amcheck"]["outcome"]), (&true.into(), &"not-run".into()), "{report:#}");
    assert_eq!(last_entry(&stage)["found"], Value::from(vec!["page", "server"]));
    // The same, seen from another database.
    let (code, report, error) = drill(&stage, &["--no-record"]);
    assert_eq!((code, kinds(&report)), (46, vec!["server".to_owned(), "page".to_owned()]), "{report:#}\n{error}");
    let what = report["findings"][0]["what"].as_str().expect("words");
    assert!(what.starts_with("database app: "), "{what}");
    // A database that does not exist is not damage.
    let place = super::place(&stage);
    let (code, text) = stage.fails(&super::arguments(&stage, &place, &["--database", "nowhere"]));
    assert!(code == 51 && text.contains("database \\\"nowhere\\\" does not exist"), "{code} {text}");
}

/// The newest entry of the ledger.
fn last_entry(stage: &Stage) -> Value {
    let ledger = stage.repository_folder().join("main/ledger");
    let name = files_below(&ledger).into_keys().max().expect("an entry");
    let record: Value = serde_json::from_slice(&fs::read(ledger.join(name)).expect("read")).expect("a record");
    let entry = record.pointer("/body/entry").or_else(|| record.pointer("/entry"));
    entry.unwrap_or_else(|| panic!("{record:#}")).clone()
}
