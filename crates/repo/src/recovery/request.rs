//! What the user wants: the recovery settings of PostgreSQL as one value.

use crate::name::BackupId;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use serde::Serialize;

/// A request for a recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryRequest {
    /// Where to stop.
    pub target: RecoveryTarget,
    /// Whether the transaction, record or moment of the target is still replayed, as `recovery_target_inclusive`. Means
    /// something for time, LSN and transaction.
    pub inclusive: bool,
    /// The timeline to follow.
    pub timeline: TargetTimeline,
    /// The backup to use; `None` lets the planner choose.
    pub backup: Option<BackupId>,
}

impl Default for RecoveryRequest {
    /// PostgreSQL's defaults: to the end of the WAL, on the latest timeline.
    fn default() -> Self {
        Self { target: RecoveryTarget::Latest, inclusive: true, timeline: TargetTimeline::Latest, backup: None }
    }
}
