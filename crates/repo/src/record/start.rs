//! `start.json`: a backup has begun.

use super::{RecordBody, RecordKind};
use crate::name::{BackupId, ClaimNumber, ClusterName};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::SystemIdentifier;
use serde::{Deserialize, Serialize};

/// The first object of a backup. It is created conditionally, which makes the backup id unique. A backup with this
/// record and without `backup.json` is running or was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRecord {
    /// Identity of the backup, as in its name.
    pub backup_id: BackupId,
    /// Cluster of the backup, as in its name.
    pub cluster: ClusterName,
    /// Claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// PostgreSQL's system identifier.
    pub system_identifier: SystemIdentifier,
    /// Host the backup runs on.
    pub host: String,
    /// Process that runs the backup.
    pub pid: u32,
    /// Data directory on that host.
    pub pgdata: String,
    /// When the backup began, by the clock of the host.
    pub started: DateTime<Utc>,
    /// The release of Holdfast that wrote it.
    pub software_version: String,
    /// The backup on which it is built, which must stay until the run has ended. Absent for a full backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// The run and its machine. Absent in records of early releases: the run that wrote those is not known for sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunIdentity>,
}

/// Distinguishes one run of a backup from any other, and its machine from others with the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// A random id, by which a run finds its own record. A run that takes over a dead one writes its own id here. If
    /// the dead run is alive after all, it then does not complete.
    pub id: String,
    /// A hash of the machine's id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The id that the kernel generated when it started, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The PID namespace of the process, as Linux names it. Two containers on one host have the same boot id, and often
    /// the same host name, machine id and paths, but not the same namespace. Absent if it cannot be read, and in
    /// records of early releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<String>,
    /// Dead backups whose packs this run uses or removes. If this run dies as well, the next run takes them over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removes: Vec<BackupId>,
    /// Whether the run took a lease under its own id before this record. Then it is alive while the lease is in force,
    /// and dead without one. Absent if it took none, as in records of early releases.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
}

impl RecordBody for StartRecord {
    const KIND: RecordKind = RecordKind::BackupStart;
}
