//! Finds the timelines that lead to a timeline.

use holdfast_pgtypes::{Ancestry, TimelineId};

use super::RecoveryWorld;

/// As `readTimeLineHistory`: a timeline without a history file has no parents.
pub(super) fn ancestry(world: &RecoveryWorld<'_>, timeline: TimelineId) -> Ancestry {
    world.histories.get(&timeline).map_or_else(|| Ancestry::alone(timeline), Ancestry::from_history)
}
