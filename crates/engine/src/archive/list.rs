//! `wal list`: the content of an archive, by claim and timeline, and its gaps.
//!
//! It uses only the names and sizes of a listing. A gap is a run of missing segments between two existing ones on one
//! timeline. Whether a restore needs them is for the recovery planner to decide.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::{ClaimNumber, ClusterName};
use serde::Serialize;

use super::listed_wal::ListedWal;
use super::wal_folders::Wanted;
use crate::error::Error;
use crate::repository::Repository;

/// All WAL of a cluster in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalListing {
    /// The repository's redacted URL.
    pub store: String,
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// The claims, oldest first; the last one is in force.
    pub claims: Vec<ClaimWal>,
}

/// The WAL under one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimWal {
    /// The claim.
    pub claim: ClaimNumber,
    /// The cluster that the WAL belongs to.
    pub system_identifier: SystemIdentifier,
    /// PostgreSQL's major version.
    pub pg_major: u16,
    /// Size of each segment in bytes.
    pub wal_segment_size_bytes: WalSegmentSize,
    /// The archive may have WAL before this LSN that is not listed here; `None` if all is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed_from: Option<Lsn>,
    /// The timelines, ascending.
    pub timelines: Vec<TimelineWal>,
}

/// The WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineWal {
    /// The timeline.
    pub timeline: TimelineId,
    /// Runs of segments without a gap, ascending.
    pub ranges: Vec<SegmentRange>,
    /// Runs of missing segments between them, ascending.
    pub gaps: Vec<SegmentRange>,
    /// Whether the timeline's history file is stored; the first timeline has none.
    pub has_history: bool,
    /// Partial segments, ascending.
    pub partials: Vec<SegmentName>,
    /// Number of backup history files.
    pub backup_histories: u64,
    /// Number of segments.
    pub segments: u64,
    /// Size of all these objects in the repository, in bytes.
    pub stored_bytes: u64,
    /// When the newest object was stored, by the store's clock.
    pub newest: Option<DateTime<Utc>>,
}

/// Lists all WAL of a cluster.
pub async fn list(repository: &Repository, cluster: &ClusterName) -> Result<WalListing, Error> {
    let mut claims = Vec::new();
    // Without a readable claim its objects cannot be divided into segments: `info` and `repo info` name such a claim.
    for claim in repository.claims(cluster).await?.some()?.records {
        claims.push(ListedWal::read(repository, &claim, Wanted::All).await?.describe());
    }
    Ok(WalListing { store: repository.describe(), cluster: cluster.clone(), claims })
}
