//! What is written onto the snapshots and into the archive.

use crate::error::{Error, Result};
use crate::volume::write_durably;
use chrono::{DateTime, Utc};
use holdfast_contract::request::SnapshotRequest;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::SnapshotRun;
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::record::SnapshotVolume;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the file beside the data directory that identifies the snapshot.
pub const MARK: &str = "holdfast-snapshot.json";

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Uid of the `Backup`.
    pub uid: String,
    /// The name of the `Backup`.
    pub name: String,
    /// Whether the server kept running.
    pub online: bool,
}

/// Writes the file durably, since the snapshot may contain only what is on the disk.
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

/// The input of `holdfast snapshot record`. Pure. For a running server, its label says where recovery begins; for a
/// stopped one, the run says it.
///
/// # Errors
/// When an LSN of the run cannot be parsed.
pub(super) fn of_run(
    run: &SnapshotRun,
    started_at: DateTime<Utc>,
    stopped_at: DateTime<Utc>,
    own_wal_volume: bool,
) -> Result<SnapshotRequest> {
    let volume = |kind: &str| SnapshotVolume { name: run.name.clone(), kind: kind.to_owned() };
    let hot = |text: &Option<String>| text.clone().filter(|text| run.online && !text.is_empty());
    Ok(SnapshotRequest {
        name: run.name.clone(),
        online: run.online,
        backup_label: hot(&run.backup_label),
        tablespace_map: hot(&run.tablespace_map),
        begin_lsn: if run.online { None } else { lsn(run.begin_lsn.as_deref())? },
        end_lsn: lsn(run.end_lsn.as_deref())?,
        timeline: run.timeline_id.filter(|_| !run.online).and_then(TimelineId::new),
        end_timeline: None,
        started_at,
        stopped_at,
        snapshots: [Some(names::PG_DATA), own_wal_volume.then_some(names::PG_WAL)]
            .into_iter()
            .flatten()
            .map(volume)
            .collect(),
        system_identifier: None,
        annotations: BTreeMap::from([("backup_uid".to_owned(), run.uid.clone())]),
    })
}

fn lsn(text: Option<&str>) -> Result<Option<Lsn>> {
    let parsed = text.map(|text| text.parse().map_err(|_| Error::retry(format!("{text:?} is not an LSN"))));
    parsed.transpose()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    const HOT: &str = include_str!("../../../contract/tests/requests/snapshot-hot.json");
    const COLD: &str = include_str!("../../../contract/tests/requests/snapshot-cold.json");

    /// The frozen samples of the contract are the output for these runs.
    #[test]
    fn a_run_is_written_as_the_verb_reads_it() {
        let [hot, cold]: [SnapshotRequest; 2] = [HOT, COLD].map(|sample| serde_json::from_str(sample).unwrap());
        let run = SnapshotRun {
            uid: "5e0c6fb4-1f0b-4a55-9c43-2a1a0f7f5a11".to_owned(),
            name: "nightly".to_owned(),
            online: true,
            begin_lsn: Some("0/3000028".to_owned()),
            end_lsn: Some("0/3000158".to_owned()),
            timeline_id: Some(1),
            backup_label: hot.backup_label.clone(),
            tablespace_map: hot.tablespace_map.clone(),
            ..SnapshotRun::default()
        };
        let (started, stopped) = (hot.started_at, hot.stopped_at);
        assert_eq!(of_run(&run, started, stopped, true).unwrap(), hot);
        let without = SnapshotRun { tablespace_map: Some(String::new()), ..run.clone() };
        assert_eq!(of_run(&without, started, stopped, true).unwrap().tablespace_map, None);
        let run = SnapshotRun {
            online: false,
            end_lsn: Some("0/4000000".to_owned()),
            timeline_id: Some(2),
            backup_label: None,
            tablespace_map: None,
            ..run
        };
        assert_eq!(of_run(&run, started, stopped, false).unwrap(), cold);
        let wrong = SnapshotRun { end_lsn: Some("x".to_owned()), ..run };
        assert_eq!(of_run(&wrong, started, stopped, false).unwrap_err().what, "\"x\" is not an LSN");
    }
}
