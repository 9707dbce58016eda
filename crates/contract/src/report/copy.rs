//! The report of `holdfast repo copy`.

use super::RepositoryDescription;
use crate::problem::BriefError;
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

/// What `repo copy` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// The name of the cluster's archive, the same in both repositories.
    pub cluster: ClusterName,
    /// The source: the repository that has the backups.
    pub from: CopyPlace,
    /// The target: the repository that they are copied to.
    pub to: CopyPlace,
    /// The requested backups, oldest first.
    pub backups: Vec<CopiedBackup>,
    /// The WAL, by claim.
    pub wal: Vec<CopiedWal>,
    /// The ids of the volume snapshots whose records were copied.
    pub snapshots: Vec<BackupId>,
    /// The number of packs that this run stored.
    pub pack_count: u64,
    /// The number of WAL files that this run stored.
    pub wal_file_count: u64,
    /// The size of these packs and WAL files in bytes, as stored.
    pub size_bytes: u64,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
    pub duration_milliseconds: u64,
}

/// The source or the target of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlace {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1.
    pub number: usize,
}

/// The result for one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedBackup {
    pub backup_id: BackupId,
    /// Whether it was copied.
    pub outcome: CopyOutcome,
    /// The number of packs that its manifest names.
    pub pack_count: u64,
    /// The size of these packs in bytes.
    pub pack_bytes: u64,
    /// The number of these packs that this run stored.
    pub new_pack_count: u64,
    /// The size of the newly stored packs in bytes.
    pub new_pack_bytes: u64,
    /// Why it was not copied, if it failed.
    pub error: Option<BriefError>,
}

/// What a copy did with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyOutcome {
    /// It was copied, and now exists in the target.
    Copied,
    /// It already existed in the target.
    AlreadyThere,
    /// It, or something that it needs, is missing or damaged in the source.
    Failed,
}

impl CopyOutcome {
    /// The words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::AlreadyThere => "already there",
            Self::Failed => "FAILED",
        }
    }
}

/// The WAL of one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedWal {
    /// The number of the claim in the source.
    pub claim: ClaimNumber,
    /// The number of the same cluster's claim in the target.
    pub to_claim: ClaimNumber,
    /// The number of files that this run stored.
    pub stored_count: u64,
    /// The size of these files in bytes, as stored.
    pub stored_bytes: u64,
    /// The number of files that were already there.
    pub already_there_count: u64,
    /// The number of files that could not be read.
    pub failed_count: u64,
}
