//! The numbers and layouts of `pgtypes`, held against fresh clusters of each major and its own programs. If a package
//! of a major that is not released yet is raised, the failure says which number changed.

#[path = "../crates/pgtypes/tests/controldata/mod.rs"]
mod controldata;

use std::process::Command;
use std::time::Duration;

use holdfast_pgtypes::wal::page::WalPageHeader;
use holdfast_pgtypes::wal::segment_check::{ExpectedSegment, check_segment_header};
use holdfast_pgtypes::{ControlFile, PgVersion, WalSegmentSize};
use holdfast_testkit::postgres::{Cluster, Installation, MAJORS, Shutdown};

/// Settings with values of their own, so that no field of the control file can be taken for another.
const SETTINGS: [(&str, &str); 8] = [
    ("wal_level", "logical"),
    ("wal_log_hints", "on"),
    ("max_connections", "41"),
    ("max_worker_processes", "9"),
    ("max_wal_senders", "11"),
    ("max_prepared_transactions", "3"),
    ("max_locks_per_transaction", "65"),
    ("track_commit_timestamp", "on"),
];

/// The control file of a cluster, compared with `pg_controldata` of the same major. `None` if the major comes without
/// that program: its fixtures are compared in `pgtypes`.
fn compare(cluster: &Cluster, version: PgVersion) -> Option<ControlFile> {
    let bytes = std::fs::read(cluster.data().join(ControlFile::PATH)).expect("read the control file");
    let control = ControlFile::parse(&bytes).unwrap_or_else(|error| {
        panic!(
            "PostgreSQL {version}: {error}; PgVersion has control version {} and catalog version {}",
            version.control_version(),
            version.catalog_version()
        )
    });
    let program = cluster.installation().program("pg_controldata")?;
    let output = Command::new(program)
        .arg("-D")
        .arg(cluster.data())
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output()
        .expect("run pg_controldata");
    let text = String::from_utf8(output.stdout).expect("text");
    let compared = controldata::compare(&control, &text);
    assert_eq!(compared.differences, Vec::<String>::new(), "PostgreSQL {version}");
    assert_eq!(compared.fields, 33, "PostgreSQL {version} prints other fields: {text}");
    Some(control)
}

#[tokio::test(flavor = "multi_thread")]
async fn control_files_are_read_as_pg_controldata_prints_them() {
    let mut compared = 0;
    for major in MAJORS {
        let Some(installation) = Installation::or_skip(major) else { continue };
        let version = PgVersion::new(major).expect("a supported major");
        let mut builder = Cluster::builder(&installation).wal_segment_mib(2);
        for (name, value) in SETTINGS {
            builder = builder.setting(name, value);
        }
        let mut primary = builder.start().await.expect("start the server");
        primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").await.expect("write");
        let mut standby = Cluster::standby_of(&primary).await.expect("copy a standby");
        standby.start().await.expect("start the standby");
        primary.sql("INSERT INTO t SELECT generate_series(1, 1000); CHECKPOINT").await.expect("write");
        let at = primary.value("SELECT pg_current_wal_flush_lsn()").await.expect("ask for the LSN");
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
        standby.wait_for(&replayed, Duration::from_mins(1)).await.expect("replay");
        standby.sql("CHECKPOINT").await.expect("make a restart point");
        standby.stop(Shutdown::Immediate).await.expect("stop the standby");
        primary.stop(Shutdown::Fast).await.expect("stop the server");
        let Some(control) = compare(&primary, version) else { continue };
        assert_eq!((control.min_recovery_point, control.max_connections), (None, 41));
        let control = compare(&standby, version).expect("the same programs");
        assert!(control.min_recovery_point.is_some() && control.min_recovery_timeline.is_some(), "{control:?}");
        compared += 1;
    }
    assert!(compared > 0, "no major has pg_controldata");
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_pages_have_the_magic_of_their_major() {
    for major in MAJORS {
        let Some(installation) = Installation::or_skip(major) else { continue };
        let version = PgVersion::new(major).expect("a supported major");
        let cluster = Cluster::builder(&installation).wal_segment_mib(1).start().await.expect("start the server");
        let name = cluster.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await.expect("name the segment");
        let bytes = std::fs::read(cluster.data().join("pg_wal").join(&name)).expect("read the segment");
        let header = WalPageHeader::parse(&bytes).expect("a header");
        let (found, known) = (header.magic, version.wal_page_magic());
        assert_eq!(found, known, "PostgreSQL {version}: pages begin with {found:04X}, and PgVersion has {known:04X}");
        let system_identifier = header.long.expect("a long header").system_identifier;
        let size = WalSegmentSize::new(1 << 20).expect("a size");
        let name = name.parse().expect("a segment's name");
        let expected = ExpectedSegment { system_identifier, version, name, size };
        assert_eq!(check_segment_header(&bytes, &expected), Ok(()), "PostgreSQL {version}");
    }
}
