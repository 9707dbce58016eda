//! Whose snapshots they are, and along which timelines their WAL goes, as far as the data directory can say.
//!
//! The request is what somebody says of a server. Where `cluster.pgdata` is known, its control file is compared: it must
//! have passed the start of the snapshots. And only the control file knows that a standby followed its upstream to another
//! timeline while they were taken; where it cannot be read, the request may say it.

use holdfast_pgtypes::control::DbState;
use holdfast_pgtypes::{Ancestry, ControlFile, SystemIdentifier};
use holdfast_repo::record::ClaimRecord;

use super::{RecordOptions, SnapshotRequest, Span};
use crate::backup::read_control_file;
use crate::backup::timelines::{Course, followed, history_in};
use crate::error::{Doing, Error, What};
use crate::repository::Repository;
use crate::restore::read_history;
use crate::server::{prove_started, prove_timeline};

/// What the data directory says.
pub(super) struct Found {
    pub system_identifier: Option<SystemIdentifier>,
    control: Option<ControlFile>,
}

/// Compares the request with the data directory, where there is one.
pub(super) async fn compare(request: &SnapshotRequest, span: Span, options: &RecordOptions) -> Result<Found, Error> {
    let Some(pgdata) = &options.pgdata else {
        return Ok(Found { system_identifier: request.system_identifier, control: None });
    };
    let control = read_control_file(pgdata)?;
    let found = control.system_identifier;
    if let Some(stated) = request.system_identifier.filter(|stated| *stated != found) {
        return Err(What::Refused(format!(
            "snapshots {} are said to be of system identifier {stated}, but {} has {found}",
            request.name,
            pgdata.display(),
        ))
        .into());
    }
    let control = prove_started(pgdata, span.start_lsn).await?;
    prove_timeline(pgdata, &control, span.start_lsn, span.timeline)?;
    Ok(Found { system_identifier: Some(found), control: Some(control) })
}

/// The timelines from the start to the stop LSN.
pub(super) async fn course(
    request: &SnapshotRequest,
    span: Span,
    options: &RecordOptions,
    found: &Found,
    archive: (&Repository, &ClaimRecord),
) -> Result<Course, Error> {
    let began = span.timeline;
    let standby = found
        .control
        .as_ref()
        .filter(|control| matches!(control.state, DbState::InArchiveRecovery | DbState::ShutDownInRecovery));
    let reached = standby.and_then(|control| control.min_recovery_timeline);
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
    Course::along(ancestry, began, span.start_lsn, span.stop_lsn)
}
