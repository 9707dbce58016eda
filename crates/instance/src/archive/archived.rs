//! Until when every committed transaction is in the archive.
//!
//! WAL has no record of idle time, so this is found out by probes. The primary records from time to time where its WAL
//! ends. Such a probe is proven once the archive has all segments before that position. If no transaction is in
//! progress and none has ended since a proven probe, the newest probe is proven as well: only the server itself has
//! written since then. So the time moves on with the clock on an idle database, and with the archiver on a busy one.
//!
//! It covers transactions whose commit was answered by then. Nothing is remembered over a restart or a promotion. On an
//! idle database the server's own WAL does not make PostgreSQL finish a segment (`archive_timeout` counts only
//! important records). So nothing would ever be proven there, and a switch of the segment is requested once.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use std::collections::VecDeque;
use std::path::Path;

/// The maximum number of probes kept while the archiver has a backlog; above it, every second one is dropped.
const MOST: usize = 256;

/// The size of the header of a segment (`SizeOfXLogLongPHD`). The reported end of an empty segment is after it.
const SEGMENT_HEADER_BYTES: u64 = 40;
/// PostgreSQL finishes a segment by itself within `archive_timeout`; the archiver has this much more time.
const MARGIN: TimeDelta = TimeDelta::minutes(1);

/// The query of a probe. `now()` is the start of the transaction, which is before its snapshot; the end of the WAL is
/// read after that.
pub(super) const QUESTION: &str = "
SELECT extract(epoch FROM now())::float8, pg_snapshot_xmin(pg_current_snapshot())::text,
       pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'archive_timeout')";

/// A probe: the state of the server at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Probe {
    pub(super) at: DateTime<Utc>,
    /// The end of the WAL at that time, or a little later.
    pub(super) end: Lsn,
    /// The id of the next transaction, if no transaction is in progress.
    pub(super) quiet: Option<u64>,
    /// `archive_timeout`; `None` if it is off.
    pub(super) timeout: Option<TimeDelta>,
}

impl Probe {
    /// Builds it from the row that [`QUESTION`] returns.
    pub(super) fn of(row: &tokio_postgres::Row, size: WalSegmentSize) -> Option<Self> {
        let number = |column: usize| row.get::<_, Option<String>>(column)?.parse::<u64>().ok();
        let (first, next) = (number(1)?, number(2)?);
        Some(Self {
            at: super::waiting::time(row.get::<_, Option<f64>>(0)?)?,
            end: without_header(row.get::<_, Option<String>>(3)?.parse().ok()?, size),
            quiet: Some(next).filter(|next| first == *next),
            timeout: row.get::<_, Option<i64>>(4).filter(|seconds| *seconds > 0).and_then(TimeDelta::try_seconds),
        })
    }
}

/// A segment with only its header contains nothing.
fn without_header(lsn: Lsn, size: WalSegmentSize) -> Lsn {
    let offset = lsn.as_u64() % size.as_u64();
    if offset <= SEGMENT_HEADER_BYTES { Lsn::new(lsn.as_u64() - offset) } else { lsn }
}

/// The probes that are not proven yet, and what is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Archived {
    timeline: Option<TimelineId>,
    /// All WAL of the timeline before this position is in the archive.
    end: Option<Lsn>,
    proven: Option<Probe>,
    waiting: VecDeque<Probe>,
    /// The first probe of the current idle time.
    quiet: Option<Probe>,
    /// The idle time for which a switch was already requested.
    switched: Option<u64>,
}

