//! `holdfast repo copy`: what came from one repository into another.

use super::RepositoryDescription;
use crate::problem::BriefError;
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};

/// What `repo copy` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// Where it comes from.
    pub from: CopyPlace,
    /// Where it is now.
    pub to: CopyPlace,
    /// The backups that were asked for, oldest first.
    pub backups: Vec<CopiedBackup>,
    /// The WAL, by claim.
    pub wal: Vec<CopiedWal>,
    /// Records of volume snapshots that were copied.
    pub snapshots: Vec<BackupId>,
    /// Packs that were stored.
    pub pack_count: u64,
    /// WAL files that were stored.
    pub wal_file_count: u64,
    /// The bytes of both, as they are stored.
    pub size_bytes: u64,
    /// What one should know besides.
    pub notes: Vec<String>,
    /// How long it took.
    pub duration_milliseconds: u64,
}

/// One side of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlace {
    /// What the repository says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1.
    pub number: usize,
}

/// What became of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedBackup {
    /// Its id.
    pub backup_id: BackupId,
    /// What became of it.
    pub outcome: CopyOutcome,
    /// Packs that its manifest names.
    pub pack_count: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// Those of them that were stored now.
    pub new_pack_count: u64,
    /// Their bytes.
    pub new_pack_bytes: u64,
    /// Why it is not there.
    pub error: Option<BriefError>,
}

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyOutcome {
    /// It exists in the other repository since.
    Copied,
    /// It existed there.
    AlreadyThere,
    /// It is missing or damaged in the first repository, or what it needs is.
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
    /// The claim in the first repository.
    pub claim: ClaimNumber,
    /// The same cluster's claim in the second one.
    pub to_claim: ClaimNumber,
    /// Files that were stored.
    pub stored_count: u64,
    /// Their bytes, as they are stored.
    pub stored_bytes: u64,
    /// Files that were there.
    pub already_there_count: u64,
    /// Files that could not be read.
    pub failed_count: u64,
}
