//! `holdfast wal push`, `wal get` and `wal list`.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::{ClaimNumber, ClusterName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether a file was new in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stored {
    /// This run created the object.
    Created,
    /// The same content existed already.
    AlreadyThere,
}

/// A file in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIn {
    /// The redacted URL.
    pub store: String,
    /// Whether it was new.
    pub stored: Stored,
    /// Size of the object that this run created for it, in bytes.
    pub size_bytes: u64,
}

/// A file that is durable in every repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    pub file: WalFileName,
    /// The size of the file in bytes.
    pub raw_bytes: u64,
    /// The repositories that have it, in the order of the configuration.
    pub repositories: Vec<StoredIn>,
}

/// The point where a server's history left a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline that it left.
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

/// The report of a successful `wal push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReport {
    /// The requested file.
    pub file: WalFileName,
    /// How the file became durable.
    pub outcome: PushOutcome,
    /// Neighbours that are now durable and marked.
    pub neighbours: Vec<ArchivedFile>,
    /// Neighbours that could not be archived in this run, with the reason.
    pub failed_neighbours: Vec<(WalFileName, String)>,
}

/// How a requested file became durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushOutcome {
    /// An earlier run stored it.
    Marked,
    /// This run stored it, or found it stored.
    Archived(ArchivedFile),
    /// The archive has other content under its name, and this server's history does not need the local content.
    #[serde(rename = "behind-fork")]
    AfterFork(Fork),
}

/// The report of a successful `wal push --standby`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyPushReport {
    pub file: WalFileName,
    /// Why PostgreSQL may recycle it.
    pub outcome: StandbyOutcome,
}

/// Why PostgreSQL may recycle a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StandbyOutcome {
    /// Every repository has it with this content.
    InArchive,
    /// It ends after the LSN at which this server's history left the file's timeline.
    #[serde(rename = "behind-fork")]
    AfterFork(Fork),
}

/// The report of a successful `wal get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetReport {
    pub file: WalFileName,
    /// The source of the file.
    pub source: GetSource,
    /// The size of the file in bytes.
    pub size_bytes: u64,
    /// The number of segments that this run fetched ahead.
    pub prefetched: usize,
}

/// The source of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GetSource {
    /// An earlier run had fetched it ahead.
    Spool,
    /// This repository, by its redacted URL.
    Repository(String),
    /// The pieces of the unfinished segment in this repository, by its redacted URL; zeros follow them.
    Tail(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalListReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// In the order of the configuration.
    pub repositories: Vec<WalListing>,
}

/// All WAL of a cluster in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalListing {
    /// The repository's redacted URL.
    pub store: String,
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// Oldest claim first; the last one is in force.
    pub claims: Vec<ClaimWal>,
}

/// The WAL under one claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimWal {
    pub claim: ClaimNumber,
    /// The system identifier of the cluster that wrote it.
    pub system_identifier: SystemIdentifier,
    /// PostgreSQL's major version.
    pub pg_major: u16,
    pub wal_segment_size_bytes: WalSegmentSize,
    /// WAL before this LSN may be in the archive but is not listed here; `None` if all is listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_from: Option<Lsn>,
    /// The timelines, ascending.
    pub timelines: Vec<TimelineWal>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineWal {
    /// The timeline of this WAL.
    pub timeline: TimelineId,
    /// Runs of segments without a gap, ascending.
    pub ranges: Vec<SegmentRange>,
    /// Runs of segments that are missing between them, ascending.
    pub gaps: Vec<SegmentRange>,
    /// Whether the timeline's history file is stored; the first timeline has none.
    pub has_history: bool,
    /// Partial segments, ascending.
    pub partials: Vec<SegmentName>,
    /// The number of backup history files.
    pub backup_histories: u64,
    /// The number of segments.
    pub segments: u64,
    /// Bytes of all these objects in the repository.
    pub stored_bytes: u64,
    /// When the newest object was stored, by the store's clock.
    pub newest: Option<DateTime<Utc>>,
}
