//! Requests and answers between operator and instance manager: JSON over HTTPS on
//! [`STATUS_PORT`](crate::names::STATUS_PORT).
//!
//! Both sides use a certificate of the cluster's own authority: the instance that of
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

/// The state that an instance reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The instance's name.
    pub instance: String,
    /// Uid of the pod that answers, so that an old pod is not mistaken for its successor.
    pub pod_uid: String,
    /// Version of the instance manager.
    pub version: String,
    /// What the instance is doing.
    pub phase: InstancePhase,
    /// Details of the phase, in words.
    pub message: String,
    /// The error that stops the instance, in three lines, if it cannot continue by itself.
    pub error: Option<String>,
    /// What could not be kept up to date while PostgreSQL runs, such as a password that it refuses, in three lines. It
    /// is not a failure of the instance.
    #[serde(default)]
    pub housekeeping: Option<String>,
    /// The progress of the bootstrap, until PostgreSQL runs.
    pub bootstrap: Option<BootstrapProgress>,
    /// The system identifier from `pg_control`, once that file exists.
    pub system_id: Option<String>,
    /// PostgreSQL's major version, from the image.
    pub postgres_major: Option<u16>,
    /// By `pg_is_in_recovery()`, if PostgreSQL answers.
    pub role: Option<Role>,
    /// Whether PostgreSQL accepts connections in its role.
    pub ready: bool,
    /// Whether this instance holds the Lease of the primary.
    pub holds_lease: bool,
    /// Whether this instance wants that Lease: it is, or is about to be, the primary. It reports this before it takes a
    /// Lease, whatever the state of its PostgreSQL.
    #[serde(default)]
    pub wants_lease: bool,
    /// `status.targetPrimary`, as this instance last read it itself.
    #[serde(default)]
    pub target_primary: Option<String>,
    /// `status.instanceNames`, as this instance last read it itself.
    #[serde(default)]
    pub instance_names: Vec<String>,
    /// The instance's timeline: that of new WAL on a primary, that of received or replayed WAL on a standby. If
    /// PostgreSQL is not running, the timeline in `pg_control`.
    pub timeline_id: Option<u32>,
    /// The end of the instance's WAL: the write position on a primary, the larger of received and replayed on a
    /// standby. If PostgreSQL is not running, the LSN that `pg_control` proves.
    pub lsn: Option<String>,
    /// The LSN up to which a standby has replayed.
    pub replayed_lsn: Option<String>,
    /// Whether a standby receives streamed WAL.
    pub receiving: bool,
    /// Whether this standby cannot follow the primary, and is being rebuilt or needs to be.
    pub diverged: bool,
    /// Generation of the `Cluster` whose settings are in force or wait for a restart.
    pub applied_generation: Option<i64>,
    /// Whether a restart would change a setting (`pg_settings.pending_restart`). Some settings of a standby must be at
    /// least as high as on its primary. For these, a lower value counts only once the primary has it.
    pub pending_restart: bool,
    /// The history file of a primary's timeline, as text; absent on timeline 1. With it another instance can see
    /// whether its own WAL has diverged.
    #[serde(default)]
    pub timeline_history: Option<String>,
    /// The volumes of the instance, and their free space.
    #[serde(default)]
    pub volumes: Vec<VolumeSpace>,
    /// The state of the archiver; on a standby, what it waits for.
    pub archive: Option<ArchiveStatus>,
    /// What could be restored from the archive alone; the primary looks it up from time to time.
    pub recoverability: Option<Recoverability>,
    /// What could be restored from volume snapshots, as long as these still exist. The archive has their records, but
    /// only the operator can see the snapshots themselves.
    #[serde(default)]
    pub snapshot_starts: Vec<SnapshotStart>,
    /// The backup that is running, or the last one.
    pub backup: Option<BackupRun>,
    /// The running snapshot, or the last one.
    pub snapshot: Option<SnapshotRun>,
}

/// How full a file system of an instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpace {
    /// [`PG_DATA`](crate::names::PG_DATA) or [`PG_WAL`](crate::names::PG_WAL).
    pub volume: String,
    /// The size of its file system.
    pub total_bytes: u64,
    /// What PostgreSQL can still write.
    pub free_bytes: u64,
    /// Bytes held back for a start of PostgreSQL on a full volume; 0 if they were needed.
    pub reserve_bytes: u64,
}

