//! Segments on a server that are not part of its history: the end of a timeline that it left.
//!
//! A standby that follows its primary to a new timeline is asked to archive the last segment of the old one, although
//! that segment was never finished (`WalReceiverMain` marks it when streaming of the timeline ends). A promoted server
//! renames its own segment to `.partial` instead. After the fork the old primary may have written more, and the new one
//! never received it. The history file of this server's timeline contains the LSN at which its history left each
//! earlier one. A server that follows this history needs no segment that ends after that LSN, because the new
//! timeline's first segment begins with a copy of it.
//!
//! PostgreSQL keeps every history file in `pg_wal` that it reads, also one that it does not follow: a restored copy
//! that was promoted archives its history, and a standby of production finds it there. So a history counts only if the
//! control file says that the server is on its timeline, or if `pg_wal` has a segment of that timeline from the switch
//! on. If neither is there yet, the segment is treated as one that is needed.
//!
//! If a primary fails twice, two standbys can be promoted from its timeline in the same segment, one after the other,
//! and each has a `.partial` of its own under the same name. PostgreSQL never replays a `.partial`, so the rule is the
//! same: the one that was archived first stays.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_contract::report::wal::Fork;
use holdfast_pgtypes::{HistoryFile, SegmentName, TimelineId, WalFileName, WalSegmentSize};

use super::deliver::blocking;
use super::local_file::control_around;
use crate::error::{Cause, Error};

/// The fork for which other content in the archive is no fault: this server's history needs neither of the two. Any
/// other error, and a divergence without such a fork, is returned as it is.
pub(super) async fn excuses(error: Error, file: WalFileName, path: &Path, size: WalSegmentSize) -> Result<Fork, Error> {
    let (WalFileName::Segment(segment) | WalFileName::Partial(segment)) = file else { return Err(error) };
    if !matches!(*error.what, Cause::Divergence { .. }) {
        return Err(error);
    }
    let pg_wal = path.parent().unwrap_or(Path::new("")).to_owned();
    let Some(fork) = blocking(move || left_behind_around(&pg_wal, segment, size)).await? else { return Err(error) };
    tracing::warn!(%file, %fork, "other content is archived under this name; this server's history needs neither version");
    Ok(fork)
}

/// The same as [`left_behind`], with the control file of the data directory that contains this `pg_wal`. Blocks.
pub(super) fn left_behind_around(
    pg_wal: &Path,
    segment: SegmentName,
    size: WalSegmentSize,
) -> Result<Option<Fork>, Error> {
    let control = control_around(&pg_wal.join(segment.to_string()))?;
    left_behind(pg_wal, segment, size, control.map(|control| control.reached_timeline()))
}

/// The fork before the end of a segment, if there is one, by the history of the timeline that this server has reached.
/// Blocks.
pub(super) fn left_behind(
    pg_wal: &Path,
    segment: SegmentName,
    size: WalSegmentSize,
    reached: Option<TimelineId>,
) -> Result<Option<Fork>, Error> {
    // An empty path is the current directory, in which PostgreSQL starts the command.
    let folder = if pg_wal.as_os_str().is_empty() { Path::new(".") } else { pg_wal };
    let (mut histories, mut segments) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(folder).map_err(|e| Error::file("list", folder, e))? {
        let entry = entry.map_err(|e| Error::file("list", folder, e))?;
        match entry.file_name().to_str().map(str::parse) {
            Some(Ok(WalFileName::History(timeline))) if timeline > segment.timeline() => {
                histories.insert(timeline);
            }
            Some(Ok(WalFileName::Segment(found))) => segments.push(found),
            _ => {}
        }
    }
    for timeline in histories.into_iter().rev() {
        let history = read(folder, timeline)?;
        let Some(left) = history.entries().iter().find(|entry| entry.timeline == segment.timeline()) else { continue };
        let follows = |found: &SegmentName| found.timeline() == timeline && found.end_lsn(size) > left.switch_lsn;
        if reached == Some(timeline) || segments.iter().any(follows) {
            let fork = Fork { timeline: left.timeline, switch_lsn: left.switch_lsn, according_to: timeline };
            return Ok((segment.end_lsn(size) > left.switch_lsn).then_some(fork));
        }
    }
    Ok(None)
}

fn read(folder: &Path, timeline: TimelineId) -> Result<HistoryFile, Error> {
    let path = folder.join(WalFileName::History(timeline).to_string());
    let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
    let malformed = |e: holdfast_pgtypes::history::HistoryFileError| Cause::Malformed {
        name: path.display().to_string(),
        reason: e.to_string(),
    };
    Ok(HistoryFile::parse(timeline, &bytes).map_err(malformed)?)
}
