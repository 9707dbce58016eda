//! `holdfast backup`.

use crate::problem::ErrorReport;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::BackupRecord;
use serde::{Deserialize, Serialize};

/// What a backup says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// One record for each repository that has the backup.
    pub repositories: Vec<StoredBackup>,
    /// The repositories in which the backup is not; never all of them.
    #[serde(default)]
    pub failed: Vec<FailedRepository>,
    /// What killed runs had done of this backup. Absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// Things that the user should know.
    pub warnings: Vec<String>,
}

/// What a backup takes over of runs that were killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The unfinished backups, oldest first.
    pub backups: Vec<BackupId>,
    /// Bytes of files that they had stored, and that were not stored again.
    pub size_bytes: u64,
}

/// A backup in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBackup {
    /// The redacted URL.
    pub repository: String,
    /// What `backup.json` says.
    pub backup: BackupRecord,
}

/// A repository in which the backup is not, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRepository {
    /// The redacted URL.
    pub repository: String,
    /// Whether it may be there all the same: its last record was sent, and no answer came. `list` tells.
    #[serde(default)]
    pub may_exist: bool,
    /// Why.
    #[serde(flatten)]
    pub error: ErrorReport,
}
