//! Every supported major, each with another store, codec and encryption: back up while rows are written, restore,
//! start, and compare the rows. PostgreSQL's own tools agree with the restored directory.

use std::process::Command;

use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};
use holdfast_testkit::rows::{Pace, RowWriter, Target, found};
use holdfast_testkit::user::run_as_postgres;

async fn round_trip(major: u16, plan: Plan) {
    let Some(stage) = Stage::start(major, plan).await else { return };
    stage
        .cluster
        .sql(
            "CREATE TABLE load AS SELECT g AS id, md5(g::text) AS text, repeat(md5((g % 100)::text), 3) AS filler \
             FROM generate_series(1, 60000) g; CREATE INDEX ON load (id); \
             CREATE UNLOGGED TABLE scratch_table AS SELECT generate_series(1, 1000) AS n; \
             CREATE TABLE empty_table (n int); CHECKPOINT",
        )
        .await
        .expect("load data");
    let writer = RowWriter::start(&stage.cluster, Pace::default()).await.expect("start the writer");
    writer.wait_for_rows(20).await.expect("write rows");
    let report = stage.json(&["backup"]);
    let committed = writer.journal().rows().len();
    writer.wait_for_rows(committed as u64 + 20).await.expect("write more rows");
    let journal = writer.stop().await.expect("stop the writer");
    let end: u64 = stage
        .cluster
        .value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        .await
        .expect("ask for the LSN")
        .parse()
        .expect("a number");
    let sum = "SELECT count(*), sum(id), md5(string_agg(text, '' ORDER BY id)) FROM load";
    let expected = stage.cluster.sql(sum).await.expect("sum up");
    stage.archive_now().await;

    // PostgreSQL's own check of the directory, before a server changes it.
    let target = stage.target("restored");
    stage.ok(&["restore", "--pgdata", &target.display().to_string()]);
    verify_backup(&stage, &target);
    let restored = stage.start_restored(&target).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.sql(sum).await.expect("sum up"), expected);
    let rows = found(&restored).await.expect("read the rows");
    journal.check(&Target::Latest(end), &rows).unwrap_or_else(|e| panic!("{e}"));
    let unlogged = restored.value("SELECT count(*) FROM scratch_table").await.expect("read the unlogged table");
    assert_eq!(unlogged, "0", "an unlogged table is reset by its init fork");
    am_check(&restored);
    assert!(report.to_string().contains("stop_lsn"), "{report}");
}

/// `pg_verifybackup` agrees with the restored directory.
fn verify_backup(stage: &Stage, target: &std::path::Path) {
    let Some(tool) = stage.installation.program("pg_verifybackup") else { return };
    let mut command = Command::new(tool);
    command.args(["--no-parse-wal", "--exit-on-error"]).arg(target);
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run pg_verifybackup");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `pg_amcheck` finds nothing in the restored cluster; it needs its extension.
fn am_check(restored: &holdfast_testkit::postgres::Cluster) {
    let Some(tool) = restored.installation().program("pg_amcheck") else { return };
    let mut command = Command::new(tool);
    command.args(["--install-missing", "--heapallindexed", "-U", "postgres", "-d", "postgres"]);
    command.arg("-h").arg(restored.socket_folder()).arg("-p").arg(restored.port().to_string());
    run_as_postgres(&mut command).expect("drop to PostgreSQL's user");
    let output = command.output().expect("run pg_amcheck");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_19_on_s3_with_a_key_file_and_segments_of_1_mib() {
    round_trip(19, Plan { seal: Seal::KeyFile, wal_segment_mib: 1, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_18_on_s3_with_a_passphrase() {
    round_trip(18, Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_17_in_a_directory_with_lz4_and_a_key_file() {
    let plan = Plan {
        store: StoreKind::Directory,
        seal: Seal::KeyFile,
        compression: "lz4",
        wal_compression: "lz4",
        ..Plan::default()
    };
    round_trip(17, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_16_on_s3_with_gzip_unencrypted() {
    let plan = Plan { seal: Seal::None, compression: "gzip:1", wal_compression: "gzip:1", ..Plan::default() };
    round_trip(16, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_15_on_s3_with_zstd_1_and_segments_of_1_mib() {
    let plan = Plan { seal: Seal::None, compression: "zstd:1", wal_segment_mib: 1, ..Plan::default() };
    round_trip(15, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_14_in_a_directory_uncompressed_with_a_passphrase() {
    let plan = Plan {
        store: StoreKind::Directory,
        compression: "none",
        wal_compression: "none",
        checksums: false,
        ..Plan::default()
    };
    round_trip(14, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_13_in_a_directory_unencrypted() {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 64, ..Plan::default() };
    round_trip(13, plan).await;
}
