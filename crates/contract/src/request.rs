//! The stdin of a verb: the request of `snapshot record`, written by the instance manager or by a script.
//!
//! Unlike a report, a request is parsed strictly: with a misspelt key, something that the user wanted would be missing
//! from the record.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SystemIdentifier, TimelineId};
use holdfast_repo::record::SnapshotVolume;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The facts about snapshots that were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// The name of the set of snapshots, kept as the label.
    pub name: String,
    /// Whether the server ran while they were taken.
    pub online: bool,
    /// `backup_label` from the stop call; only for a server that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_label: Option<String>,
    /// `tablespace_map` from the stop call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace_map: Option<String>,
    /// Redo LSN of the last checkpoint of a stopped server; for a running one it is in the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_lsn: Option<Lsn>,
    /// Stop LSN; for a stopped standby its minimum recovery end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<Lsn>,
    /// Timeline of a stopped server; for a running one it is in the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineId>,
    /// Timeline of the stop LSN, if it differs: a standby followed its upstream meanwhile. If the data directory can be
    /// read, its control file has this timeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_timeline: Option<TimelineId>,
    /// When the server entered backup mode or was stopped.
    pub started_at: DateTime<Utc>,
    /// When it left backup mode or was started again.
    pub stopped_at: DateTime<Utc>,
    /// The snapshots, one for each volume.
    pub snapshots: Vec<SnapshotVolume>,
    /// The system identifier; if the data directory can be read, its control file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<SystemIdentifier>,
    /// Free text from the user.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}
