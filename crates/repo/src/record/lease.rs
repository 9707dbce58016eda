//! `leases/<expires>-<run>.json`: a run uses objects, and nobody may remove them meanwhile.

use super::{Closed, RecordBody, RecordKind};
use crate::name::{BackupId, ClusterName, RunId};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What a run with a lease does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeasePurpose {
    /// It takes a backup, and may refer to the packs of earlier ones.
    Backup,
    /// It restores a backup.
    Restore,
    /// It decides about deletions, or carries them out.
    Expire,
}

/// A lease: others treat the run as alive until `expires`. The time is also in the object's name, so that a listing
/// shows the leases in force. A run renews its lease with a new record of a later time, and removes older ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The run, as in the object's name.
    pub run: RunId,
    /// Cluster whose objects are used.
    pub cluster: ClusterName,
    /// What the run does.
    pub purpose: LeasePurpose,
    /// The backups whose objects it uses. An empty list means all backups; if the purpose is a backup, it means none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupId>,
    /// When the run took its first lease.
    pub since: DateTime<Utc>,
    /// When this lease ends, as in the object's name.
    pub expires: DateTime<Utc>,
    /// Host that the run is on.
    pub host: String,
    /// A hash of the machine's id, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The id that the kernel generated when it started, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The PID namespace of its process, as Linux writes it, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<String>,
    /// Its process id in that namespace.
    pub pid: u32,
    /// The release of Holdfast that wrote it.
    pub software_version: String,
}

impl RecordBody for LeaseRecord {
    const KIND: RecordKind = RecordKind::Lease;
    const CLOSED: &'static [Closed] = &[Closed { at: "/purpose", values: &["backup", "restore", "expire"] }];
}
