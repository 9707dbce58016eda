//! `holdfast restore`, its `--plan`, and the recovery from volume snapshots.

use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::recovery::RecoveryPlan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

/// What is at the place of the restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetState {
    /// Nothing that could be of use: the directories are empty, or will be made.
    Fresh,
    /// An interrupted restore of the same backup, which is continued.
    Resumed,
    /// A data directory that is brought to the state of the backup.
    Delta,
}

impl TargetState {
    /// Whether files that are there are compared and used.
    pub fn reuses(self) -> bool {
        self != Self::Fresh
    }
}

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespacePlace {
    /// Its OID, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Where it was on the server.
    pub original: String,
    /// Where it goes.
    pub location: PathBuf,
}

impl TablespacePlace {
    /// Whether it goes by this name, or by this OID.
    pub fn is_named(&self, wanted: &str) -> bool {
        self.name == wanted || self.oid.to_string() == wanted
    }
}

/// What a restore would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The cluster.
    pub cluster: ClusterName,
    /// Where it goes.
    pub pgdata: PathBuf,
    /// What is there.
    pub target_state: TargetState,
    /// The backup, the timelines, the WAL and the reachable window.
    pub recovery: RecoveryPlan,
    /// Where the tablespaces go.
    pub tablespaces: Vec<TablespacePlace>,
    /// Files.
    pub file_count: u64,
    /// Bytes to ask the store for, WAL not counted. When something is there already: at most.
    pub fetch_bytes: u64,
    /// Bytes to write, holes not counted. When something is there already: at most.
    pub write_bytes: u64,
    /// Bytes that stay holes.
    pub hole_bytes: u64,
    /// What is added to `postgresql.auto.conf`.
    pub auto_conf_lines: Vec<String>,
    /// `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup: BackupId,
    /// Where it is.
    pub pgdata: PathBuf,
    /// What was there before.
    pub target_state: TargetState,
    /// The way that PostgreSQL will go.
    pub recovery: RecoveryPlan,
    /// Where the tablespaces are.
    pub tablespaces: Vec<TablespacePlace>,
    /// Files.
    pub file_count: u64,
    /// Bytes that the store gave.
    pub fetched_bytes: u64,
    /// Bytes written to files.
    pub written_bytes: u64,
    /// Bytes that are holes.
    pub hole_bytes: u64,
    /// Bytes that were there already, compared by hash.
    pub reused_bytes: u64,
    /// Files and directories removed because the backup does not have them.
    pub removed_entries: u64,
    /// How long it took.
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds", deserialize_with = "from_seconds")]
    pub duration: Duration,
    /// `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// What PostgreSQL does when it is started, in words.
    pub next: String,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// What a recovery from a snapshot would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRestoreReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// The snapshot's record.
    pub snapshot: BackupId,
    /// The directory.
    pub pgdata: PathBuf,
    /// Whether an interrupted run is continued.
    pub resumed: bool,
    /// The way that PostgreSQL will go.
    pub recovery: RecoveryPlan,
    /// Where the tablespaces are.
    pub tablespaces: Vec<TablespacePlace>,
    /// Files and directories removed that a base backup would not have brought; none by a plan.
    pub removed_entries: u64,
    /// What is added to `postgresql.auto.conf`.
    pub auto_conf_lines: Vec<String>,
    /// `recovery.signal` or `standby.signal`.
    pub signal_file: String,
    /// What PostgreSQL does when it is started, in words.
    pub next: String,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn from_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}
