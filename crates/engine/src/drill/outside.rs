//! Protects tablespaces of other servers from WAL replay.
//!
//! Replay repeats `CREATE TABLESPACE` in the directory of the original server, and removes what it finds there. No
//! setting changes that directory. So a drill is refused if a server on this host has a tablespace that the backup does
//! not have. And replay gets no WAL that is newer than this check ([`bounded`]), so that it cannot contain a later
//! tablespace.

use std::ffi::OsString;
use std::path::Path;

use holdfast_pgtypes::SystemIdentifier;
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_repo::recovery::RecoveryPlan;

use crate::error::{Cause, Error};
use crate::path_overlap::tablespaces;
use crate::restore::refuse_made_again;

/// Refuses to replay WAL beside a server with tablespaces that are not in the backup. It checks running servers of the
/// same cluster, and the configured data directory, because its server may be stopped only for a while.
pub(super) fn refuse_living(living: Option<&Path>, known: &[OsString], of: SystemIdentifier) -> Result<(), Error> {
    refuse_made_again(known, of)?;
    let Some(pgdata) = living else { return Ok(()) };
    let is_tablespace = |oid: &OsString| oid.to_str().is_some_and(|oid| oid.parse::<u32>().is_ok());
    let mut new = tablespaces(pgdata).into_iter().filter(|(oid, _)| is_tablespace(oid) && !known.contains(oid));
    match new.next() {
        Some((_, place)) => Err(Cause::Refused(format!(
            "{} has a tablespace in {} that is not in this backup: WAL replay would make it again in the same \
             directory. Drill a backup that has the tablespace, or run the drill on another host",
            pgdata.display(),
            place.display()
        ))
        .into()),
        None => Ok(()),
    }
}

/// Adds a limit to `restore_command`, so that it gives no WAL that was archived after the plan. An LSN or the end of
/// the backup as target is already a limit.
pub(super) fn bounded(command: &str, plan: &RecoveryPlan, target: &RecoveryTarget) -> String {
    match (target, plan.segments.last()) {
        (RecoveryTarget::Immediate | RecoveryTarget::Lsn(_), _) | (_, None) => command.to_owned(),
        (_, Some(range)) => format!("{command} --until {}", range.last),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn tablespaces_of_a_stopped_server_are_protected() {
        let pgdata = tempfile::tempdir().unwrap();
        let links = pgdata.path().join("pg_tblspc");
        std::fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink("/fast/pg", links.join("16400")).unwrap();
        std::os::unix::fs::symlink("/elsewhere", links.join("mine")).unwrap();
        let of = SystemIdentifier::new(1);
        refuse_living(Some(pgdata.path()), &["16400".into()], of).unwrap();
        refuse_living(None, &[], of).unwrap();
        let error = refuse_living(Some(pgdata.path()), &["16401".into()], of).unwrap_err();
        assert!(error.to_string().contains("has a tablespace in /fast/pg that is not in this backup"), "{error}");
    }
}
