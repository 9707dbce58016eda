//! `holdfast restore`, its `--plan`, and the recovery from volume snapshots.

use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::recovery::RecoveryPlan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

/// The state of the target directory before a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Nothing that can be reused: the directories are empty, or will be created.
    Fresh,
    /// An interrupted restore of the same backup, which is continued.
    Resumed,
    /// A data directory that is brought to the state of the backup.
    Delta,
}

impl TargetState {
    /// Whether existing files are compared and reused.
    pub fn reuses(self) -> bool {
        self != Self::Fresh
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespacePlace {
    /// Its OID, which is the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name in PostgreSQL.
    pub name: String,
    /// Its directory on the original server.
    pub original: String,
    /// Its directory in the restored cluster.
    pub location: PathBuf,
}

impl TablespacePlace {
    /// Whether this is its name or its OID.
    pub fn is_named(&self, wanted: &str) -> bool {
        self.name == wanted || self.oid.to_string() == wanted
    }
}

/// The report of `restore --plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The target directory.
    pub pgdata: PathBuf,
    /// The state of the target directory.
    pub target_state: TargetState,
    /// The backup, the timelines, the WAL and the reachable window.
    pub recovery: RecoveryPlan,
    pub tablespaces: Vec<TablespacePlace>,
    /// The number of files.
    pub file_count: u64,
    /// Bytes to fetch from the store, without WAL. If files exist already, the maximum.
    pub fetch_bytes: u64,
    /// Bytes to write, without holes. If files exist already, the maximum.
    pub write_bytes: u64,
    /// Bytes of holes, which are not written.
    pub hole_bytes: u64,
    /// The lines that are added to `postgresql.auto.conf`.
    pub auto_conf_lines: Vec<String>,
    /// The name of the signal file: `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    pub backup: BackupId,
    /// The restored data directory.
    pub pgdata: PathBuf,
    /// The state of the directory before.
    pub target_state: TargetState,
    /// The backup, the timelines and the WAL of the recovery.
    pub recovery: RecoveryPlan,
    pub tablespaces: Vec<TablespacePlace>,
    /// The number of files.
    pub file_count: u64,
    /// Bytes that were fetched from the store.
    pub fetched_bytes: u64,
    /// Bytes written to files.
    pub written_bytes: u64,
    pub hole_bytes: u64,
    /// Bytes that were reused after a comparison by hash.
    pub reused_bytes: u64,
    /// Files and directories removed because the backup does not have them.
    pub removed_entries: u64,
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds", deserialize_with = "from_seconds")]
    pub duration: Duration,
    /// The name of the signal file: `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// What PostgreSQL does at its next start, as text for people.
    pub next: String,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
}

/// The report of a recovery from a snapshot, or of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRestoreReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The id of the snapshot's record.
    pub snapshot: BackupId,
    /// The data directory.
    pub pgdata: PathBuf,
    /// Whether an interrupted run is continued.
    pub resumed: bool,
    /// The record, the timelines and the WAL of the recovery.
    pub recovery: RecoveryPlan,
    pub tablespaces: Vec<TablespacePlace>,
    /// Files and directories removed that a base backup would not contain; 0 for a plan.
    pub removed_entries: u64,
    /// The lines that are added to `postgresql.auto.conf`.
    pub auto_conf_lines: Vec<String>,
    /// The name of the signal file: `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// What PostgreSQL does at its next start, as text for people.
    pub next: String,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn from_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