impl Archived {
    /// Adds a probe, with the position up to which the timeline is archived, if known.
    pub(super) fn add(&mut self, timeline: TimelineId, probe: Probe, archived: Option<Lsn>) {
        if self.timeline != Some(timeline) {
            *self = Self { timeline: Some(timeline), ..Self::default() };
        }
        self.end = self.end.max(archived);
        if self.quiet.is_none_or(|first| first.quiet != probe.quiet) {
            self.quiet = Some(probe).filter(|probe| probe.quiet.is_some());
        }
        self.waiting.push_back(probe);
        while let Some(first) = self.waiting.front().filter(|first| self.end.is_some_and(|end| first.end <= end)) {
            self.proven = Some(*first);
            self.waiting.pop_front();
        }
        if self.proven.is_some_and(|proven| proven.quiet.is_some() && proven.quiet == probe.quiet) {
            self.proven = Some(probe);
            self.waiting.clear();
        }
        if self.waiting.len() > MOST {
            let mut second = false;
            self.waiting.retain(|_| {
                second = !second;
                second
            });
        }
    }

    /// Whether only a switch can prove the newest probe; true once for each idle time.
    pub(super) fn wants_switch(&mut self, probe: Probe) -> bool {
        let (Some(first), Some(timeout)) = (self.quiet, probe.timeout) else { return false };
        let proven = self.proven.is_some_and(|proven| proven.quiet == probe.quiet);
        if proven || self.switched == probe.quiet || probe.at - first.at < timeout + MARGIN {
            return false;
        }
        self.switched = probe.quiet;
        true
    }

    /// Everything committed by this time is in the archive.
    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        self.proven.map(|probe| probe.at)
    }
}

