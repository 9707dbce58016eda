//! The names of the repository as those of the planner, and back.

use holdfast_repo::name::{BackupId, ClaimNumber};
use holdfast_retention as planner;

use crate::error::{Cause, Error};

pub(super) fn backup(id: BackupId) -> planner::BackupId {
    planner::BackupId::new(id.time())
}

pub(super) fn claim(number: ClaimNumber) -> planner::ClaimNumber {
    // Both are at least 1.
    planner::ClaimNumber::new(number.get()).unwrap_or(planner::ClaimNumber::FIRST)
}

pub(super) fn to_backup(id: planner::BackupId) -> Result<BackupId, Error> {
    BackupId::new(id.time()).map_err(|e| Cause::Internal(format!("backup id {id}: {e}")).into())
}

pub(super) fn to_claim(number: planner::ClaimNumber) -> ClaimNumber {
    ClaimNumber::new(number.get()).unwrap_or(ClaimNumber::FIRST)
}
