//! What the breadth tests share: a quick plan, the checksum of a table, tablespaces, and waiting for the server.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_testkit::postgres::Cluster;

use crate::stage::{Plan, Seal, Stage, StoreKind};

/// A plan with a directory as its store, for quick tests.
pub(crate) fn local() -> Plan {
    Plan { store: StoreKind::Directory, seal: Seal::None, wal_segment_mib: 1, compression: "lz4", ..Plan::default() }
}

pub(crate) const SUM: &str = "SELECT count(*), sum(id), md5(string_agg(md5(text), '' ORDER BY id)) FROM ";

pub(crate) async fn tablespace(stage: &Stage, name: &str, folder: &str) -> PathBuf {
    let path = stage.scratch.folder(folder).expect("make a folder");
    let statement = format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display());
    stage.cluster.sql(&statement).await.expect("make a tablespace");
    path
}

/// Waits for the first answer `t`, at most one minute.
pub(crate) async fn wait_for(cluster: &Cluster, query: &str) {
    cluster.wait_for(query, Duration::from_mins(3)).await.expect("wait");
}