/// A set of volume snapshots from which a recovery can begin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotStart {
    /// Id of its record in the archive; the snapshots have it as an annotation.
    pub id: String,
    /// The kinds of its volumes, `PG_DATA` and `PG_WAL`.
    pub volumes: Vec<String>,
    /// The oldest time that can be restored with it.
    pub from: DateTime<Utc>,
    /// The newest time that can be a target; absent if nothing was committed since.
    pub to: Option<DateTime<Utc>>,
    /// The time whose state a recovery to the end of the archive restores, if the WAL after the snapshots reaches that
    /// far.
    pub latest: Option<DateTime<Utc>>,
}

/// What an instance is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstancePhase {
    /// It examines the volume and the `Cluster`.
    #[default]
    Starting,
    /// It runs `initdb`, or a recovery.
    Bootstrapping,
    /// It copies the primary's data directory.
    Joining,
    /// It runs `pg_rewind`.
    Rewinding,
    /// PostgreSQL has been started and does not accept connections yet.
    StartingPostgres,
    /// PostgreSQL accepts connections.
    Running,
    /// It becomes the primary.
    Promoting,
    /// It becomes a standby.
    Demoting,
    /// PostgreSQL is stopped on purpose, for a cold snapshot.
    Paused,
    /// It waits for something that another party must do; `message` names it.
    Waiting,
    /// It shuts down.
    Stopping,
    /// It cannot continue by itself; `error` has the reason.
    Failed,
}

/// A role, as PostgreSQL reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instance takes writes.
    Primary,
    /// The instance follows the primary.
    Replica,
}

/// The archiver, from `pg_stat_archiver` and `pg_wal/archive_status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// Whether the last attempt succeeded, or no attempt was needed.
    pub working: bool,
    /// The last error, in three lines, while it does not work.
    pub error: Option<String>,
    /// The newest archived segment.
    pub last_archived_wal: Option<String>,
    /// When that segment was archived.
    pub last_archived_time: Option<DateTime<Utc>>,
    /// The last segment that failed.
    pub last_failed_wal: Option<String>,
    /// When that segment failed.
    pub last_failed_time: Option<DateTime<Utc>>,
    /// The oldest segment that waits. On a standby, all later ones are there as well.
    #[serde(default)]
    pub first_waiting_wal: Option<String>,
    /// Number of segments that wait.
    pub waiting_segments: u64,
    /// Bytes that wait, without the unfinished segment.
    pub waiting_bytes: u64,
}

/// Requests a backup into the object store.
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
    /// Name of the `Backup`.
    pub name: String,
    /// The progress of the backup.
    pub state: BackupState,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub stopped_at: Option<DateTime<Utc>>,
    /// Bytes read so far.
    pub done_bytes: u64,
    /// All bytes to read, once known.
    pub total_bytes: Option<u64>,
    /// The backup's id in the archive, once known.
    pub backup_id: Option<String>,
    /// The facts of a completed backup.
    pub result: Option<BackupResult>,
    /// Why it failed, in three lines.
    pub error: Option<String>,
}

/// The progress of a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupState {
    /// Data is being read and stored.
    #[default]
    Running,
    /// All data is stored, and the backup waits for WAL. On a standby the operator now asks the primary to switch WAL.
    WaitingForWal,
    /// Complete, as the engine reported.
    Completed,
    /// It ended without a backup.
    Failed,
}

/// The facts of a completed backup, from the engine's own report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupResult {
    /// The backup's id in the archive.
    pub backup_id: String,
    /// First segment that a restore needs.
    pub begin_wal: Option<String>,
    /// Last segment that a restore needs.
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
    /// Warnings from the engine.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Asks an instance to prepare its volumes for a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRequest {
    /// Name of the `Backup`.
    pub name: String,
    /// Whether the server keeps running (`pg_backup_start`) or is stopped.
    pub online: bool,
    /// When the instance ends the preparation by itself, if no request has ended it.
    pub deadline: Option<DateTime<Utc>>,
}

/// An instance whose volumes are ready for a snapshot, or were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRun {
    /// Uid of the `Backup`.
    pub uid: String,
    /// Name of the `Backup`.
    pub name: String,
    /// Whether the server keeps running.
    pub online: bool,
    /// The progress of the preparation.
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

/// The progress of preparing an instance's volumes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// Waiting for the checkpoint, or for the server to stop.
    #[default]
    Starting,
    /// Snapshots can be taken now.
    Ready,
    /// The stop call is made and the instance waits for WAL, or the server is being started.
    Stopping,
    /// Ended with a result.
    Stopped,
    /// Ended without a result: snapshots taken meanwhile are unusable.
    Failed,
}

/// The primary switched to a new segment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSwitched {
    /// End of the segment that the primary left.
    pub lsn: String,
}

/// Why a request was not executed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What happened.
    pub error: String,
    /// What a person can do.
    pub hint: Option<String>,
}
