//! What goes onto the snapshots and into the archive.

use crate::error::{Error, Result};
use crate::volume::write_durably;
use chrono::{DateTime, Utc};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::SnapshotRun;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the file beside the data directory that names the snapshot it is in.
pub const MARK: &str = "holdfast-snapshot.json";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Uid of the `Backup`.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Whether the server ran on.
    pub online: bool,
}

/// Writes it, durably: the snapshot may be of what is on the disk.
///
/// # Errors
/// When the volume cannot be written.
pub(super) fn write_mark(mount: &Path, mark: &Mark) -> Result<()> {
    let text = serde_json::to_vec(mark).map_err(|error| Error::retry(error.to_string()))?;
    write_durably(&mount.join(MARK), &text, 0o600)
}

/// The mark on a volume that was made from a snapshot.
pub fn read_mark(mount: &Path) -> Option<Mark> {
    serde_json::from_slice(&std::fs::read(mount.join(MARK)).ok()?).ok()
}

/// What `holdfast snapshot record` reads from stdin. Pure. A running server's label says where recovery begins; of a
/// stopped one the run does.
pub(super) fn of_run(run: &SnapshotRun, started: DateTime<Utc>, stopped: DateTime<Utc>, own_wal_volume: bool) -> Value {
    let mut volumes = vec![json!({"name": run.name, "type": names::PG_DATA})];
    if own_wal_volume {
        volumes.push(json!({"name": run.name, "type": names::PG_WAL}));
    }
    let mut request = json!({
        "name": run.name,
        "online": run.online,
        "started_at": started,
        "stopped_at": stopped,
        "snapshots": volumes,
        "annotations": {"backup_uid": run.uid},
    });
    if run.online {
        request["backup_label"] = json!(run.backup_label);
        request["tablespace_map"] = json!(run.tablespace_map.as_ref().filter(|map| !map.is_empty()));
        request["end_lsn"] = json!(run.end_lsn);
    } else {
        request["begin_lsn"] = json!(run.begin_lsn);
        request["end_lsn"] = json!(run.end_lsn);
        request["timeline"] = json!(run.timeline_id);
    }
    request
}
