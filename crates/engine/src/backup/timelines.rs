//! The timelines between the start and the stop of a backup.
//!
//! A primary stays on one timeline. A standby follows its upstream when that is promoted, even during a backup, and
//! `pg_backup_stop` does not report it. Then the stop LSN, which is the standby's minimum recovery ending location,
//! belongs to another timeline than the start. The control file names that timeline, and the standby has its history
//! file. The stop segment gets the timeline that owns the stop LSN, and the backup waits for the WAL under the names
//! that recovery reads. The start stays as in the label, so the planner of a restore follows the same path.

use std::path::Path;

use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use holdfast_repo::record::BackupRecord;

use crate::error::{Cause, Error, ResultExt};
use crate::server::read_control_file;

/// The path of the WAL from start to stop, over one or more timelines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalPath {
    ancestry: Ancestry,
    start_lsn: Lsn,
    stop_lsn: Lsn,
}

impl WalPath {
    /// Finds the path in a data directory, after the stop call. `began` is the timeline in the label.
    pub(super) fn find(
        pgdata: &Path,
        began: TimelineId,
        start_lsn: Lsn,
        stop_lsn: Lsn,
        standby: bool,
    ) -> Result<Self, Error> {
        let ended = if standby { read_control_file(pgdata)?.min_recovery_timeline } else { None };
        let ancestry = match ended {
            Some(ended) if ended != began => history_in(pgdata, ended).doing(|| followed(began, ended))?,
            _ => Ancestry::alone(began),
        };
        Self::along(ancestry, began, start_lsn, stop_lsn)
    }

    /// The path along a known history.
    pub(crate) fn along(ancestry: Ancestry, began: TimelineId, start_lsn: Lsn, stop_lsn: Lsn) -> Result<Self, Error> {
        if ancestry.owner(start_lsn) != began {
            return Err(Cause::Refused(format!(
                "the standby has followed its upstream to timeline {}, whose history does not contain the start of the \
                 backup, {start_lsn} on timeline {began}",
                ancestry.timeline()
            ))
            .into());
        }
        Ok(Self { ancestry, start_lsn, stop_lsn })
    }

    /// Whether the start and end of an earlier backup are on this path. Without a timeline switch, every backup is
    /// accepted.
    pub(super) fn contains(&self, backup: &BackupRecord) -> bool {
        self.history_file().is_none() || is_on_the_way(backup, &self.ancestry)
    }

    /// The first segment that recovery needs.
    pub(crate) fn first(&self, size: WalSegmentSize) -> SegmentName {
        SegmentName::containing(self.start_lsn, self.ancestry.owner(self.start_lsn), size)
    }

    /// The last segment that recovery needs, on the timeline of the stop LSN, as `tliOfPointInHistory` of the last byte
    /// before it.
    pub(crate) fn last(&self, size: WalSegmentSize) -> SegmentName {
        let byte = Lsn::new(self.stop_lsn.as_u64().saturating_sub(1));
        SegmentName::ending_at(self.stop_lsn, self.ancestry.owner(byte), size)
    }

    /// The names under which recovery reads the segments from first to last, a range for each timeline.
    pub(crate) fn ranges(&self, size: WalSegmentSize) -> Vec<(SegmentName, SegmentName)> {
        let mut ranges: Vec<(SegmentName, SegmentName)> = Vec::new();
        for number in self.first(size).number(size)..=self.last(size).number(size) {
            let name = self.ancestry.segment_containing(Lsn::new(number.saturating_mul(size.as_u64())), size);
            match ranges.last_mut() {
                Some((_, last)) if last.timeline() == name.timeline() => *last = name,
                _ => ranges.push((name, name)),
            }
        }
        ranges
    }

    /// The stop LSN of the backup.
    pub(super) fn stop_lsn(&self) -> Lsn {
        self.stop_lsn
    }

    /// The timeline of the server at the end.
    pub(crate) fn timeline(&self) -> TimelineId {
        self.ancestry.timeline()
    }

    /// The history file that describes this path; `None` if there is only one timeline.
    pub(crate) fn history_file(&self) -> Option<TimelineId> {
        (self.ancestry.path().len() > 1).then_some(self.ancestry.timeline())
    }
}

