//! `holdfast list`.

use super::{PerRepository, UnreadableRecord};
use crate::problem::BriefError;
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::record::{BackupRecord, StartRecord};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryBackups>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryBackups {
    /// The redacted URL.
    pub repository: String,
    /// The complete backups, oldest first.
    pub backups: Vec<BackupRecord>,
    /// The backups without `backup.json`: running, or dead.
    pub unfinished: Vec<Unfinished>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A backup without `backup.json`: running, or dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    pub backup_id: BackupId,
    /// The content of its `start.json`; `None` if that is missing.
    pub start: Option<StartRecord>,
    /// Why its `start.json` cannot be read, if it exists.
    pub error: Option<BriefError>,
}
