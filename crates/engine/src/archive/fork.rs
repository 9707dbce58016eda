//! Segments on a server that are not part of its history: the end of a timeline that it left.
//!
//! A standby that follows its primary to a new timeline is asked to archive the last segment of the old one, although
//! that segment was never finished (`WalReceiverMain` marks it when streaming of the timeline ends). A promoted server
//! renames its own segment to `.partial` instead. After the fork the old primary may have written more, and the new one
//! never received it. The local history files contain the LSN at which this server's history left each timeline. A
//! server that follows this history needs no segment that ends after that LSN, because the new timeline's first segment
//! begins with a copy of it.
//!
//! If a primary fails twice, two standbys can be promoted from its timeline in the same segment, one after the other,
//! and each has a `.partial` of its own under the same name. PostgreSQL never replays a `.partial`, so the rule is the
//! same: the one that was archived first stays.

use std::path::Path;

use holdfast_contract::report::wal::Fork;
use holdfast_pgtypes::{HistoryFile, SegmentName, TimelineId, WalFileName, WalSegmentSize};

use super::deliver::blocking;
use crate::error::{Cause, Error};

/// The fork for which other content in the archive is no fault: this server's history needs neither of the two. Any
/// other error, and a divergence without such a fork, is returned as it is.
pub(super) async fn excuses(error: Error, file: WalFileName, path: &Path, size: WalSegmentSize) -> Result<Fork, Error> {
    let (WalFileName::Segment(segment) | WalFileName::Partial(segment)) = file else { return Err(error) };
    if !matches!(*error.what, Cause::Divergence { .. }) {
        return Err(error);
    }
    let pg_wal = path.parent().unwrap_or(Path::new("")).to_owned();
    let Some(fork) = blocking(move || left_behind(&pg_wal, segment, size)).await? else { return Err(error) };
    tracing::warn!(%file, %fork, "other content is archived under this name; this server's history needs neither version");
    Ok(fork)
}

/// The fork before the end of a segment, if there is one, by the newest history file in `pg_wal`. Blocks.
pub(super) fn left_behind(pg_wal: &Path, segment: SegmentName, size: WalSegmentSize) -> Result<Option<Fork>, Error> {
    // An empty path is the current directory, in which PostgreSQL starts the command.
    let folder = if pg_wal.as_os_str().is_empty() { Path::new(".") } else { pg_wal };
    let mut newest: Option<TimelineId> = None;
    for entry in std::fs::read_dir(folder).map_err(|e| Error::file("list", folder, e))? {
        let entry = entry.map_err(|e| Error::file("list", folder, e))?;
        if let Some(Ok(WalFileName::History(timeline))) = entry.file_name().to_str().map(str::parse) {
            newest = newest.max(Some(timeline));
        }
    }
    let Some(newest) = newest.filter(|newest| *newest > segment.timeline()) else { return Ok(None) };
    let path = folder.join(WalFileName::History(newest).to_string());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(Error::file("read", &path, error)),
    };
    let history = HistoryFile::parse(newest, &bytes)
        .map_err(|e| Cause::Malformed { name: path.display().to_string(), reason: e.to_string() })?;
    let left = history.entries().iter().find(|entry| entry.timeline == segment.timeline());
    Ok(left.filter(|entry| segment.end_lsn(size) > entry.switch_lsn).map(|entry| Fork {
        timeline: entry.timeline,
        switch_lsn: entry.switch_lsn,
        according_to: newest,
    }))
}
