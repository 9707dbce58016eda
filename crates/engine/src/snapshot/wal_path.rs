//! The owner of the snapshots, and the timelines that their WAL follows, as far as the data directory shows it.
//!
//! The request contains somebody's claims about a server. If `cluster.pgdata` is known, its control file is compared:
//! it must have passed the start of the snapshots. Only the control file shows that a standby followed its upstream to
//! another timeline while they were taken. If it cannot be read, the request may contain that timeline.

use holdfast_pgtypes::backup_label::BackupFrom;
use holdfast_pgtypes::control::DbState;
use holdfast_pgtypes::{Ancestry, BackupLabel, ControlFile, SystemIdentifier};
use holdfast_repo::record::ClaimRecord;

use super::{RecordOptions, SnapshotRequest, Span};
use crate::backup::timelines::{WalPath, followed, history_in};
use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;
use crate::restore::read_history;
use crate::server::read_control_file;
use crate::server::{prove_started, prove_timeline};

/// The cluster of the snapshots: from the data directory, if there is one, or else from the request.
pub(super) fn system_identifier(
    request: &SnapshotRequest,
    options: &RecordOptions,
) -> Result<Option<SystemIdentifier>, Error> {
    let Some(pgdata) = &options.pgdata else { return Ok(request.system_identifier) };
    let found = read_control_file(pgdata)?.system_identifier;
    if let Some(stated) = request.system_identifier.filter(|stated| *stated != found) {
        return Err(Cause::Refused(format!(
            "the request says that snapshots {} belong to system identifier {stated}, but {} has {found}",
            request.name,
            pgdata.display(),
        ))
        .into());
    }
    Ok(Some(found))
}

/// Compares the start of the snapshots with the data directory, if there is one. Returns its control file.
pub(super) async fn compare(span: Span, options: &RecordOptions) -> Result<Option<ControlFile>, Error> {
    let Some(pgdata) = &options.pgdata else { return Ok(None) };
    let control = prove_started(pgdata, span.start_lsn).await?;
    prove_timeline(pgdata, &control, span.start_lsn, span.timeline)?;
    Ok(Some(control))
}

/// Whether the snapshots are from a standby. A primary stays on its timeline, even if its data directory now belongs to
/// a standby on another timeline.
pub(super) fn is_of_standby(request: &SnapshotRequest) -> bool {
    let label = request.backup_label.as_ref().and_then(|label| BackupLabel::parse(label.as_bytes()).ok());
    match label {
        Some(label) => label.from == BackupFrom::Standby,
        // Of stopped servers, only a standby has an LSN from which it is consistent.
        None => request.end_lsn.is_some(),
    }
}

/// The timelines from the start to the stop LSN.
pub(super) async fn wal_path(
    request: &SnapshotRequest,
    span: Span,
    options: &RecordOptions,
    control: Option<&ControlFile>,
    archive: (&Repository, &ClaimRecord),
) -> Result<WalPath, Error> {
    let began = span.timeline;
    let reached = control.filter(|_| is_of_standby(request)).and_then(|control| match control.state {
        DbState::InArchiveRecovery | DbState::ShutDownInRecovery => control.min_recovery_timeline,
        // The standby was promoted since then.
        _ => Some(control.timeline),
    });
    let ancestry = match request.end_timeline.or(reached) {
        Some(ended) if ended != began => {
            let history = match &options.pgdata {
                Some(pgdata) => history_in(pgdata, ended),
                None => read_history(archive.0, archive.1, ended).await.map(|history| Ancestry::from_history(&history)),
            };
            history.doing(|| followed(began, ended))?
        }
        _ => Ancestry::alone(began),
    };
    WalPath::along(ancestry, began, span.start_lsn, span.stop_lsn)
}
