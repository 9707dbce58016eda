//! `holdfast backup`.

use crate::problem::ErrorReport;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::BackupRecord;
use serde::{Deserialize, Serialize};

/// The report at the end of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// One record for each repository that has the backup.
    pub repositories: Vec<StoredBackup>,
    /// The repositories that do not have the backup; never all of them.
    #[serde(default)]
    pub failed: Vec<FailedRepository>,
    /// What killed runs had stored of this backup. Absent if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// Warnings, as text for people.
    pub warnings: Vec<String>,
}

/// What a backup reuses from killed runs.
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
    /// The content of `backup.json`.
    pub backup: BackupRecord,
}

/// A repository that does not have the backup, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRepository {
    /// The redacted URL.
    pub repository: String,
    /// Whether it may exist nevertheless: its last record was sent, but there was no answer. `list` shows whether it
    /// exists.
    #[serde(default)]
    pub may_exist: bool,
    /// The error in this repository.
    #[serde(flatten)]
    pub error: ErrorReport,
}
