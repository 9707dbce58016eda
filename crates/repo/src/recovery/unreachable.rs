//! Why a request cannot be fulfilled, and what can be reached instead.

use super::OtherLine;
use crate::name::BackupId;
use chrono::{DateTime, SecondsFormat, Utc};
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A range to which a restore is possible: from the end of its first backup to the end of a gapless run of WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachableWindow {
    /// The timeline that the restore follows.
    pub timeline: TimelineId,
    /// The backup at its beginning.
    pub first_backup: BackupId,
    /// The first LSN to which a restore is possible: the stop LSN of that backup.
    pub from_lsn: Lsn,
    /// The stop time of that backup.
    pub from_time: DateTime<Utc>,
    /// The end of the WAL: a restore to every LSN before it is possible.
    pub to_lsn: Lsn,
    /// The last transaction in the WAL, if it was looked up: a restore to every time before it is possible.
    pub to_time: Option<DateTime<Utc>>,
}

impl fmt::Display for ReachableWindow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.from_lsn, self.from_time.to_rfc3339_opts(SecondsFormat::AutoSi, true))?;
        write!(formatter, " to {}", self.to_lsn)?;
        if let Some(time) = self.to_time {
            write!(formatter, " ({})", time.to_rfc3339_opts(SecondsFormat::AutoSi, true))?;
        }
        write!(formatter, " on timeline {}", self.timeline)
    }
}

/// Missing segments, after which later ones exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// The timeline in the name under which recovery would ask for the first of them.
    pub timeline: TimelineId,
    /// The first missing segment.
    pub first_missing: SegmentName,
    /// The number of missing segments.
    pub count: u64,
}

impl fmt::Display for Hole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(formatter, "WAL segment {} is missing", self.first_missing),
            count => write!(formatter, "{count} WAL segments from {} on are missing", self.first_missing),
        }
    }
}

/// Why no plan can be made. `windows` lists what can be restored on the same timeline, oldest first.
#[expect(missing_docs, reason = "the texts of the errors say what the fields are")]
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Unreachable {
    /// There is no complete backup.
    #[error("there is no complete backup")]
    NoBackups,
    /// The named backup does not exist.
    #[error("there is no complete backup {backup}")]
    BackupUnknown { backup: BackupId },
    /// Nothing in the archive mentions the timeline.
    #[error("timeline {timeline} is not in the archive")]
    TimelineUnknown {
        timeline: TimelineId,
        /// The existing timelines, ascending.
        known: Vec<TimelineId>,
    },
    /// The named backup is not on the ancestry of the timeline.
    #[error("backup {backup} of timeline {backup_timeline} does not lead to timeline {timeline}")]
    BackupNotOnTimeline {
        backup: BackupId,
        backup_timeline: TimelineId,
        /// The backup's stop LSN.
        stop_lsn: Lsn,
        timeline: TimelineId,
        /// Where the wanted timeline's history leaves the backup's; `None` if it never was on it.
        switch_lsn: Option<Lsn>,
    },
    /// No backup is on the ancestry of the timeline.
    #[error("no backup leads to timeline {timeline}")]
    NoBackupOnTimeline {
        timeline: TimelineId,
        /// The timelines on which backups were taken, ascending.
        backup_timelines: Vec<TimelineId>,
    },
    /// The request names no timeline, and the highest one is not the one with the newest backup.
    #[error(
        "the newest timeline that a backup leads to is {timeline}, but backup {backup} of timeline {backup_timeline} is \
         newer and does not lead there"
    )]
    NewerBackupElsewhere {
        /// The timeline that `latest` means.
        timeline: TimelineId,
        backup: BackupId,
        /// The newest backup's timeline.
        backup_timeline: TimelineId,
        /// The content of timelines that `latest` does not mean.
        other_lines: Vec<OtherLine>,
    },
    /// The target is before the end of the oldest usable backup.
    #[error("{target} is before the end of the oldest backup")]
    BeforeFirstBackup {
        /// The target of the request.
        target: RecoveryTarget,
        /// The ranges that can be reached.
        windows: Vec<ReachableWindow>,
        /// The content of timelines that were not followed.
        other_lines: Vec<OtherLine>,
    },
    /// The target is before the end of the named backup.
    #[error("{target} is before the end of backup {backup}, which is consistent from {stop_lsn} on")]
    TargetBeforeChosenBackup {
        /// The target of the request.
        target: RecoveryTarget,
        backup: BackupId,
        /// The backup's stop LSN.
        stop_lsn: Lsn,
        /// The backup's stop time.
        stop_time: DateTime<Utc>,
        /// The ranges that can be reached.
        windows: Vec<ReachableWindow>,
        /// The content of timelines that were not followed.
        other_lines: Vec<OtherLine>,
    },
    /// The target is after the end of the archived WAL, or at its end where PostgreSQL needs more WAL to stop.
    #[error("{target} is beyond the archived WAL, which ends at {until_lsn}")]
    BeyondArchive {
        /// The target of the request.
        target: RecoveryTarget,
        /// End of the WAL.
        until_lsn: Lsn,
        /// The last transaction before that end, if it was looked up.
        until_time: Option<DateTime<Utc>>,
        /// The ranges that can be reached.
        windows: Vec<ReachableWindow>,
        /// The content of timelines that were not followed.
        other_lines: Vec<OtherLine>,
    },
    /// WAL is missing between the target and every usable backup.
    #[error("{hole} on the way to {target}")]
    Hole {
        /// The target of the request.
        target: RecoveryTarget,
        hole: Hole,
        /// The timeline before, if the first segment of a new timeline is the one that is missing: its server archives
        /// that only when the segment is full.
        #[serde(skip_serializing_if = "Option::is_none")]
        follows: Option<TimelineId>,
        /// The ranges that can be reached.
        windows: Vec<ReachableWindow>,
        /// The content of timelines that were not followed.
        other_lines: Vec<OtherLine>,
    },
    /// No record of the wanted transaction or restore point is in the archived WAL.
    #[error("{target} is not in the archived WAL")]
    TargetNotFound {
        /// The target of the request.
        target: RecoveryTarget,
        /// The ranges that can be reached.
        windows: Vec<ReachableWindow>,
        /// The content of timelines that were not followed.
        other_lines: Vec<OtherLine>,
    },
}

