//! A record whose last pages a crash lost: the server continues on the page where the rest would be, and marks that
//! page. What is archived from there on is read like any other WAL.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use holdfast_pgtypes::wal::page::WalPageHeader;
use holdfast_pgtypes::{Lsn, PgVersion};
use holdfast_testkit::postgres::{Cluster, MAJORS};

use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

const PAGE: u64 = 8192;
const SEGMENT: u64 = 1 << 20;

async fn insert_lsn(cluster: &Cluster) -> Lsn {
    let text = cluster.value("SELECT pg_current_wal_insert_lsn()").await.expect("ask for the LSN");
    text.parse().expect("an LSN")
}

/// Writes a record over several pages, ends the server, and removes all pages of the record but the first, as a crash
/// of the machine does. Returns the segment and the offset of the first lost page.
async fn lose_the_end_of_a_record(stage: &mut Stage) -> (PathBuf, u64) {
    // The whole record is in one segment, because it begins near the head of one.
    stage.archive_now().await;
    stage.cluster.sql("CREATE TABLE of_the_new_segment (n int)").await.expect("write");
    let record = insert_lsn(&stage.cluster).await;
    let name = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await.expect("its name");
    // The message is not flushed by itself; the commit after it is.
    stage
        .cluster
        .sql("SELECT pg_logical_emit_message(false, 'x', repeat('y', 60000)); CREATE TABLE lost (n int)")
        .await
        .expect("write a long record");
    stage.cluster.kill9().await.expect("kill the server");
    let path = stage.cluster.data().join("pg_wal").join(name);
    let lost = (record.as_u64() % SEGMENT).next_multiple_of(PAGE);
    assert!(lost + 6 * PAGE < SEGMENT, "{record}");
    let file = OpenOptions::new().write(true).open(&path).expect("open the segment");
    file.write_all_at(&vec![0; (SEGMENT - lost) as usize], lost).expect("lose the pages");
    (path, lost)
}

async fn read_on(major: u16) {
    // No page of a table may be on disk that is newer than the WAL, as on a machine where fsync works.
    let settings = vec![
        ("autovacuum", "off".to_owned()),
        ("bgwriter_lru_maxpages", "0".to_owned()),
        ("checkpoint_timeout", "1h".to_owned()),
    ];
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, settings, ..Plan::default() };
    let Some(mut stage) = Stage::start(major, plan).await else { return };
    stage.ok(&["backup"]);
    let (path, lost) = lose_the_end_of_a_record(&mut stage).await;
    stage.cluster.start().await.unwrap_or_else(|e| panic!("{e}\n{}", stage.cluster.log_text()));
    let mut page = vec![0; PAGE as usize];
    let file = std::fs::File::open(&path).expect("open the segment");
    file.read_exact_at(&mut page, lost).expect("read the page");
    let header = WalPageHeader::parse(&page).expect("a header");
    let version = PgVersion::new(major).expect("a supported major");
    assert!(
        header.is_overwrite() && header.has_known_flags(),
        "PostgreSQL {major} marks the page with {:04X}, and PgVersion has {:04X}",
        header.info,
        version.wal_overwrite_flag()
    );

    stage.cluster.sql("CREATE TABLE after AS SELECT 7 AS n").await.expect("write");
    stage.cluster.sql("DROP TABLE after").await.expect("drop");
    stage.cluster.sql("CREATE TABLE later AS SELECT 1 AS n").await.expect("write");
    let xid = stage.cluster.value("SELECT xmin FROM later").await.expect("ask for the transaction");
    stage.archive_now().await;
    let found = stage.json(&["wal", "find", "--before-drop", "after"]);
    assert_eq!(found["places"][0]["what"], "drop", "PostgreSQL {major}: {found}");
    let flags = found["places"][0]["ways"][0]["flags"].as_array().expect("flags").clone();
    let mut flags: Vec<&str> = flags.iter().map(|flag| flag.as_str().expect("a flag")).collect();
    flags.extend(["--target-action", "promote"]);
    let restored = stage.restore_and_start("before-the-drop", &flags).await;
    wait_promoted(&restored).await;
    assert_eq!(restored.value("SELECT n FROM after").await.expect("read the row"), "7", "PostgreSQL {major}");
    drop(restored);
    // The transaction is found by reading the WAL, and so is the end of what can be restored.
    let restored = stage.restore_and_start("xid", &["--target-xid", &xid, "--target-action", "promote"]).await;
    wait_promoted(&restored).await;
    let gone = "SELECT to_regclass('after') IS NULL AND to_regclass('lost') IS NULL";
    assert_eq!(restored.value(gone).await.expect("ask"), "t", "PostgreSQL {major}");
    assert_eq!(restored.value("SELECT n FROM later").await.expect("read the row"), "1", "PostgreSQL {major}");
    // Every record is read and compared with its CRC.
    let verified = stage.json(&["wal", "verify"]);
    assert_eq!(verified["repositories"][0]["findings"], serde_json::json!([]), "PostgreSQL {major}: {verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_is_read_across_a_page_that_was_written_after_a_crash_of_19() {
    read_on(19).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_is_read_across_a_page_that_was_written_after_a_crash_of_18() {
    read_on(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_is_read_across_a_page_that_was_written_after_a_crash_of_older_majors() {
    for major in MAJORS.into_iter().filter(|major| *major < 18) {
        read_on(major).await;
    }
}
