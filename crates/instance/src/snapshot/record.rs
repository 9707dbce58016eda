//! What goes onto the snapshots and into the archive.

use crate::error::{Error, Result};
use crate::volume::write_durably;
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

/// What `holdfast snapshot record` reads from stdin. Pure.
pub(super) fn of_run(run: &SnapshotRun, system_identifier: &str) -> Value {
    json!({
        "system_identifier": system_identifier,
        "timeline": run.timeline_id,
        "online": run.online,
        "start_lsn": run.begin_lsn,
        "stop_lsn": run.end_lsn.as_ref().or(run.begin_lsn.as_ref()),
        "backup_label": run.backup_label,
        "tablespace_map": run.tablespace_map,
        "snapshots": [run.name, run.uid],
    })
}
