//! `holdfast info`: what the archive of a cluster can restore now.

use super::drill::Drilled;
use super::list::Unfinished;
use super::verify::Verified;
use super::wal::ClaimWal;
use super::wal_verify::RecordedGap;
use super::{PerRepository, RepositoryDescription, UnreadableRecord};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{OtherLine, ReachableWindow, Rejection};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The time to which all ages refer.
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
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1, as for `--repo`.
    pub number: usize,
    /// Oldest first; the last one is in force.
    pub claims: Vec<ClaimInfo>,
    /// Backups without `backup.json`: running, or dead.
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
    pub claim: ClaimRecord,
    pub backups: Backups,
    pub wal: Option<ClaimWal>,
    /// When the newest WAL was stored, by the store's clock.
    pub last_wal_stored: Option<DateTime<Utc>>,
    pub last_wal_age_seconds: Option<u64>,
    /// The newest archived WAL of the newest timeline.
    pub wal_end: Option<WalEnd>,
    /// The timeline that `restore` follows if none is named.
    pub followed_timeline: Option<TimelineId>,
    /// Whether `restore` requires the timeline to be named.
    pub timeline_must_be_named: bool,
    /// Other timelines that have what this one does not lead to.
    pub other_lines: Vec<OtherLine>,
    /// What can be restored from the backups.
    pub reach: Vec<Reach>,
    /// The volume snapshots of the claim.
    pub snapshots: Snapshots,
    /// What was not checked in a long archive; it is in no other field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_looked_at: Option<NotLookedAt>,
    /// Missing WAL that `wal verify` recorded, and that is still missed.
    #[serde(default)]
    pub recorded_gaps: Vec<RecordedGap>,
}

/// Where recoveries could begin whose WAL was not listed: it may be complete, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLookedAt {
    /// The LSN before which WAL was not listed.
    pub before: Lsn,
    /// The number of backups that begin there.
    pub backups: usize,
    /// The number of snapshots that begin there.
    pub snapshots: usize,
}

/// The volume snapshots of a claim. A restore needs the snapshots themselves, which are not in the repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The number of records.
    pub recorded: usize,
    /// The newest record.
    pub last: Option<BriefSnapshot>,
    /// What can be restored from them.
    pub reach: Vec<Reach>,
}

/// A short form of a snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefSnapshot {
    /// The id of its record.
    pub snapshot_id: String,
    pub label: String,
    /// Whether the server ran while they were taken.
    pub online: bool,
    /// When the server was released after the snapshots.
    pub stop_time: DateTime<Utc>,
    pub timeline: TimelineId,
}

/// The newest archived WAL of the newest timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalEnd {
    /// The newest timeline.
    pub timeline: TimelineId,
    /// The newest segment of that timeline.
    pub segment: SegmentName,
    /// The end of that segment.
    pub end_lsn: Lsn,
}

/// What can be restored along one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// The timeline that recovery would follow.
    pub timeline: TimelineId,
    /// Oldest first.
    pub windows: Vec<Window>,
    /// Backups or snapshots whose own WAL is incomplete, newest first.
    pub unusable: Vec<Rejection>,
    /// Why the history of the timeline cannot be read. Then nothing is known about it.
    pub unreadable: Option<String>,
}

/// A window in which every moment can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The two ends of the window.
    #[serde(flatten)]
    pub window: ReachableWindow,
    /// When the newest WAL of the timeline was stored: everything committed by then is in the archive.
    pub to_stored: Option<DateTime<Utc>>,
}

/// The backups of a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backups {
    /// The number of complete backups.
    pub complete: usize,
    /// The oldest complete backup.
    pub first: Option<BriefBackup>,
    /// The newest complete backup.
    pub last: Option<BriefBackup>,
    /// The age of the newest complete backup.
    pub last_age_seconds: Option<u64>,
    /// Bytes of all complete backups in the repository.
    pub stored_bytes: u64,
    /// The backups with pages that have a wrong checksum.
    pub marked: Vec<BriefBackup>,
    /// Their recorded verifications, oldest backup first: for each backup the one that counts.
    #[serde(default)]
    pub verified: Vec<Verified>,
}

/// A short form of a backup's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefBackup {
    pub backup_id: String,
    /// When the backup started, by the server's clock.
    pub start_time: DateTime<Utc>,
    /// When the backup stopped, by the server's clock.
    pub stop_time: DateTime<Utc>,
    /// The timeline of its start.
    pub timeline: TimelineId,
    /// Bytes of the data directory.
    pub size_bytes: u64,
    /// Bytes in the repository.
    pub stored_bytes: u64,
    /// What a person should know before relying on it, as text.
    pub marks: String,
}
