//! Where the WAL begins that a recovery will most likely need, before any WAL is listed.
//!
//! An archive may contain years of WAL. Nearly every recovery begins with the newest backup that ended before its
//! target, and needs the WAL archived since. This is only a guess: the plan made with that WAL shows whether the guess
//! is right.

use super::ancestry::ancestry;
use super::{Beginning, RecoveryPath, RecoveryRequest, RecoveryWorld};
use crate::name::BackupId;
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::{Ancestry, Lsn, TimelineId};
use std::collections::BTreeSet;

/// The backup that will most likely be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikelyStart {
    /// The id of the backup.
    pub backup: BackupId,
    /// Where the WAL of that backup begins.
    pub start_lsn: Lsn,
    /// Where the WAL of the older backups begins that the recovery could use instead, newest first, each LSN once.
    pub older_starts: Vec<Lsn>,
    ancestry: Ancestry,
}

impl LikelyStart {
    /// Uses backups and history files alone: the segments of the world may be left out, but not its timelines. `None`
    /// if there is no backup before the target.
    pub fn find(request: &RecoveryRequest, world: &RecoveryWorld<'_>) -> Option<Self> {
        let is_before_target = |backup: &&Beginning| match &request.target {
            // Only the WAL shows where the last two are. Most of them are from the last days, and recovery stops at a
            // record after the newest backup whatever there is before it.
            RecoveryTarget::Latest | RecoveryTarget::Immediate | RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => {
                true
            }
            RecoveryTarget::Time(time) if request.inclusive => backup.stop_time <= *time,
            RecoveryTarget::Time(time) => backup.stop_time < *time,
            RecoveryTarget::Lsn(lsn) => backup.stop_lsn <= *lsn,
        };
        let timeline = RecoveryPath::find(request, world).ok()?.timeline();
        let ancestry = ancestry(world, timeline);
        let backups = world.backups.iter().filter(|backup| backup.claim == world.claim);
        let backups = backups.filter(|backup| request.backup.is_none_or(|named| backup.backup_id == named));
        let eligible = backups.filter(|backup| backup.is_on(&ancestry)).filter(is_before_target);
        let eligible: Vec<&Beginning> = eligible.collect();
        let newest = eligible.iter().max_by_key(|backup| (backup.stop_lsn, backup.backup_id))?;
        let starts: BTreeSet<Lsn> = eligible.iter().map(|backup| backup.start_lsn).collect();
        let older_starts = starts.range(..newest.start_lsn).rev().copied().collect();
        Some(Self { backup: newest.backup_id, start_lsn: newest.start_lsn, older_starts, ancestry })
    }

    /// Whether recovery follows this timeline.
    pub fn is_on_path(&self, timeline: TimelineId) -> bool {
        self.ancestry.span(timeline).is_some()
    }
}
