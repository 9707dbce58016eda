//! `holdfast info`: what the archive of a cluster is worth now.

use super::drill::Drilled;
use super::list::Unfinished;
use super::verify::Verified;
use super::wal::ClaimWal;
use super::{PerRepository, RepositoryDescription, UnreadableRecord};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{OtherLine, ReachableWindow, Rejection};
use serde::{Deserialize, Serialize};

/// What `info` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// The moment that all ages refer to.
    pub now: DateTime<Utc>,
    /// In the order of the configuration.
    pub repositories: Vec<PerRepository<RepositoryInfo>>,
}

impl InfoReport {
    /// The claims of all repositories that could be read.
    pub fn claims(&self) -> impl Iterator<Item = &ClaimInfo> {
        self.repositories.iter().filter_map(PerRepository::read).flat_map(|repository| &repository.claims)
    }
}

/// The archive of the cluster in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryInfo {
    /// What the repository says of itself.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1: what `--repo` takes.
    pub number: usize,
    /// Oldest first; the last one is in force.
    pub claims: Vec<ClaimInfo>,
    /// Backups that run, or are dead.
    pub unfinished: Vec<Unfinished>,
    /// Records that cannot be read.
    pub unreadable: Vec<UnreadableRecord>,
    /// The newest drill that proved a restore.
    #[serde(default)]
    pub last_proven: Option<Drilled>,
    /// The newest drill that failed.
    #[serde(default)]
    pub last_failed_drill: Option<Drilled>,
}

/// One claim on the cluster's archive in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimInfo {
    /// The claim.
    pub claim: ClaimRecord,
    /// Its backups.
    pub backups: Backups,
    /// Its WAL.
    pub wal: Option<ClaimWal>,
    /// When its newest WAL was stored, by the store's clock.
    pub last_wal_stored: Option<DateTime<Utc>>,
    /// How long ago that was.
    pub last_wal_age_seconds: Option<u64>,
    /// The newest archived WAL of the newest timeline.
    pub wal_end: Option<WalEnd>,
    /// The timeline that `restore` follows when none is named.
    pub followed_timeline: Option<TimelineId>,
    /// Whether `restore` wants it named.
    pub timeline_must_be_named: bool,
    /// What that timeline does not lead to.
    pub other_lines: Vec<OtherLine>,
    /// What can be restored from its backups.
    pub reach: Vec<Reach>,
    /// Its volume snapshots.
    pub snapshots: Snapshots,
    /// What of a long archive was not looked at, and is in no other field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_looked_at: Option<NotLookedAt>,
}

/// Where recoveries could begin whose WAL was not listed: it may be whole, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLookedAt {
    /// WAL before this LSN.
    pub before: Lsn,
    /// How many backups.
    pub backups: usize,
    /// How many snapshots.
    pub snapshots: usize,
}

/// The volume snapshots of a claim. What begins with them needs the snapshots themselves, which are not in the repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// How many are recorded.
    pub recorded: usize,
    /// The newest.
    pub last: Option<BriefSnapshot>,
    /// What can be restored from them.
    pub reach: Vec<Reach>,
}

/// A snapshot in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefSnapshot {
    /// The id of its record.
    pub snapshot_id: String,
    /// Its label.
    pub label: String,
    /// Whether the server ran.
    pub online: bool,
    /// When it was complete.
    pub stop_time: DateTime<Utc>,
    /// Its timeline.
    pub timeline: TimelineId,
}

/// The newest archived WAL of the newest timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEnd {
    /// That timeline.
    pub timeline: TimelineId,
    /// Its newest segment.
    pub segment: SegmentName,
    /// The end of that segment.
    pub end_lsn: Lsn,
}

/// What can be restored along one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The timeline.
    pub timeline: TimelineId,
    /// Oldest first.
    pub windows: Vec<Window>,
    /// Beginnings that miss WAL of their own, newest first.
    pub unusable: Vec<Rejection>,
    /// Why its history cannot be read: then nothing is known of it.
    pub unreadable: Option<String>,
}

/// A stretch in which every moment can be restored to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its two ends.
    #[serde(flatten)]
    pub window: ReachableWindow,
    /// When the newest WAL of the timeline was stored: what there was to store then is in the archive, transactions or not.
    pub to_stored: Option<DateTime<Utc>>,
}

/// The backups of a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backups {
    /// How many are complete.
    pub complete: usize,
    /// The oldest.
    pub first: Option<BriefBackup>,
    /// The newest.
    pub last: Option<BriefBackup>,
    /// How long ago the newest was complete.
    pub last_age_seconds: Option<u64>,
    /// Bytes of all of them in the repository.
    pub stored_bytes: u64,
    /// Those that hold pages with a wrong checksum.
    pub marked: Vec<BriefBackup>,
    /// What is remembered of their verifications, oldest backup first: of each the one that counts.
    #[serde(default)]
    pub verified: Vec<Verified>,
}

/// A backup in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefBackup {
    /// Its id.
    pub backup_id: String,
    /// When it began.
    pub start_time: DateTime<Utc>,
    /// When it ended.
    pub stop_time: DateTime<Utc>,
    /// The timeline of its start.
    pub timeline: TimelineId,
    /// Bytes of the data directory.
    pub size_bytes: u64,
    /// Bytes in the repository.
    pub stored_bytes: u64,
    /// What one should know before relying on it, in words.
    pub marks: String,
}