/// The position up to which WAL of this timeline is archived without a gap, from the files in `archive_status`: the
/// newest segment that is done, if none before it is waiting.
pub(super) fn end(archive_status: &Path, timeline: TimelineId, size: WalSegmentSize) -> Option<Lsn> {
    let (mut done, mut waits): (Option<SegmentName>, Option<SegmentName>) = (None, None);
    for name in
        std::fs::read_dir(archive_status).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok())
    {
        let Some((segment, state)) = name.rsplit_once('.') else { continue };
        let Ok(segment) = segment.parse::<SegmentName>() else { continue };
        if segment.timeline() != timeline {
            continue;
        }
        match state {
            "done" => done = done.max(Some(segment)),
            "ready" => waits = Some(waits.map_or(segment, |other| other.min(segment))),
            _ => {}
        }
    }
    let done = done?.end_lsn(size);
    Some(waits.map_or(done, |segment| segment.start_lsn(size).min(done)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn probe(second: i64, end: u64, quiet: Option<u64>) -> Probe {
        Probe { at: at(second), end: Lsn::new(end << 20), quiet, timeout: Some(TimeDelta::minutes(5)) }
    }

    /// Probes of one server, each with the archived WAL in MiB, and the second that is proven after it.
    #[test]
    fn what_is_proven() {
        type Row = (Probe, u64, Option<i64>);
        let table: [(&str, &[Row]); 6] = [
            ("nothing is archived", &[(probe(0, 17, Some(5)), 0, None), (probe(2, 17, Some(5)), 0, None)]),
            (
                "idle: the segment is switched, and the proven time follows the clock",
                &[
                    (probe(0, 17, Some(5)), 16, None),
                    (probe(2, 33, Some(5)), 32, Some(2)),
                    (probe(4, 33, Some(5)), 32, Some(4)),
                    // A checkpoint, which the server writes by itself.
                    (probe(600, 34, Some(5)), 32, Some(600)),
                ],
            ),
            (
                "a commit after that waits for its segment",
                &[
                    (probe(0, 17, Some(5)), 32, Some(0)),
                    (probe(2, 33, Some(6)), 32, Some(0)),
                    (probe(4, 34, Some(6)), 32, Some(0)),
                    (probe(6, 49, Some(6)), 48, Some(6)),
                ],
            ),
            (
                "busy: up to the archiver's position",
                &[
                    (probe(0, 17, None), 16, None),
                    (probe(2, 30, None), 16, None),
                    (probe(4, 40, None), 32, Some(2)),
                    (probe(6, 50, None), 48, Some(4)),
                    (probe(8, 50, None), 48, Some(4)),
                ],
            ),
            (
                "a transaction in progress: its commit may come at any time",
                &[
                    (probe(0, 17, Some(5)), 32, Some(0)),
                    (probe(2, 33, None), 32, Some(0)),
                    (probe(4, 33, Some(6)), 32, Some(0)),
                ],
            ),
            (
                "the archived position does not go back",
                &[(probe(0, 17, None), 32, Some(0)), (probe(2, 20, None), 0, Some(2))],
            ),
        ];
        let one = TimelineId::new(1).unwrap();
        for (name, rows) in table {
            let mut archived = Archived::default();
            for (probe, end, expected) in rows {
                archived.add(one, *probe, Some(Lsn::new(end << 20)));
                assert_eq!(archived.until(), expected.map(at), "{name}, {probe:?}");
            }
            // Another timeline starts from nothing.
            archived.add(TimelineId::new(2).unwrap(), probe(900, 60, Some(5)), None);
            assert_eq!(archived.until(), None, "{name}");
        }
    }

    #[test]
    fn an_archiver_with_a_long_backlog_costs_no_memory() {
        let (one, mut archived) = (TimelineId::new(1).unwrap(), Archived::default());
        for second in 0..100_000 {
            archived.add(one, probe(second, 10 + second.unsigned_abs(), None), None);
        }
        assert!(archived.waiting.len() <= MOST);
        archived.add(one, probe(100_000, 200_000, None), Some(Lsn::new(100_009 << 20)));
        assert!(archived.until().unwrap() > at(90_000), "{:?}", archived.until());
    }

    #[test]
    fn a_database_that_is_idle_from_the_beginning_asks_for_one_switch() {
        let one = TimelineId::new(1).unwrap();
        let mut archived = Archived::default();
        let mut wants = |probe: Probe, end: u64| {
            archived.add(one, probe, Some(Lsn::new(end << 20)));
            archived.wants_switch(probe)
        };
        assert!(!wants(probe(0, 33, Some(5)), 32));
        assert!(!wants(probe(359, 33, Some(5)), 32), "archive_timeout may still finish the segment");
        assert!(!wants(Probe { timeout: None, ..probe(361, 33, Some(5)) }, 32), "`archive_timeout` is off");
        assert!(wants(probe(362, 33, Some(5)), 32));
        assert!(!wants(probe(364, 49, Some(5)), 32), "once");
        assert!(!wants(probe(366, 49, Some(5)), 48), "proven");
        assert!(!wants(probe(900, 50, Some(6)), 48), "another idle time has its own time");
        assert!(!wants(probe(1200, 50, None), 48));
        assert!(!wants(probe(1300, 50, Some(7)), 48));
        assert!(wants(probe(1700, 50, Some(7)), 48));
    }

    #[test]
    fn a_segment_with_only_its_header_counts_as_empty() {
        for (lsn, expected) in [("0/3000028", "0/3000000"), ("0/3000000", "0/3000000"), ("0/3000029", "0/3000029")] {
            assert_eq!(without_header(lsn.parse().unwrap(), WalSegmentSize::DEFAULT).to_string(), expected);
        }
    }

    #[test]
    fn the_end_is_read_from_archive_status() {
        let folder = tempfile::tempdir().unwrap();
        let (one, size) = (TimelineId::new(1).unwrap(), WalSegmentSize::DEFAULT);
        let found = || end(folder.path(), one, size).map(|lsn| lsn.to_string());
        let file = |name: &str| std::fs::File::create(folder.path().join(name)).map(drop).unwrap();
        assert_eq!(found(), None);
        file("000000010000000000000003.ready");
        file("000000020000000000000009.done");
        assert_eq!(found(), None, "nothing is done on this timeline");
        file("000000010000000000000001.done");
        file("000000010000000000000002.done");
        file("000000010000000000000002.00000028.backup.done");
        file("00000001.history.done");
        assert_eq!(found().as_deref(), Some("0/3000000"));
        file("000000010000000000000004.done");
        assert_eq!(found().as_deref(), Some("0/3000000"), "one before it is waiting");
        std::fs::remove_file(folder.path().join("000000010000000000000003.ready")).unwrap();
        assert_eq!(found().as_deref(), Some("0/5000000"));
    }
}
