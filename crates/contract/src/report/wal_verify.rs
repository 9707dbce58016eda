//! `holdfast wal verify`: whether the archived WAL is without a gap, and what a gap costs.

use super::verify::{Level, Sample};
use super::{PerRepository, RepositoryDescription};
use crate::problem::BriefError;
use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::name::{BackupId, ClaimNumber, ClusterName};
use holdfast_repo::recovery::ReachableWindow;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalVerifyReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// How much of each segment was checked.
    pub level: Level,
    /// The part of the segments that was read, if not all of them.
    pub sample: Option<Sample>,
    /// The timeline that was followed, if not all of them.
    pub timeline: Option<TimelineId>,
    /// The repositories, in the order of the configuration.
    pub repositories: Vec<PerRepository<WalVerified>>,
}

/// The result for one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalVerified {
    /// The properties of the repository.
    #[serde(flatten)]
    pub description: RepositoryDescription,
    /// Its number in the configuration, from 1.
    pub number: usize,
    /// Why the verification ended early: what it did not check may be sound or not.
    pub interrupted: Option<BriefError>,
    /// The claims, oldest first.
    pub claims: Vec<ClaimWalVerified>,
    /// What was found, by claim, timeline and segment.
    pub findings: Vec<WalFinding>,
    /// What was brought back from a folder, if that was asked for. The findings are those after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healing: Option<WalHealing>,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
    /// The number of segments whose names and sizes were looked at.
    pub segment_count: u64,
    /// The number of segments that were compared with the segment before them.
    pub compared_count: u64,
    pub read_bytes: u64,
    /// The duration of the verification.
    pub duration_milliseconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimWalVerified {
    pub claim: ClaimNumber,
    /// The timelines that a backup leads to, ascending.
    pub timelines: Vec<TimelineVerified>,
}

/// The WAL along one timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineVerified {
    pub timeline: TimelineId,
    /// Segments on the way to it, from the first backup to the newest segment.
    pub segment_count: u64,
    /// What can be restored along it according to the listing, oldest first.
    pub windows: Vec<ReachableWindow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalFinding {
    pub kind: WalFindingKind,
    /// Whether it costs something.
    pub weight: WalFindingWeight,
    pub claim: ClaimNumber,
    /// The file; of several in a row, the first.
    pub file: WalFileName,
    /// The last segment, if there are several in a row.
    pub last: Option<SegmentName>,
    /// The number of files in a row.
    pub count: u64,
    /// The name of the object of `file` in the repository.
    pub object: String,
    /// What is wrong, as text for people.
    pub problem: String,
    /// Backups that cannot be restored because of it.
    pub backups: Vec<BackupId>,
    /// Recorded snapshots from which no recovery can begin because of it.
    pub snapshots: Vec<BackupId>,
    /// Moments that cannot be restored because of it.
    pub lost: Vec<LostMoments>,
    /// What to do, as text for people.
    pub advice: String,
    /// Since when the ledger of the repository has it: gaps only.
    pub recorded: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalFindingKind {
    /// Segments are missing.
    Gap,
    /// A segment is not what was stored.
    Damaged,
    /// A segment was written by a later release.
    Newer,
    /// PostgreSQL cannot read a segment to its end, although WAL follows.
    Unfinished,
    /// A segment is of another history than the segment before it.
    OtherHistory,
    /// The history file of a timeline is missing.
    HistoryMissing,
    /// The history file of a timeline cannot be read.
    HistoryDamaged,
    /// The history file of a timeline contradicts another one, or the WAL.
    HistoryContradicts,
    /// A segment that a server had not finished when its timeline ended.
    Partial,
    /// The archive was offered other content for a file that it has.
    Divergence,
}

impl WalFindingKind {
    /// The words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Damaged => "damaged",
            Self::Newer => "newer",
            Self::Unfinished => "unfinished",
            Self::OtherHistory => "other history",
            Self::HistoryMissing => "history missing",
            Self::HistoryDamaged => "history damaged",
            Self::HistoryContradicts => "history contradicts",
            Self::Partial => "partial",
            Self::Divergence => "divergence",
        }
    }
}

/// Whether a finding costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalFindingWeight {
    /// Something cannot be restored because of it.
    Loss,
    /// Nothing is lost, and a person should know it.
    Remark,
}

/// Moments that cannot be restored: from the end of a stretch of WAL to the end of the next backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostMoments {
    /// The timeline that a restore would follow.
    pub timeline: TimelineId,
    /// The first LSN that cannot be reached.
    pub from_lsn: Lsn,
    /// The last transaction before it: every later moment is lost. `None` if there is none, or it is not known.
    pub from_time: Option<DateTime<Utc>>,
    /// Where moments can be restored again; `None` if there is no later backup or snapshot.
    pub until: Option<LostUntil>,
}

/// The backup or the snapshot with which moments can be restored again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostUntil {
    pub backup: BackupId,
    /// Whether it is a recorded snapshot.
    pub is_snapshot: bool,
    /// Its stop LSN.
    pub lsn: Lsn,
    /// Its stop time.
    pub time: DateTime<Utc>,
}

impl fmt::Display for LostMoments {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        write!(formatter, "from {}", self.from_lsn)?;
        if let Some(from) = self.from_time {
            write!(formatter, " (after {})", time(from))?;
        }
        match &self.until {
            Some(until) => {
                let what = if until.is_snapshot { "snapshot" } else { "backup" };
                write!(formatter, " to {} ({}), the end of {what} {}", until.lsn, time(until.time), until.backup)?;
            }
            None => write!(formatter, " on, until the next backup")?,
        }
        write!(formatter, ", on timeline {}", self.timeline)
    }
}

/// What was brought back from a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalHealing {
    /// Files that are in the archive again.
    pub healed: Vec<HealedFile>,
    /// Missing files that no folder could give back.
    pub left: Vec<UnhealedFile>,
}

/// A file that is in the archive again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealedFile {
    pub claim: ClaimNumber,
    pub file: WalFileName,
    /// The path that it came from.
    pub from: String,
}

/// A missing file that no folder could give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhealedFile {
    pub claim: ClaimNumber,
    /// The file; of several in a row with the same reason, the first.
    pub file: WalFileName,
    /// The number of files in a row.
    pub count: u64,
    /// The reason, as text for people.
    pub reason: String,
}

/// Missing WAL that an earlier `wal verify` recorded in the ledger, and that is still missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGap {
    /// The first missing segment.
    pub first: SegmentName,
    /// The last missing segment, of the same timeline.
    pub last: SegmentName,
    /// The number of missing segments.
    pub count: u64,
    /// When it was recorded.
    pub since: DateTime<Utc>,
    /// How it was found, as text for people.
    pub reason: String,
}
