//! Whether replay reached the end of the archive. The archive may end with half a record, or with something that is not
//! a record.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::{drill, kinds, proven};
use crate::stage::attack::back_up;
use crate::stage::{Plan, Seal, Stage, StoreKind};

async fn stage() -> Option<Stage> {
    let plan = Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, ..Plan::default() };
    let stage = Stage::start(18, plan).await?;
    stage.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("load");
    back_up(&stage);
    stage.archive_now().await;
    Some(stage)
}

/// A record of several segments, of which the last is not archived yet: nothing that was archived is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_may_end_in_a_record() {
    let Some(stage) = stage().await else { return };
    let write = "SELECT pg_logical_emit_message(true, 'x', repeat('x', 3500000))";
    stage.cluster.sql(write).await.expect("write a large record");
    let last = "SELECT pg_walfile_name(pg_current_wal_insert_lsn() - 1048576)";
    let last = stage.cluster.value(last).await.expect("name a segment");
    let query = format!("SELECT coalesce(last_archived_wal >= '{last}', false) FROM pg_stat_archiver");
    stage.cluster.wait_for(&query, Duration::from_mins(5)).await.expect("archive its first segments");
    let ended = drill(&stage, &["--no-amcheck"]);
    proven(&ended);
    assert!(ended.1["recovery"]["segments"].to_string().contains(&last), "{:#}", ended.1);
}

/// PostgreSQL treats a bad record as the end of WAL: what comes after it in the last segment is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_in_the_last_segment_is_found() {
    let Some(stage) = stage().await else { return };
    stage.cluster.set("archive_command", "false").expect("write a setting");
    stage.cluster.reload().await.expect("reload");
    let name = stage.cluster.value("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").await.expect("name it");
    stage.cluster.sql("INSERT INTO t SELECT generate_series(1, 3000)").await.expect("insert");
    stage.cluster.sql("SELECT pg_switch_wal()").await.expect("switch");
    // Damage it before it is archived, as bad memory or a bad disk would.
    let path = stage.cluster.data().join("pg_wal").join(&name);
    let file = fs::File::options().read(true).write(true).open(&path).expect("open the segment");
    let (mut byte, place) = ([0], 12 * 8192 + 4001);
    file.read_exact_at(&mut byte, place).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], place).expect("write");
    stage.ok(&["wal", "push", &path.display().to_string()]);
    let (code, report, error) = drill(&stage, &["--no-amcheck"]);
    assert_eq!((code, kinds(&report)), (46, vec!["server".to_owned()]), "{report:#}\n{error}");
    let what = report["findings"][0]["what"].as_str().expect("words");
    let words = format!("replay ended in the middle of {name}, the last segment: ");
    assert!(what.contains(&words), "{what}");
    // A target before the bad record is reached nevertheless.
    proven(&drill(&stage, &["--no-amcheck", "--target-immediate"]));
}
