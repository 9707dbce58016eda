//! Whether a file of `pg_wal` holds WAL that the archive has in no form: not as a segment, not as a partial one, and
//! not in pieces from `wal receive`.
//!
//! The marks in `archive_status` do not show this. PostgreSQL writes `.done` when any `archive_command` reports
//! success; a standby writes it for all WAL that it receives; a server that does not archive writes no marks; and the
//! segment that is being written never has one. So the archive is asked, and contents are compared: WAL of another
//! history can be stored under the same name.
//!
//! Of a segment that is not finished only the records count. What comes after them is the old content of a recycled
//! file. A file that begins with the header of another place was recycled as a whole, and holds nothing of its name.

use std::path::Path;

use holdfast_pgtypes::control::DbState;
use holdfast_pgtypes::wal::reader::{ReadEnd, WalSegment};
use holdfast_pgtypes::wal::segment_check::SegmentMismatch;
use holdfast_pgtypes::{ControlFile, Lsn, SegmentName, WalFileName};

use super::deliver::{blocking, identity_of};
use super::fork;
use super::local_file::LocalFile;
use super::own_wal::{Compared, OwnWal};
use super::stored::{self, wal_object_name};
use super::tail;
use crate::error::{Cause, Error};
use crate::pipeline::crew::Crew;
use crate::repository::claim::Identity;

/// The content of a segment here.
struct Here {
    bytes: Vec<u8>,
    /// Where its records end, in bytes from its start.
    end: usize,
    /// The place of its only record.
    only_record: Option<Lsn>,
}

/// What is in a file of `pg_wal`.
enum Found {
    /// It is gone, or is not the WAL that its name says.
    Nothing,
    /// It is not WAL of this cluster, or not whole, so it cannot be compared.
    Unclear,
    Segment(Here),
}

/// Whether only `pg_wal` has this WAL. `control` is the control file of its data directory.
///
/// # Errors
/// [`Cause::File`] if the file cannot be read; those of the store.
pub(crate) async fn is_only_here(
    own: &OwnWal<'_>,
    file: WalFileName,
    control: &ControlFile,
    crew: &Crew,
) -> Result<bool, Error> {
    let compared = match own.compare(file).await {
        Err(error) if matches!(*error.what, Cause::Divergence { .. }) => Compared::LeftBehind,
        compared => compared?,
    };
    if compared == Compared::Same {
        return Ok(false);
    }
    let segment = match file {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => segment,
        WalFileName::History(_) => return Ok(compared != Compared::NotHere),
        // The file only says when a backup ended.
        WalFileName::BackupHistory { .. } => return Ok(false),
    };
    let (path, identity) = (own.pg_wal.join(file.to_string()), identity_of(own.claim)?);
    let (pg_wal, of_server) = (own.pg_wal.to_owned(), control.clone());
    let looking = blocking(move || {
        let here = look(&path, segment, &identity)?;
        Ok((here, was_left_within(&pg_wal, segment, &identity, &of_server)?))
    });
    let (here, was_left) = looking.await?;
    let here = match here {
        Found::Nothing => return Ok(false),
        Found::Unclear => return Ok(true),
        Found::Segment(here) => here,
    };
    if here.end == 0 || was_left || is_shutdown_alone(&here, control) {
        return Ok(false);
    }
    Ok(!is_stored_in_any_form(own, segment, &here, crew).await?)
}

/// Reads a segment. Blocks.
fn look(path: &Path, segment: SegmentName, identity: &Identity) -> Result<Found, Error> {
    let file = match LocalFile::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    match file.check(identity).map_err(|error| *error.what) {
        Ok(()) => {}
        Err(Cause::SegmentMismatch { source, .. }) if is_recycled(&source) => return Ok(Found::Nothing),
        Err(_) => return Ok(Found::Unclear),
    }
    let bytes = file.read_all()?;
    let (size, version) = (identity.wal_segment_size, identity.version);
    let (end, only_record) = records_of(WalSegment { bytes: &bytes, name: segment, size, version });
    Ok(Found::Segment(Here { bytes, end, only_record }))
}

fn is_missing(error: &Error) -> bool {
    matches!(&*error.what, Cause::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Whether a file with this header was made for a later segment and not yet written: it is zero, or has the header of
/// its earlier place.
fn is_recycled(found: &SegmentMismatch) -> bool {
    matches!(
        found,
        SegmentMismatch::Position { .. } | SegmentMismatch::NotWal { found: 0, .. } | SegmentMismatch::TooShort { .. }
    )
}

/// The end of the records of a segment, in bytes, and the place of the only one.
fn records_of(segment: WalSegment<'_>) -> (usize, Option<Lsn>) {
    let (start, bytes) = (segment.name.start_lsn(segment.size).as_u64(), segment.size.bytes() as usize);
    let mut records = segment.records_with_every_crc();
    let (mut first, mut count, mut end) = (None, 0_u64, None);
    for record in records.by_ref() {
        first.get_or_insert(record.lsn);
        (count, end) = (count + 1, Some(record.end_lsn));
    }
    let head = records.head();
    let only = first.filter(|_| count == 1 && head.is_none());
    if records.end() == Some(ReadEnd::Whole) {
        return (bytes, only);
    }
    let end = end.or_else(|| head.and_then(|head| head.end_lsn));
    (end.map_or(0, |end| (end.as_u64().saturating_sub(start) as usize).min(bytes)), only)
}

/// Whether the server of this directory left the segment's timeline within the segment: then the first segment of the
/// next timeline begins with a copy of it. Blocks.
fn was_left_within(
    pg_wal: &Path,
    segment: SegmentName,
    identity: &Identity,
    control: &ControlFile,
) -> Result<bool, Error> {
    let reached = control.reached_timeline();
    if reached <= segment.timeline() {
        return Ok(false);
    }
    let size = identity.wal_segment_size;
    let left = fork::left_behind(pg_wal, segment, size, Some(reached))?;
    Ok(left.is_some_and(|fork| fork.switch_lsn > segment.start_lsn(size)))
}

/// Whether the segment has only the checkpoint of a clean stop. An archiving server finishes the segment before it
/// (`ShutdownXLOG`), so nothing is lost.
fn is_shutdown_alone(here: &Here, control: &ControlFile) -> bool {
    control.state == DbState::ShutDown && here.only_record == Some(control.checkpoint)
}

/// Whether the records of a segment are stored: in the segment, in the partial one, or in pieces.
async fn is_stored_in_any_form(
    own: &OwnWal<'_>,
    segment: SegmentName,
    here: &Here,
    crew: &Crew,
) -> Result<bool, Error> {
    let written = here.bytes.get(..here.end).unwrap_or_default();
    for file in [WalFileName::Segment(segment), WalFileName::Partial(segment)] {
        let object = wal_object_name(own.repository, own.cluster, own.claim, &file);
        match stored::read(own.repository, own.claim, &object, crew).await {
            Ok((stored, _)) if stored.starts_with(written) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let pieces = tail::list_segment(own.repository, own.claim, segment).await?;
    let assembly = tail::assemble(own.repository, own.claim, segment, pieces, crew).await?;
    Ok(assembly.content().starts_with(written))
}

#[cfg(test)]
mod tests;
