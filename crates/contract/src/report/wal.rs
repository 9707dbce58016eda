//! `holdfast wal push`, `wal get` and `wal list`.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::{ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a file came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// This run created the object.
    Created,
    /// The same content stood there already.
    AlreadyThere,
}

/// A file in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIn {
    /// The redacted URL.
    pub store: String,
    /// Whether it was new.
    pub stored: Stored,
    /// Size of the object that this run made for it.
    pub size_bytes: u64,
}

/// A file that is durable in every repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// Its name.
    pub file: WalFileName,
    /// Its size.
    pub raw_bytes: u64,
    /// Where it is, in the order of the repositories.
    pub repositories: Vec<StoredIn>,
}

/// Where a server's history left a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Its first LSN that is not part of the history.
    pub switch_lsn: Lsn,
    /// The timeline whose history file says so.
    pub according_to: TimelineId,
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "timeline {} ends at {} in the history of timeline {}",
            self.timeline, self.switch_lsn, self.according_to
        )
    }
}

/// What a successful `wal push` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// The requested file.
    pub file: WalFileName,
    /// How it came to be durable.
    pub outcome: PushOutcome,
    /// Neighbours that are durable and marked now.
    pub neighbours: Vec<ArchivedFile>,
    /// Neighbours that could not be archived in this run, with the reason.
    pub failed_neighbours: Vec<(WalFileName, String)>,
}

/// How a requested file came to be durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushOutcome {
    /// An earlier run took it along.
    Marked,
    /// This run brought it there, or found it there.
    Archived(ArchivedFile),
    /// The archive holds other content under its name, and this server's history does not need the one here.
    BehindFork(Fork),
}

/// What a successful `wal push --standby` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyPushReport {
    /// The file.
    pub file: WalFileName,
    /// Why PostgreSQL may let go of it.
    pub outcome: StandbyOutcome,
}

/// Why PostgreSQL may let go of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandbyOutcome {
    /// Every repository holds it with this content.
    InArchive,
    /// It ends after the LSN at which this server's history left the file's timeline.
    BehindFork(Fork),
}

/// What a successful `wal get` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReport {
    /// The file.
    pub file: WalFileName,
    /// Where it came from.
    pub source: GetSource,
    /// Its size.
    pub size_bytes: u64,
    /// Segments that this run fetched ahead.
    pub prefetched: usize,
}

/// Where a file came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GetSource {
    /// An earlier run had fetched it ahead.
    Spool,
    /// This repository, by its redacted URL.
    Repository(String),
}

/// All WAL of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalListReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<WalListing>,
}

/// All WAL of a cluster in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalListing {
    /// The repository's redacted URL.
    pub store: String,
    /// Whose archive.
    pub cluster: ClusterName,
    /// Oldest claim first; the last one is in force.
    pub claims: Vec<ClaimWal>,
}

/// The WAL under one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_from: Option<Lsn>,
    /// Ascending.
    pub timelines: Vec<TimelineWal>,
}

/// The WAL of one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
