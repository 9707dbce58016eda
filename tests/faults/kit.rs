//! What the fault tests share: plans, proxies in front of the stage's store, and what must be true after every attack.

use std::path::PathBuf;

use holdfast_testkit::postgres::Cluster;
use holdfast_testkit::proxy::{HttpFaults, TcpProxy};
use holdfast_testkit::rows::{Journal, RowWriter, Target, found};

use crate::stage::attack::{insert_lsn, objects};
use crate::stage::{Plan, Seal, Stage, StoreKind, wait_promoted};

pub(crate) fn small(seal: Seal) -> Plan {
    Plan { seal, compression: "zstd:1", wal_segment_mib: 1, ..Plan::default() }
}

/// A server that makes segments ready and never archives any of them by itself.
pub(crate) fn unarchived(store: StoreKind, seal: Seal) -> Plan {
    let settings = vec![("archive_mode", "on".to_owned()), ("archive_command", "/bin/false".to_owned())];
    Plan { store, archive: false, settings, ..small(seal) }
}

/// From now on, the server archives through holdfast.
pub(crate) async fn archive(stage: &Stage) {
    let command = format!("{} --config {} wal push %p", stage.holdfast.display(), stage.config.display());
    stage.cluster.set("archive_command", &command).expect("set the archive command");
    stage.cluster.reload().await.expect("reload");
}

/// Sends the stage's S3 requests, including those of its server's `archive_command`, to another address.
fn lead_to(stage: &Stage, endpoint: &str) {
    let s3 = stage.s3.as_ref().expect("a stage on S3");
    stage.write_config("holdfast.toml", &stage.config_text().replace(&s3.endpoint(), endpoint));
}

pub(crate) fn http_faults(stage: &Stage) -> HttpFaults {
    let proxy = HttpFaults::start(stage.s3.as_ref().expect("a stage on S3").address()).expect("start a proxy");
    lead_to(stage, &proxy.endpoint());
    proxy
}

pub(crate) fn tcp_proxy(stage: &Stage) -> TcpProxy {
    let proxy = TcpProxy::start(stage.s3.as_ref().expect("a stage on S3").address()).expect("start a proxy");
    lead_to(stage, &proxy.endpoint());
    proxy
}

/// Adds lines to the `[wal]` table, which is the last one of the stage's configuration.
pub(crate) fn add_to_wal_table(stage: &Stage, lines: &str) {
    let text = stage.config_text();
    stage.write_config("holdfast.toml", &format!("{text}{lines}\n"));
}

/// The rows of a writer, each with the LSN at which it ends.
pub(crate) struct Written {
    pub(crate) journal: Journal,
    pub(crate) end: u64,
}

pub(crate) async fn stop(stage: &Stage, writer: RowWriter) -> Written {
    let journal = writer.stop().await.expect("stop the writer");
    Written { journal, end: insert_lsn(&stage.cluster).await }
}

pub(crate) async fn holds(restored: &Cluster, written: &Written) {
    wait_promoted(restored).await;
    let rows = found(restored).await.expect("read the rows");
    let target = Target::Latest(written.end);
    written.journal.check(&target, &rows).unwrap_or_else(|e| panic!("{e}\n{}", restored.log_text()));
}

/// No push found content other than its own: there is none in the ledger, and none in the server's log.
pub(crate) fn no_divergence(stage: &Stage) {
    let ledger: Vec<String> = objects(stage).into_keys().filter(|name| name.contains("/ledger/")).collect();
    assert!(ledger.is_empty(), "{ledger:?}");
    let log = stage.cluster.log_text();
    assert!(!log.contains("other content"), "{log}");
}

pub(crate) fn no_gaps(stage: &Stage) {
    let listed = stage.json(&["wal", "list"]);
    let gaps = &listed["repositories"][0]["claims"][0]["timelines"][0]["gaps"];
    assert_eq!(gaps, &serde_json::json!([]), "{listed}");
}

/// Adds a second repository, in a directory, creates it, and returns that directory.
pub(crate) fn with_second_repository(stage: &Stage) -> PathBuf {
    let second = stage.scratch.path().join("second");
    let block = format!("[[repo]]\nurl = \"file://{}\"\nencryption = \"none\"\n\n[backup]", second.display());
    stage.write_config("holdfast.toml", &stage.config_text().replacen("[backup]", &block, 1));
    stage.ok(&["repo", "init"]);
    second
}
