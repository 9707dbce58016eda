//! What the user wants: the recovery settings of PostgreSQL as one value.

use crate::name::BackupId;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use serde::Serialize;

/// The whole request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryRequest {
    /// Where to stop.
    pub target: RecoveryTarget,
    /// Whether the transaction, record or moment of the target is still replayed, as `recovery_target_inclusive`. Means
    /// something for time, LSN and transaction.
    pub inclusive: bool,
    /// Along which timeline.
    pub timeline: TargetTimeline,
    /// From this backup and no other.
    pub backup: Option<BackupId>,
}

impl Default for RecoveryRequest {
    /// PostgreSQL's defaults: everything there is, on the latest timeline.
    fn default() -> Self {
        Self { target: RecoveryTarget::Latest, inclusive: true, timeline: TargetTimeline::Latest, backup: None }
    }
}
