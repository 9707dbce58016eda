//! `wal list`: what an archive holds, by claim and timeline, and where it has gaps.
//!
//! Made from the names and sizes of a listing alone. A gap is a run of segments that are missing between two that are
//! there, on one timeline; whether a restore needs them is for the recovery planner to say.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, SystemIdentifier, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::{self, ClaimNumber, ClusterName, ObjectPath};
use holdfast_store::ObjectInfo;
use serde::Serialize;

use crate::error::{Doing, Error};
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

/// Lists the WAL of a cluster.
pub async fn list(repository: &Repository, cluster: &ClusterName) -> Result<WalListing, Error> {
    let mut claims = Vec::new();
    // What is under a claim that cannot be read cannot be told apart into segments: `info` and `repo info` name the claim.
    for claim in repository.claims(cluster).await?.some()?.records {
        let folder = name::wal_claim_folder(cluster, claim.number);
        let objects = repository
            .store()
            .list(&folder, None)
            .await
            .doing(|| format!("listing the WAL of {cluster} in {}", repository.describe()))?;
        claims.push(ClaimWal {
            claim: claim.number,
            system_identifier: claim.system_identifier,
            pg_major: claim.pg_major,
            wal_segment_size_bytes: claim.wal_segment_size,
            timelines: by_timeline(&objects, claim.wal_segment_size),
        });
    }
    Ok(WalListing { store: repository.describe(), cluster: cluster.clone(), claims })
}

/// What a listing says beyond the names.
#[derive(Default)]
struct Seen {
    segments: u64,
    backup_histories: u64,
    stored_bytes: u64,
    newest: Option<SystemTime>,
}

fn by_timeline(objects: &[ObjectInfo], size: WalSegmentSize) -> Vec<TimelineWal> {
    let mut inventory = WalInventory::new(size);
    let mut timelines: BTreeMap<TimelineId, Seen> = BTreeMap::new();
    for object in objects {
        let Ok(ObjectPath::WalFile { file, .. }) = object.name.as_ref().parse() else { continue };
        inventory.add(file);
        let seen = timelines.entry(file.timeline()).or_default();
        seen.segments += u64::from(matches!(file, WalFileName::Segment(_)));
        seen.backup_histories += u64::from(matches!(file, WalFileName::BackupHistory { .. }));
        seen.stored_bytes += object.size_bytes;
        seen.newest = seen.newest.max(object.modified);
    }
    let describe = |(timeline, seen): (TimelineId, Seen)| {
        let ranges = inventory.ranges(timeline);
        let ends = ranges.first().zip(ranges.last());
        TimelineWal {
            timeline,
            gaps: ends.map(|(first, last)| inventory.holes(first.first, last.last)).unwrap_or_default(),
            ranges,
            has_history: inventory.histories().any(|found| found == timeline),
            partials: inventory.partials().filter(|partial| partial.timeline() == timeline).collect(),
            backup_histories: seen.backup_histories,
            segments: seen.segments,
            stored_bytes: seen.stored_bytes,
            newest: seen.newest.map(Into::into),
        }
    };
    timelines.into_iter().map(describe).collect()
}
