//! `holdfast repo init`, `repo claim` and `repo info`.

use super::{PerRepository, RepositoryDescription, UnreadableRecord};
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use serde::{Deserialize, Serialize};

/// The report of `repo init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<InitialisedRepository>,
    /// The value for `archive_command`.
    pub archive_command: String,
}

/// A repository that exists now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialisedRepository {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Whether this run created it.
    pub created_now: bool,
    /// The claim on the cluster's archive; `None` if nobody has claimed it yet.
    pub claim: Option<ClaimRecord>,
}

/// The report of `repo claim`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    pub owner: String,
    /// Whether the archive was only checked, not claimed (`--check`).
    pub checked_only: bool,
    /// In the order of the configuration.
    pub repositories: Vec<ClaimedRepository>,
}

/// A repository whose archive is claimed, or could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRepository {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Whether this run created it.
    pub created_now: bool,
    /// Whether this run claimed the archive.
    pub claimed_now: bool,
    /// The claim in force; `None` if the archive is free.
    pub claim: Option<ClaimRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfoReport {
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryClusters>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryClusters {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// The clusters that archive here.
    pub clusters: Vec<ClusterClaims>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

/// The claims on the archive of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClaims {
    /// The name of the cluster's archive.
    pub name: ClusterName,
    /// Oldest first; the last one is in force.
    pub claims: Vec<ClaimRecord>,
}
