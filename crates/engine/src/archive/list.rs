//! `wal list`: what an archive holds, by claim and timeline, and where it has gaps.
//!
//! Made from the names and sizes of a listing alone. A gap is a run of segments that are missing between two that are
//! there, on one timeline; whether a restore needs them is for the recovery planner to say.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, SystemIdentifier, TimelineId, WalFileName, WalSegmentSize};
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

/// A run of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SegmentRange {
    /// The first.
    pub first: SegmentName,
    /// The last, included.
    pub last: SegmentName,
    /// How many.
    pub count: u64,
}

/// Lists the WAL of a cluster.
pub async fn list(repository: &Repository, cluster: &ClusterName) -> Result<WalListing, Error> {
    let mut claims = Vec::new();
    for claim in repository.claims(cluster).await? {
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

#[derive(Default)]
struct Seen {
    /// Numbers of segments, ascending once sorted.
    numbers: Vec<u64>,
    partials: Vec<SegmentName>,
    has_history: bool,
    backup_histories: u64,
    stored_bytes: u64,
    newest: Option<SystemTime>,
}

fn by_timeline(objects: &[ObjectInfo], size: WalSegmentSize) -> Vec<TimelineWal> {
    let mut timelines: BTreeMap<TimelineId, Seen> = BTreeMap::new();
    for object in objects {
        let Ok(ObjectPath::WalFile { file, .. }) = object.name.as_ref().parse() else { continue };
        let seen = timelines.entry(file.timeline()).or_default();
        match file {
            WalFileName::Segment(segment) => seen.numbers.push(segment.number(size)),
            WalFileName::Partial(segment) => seen.partials.push(segment),
            WalFileName::History(_) => seen.has_history = true,
            WalFileName::BackupHistory { .. } => seen.backup_histories += 1,
        }
        seen.stored_bytes += object.size_bytes;
        seen.newest = seen.newest.max(object.modified);
    }
    timelines.into_iter().map(|(timeline, seen)| seen.describe(timeline, size)).collect()
}

impl Seen {
    fn describe(mut self, timeline: TimelineId, size: WalSegmentSize) -> TimelineWal {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.partials.sort_unstable();
        let range = |first: u64, last: u64| {
            // The numbers come from names, or stand between two that do.
            let name = |number| SegmentName::from_number(number, timeline, size);
            Some(SegmentRange { first: name(first)?, last: name(last)?, count: last - first + 1 })
        };
        let runs: Vec<(u64, u64)> =
            self.numbers.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some((*run.first()?, *run.last()?))).collect();
        TimelineWal {
            timeline,
            ranges: runs.iter().filter_map(|(first, last)| range(*first, *last)).collect(),
            gaps: runs
                .iter()
                .zip(runs.iter().skip(1))
                .filter_map(|((_, before), (after, _))| range(before + 1, after - 1))
                .collect(),
            has_history: self.has_history,
            partials: self.partials,
            backup_histories: self.backup_histories,
            segments: self.numbers.len() as u64,
            stored_bytes: self.stored_bytes,
            newest: self.newest.map(Into::into),
        }
    }
}
