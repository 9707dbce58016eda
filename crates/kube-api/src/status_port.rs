//! What operator and instance manager say to each other: JSON over HTTPS on [`STATUS_PORT`](crate::names::STATUS_PORT).
//!
//! Both sides show a certificate of the cluster's own authority: the instance that of
//! [`server_secret`](crate::names::server_secret), the operator that of
//! [`operator_secret`](crate::names::operator_secret), a peer that of
//! [`replication_secret`](crate::names::replication_secret). Peers may only read.
//!
//! | Request | Answer |
//! | --- | --- |
//! | `GET /status` | 200 [`InstanceStatus`] |
//! | `PUT /backups/<uid>` [`BackupRequest`] | 202 or 200 [`BackupRun`]; 409 with the [`BackupRun`] that is in the way |
//! | `GET /backups/<uid>` | 200 [`BackupRun`], 404 when this manager knows nothing of it (it was restarted) |
//! | `DELETE /backups/<uid>` | 200 [`BackupRun`] once it is given up |
//! | `PUT /snapshots/<uid>` [`SnapshotRequest`] | 202 or 200 [`SnapshotRun`]; 409 as above |
//! | `GET /snapshots/<uid>` | 200 [`SnapshotRun`], 404 |
//! | `POST /snapshots/<uid>/stop` | 202 or 200 [`SnapshotRun`]: ends the backup mode, or starts the server again |
//! | `DELETE /snapshots/<uid>` | 200 [`SnapshotRun`]: the same without a result |
//! | `POST /wal/switch` | 200 [`WalSwitched`]; 409 on a standby |
//! | `POST /restart` | 202: PostgreSQL is restarted in its pod, for settings that need it |
//!
//! All requests can be repeated. Errors are [`Refused`] with status 4xx or 5xx.

use crate::cluster::{BootstrapProgress, Recoverability};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What an instance says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The instance's name.
    pub instance: String,
    /// Uid of the pod that answers, so that an old pod is not taken for its successor.
    pub pod_uid: String,
    /// Version of the instance manager.
    pub version: String,
    /// What it is doing.
    pub phase: InstancePhase,
    /// More of that, in words.
    pub message: String,
    /// The error it stands at, in three lines, when it cannot go on by itself.
    pub error: Option<String>,
    /// How far bootstrap is, until PostgreSQL runs.
    pub bootstrap: Option<BootstrapProgress>,
    /// From `pg_control`, once there is one.
    pub system_id: Option<String>,
    /// PostgreSQL's major version, from the image.
    pub postgres_major: Option<u16>,
    /// By `pg_is_in_recovery()`, when PostgreSQL answers.
    pub role: Option<Role>,
    /// Whether PostgreSQL accepts connections in its role.
    pub ready: bool,
    /// Whether this instance holds the Lease of the primary.
    pub holds_lease: bool,
    /// Its timeline: that of new WAL on a primary, that of received or replayed WAL on a standby. When PostgreSQL is
    /// not running, that of `pg_control`.
    pub timeline_id: Option<u32>,
    /// Up to where it has WAL: the write position of a primary; of a standby the larger of received and replayed.
    /// When PostgreSQL is not running, what `pg_control` proves.
    pub lsn: Option<String>,
    /// Up to where a standby has replayed.
    pub replayed_lsn: Option<String>,
    /// Whether a standby is being streamed to.
    pub receiving: bool,
    /// Whether this standby cannot follow and is being made anew or needs to be.
    pub diverged: bool,
    /// Generation of the `Cluster` whose settings are in force or wait for a restart.
    pub applied_generation: Option<i64>,
    /// Whether a restart would change a setting (`pg_settings.pending_restart`). Of what a standby must have as much of
    /// as its primary, a lower value waits only once the primary has it.
    pub pending_restart: bool,
    /// The history file of a primary's timeline, as text; absent on timeline 1. By it another instance knows whether its
    /// WAL went another way.
    #[serde(default)]
    pub timeline_history: Option<String>,
    /// The archiver; on a standby what it waits for.
    pub archive: Option<ArchiveStatus>,
    /// What could be restored from the archive alone; looked up by the primary from time to time.
    pub recoverability: Option<Recoverability>,
    /// What could be restored beginning with volume snapshots, as long as these still exist: the archive has their
    /// records, and only the operator sees them.
    #[serde(default)]
    pub snapshot_starts: Vec<SnapshotStart>,
    /// The backup that is running, or the last one.
    pub backup: Option<BackupRun>,
    /// The snapshot that is being taken, or the last one.
    pub snapshot: Option<SnapshotRun>,
}