/// Whether start and end of a backup are in this history.
pub(super) fn is_on_the_way(parent: &BackupRecord, ancestry: &Ancestry) -> bool {
    ancestry.passes(parent.timeline, parent.start_lsn)
        && ancestry.passes(parent.stop_segment.timeline(), parent.stop_lsn)
}

/// The phrase for errors: "finding out how the standby ...".
pub(crate) fn followed(began: TimelineId, ended: TimelineId) -> String {
    format!("finding out how the standby came from timeline {began} to timeline {ended}")
}

/// The history of a timeline, from the `pg_wal` of a data directory.
pub(crate) fn history_in(pgdata: &Path, timeline: TimelineId) -> Result<Ancestry, Error> {
    let path = pgdata.join("pg_wal").join(WalFileName::History(timeline).to_string());
    let bytes = std::fs::read(&path).map_err(|e| Error::file("read", &path, e))?;
    let history = HistoryFile::parse(timeline, &bytes)
        .map_err(|e| Cause::Malformed { name: path.display().to_string(), reason: e.to_string() })?;
    Ok(Ancestry::from_history(&history))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    #[expect(clippy::unwrap_in_result, reason = "a failed set-up fails the test")]
    fn wal_path(history: Option<&str>, start: &str, stop: &str) -> Result<WalPath, Error> {
        let ancestry = match history {
            Some(text) => Ancestry::from_history(&HistoryFile::parse(timeline(2), text.as_bytes()).unwrap()),
            None => Ancestry::alone(timeline(1)),
        };
        WalPath::along(ancestry, timeline(1), start.parse().unwrap(), stop.parse().unwrap())
    }

    /// The first and last segment, and the ranges of segments to wait for.
    fn names(wal_path: &WalPath) -> (String, String, Vec<String>) {
        let size = WalSegmentSize::new(1 << 20).unwrap();
        let ranges = wal_path.ranges(size).into_iter().map(|(first, last)| format!("{first}-{last}")).collect();
        (wal_path.first(size).to_string(), wal_path.last(size).to_string(), ranges)
    }

    #[test]
    fn the_wal_is_named_for_the_timelines_that_recovery_reads() {
        let fork = Some("1\t0/500200\tno recovery target specified\n");
        for (history, start, stop, first, last, ranges) in [
            (None, "0/300028", "0/500100", "000000010000000000000003", "000000010000000000000005", vec!["1:3-5"]),
            // The stop is after the fork.
            (
                fork,
                "0/300028",
                "0/700100",
                "000000010000000000000003",
                "000000020000000000000007",
                vec!["1:3-4", "2:5-7"],
            ),
            // The stop is before the fork, in the segment that both timelines have.
            (
                fork,
                "0/300028",
                "0/500100",
                "000000010000000000000003",
                "000000010000000000000005",
                vec!["1:3-4", "2:5-5"],
            ),
            // The stop is exactly at the fork: the last byte belongs to the old timeline.
            (fork, "0/500028", "0/500200", "000000010000000000000005", "000000010000000000000005", vec!["2:5-5"]),
            (fork, "0/300028", "0/400000", "000000010000000000000003", "000000010000000000000003", vec!["1:3-3"]),
        ] {
            let expected: Vec<String> = ranges
                .into_iter()
                .map(|range| {
                    let (timeline, numbers) = range.split_once(':').unwrap();
                    let (first, last) = numbers.split_once('-').unwrap();
                    let name = |number: &str| format!("0000000{timeline}00000000{number:0>8}");
                    format!("{}-{}", name(first), name(last))
                })
                .collect();
            let wal_path = wal_path(history, start, stop).unwrap();
            assert_eq!(names(&wal_path), (first.to_owned(), last.to_owned(), expected), "{start} to {stop}");
            assert_eq!(wal_path.history_file(), history.map(|_| timeline(2)));
        }
    }

    #[test]
    fn a_history_without_the_start_is_refused() {
        let error = wal_path(Some("1\t0/200000\tno recovery target specified\n"), "0/300028", "0/700100").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the standby has followed its upstream to timeline 2, whose history does not contain the start of the \
             backup, 0/300028 on timeline 1"
        );
    }
}
