//! Whether this backup is an incremental one: first whether there is a parent, and when the server is in backup mode, how what
//! changed since then is found. The user is told which it is, and why.

use holdfast_pgtypes::changes::ChangedBlocks;
use holdfast_pgtypes::{ControlFile, Lsn};

use super::super::{BackupOptions, Kind};
use super::changed::{Asked, changed_blocks};
use super::parent::{Lane, Parent, Wanted, ancestry_of, is_still_there, unfit};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::server::{Connection, ServerFacts};

/// How what changed since the parent is found.
pub(in super::super) enum Changes {
    /// By the server's WAL summaries.
    Summarized(ChangedBlocks),
    /// Everything is read.
    ByPages,
}

/// The parent of this backup; none for a full one.
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
            let wanted = Wanted { cluster, control, ancestry, in_recovery, has_started: false };
            Parent::find(lanes, &wanted, extent_bytes, &crew).await
        }
        Err(error) => Err(error.to_string()),
    };
    match found {
        Ok(parent) => Ok(Some(parent)),
        Err(reason) => none(options, &reason, progress),
    }
}

/// The parent, after the start record that names it was created: it may have gone just before.
pub(in super::super) async fn confirm_parent(
    parent: &Parent,
    lanes: &[Lane<'_>],
    options: &BackupOptions,
    progress: &dyn Progress,
) -> Result<Option<Parent>, Error> {
    if is_still_there(lanes, &options.cluster, parent.id()).await {
        return Ok(Some(parent.clone()));
    }
    none(options, &format!("backup {} goes", parent.id()), progress)
}

/// How what changed is found; nothing if the parent turns out to be none, since the server was promoted or restarted after it
/// had been chosen.
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
    let wanted = Wanted {
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
            progress.note(&format!("incremental on backup {}, by WAL summaries", parent.id()));
            Changes::Summarized(changes)
        }
        Err(reason) => {
            let how = "everything is read, and what changed is stored";
            progress.note(&format!("incremental on backup {}: {how} ({reason})", parent.id()));
            Changes::ByPages
        }
    }))
}

/// There is no parent: a full backup, or an error if that was not asked for.
fn none<T>(options: &BackupOptions, reason: &str, progress: &dyn Progress) -> Result<Option<T>, Error> {
    if options.kind == Kind::Incremental {
        return Err(Cause::Refused(format!(
            "there is no backup that an incremental one can build on: {reason}; `--type auto` takes a full one then"
        ))
        .into());
    }
    progress.note(&format!("this will be a full backup: {reason}"));
    Ok(None)
}
