//! What the flags request, as types of the engine: a backup by its id, and the target of a recovery.

use crate::args::TargetArgs;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_repo::name::BackupId;
use holdfast_repo::recovery::RecoveryRequest;

pub(super) fn backup(id: &str) -> Result<BackupId, Failure> {
    id.parse().map_err(|_| {
        Failure::new(ExitCode::Usage, format!("{id:?} is not the id of a backup"))
            .hint("an id looks like 20260822T101500Z; `holdfast list` shows them")
    })
}

/// The target of a recovery, and the backup to begin with if one is named.
pub(super) fn recovery(to: &TargetArgs, backup_id: Option<&str>) -> Result<RecoveryRequest, Failure> {
    Ok(RecoveryRequest {
        target: to.target(),
        inclusive: !to.exclusive,
        timeline: to.timeline,
        backup: backup_id.map(backup).transpose()?,
    })
}
