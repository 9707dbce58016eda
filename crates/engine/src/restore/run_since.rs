//! Refuses a copy of a data directory in which a server has run since the copy was made.
//!
//! A copy of a running server starts without its `backup_label`: PostgreSQL takes it for a crashed server. What is
//! changed then stays in the pages, and replay of the archived WAL does not repair it. The control file shows a clean
//! stop. After a crash it may still be that of the copy, but such a server has written WAL of its own over the end of
//! the copied WAL, and the archive has other WAL there.

use std::path::Path;

use holdfast_pgtypes::control::DbState;
use holdfast_pgtypes::{ControlFile, WalFileName};
use holdfast_repo::record::{ClaimRecord, SnapshotRecord};

use super::copied;
use crate::archive::{OwnWal, is_only_here};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;

/// The newest segments of the copy that are compared: the WAL of its end, and the segment after it.
const COMPARED: usize = 2;

/// Whether the state in the control file is that of the copied server.
pub(super) fn is_state_of_copy(control: &ControlFile, record: &SnapshotRecord) -> bool {
    match control.state {
        DbState::InProduction | DbState::InArchiveRecovery => record.online,
        DbState::ShutDown | DbState::ShutDownInRecovery => !record.online,
        _ => false,
    }
}

/// Compares the end of the copied WAL with the archive.
///
/// # Errors
/// [`Cause::Refused`] if the archive has other WAL there; those of the store.
pub(super) async fn refuse_other_end(
    repository: &Repository,
    claim: &ClaimRecord,
    record: &SnapshotRecord,
    (pgdata, control): (&Path, &ControlFile),
    crew: &Crew,
) -> Result<(), Error> {
    // A standby that followed its upstream to another timeline has the end of the old one, which need not be archived.
    // The WAL of a server that was stopped is archived only up to its last checkpoint.
    if !record.online || record.timeline != record.stop_segment.timeline() {
        return Ok(());
    }
    let pg_wal = pgdata.join("pg_wal");
    let mut segments = copied::written_segments(&pg_wal, record)?;
    segments.retain(|segment| segment.timeline() == record.timeline && *segment <= record.stop_segment);
    segments.sort_unstable();
    let own = OwnWal { repository, cluster: &claim.cluster, claim, pg_wal: &pg_wal };
    for segment in segments.into_iter().rev().take(COMPARED) {
        if is_only_here(&own, WalFileName::Segment(segment), control, crew).await? {
            return Err(Cause::Refused(format!(
                "{} has other WAL in {segment} than the archive: a server has run here since snapshot {} was taken; fill \
                 the directory from the snapshot again",
                pgdata.display(),
                record.snapshot_id
            ))
            .into());
        }
    }
    Ok(())
}
