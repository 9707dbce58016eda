//! Where the WAL begins that a recovery will most likely need, before any WAL is listed.
//!
//! An archive may hold years. Nearly every recovery begins with the newest backup that ended before its target, and needs
//! what was archived since. A guess only: the plan that is made with that WAL says whether it is right.

use super::path::{ancestry, is_on};
use super::{Beginning, RecoveryPath, RecoveryTarget, RecoveryWish, RecoveryWorld};
use crate::name::BackupId;
use holdfast_pgtypes::{Ancestry, Lsn, TimelineId};

/// The backup that will most likely be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikelyStart {
    /// The backup.
    pub backup: BackupId,
    /// Where its WAL begins.
    pub start_lsn: Lsn,
    ancestry: Ancestry,
}

impl LikelyStart {
    /// Looks at backups and history files alone: the segments of the world may be left out, its timelines not. None if the
    /// newest backup before the target cannot be told without reading WAL, or if there is none.
    pub fn find(wish: &RecoveryWish, world: &RecoveryWorld<'_>) -> Option<Self> {
        let is_before_target = |backup: &&Beginning| match &wish.target {
            RecoveryTarget::Latest | RecoveryTarget::Immediate => true,
            RecoveryTarget::Time(time) if wish.inclusive => backup.stop_time <= *time,
            RecoveryTarget::Time(time) => backup.stop_time < *time,
            RecoveryTarget::Lsn(lsn) => backup.stop_lsn <= *lsn,
            // Where these stand is only known from the WAL.
            RecoveryTarget::Xid(_) | RecoveryTarget::Name(_) => false,
        };
        let timeline = RecoveryPath::find(wish, world).ok()?.timeline();
        let ancestry = ancestry(world, timeline);
        let backups = world.backups.iter().filter(|backup| backup.claim == world.claim);
        let backups = backups.filter(|backup| wish.backup.is_none_or(|named| backup.backup_id == named));
        let eligible = backups.filter(|backup| is_on(&ancestry, backup)).filter(is_before_target);
        let newest = eligible.max_by_key(|backup| (backup.stop_lsn, backup.backup_id))?;
        Some(Self { backup: newest.backup_id, start_lsn: newest.start_lsn, ancestry })
    }

    /// Whether recovery passes along this timeline.
    pub fn is_on_path(&self, timeline: TimelineId) -> bool {
        self.ancestry.span(timeline).is_some()
    }
}
