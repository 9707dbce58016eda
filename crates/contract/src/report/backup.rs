//! `holdfast backup`.

use holdfast_repo::record::BackupRecord;
use serde::{Deserialize, Serialize};

/// What a backup says at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// One record a repository.
    pub repositories: Vec<StoredBackup>,
    /// Things that the user should know.
    pub warnings: Vec<String>,
}

/// A backup in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBackup {
    /// The redacted URL.
    pub repository: String,
    /// What `backup.json` says.
    pub backup: BackupRecord,
}
