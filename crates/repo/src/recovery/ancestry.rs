//! Finds the timelines that lead to a timeline, and the backups on that path.

use holdfast_pgtypes::{Ancestry, TimelineId};

use super::{Beginning, RecoveryWorld};

/// As `readTimeLineHistory`: a timeline without a history file has no parents.
pub(super) fn ancestry(world: &RecoveryWorld<'_>, timeline: TimelineId) -> Ancestry {
    world.histories.get(&timeline).map_or_else(|| Ancestry::alone(timeline), Ancestry::from_history)
}

/// Whether recovery of the backup can follow the ancestry: its redo LSN and its end are on it. The end may be on a
/// later timeline than the start, if a standby followed a switch meanwhile.
pub(super) fn is_on(ancestry: &Ancestry, backup: &Beginning) -> bool {
    ancestry.owner(backup.start_lsn) == backup.timeline
        && ancestry.passes(backup.stop_segment.timeline(), backup.stop_lsn)
}
