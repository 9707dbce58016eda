//! Decides whether this backup is incremental. First it looks for a parent. When the server is in backup mode, it
//! decides how changes since the parent are found. It tells the user the result and the reason.

use holdfast_pgtypes::changes::ChangedBlocks;
use holdfast_pgtypes::{ControlFile, Lsn};

use super::super::{BackupOptions, Kind};
use super::changed::{Asked, changed_blocks};
use super::parent::{ChildBackup, Lane, Parent, ancestry_of, is_still_there, unfit};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::server::{Connection, ServerFacts};

/// How changes since the parent are found.
pub(in super::super) enum Changes {
    /// By the server's WAL summaries.
    Summarized(ChangedBlocks),
    /// By reading everything.
    ByPages,
}

/// The parent of this backup; `None` for a full backup.
pub(in super::super) async fn find_parent(
    lanes: &[Lane<'_>],
    options: &BackupOptions,
    control: &ControlFile,
    in_recovery: bool,
    extent_bytes: u32,
    progress: &dyn Progress,
) -> Result<Option<Parent>, Error> {
    if options.kind == Kind::Full {
        return Ok(None);
    }
    progress.phase("looking for the parent backup", None);
    let found = match ancestry_of(&options.pgdata, control) {
        Ok(ancestry) => {
            let crew = Crew::new(options.jobs);
            let (cluster, ancestry) = (&options.cluster, &ancestry);
            let wanted = ChildBackup { cluster, control, ancestry, in_recovery, has_started: false };
            Parent::find(lanes, &wanted, extent_bytes, &crew, options.now).await
        }
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(parent) => Ok(Some(parent)),
        Err(reason) => none(options, &reason, progress),
    }
}

/// The parent, checked again after the start record that names it was created: it may have been removed just before.
pub(in super::super) async fn confirm_parent(
    parent: &Parent,
    lanes: &[Lane<'_>],
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Option<Parent>, Error> {
    if is_still_there(lanes, &options.cluster, parent.id()).await {
        return Ok(Some(parent.clone()));
    }
    none(options, &format!("backup {} is being removed", parent.id()), progress)
}

/// How changes are found; `None` if the parent no longer fits, because the server was promoted or restarted after it
/// was chosen.
pub(in super::super) async fn find_changes(
    parent: &Parent,
    options: &BackupOptions,
    (connection, facts): (&Connection, &ServerFacts),
    at_start: &ControlFile,
    start_lsn: Lsn,
    progress: &dyn Progress,
) -> Result<Option<Changes>, Error> {
    let record = &parent.record;
    let ancestry = match ancestry_of(&options.pgdata, at_start) {
        Ok(ancestry) => ancestry,
        Err(error) => return none(options, &error.to_string(), progress),
    };
    let wanted = ChildBackup {
        cluster: &options.cluster,
        control: at_start,
        ancestry: &ancestry,
        in_recovery: facts.in_recovery,
        has_started: true,
    };
    if let Some(reason) = unfit(record, &wanted) {
        return none(options, &reason, progress);
    }
    if start_lsn < record.start_lsn {
        return none(options, &format!("backup {} starts after this one", parent.id()), progress);
    }
    let asked = Asked { ancestry, timeline: record.timeline, start: record.start_lsn, end: start_lsn };
    let found = changed_blocks(connection, facts.version, &options.pgdata, &asked, progress).await?;
    Ok(Some(match found {
        Ok(changes) => {
            progress.note(&format!("incremental, based on backup {}: changes are found by WAL summaries", parent.id()));
            Changes::Summarized(changes)
        }
        Err(reason) => {
            let how = "all files are read, and only changes are stored";
            progress.note(&format!("incremental, based on backup {}: {how} ({reason})", parent.id()));
            Changes::ByPages
        }
    }))
}

/// Handles a missing parent: this becomes a full backup, or an error if the user asked for an incremental one.
fn none<T>(options: &BackupOptions, reason: &str, progress: &dyn Progress) -> Result<Option<T>, Error> {
    if options.kind == Kind::Incremental {
        return Err(Cause::Refused(format!(
            "there is no backup that an incremental one can build on: {reason}; `--type auto` takes a full one"
        ))
        .into());
    }
    progress.note(&format!("this will be a full backup: {reason}"));
    Ok(None)
}
