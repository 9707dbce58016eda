//! `leases/<expires>-<run>.json`: a run uses objects that must not be removed under it.

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

/// A run that is alive until `expires`, as far as others can know. The time is in the object's name too, so that a listing
/// says which leases are in force. A run prolongs its lease by a new record with a later time, and removes older ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The run, as in the object's name.
    pub run: RunId,
    /// Cluster whose objects are used.
    pub cluster: ClusterName,
    /// What the run does.
    pub purpose: LeasePurpose,
    /// The backups whose objects it uses; empty for all of them, but for a backup: for none.
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
    /// The id that the kernel gave itself at its start, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The PID namespace of its process, as Linux writes it, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<String>,
    /// Its process there.
    pub pid: u32,
    /// Version of the software.
    pub software_version: String,
}

impl RecordBody for LeaseRecord {
    const KIND: RecordKind = RecordKind::Lease;
    const CLOSED: &'static [Closed] = &[Closed { at: "/purpose", values: &["backup", "restore", "expire"] }];
}
