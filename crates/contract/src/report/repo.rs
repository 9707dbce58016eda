//! `holdfast repo init`, `repo claim` and `repo info`.

use super::{PerRepository, RepositoryDescription, UnreadableRecord};
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use serde::{Deserialize, Serialize};

/// What `repo init` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<InitialisedRepository>,
    /// What to write as `archive_command`.
    pub archive_command: String,
}

/// A repository that is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialisedRepository {
    /// What it says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Whether this run made it.
    pub created_now: bool,
    /// The claim on the cluster's archive; none if nobody claimed it yet.
    pub claim: Option<ClaimRecord>,
}

/// What `repo claim` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// For whom.
    pub owner: String,
    /// Whether nothing was claimed, but only looked at (`--check`).
    pub checked_only: bool,
    /// In the order of the configuration.
    pub repositories: Vec<ClaimedRepository>,
}

/// A repository whose archive is claimed, or could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRepository {
    /// What it says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Whether this run made it.
    pub created_now: bool,
    /// Whether this run claimed the archive.
    pub claimed_now: bool,
    /// The claim in force; none if the archive is free.
    pub claim: Option<ClaimRecord>,
}

/// What `repo info` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoInfoReport {
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryClusters>>,
}

/// The clusters of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryClusters {
    /// What it says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Those that archive here.
    pub clusters: Vec<ClusterClaims>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
}

/// The claims on the archive of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterClaims {
    /// The cluster.
    pub name: ClusterName,
    /// Oldest first; the last one is in force.
    pub claims: Vec<ClaimRecord>,
}