/// A set of volume snapshots that a recovery can begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStart {
    /// Id of its record in the archive, which the snapshots carry as an annotation.
    pub id: String,
    /// The volumes it consists of, `PG_DATA` and `PG_WAL`.
    pub volumes: Vec<String>,
    /// The oldest moment that can be restored with it.
    pub from: DateTime<Utc>,
    /// The newest moment that can be given as a target; absent when nothing was committed since.
    pub to: Option<DateTime<Utc>>,
    /// The moment whose state a recovery to the end of the archive brings, where the WAL behind it reaches that.
    pub latest: Option<DateTime<Utc>>,
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstancePhase {
    /// Looking at the volume and the `Cluster`.
    #[default]
    Starting,
    /// `initdb`, or a recovery.
    Bootstrapping,
    /// Copying the primary's data directory.
    Joining,
    /// `pg_rewind`.
    Rewinding,
    /// PostgreSQL has been started and does not accept connections yet.
    StartingPostgres,
    /// PostgreSQL accepts connections.
    Running,
    /// Becoming the primary.
    Promoting,
    /// Becoming a standby.
    Demoting,
    /// PostgreSQL is stopped on purpose, for a cold snapshot.
    Paused,
    /// Waiting for something that is not this instance's to do: `message` names it.
    Waiting,
    /// Shutting down.
    Stopping,
    /// It cannot go on by itself: `error` says why.
    Failed,
}

/// A role, as PostgreSQL says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows.
    Replica,
}

/// The archiver, from `pg_stat_archiver` and `pg_wal/archive_status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// Whether the last attempt succeeded, or there was none to make.
    pub working: bool,
    /// The last error, in three lines, while it does not work.
    pub error: Option<String>,
    /// Newest archived segment.
    pub last_archived_wal: Option<String>,
    /// When.
    pub last_archived_time: Option<DateTime<Utc>>,
    /// Last segment that failed.
    pub last_failed_wal: Option<String>,
    /// When.
    pub last_failed_time: Option<DateTime<Utc>>,
    /// Segments that wait.
    pub waiting_segments: u64,
    /// Bytes that wait, the unfinished segment not included.
    pub waiting_bytes: u64,
}

/// Asks for a backup into the object store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRequest {
    /// Name of the `Backup`, kept as the backup's label.
    pub name: String,
}

/// A backup into the object store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// Uid of the `Backup`.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: BackupState,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Bytes read.
    pub done_bytes: u64,
    /// Bytes to read, once known.
    pub total_bytes: Option<u64>,
    /// Its id in the archive, once known.
    pub backup_id: Option<String>,
    /// What a completed backup is.
    pub result: Option<BackupResult>,
    /// Why it failed, in three lines.
    pub error: Option<String>,
}

/// Where a backup stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// Data is read and stored.
    #[default]
    Running,
    /// All data is stored; WAL is waited for. On a standby the operator asks the primary to switch WAL now.
    WaitingForWal,
    /// Complete: the engine said so.
    Completed,
    /// It ended without a backup.
    Failed,
}

/// What a completed backup is, from the engine's own answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupResult {
    /// Its id in the archive.
    pub backup_id: String,
    /// First and last segment that a restore needs.
    pub begin_wal: Option<String>,
    /// See `begin_wal`.
    pub end_wal: Option<String>,
    /// Start LSN.
    pub begin_lsn: Option<String>,
    /// Stop LSN.
    pub end_lsn: Option<String>,
    /// The timeline.
    pub timeline_id: Option<u32>,
    /// Bytes of the data directory.
    pub data_bytes: Option<u64>,
    /// Bytes in the archive.
    pub stored_bytes: Option<u64>,
    /// Warnings of the engine.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Asks an instance to make its volumes ready for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// Name of the `Backup`.
    pub name: String,
    /// Whether the server runs on (`pg_backup_start`) or is stopped.
    pub online: bool,
    /// When the instance ends it by itself if nobody asked it to.
    pub deadline: Option<DateTime<Utc>>,
}

/// An instance whose volumes are ready for a snapshot, or were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRun {
    /// Uid of the `Backup`.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Whether the server runs on.
    pub online: bool,
    /// Where it stands.
    pub state: SnapshotState,
    /// Start LSN (hot), or the redo position of the shutdown checkpoint (cold).
    pub begin_lsn: Option<String>,
    /// First segment that a restore needs.
    pub begin_wal: Option<String>,
    /// Stop LSN (hot).
    pub end_lsn: Option<String>,
    /// Last segment that a restore needs (hot).
    pub end_wal: Option<String>,
    /// The timeline.
    pub timeline_id: Option<u32>,
    /// `backup_label` of the stop call (hot), as text.
    pub backup_label: Option<String>,
    /// `tablespace_map` of the stop call (hot), as text; empty when there are no tablespaces.
    pub tablespace_map: Option<String>,
    /// Whether all WAL up to `end_wal` is confirmed in the archive (hot).
    pub wal_confirmed: bool,
    /// Id of the record in the archive, once it is written.
    pub snapshot_id: Option<String>,
    /// Why it failed, in three lines.
    pub error: Option<String>,
}

/// Where the volumes of an instance stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Waiting for the checkpoint, or for the server to stop.
    #[default]
    Starting,
    /// Snapshots can be taken now.
    Ready,
    /// The stop call is made and WAL waited for, or the server is being started.
    Stopping,
    /// Over, with a result.
    Stopped,
    /// Over without a result: snapshots taken meanwhile are worth nothing.
    Failed,
}

/// The primary switched to a new segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSwitched {
    /// End of the segment that was left.
    pub lsn: String,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What happened.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}
