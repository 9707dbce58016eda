//! `wal list`: the content of an archive, by claim and timeline, and its gaps.
//!
//! It uses only the names and sizes of a listing. A gap is a run of missing segments between two existing ones on one
//! timeline. The recovery planner decides whether a restore needs them.

use holdfast_contract::report::wal::WalListing;
use holdfast_repo::name::ClusterName;

use super::wal_folders::{WalFolders, WalScope};
use crate::error::Error;
use crate::repository::Repository;

/// Lists all WAL of a cluster.
///
/// # Errors
/// [`Cause::Store`](crate::Cause::Store) if a listing fails, and the error of the newest claim if no claim can be read.
pub async fn list(repository: &Repository, cluster: &ClusterName) -> Result<WalListing, Error> {
    let mut claims = Vec::new();
    // Without a readable claim its objects cannot be divided into segments: `info` and `repo info` name such a claim.
    for claim in repository.claims(cluster).await?.some()?.records {
        claims.push(WalFolders::read_and_list(repository, &claim, WalScope::All).await?.describe());
    }
    Ok(WalListing { store: repository.describe(), cluster: cluster.clone(), claims })
}
