//! What the flags ask for, as the engine takes it: a backup by its id, and the end of a recovery.

use crate::args::TargetArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_repo::name::BackupId;
use holdfast_repo::recovery::RecoveryRequest;

/// The backup with this id.
pub(super) fn backup(id: &str) -> Result<BackupId, Failure> {
    id.parse().map_err(|_| {
        Failure::new(ExitCode::Usage, format!("{id:?} is not the id of a backup"))
            .hint("an id looks like 20260822T101500Z; `holdfast list` shows them")
    })
}

/// Where a recovery ends, and with which backup it begins if that is said.
pub(super) fn recovery(to: &TargetArgs, backup_id: Option<&str>) -> Result<RecoveryRequest, Failure> {
    Ok(RecoveryRequest {
        target: to.target(),
        inclusive: !to.exclusive,
        timeline: to.timeline,
        backup: backup_id.map(backup).transpose()?,
    })
}
