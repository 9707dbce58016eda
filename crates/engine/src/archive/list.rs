//! `wal list`: what an archive holds, by claim and timeline, and where it has gaps.
//!
//! [`ListedWal`] is one listing of the WAL of a claim, which `restore` and `info` plan with as well. It goes by page and
//! keeps ranges, not names; the timelines side by side; and what lies in folders before the one where a recovery could
//! begin is not asked for. A name counts only if it is the one that `wal get` would ask for: of another codec, or sealed
//! otherwise than the repository, it is no WAL of this archive.
//!
//! Made from the names and sizes of a listing alone. A gap is a run of segments that are missing between two that are
//! there, on one timeline; whether a restore needs them is for the recovery planner to say.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::{SegmentName, SystemIdentifier, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::{self, ClaimNumber, ClusterName, ObjectPath};
use holdfast_repo::record::ClaimRecord;
use holdfast_store::ObjectInfo;
use serde::Serialize;

use super::stored::wal_object_name;
use crate::error::{Doing, Error};
use crate::repository::Repository;

/// Timelines listed side by side.
const AT_ONCE: usize = 16;

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
    /// The folders before this LSN were not listed; none if all were.
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
        claims.push(ListedWal::read(repository, &claim, None).await?.describe());
    }
    Ok(WalListing { store: repository.describe(), cluster: cluster.clone(), claims })
}

/// What a listing says of the WAL of one claim.
#[derive(Debug, Clone)]
pub struct ListedWal {
    claim: ClaimRecord,
    from: Option<Lsn>,
    inventory: WalInventory,
    seen: BTreeMap<TimelineId, Seen>,
}

/// What a listing says beyond the names.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    segments: u64,
    backup_histories: u64,
    stored_bytes: u64,
    newest: Option<SystemTime>,
}

impl ListedWal {
    /// Lists the WAL of a claim from the folder that holds `from` on, or all of it. History files are always found.
    pub async fn read(repository: &Repository, claim: &ClaimRecord, from: Option<Lsn>) -> Result<Self, Error> {
        let listing = || format!("listing the WAL of {} in {}", claim.cluster, repository.describe());
        let folder = name::wal_claim_folder(&claim.cluster, claim.number);
        let folders = repository.store().list_folders(&folder).await.doing(listing)?;
        let timelines: Vec<TimelineId> = folders
            .iter()
            .filter_map(|folder| u32::from_str_radix(folder, 16).ok().and_then(TimelineId::new))
            .collect();
        let lists = timelines.into_iter().map(|timeline| Self::of_timeline(repository, claim, timeline, from));
        let mut lists = stream::iter(lists.collect::<Vec<_>>()).buffered(AT_ONCE);
        let mut all = Self::nothing(claim, from);
        while let Some(listed) = lists.try_next().await.doing(listing)? {
            all.inventory.absorb(listed.inventory);
            all.seen.extend(listed.seen);
        }
        drop(lists);
        Ok(all)
    }

    /// A claim without WAL.
    pub fn nothing(claim: &ClaimRecord, from: Option<Lsn>) -> Self {
        let inventory = WalInventory::new(claim.wal_segment_size);
        Self { claim: claim.clone(), from, inventory, seen: BTreeMap::new() }
    }

    async fn of_timeline(
        repository: &Repository,
        claim: &ClaimRecord,
        timeline: TimelineId,
        from: Option<Lsn>,
    ) -> Result<Self, Error> {
        let mut listed = Self::nothing(claim, from);
        let folder = name::wal_timeline_folder(&claim.cluster, claim.number, timeline);
        match from {
            None => listed.pages(repository, &folder, None).await?,
            Some(from) => {
                listed.inventory.know(timeline);
                // The history file stands before the folders of segments, and must not be missed.
                listed.pages(repository, &format!("{folder}{}.", timeline.hex()), None).await?;
                let first = SegmentName::containing(from, timeline, claim.wal_segment_size);
                let start = name::wal_log_folder(&claim.cluster, claim.number, &WalFileName::Segment(first));
                listed.pages(repository, &folder, Some(&start)).await?;
            }
        }
        Ok(listed)
    }

    async fn pages(&mut self, repository: &Repository, prefix: &str, after: Option<&str>) -> Result<(), Error> {
        let mut next = None;
        loop {
            let page = repository.store().list_page(prefix, after, next.as_deref()).await?;
            for object in &page.objects {
                self.add(repository, object);
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn add(&mut self, repository: &Repository, object: &ObjectInfo) {
        let Ok(ObjectPath::WalFile { file, .. }) = object.name.as_ref().parse() else { return };
        if wal_object_name(repository, &self.claim.cluster, &self.claim, &file) != object.name.as_ref() {
            tracing::debug!(object = %object.name, "not a name under which WAL of this archive is asked for");
            return;
        }
        self.inventory.add(file);
        let seen = self.seen.entry(file.timeline()).or_default();
        seen.backup_histories += u64::from(matches!(file, WalFileName::BackupHistory { .. }));
        seen.stored_bytes += object.size_bytes;
        seen.newest = seen.newest.max(object.modified);
        if let WalFileName::Segment(segment) = file {
            seen.segments += 1;
            if let Some(stored) = object.modified {
                self.inventory.stored_at(segment.timeline(), stored.into());
            }
        }
    }

    /// The names, as the recovery planner takes them.
    pub fn inventory(&self) -> &WalInventory {
        &self.inventory
    }

    /// The same for people and programs.
    pub fn describe(&self) -> ClaimWal {
        let timeline = |(timeline, seen): (&TimelineId, &Seen)| {
            let ranges = self.inventory.ranges(*timeline);
            let ends = ranges.first().zip(ranges.last());
            TimelineWal {
                timeline: *timeline,
                gaps: ends.map(|(first, last)| self.inventory.holes(first.first, last.last)).unwrap_or_default(),
                ranges,
                has_history: self.inventory.histories().any(|found| found == *timeline),
                partials: self.inventory.partials().filter(|partial| partial.timeline() == *timeline).collect(),
                backup_histories: seen.backup_histories,
                segments: seen.segments,
                stored_bytes: seen.stored_bytes,
                newest: seen.newest.map(Into::into),
            }
        };
        ClaimWal {
            claim: self.claim.number,
            system_identifier: self.claim.system_identifier,
            pg_major: self.claim.pg_major,
            wal_segment_size_bytes: self.claim.wal_segment_size,
            listed_from: self.from,
            timelines: self.seen.iter().map(timeline).collect(),
        }
    }
}
