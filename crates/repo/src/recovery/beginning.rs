//! Where a recovery can begin: a backup in the repository, or volume snapshots with their record in it.

use crate::name::{BackupId, ClaimNumber};
use crate::record::{BackupRecord, SnapshotRecord};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId};
use serde::Serialize;

/// Where the data of a beginning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BeginningKind {
    /// In the packs of a backup.
    Backup,
    /// In volume snapshots, outside of the repository.
    Snapshot,
}

/// What the planner has to know of the place a recovery begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// Where its data is.
    pub kind: BeginningKind,
    /// Its id.
    pub backup_id: BackupId,
    /// The claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// Timeline of the start LSN.
    pub timeline: TimelineId,
    /// Recovery reads WAL from here.
    pub start_lsn: Lsn,
    /// Recovery is consistent here.
    pub stop_lsn: Lsn,
    /// The first segment it needs.
    pub start_segment: SegmentName,
    /// The last segment it needs.
    pub stop_segment: SegmentName,
    /// Every commit before the stop LSN is before this, or at it.
    pub stop_time: DateTime<Utc>,
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
