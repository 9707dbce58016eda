//! Where a recovery can begin: a backup in the repository, or volume snapshots whose record is in the repository.

use crate::name::{BackupId, ClaimNumber};
use crate::record::{BackupRecord, SnapshotRecord};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, TimelineId};
use serde::{Deserialize, Serialize};

/// The place of a beginning's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeginningKind {
    /// The packs of a backup.
    Backup,
    /// Volume snapshots, outside of the repository.
    Snapshot,
}

/// What the planner must know about a backup or snapshot from which a recovery begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The place of its data.
    pub kind: BeginningKind,
    /// The id of the backup, or of the snapshot's record.
    pub backup_id: BackupId,
    /// The claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// Timeline of the start LSN.
    pub timeline: TimelineId,
    /// Recovery reads WAL from this LSN.
    pub start_lsn: Lsn,
    /// Recovery is consistent at this LSN.
    pub stop_lsn: Lsn,
    /// The first segment that recovery needs.
    pub start_segment: SegmentName,
    /// The last segment that recovery needs.
    pub stop_segment: SegmentName,
    /// Every commit before the stop LSN has this time or an earlier one.
    pub stop_time: DateTime<Utc>,
}

impl Beginning {
    /// Whether recovery can follow the ancestry: the redo LSN and the end are on it. The end may be on a later timeline
    /// than the start, if a standby followed a switch meanwhile.
    pub fn is_on(&self, ancestry: &Ancestry) -> bool {
        ancestry.owner(self.start_lsn) == self.timeline && ancestry.passes(self.stop_segment.timeline(), self.stop_lsn)
    }
}

impl From<&BackupRecord> for Beginning {
    fn from(backup: &BackupRecord) -> Self {
        Self {
            kind: BeginningKind::Backup,
            backup_id: backup.backup_id,
            claim: backup.claim,
            timeline: backup.timeline,
            start_lsn: backup.start_lsn,
            stop_lsn: backup.stop_lsn,
            start_segment: backup.start_segment,
            stop_segment: backup.stop_segment,
            stop_time: backup.stop_time,
        }
    }
}

impl From<&SnapshotRecord> for Beginning {
    fn from(snapshot: &SnapshotRecord) -> Self {
        Self {
            kind: BeginningKind::Snapshot,
            backup_id: snapshot.snapshot_id,
            claim: snapshot.claim,
            timeline: snapshot.timeline,
            start_lsn: snapshot.start_lsn,
            stop_lsn: snapshot.stop_lsn,
            start_segment: snapshot.start_segment,
            stop_segment: snapshot.stop_segment,
            stop_time: snapshot.stop_time,
        }
    }
}
