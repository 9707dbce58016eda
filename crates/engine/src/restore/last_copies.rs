//! WAL that only the directory to restore into has. A restore over it removes all of its `pg_wal`.
//!
//! If `pg_wal` is a link, it is not followed: only the link is removed. WAL before the start of the oldest backup is of
//! no use to any of them, and may have been removed from the archive for that reason.

use std::path::Path;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use holdfast_pgtypes::{Lsn, WalFileName};
use holdfast_repo::record::ClaimRecord;

use crate::archive::{OwnWal, is_only_here};
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;
use crate::server::read_control_file;

/// The size of the segments that are compared at the same time, in bytes. Each is in memory twice: as it is here, and
/// as the archive has it.
const COMPARED_BYTES: u64 = 64 << 20;

/// The archive that should have the WAL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Archived<'a> {
    pub(super) repository: &'a Repository,
    pub(super) claim: &'a ClaimRecord,
    /// The start of the oldest backup.
    pub(super) oldest_start: Option<Lsn>,
    pub(super) crew: &'a Crew,
}

/// Refuses a data directory whose `pg_wal` has WAL that is in no form in the archive, whatever its marks say.
///
/// # Errors
/// [`Cause::UnarchivedWal`], [`Cause::File`] or [`Cause::ControlFile`] if the directory cannot be read; those of the
/// store.
pub(super) async fn refuse_last_copies(archived: Archived<'_>, pgdata: &Path) -> Result<(), Error> {
    let pg_wal = pgdata.join("pg_wal");
    let (listed, place) = (pg_wal.clone(), pgdata.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        let files = files_of(&listed)?;
        // Without WAL there may be no control file either.
        let control = if files.is_empty() { None } else { Some(read_control_file(&place)?) };
        Ok::<_, Error>((files, control))
    });
    let looked = looking.await.map_err(|e| Cause::Internal(format!("looking at pg_wal: {e}")))?;
    let (files, Some(control)) = looked? else { return Ok(()) };
    let Archived { repository, claim, oldest_start, crew } = archived;
    let own = OwnWal { repository, cluster: &claim.cluster, claim, pg_wal: &pg_wal };
    let control = &control;
    let is_of_use = |file: &WalFileName| {
        let end = file.segment().map(|segment| segment.end_lsn(claim.wal_segment_size));
        end.zip(oldest_start).is_none_or(|(end, oldest)| end > oldest)
    };
    let looks = files.into_iter().filter(is_of_use).map(|file| async move {
        Ok::<_, Error>(is_only_here(&own, file, control, crew).await?.then(|| file.to_string()))
    });
    let at_once = (COMPARED_BYTES / claim.wal_segment_size.as_u64()).clamp(1, 8) as usize;
    let found: Vec<Option<String>> = stream::iter(looks.collect::<Vec<_>>()).buffered(at_once).try_collect().await?;
    let mut names: Vec<String> = found.into_iter().flatten().collect();
    names.sort_unstable();
    match (names.first(), names.last()) {
        (Some(first), Some(last)) => {
            let (first, last) = (first.clone(), last.clone());
            Err(Cause::UnarchivedWal { directory: pg_wal, count: names.len(), first, last }.into())
        }
        _ => Ok(()),
    }
}

/// The WAL files of a `pg_wal` that is a directory. Blocks.
fn files_of(pg_wal: &Path) -> Result<Vec<WalFileName>, Error> {
    if !std::fs::symlink_metadata(pg_wal).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(pg_wal).map_err(|e| Error::file("list", pg_wal, e))? {
        let name = entry.map_err(|e| Error::file("list", pg_wal, e))?.file_name();
        files.extend(name.to_str().and_then(|name| name.parse::<WalFileName>().ok()));
    }
    Ok(files)
}