impl Unreachable {
    /// What to do if the timeline has only begun, and its first segment is not archived yet.
    pub fn only_begun(&self) -> Option<String> {
        let Self::Hole { hole, follows: Some(before), .. } = self else { return None };
        Some(format!(
            "{} is the first segment of timeline {}, which is archived when it is full: wait for it, or restore the timeline \
             before with --target-timeline {before}",
            hole.first_missing, hole.timeline
        ))
    }

    /// The ranges on the timeline that can be reached, oldest first.
    pub fn windows(&self) -> &[ReachableWindow] {
        match self {
            Self::NoBackups
            | Self::BackupUnknown { .. }
            | Self::TimelineUnknown { .. }
            | Self::BackupNotOnTimeline { .. }
            | Self::NoBackupOnTimeline { .. }
            | Self::NewerBackupElsewhere { .. } => &[],
            Self::BeforeFirstBackup { windows, .. }
            | Self::TargetBeforeChosenBackup { windows, .. }
            | Self::BeyondArchive { windows, .. }
            | Self::Hole { windows, .. }
            | Self::TargetNotFound { windows, .. } => windows,
        }
    }

    /// Timelines that were not followed and contain something of their own, ascending.
    pub fn other_lines(&self) -> &[OtherLine] {
        match self {
            Self::NoBackups
            | Self::BackupUnknown { .. }
            | Self::TimelineUnknown { .. }
            | Self::BackupNotOnTimeline { .. }
            | Self::NoBackupOnTimeline { .. } => &[],
            Self::NewerBackupElsewhere { other_lines, .. }
            | Self::BeforeFirstBackup { other_lines, .. }
            | Self::TargetBeforeChosenBackup { other_lines, .. }
            | Self::BeyondArchive { other_lines, .. }
            | Self::Hole { other_lines, .. }
            | Self::TargetNotFound { other_lines, .. } => other_lines,
        }
    }
}
