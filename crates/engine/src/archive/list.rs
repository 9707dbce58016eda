//! `wal list`: what an archive holds, by claim and timeline, and where it has gaps.
//!
//! Made from the names and sizes of a listing alone. A gap is a run of segments that are missing between two that are
//! there, on one timeline; whether a restore needs them is for the recovery planner to say.

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
    /// Whose archive.
    pub cluster: ClusterName,
    /// Oldest claim first; the last one is in force.
    pub claims: Vec<ClaimWal>,
}

/// The WAL under one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimWal {
    /// The claim.
    pub claim: ClaimNumber,
    /// Whose WAL it is.
    pub system_identifier: SystemIdentifier,
    /// PostgreSQL's major version.
    pub pg_major: u16,
    /// Size of each segment in bytes.
    pub wal_segment_size_bytes: WalSegmentSize,
    /// WAL before this LSN may be in the archive and not be listed here; none if all is listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed_from: Option<Lsn>,
    /// Ascending.
    pub timelines: Vec<TimelineWal>,
}

/// The WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TimelineWal {
    /// The timeline.
    pub timeline: TimelineId,
    /// Runs of segments without a gap, ascending.
    pub ranges: Vec<SegmentRange>,
    /// Runs of segments that are missing between them, ascending.
    pub gaps: Vec<SegmentRange>,
    /// Whether the timeline's history file is stored; the first timeline has none.
    pub has_history: bool,
    /// Partial segments, ascending.
    pub partials: Vec<SegmentName>,
    /// Backup history files.
    pub backup_histories: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of all these objects in the repository.
    pub stored_bytes: u64,
    /// When the newest object was stored, by the store's clock.
    pub newest: Option<DateTime<Utc>>,
}

/// Lists all WAL of a cluster.
pub async fn list(repository: &Repository, cluster: &ClusterName) -> Result<WalListing, Error> {
    let mut claims = Vec::new();
    // What is under a claim that cannot be read cannot be told apart into segments: `info` and `repo info` name the claim.
    for claim in repository.claims(cluster).await?.some()?.records {
        claims.push(ListedWal::read(repository, &claim, Wanted::All).await?.describe());
    }
    Ok(WalListing { store: repository.describe(), cluster: cluster.clone(), claims })
}
