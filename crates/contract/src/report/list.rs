//! `holdfast list`.

use super::{PerRepository, UnreadableRecord};
use crate::problem::BriefError;
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::record::{BackupRecord, StartRecord};
use serde::{Deserialize, Serialize};

/// The backups of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryBackups>>,
}

/// The backups in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryBackups {
    /// The redacted URL.
    pub repository: String,
    /// The complete ones, oldest first.
    pub backups: Vec<BackupRecord>,
    /// Those that run, or are dead.
    pub unfinished: Vec<Unfinished>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

/// A backup without `backup.json`: running somewhere, or dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Its id.
    pub backup_id: BackupId,
    /// Who started it; none when its `start.json` is gone.
    pub start: Option<StartRecord>,
    /// Why its `start.json` cannot be read, where it is there.
    pub error: Option<BriefError>,
}
