//! Up to when everything that was committed is in the archive.
//!
//! Nothing in WAL says when nothing happened, so this is learnt by looking: the primary notes from time to time where its
//! WAL ends, and the look is proven once the archive has all segments before that place. When no transaction is in
//! progress and none ended since a proven look, the present one is proven as well: what was written since is of the
//! server itself. So the moment moves on with the clock on an idle database, and with the archiver on a busy one.
//!
//! It is about transactions that had been answered at that moment. Nothing is remembered over a restart or a promotion. What
//! the server itself writes at such a time is no reason for PostgreSQL to finish a segment (`archive_timeout` counts only
//! what matters), so nothing would ever be proven on a database that is idle then: a switch is asked for, once.

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalSegmentSize};
use std::collections::VecDeque;
use std::path::Path;

/// Looks that are kept while the archiver has a backlog; every second one goes when there are more.
const MOST: usize = 256;

/// A segment begins with a header of this size (`SizeOfXLogLongPHD`), after which an empty one is said to end.
const SEGMENT_HEADER_BYTES: u64 = 40;
/// PostgreSQL finishes a segment by itself within `archive_timeout`, and the archiver has it this much later.
const MARGIN: TimeDelta = TimeDelta::minutes(1);

/// What the server says. `now()` is the beginning of the transaction, which is before its snapshot; the end of the WAL is
/// read after that.
pub(super) const QUESTION: &str = "
SELECT extract(epoch FROM now())::float8, pg_snapshot_xmin(pg_current_snapshot())::text,
       pg_snapshot_xmax(pg_current_snapshot())::text, pg_current_wal_insert_lsn()::text,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'archive_timeout')";

/// One look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// When.
    pub(super) at: DateTime<Utc>,
    /// Where the WAL ended then, or later.
    pub(super) end: Lsn,
    /// The next transaction to end, when none is in progress that began before it.
    pub(super) quiet: Option<u64>,
    /// `archive_timeout`; none when it is off.
    pub(super) timeout: Option<TimeDelta>,
}

impl Look {
    /// From the row that answers [`QUESTION`].
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

/// Nothing is in a segment that has but its header.
fn without_header(lsn: Lsn, size: WalSegmentSize) -> Lsn {
    let offset = lsn.as_u64() % size.as_u64();
    if offset <= SEGMENT_HEADER_BYTES { Lsn::new(lsn.as_u64() - offset) } else { lsn }
}

/// All looks that count.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Archived {
    timeline: Option<TimelineId>,
    /// All WAL of the timeline before this is in the archive.
    end: Option<Lsn>,
    proven: Option<Look>,
    waiting: VecDeque<Look>,
    /// The first look at the present quiet.
    quiet: Option<Look>,
    /// The quiet that a switch was asked for in.
    switched: Option<u64>,
}

impl Archived {
    /// Takes a look into account, and up to where the timeline is archived as far as that is known now.
    pub(super) fn look(&mut self, timeline: TimelineId, look: Look, archived: Option<Lsn>) {
        if self.timeline != Some(timeline) {
            *self = Self { timeline: Some(timeline), ..Self::default() };
        }
        self.end = self.end.max(archived);
        if self.quiet.is_none_or(|first| first.quiet != look.quiet) {
            self.quiet = Some(look).filter(|look| look.quiet.is_some());
        }
        self.waiting.push_back(look);
        while let Some(first) = self.waiting.front().filter(|first| self.end.is_some_and(|end| first.end <= end)) {
            self.proven = Some(*first);
            self.waiting.pop_front();
        }
        if self.proven.is_some_and(|proven| proven.quiet.is_some() && proven.quiet == look.quiet) {
            self.proven = Some(look);
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

    /// Whether only a switch can prove the look that was taken last; said once for each quiet.
    pub(super) fn wants_switch(&mut self, look: Look) -> bool {
        let (Some(first), Some(timeout)) = (self.quiet, look.timeout) else { return false };
        let proven = self.proven.is_some_and(|proven| proven.quiet == look.quiet);
        if proven || self.switched == look.quiet || look.at - first.at < timeout + MARGIN {
            return false;
        }
        self.switched = look.quiet;
        true
    }

    /// Everything that had been committed at this moment is in the archive.
    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        self.proven.map(|look| look.at)
    }
}

/// Up to where WAL of this timeline is archived without a break, by what the archiver leaves in `archive_status`: the newest
/// segment that is done, and none before it that waits.
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

    fn look(second: i64, end: u64, quiet: Option<u64>) -> Look {
        Look { at: at(second), end: Lsn::new(end << 20), quiet, timeout: Some(TimeDelta::minutes(5)) }
    }

    /// Looks of one server, each with what is archived by then in MiB, and the second that is proven after it.
    #[test]
    fn what_is_proven() {
        type Row = (Look, u64, Option<i64>);
        let table: [(&str, &[Row]); 6] = [
            ("nothing is archived", &[(look(0, 17, Some(5)), 0, None), (look(2, 17, Some(5)), 0, None)]),
            (
                "idle: the segment is switched to the next one, and the clock moves it on",
                &[
                    (look(0, 17, Some(5)), 16, None),
                    (look(2, 33, Some(5)), 32, Some(2)),
                    (look(4, 33, Some(5)), 32, Some(4)),
                    // A checkpoint of the server itself.
                    (look(600, 34, Some(5)), 32, Some(600)),
                ],
            ),
            (
                "a commit after that waits for its segment",
                &[
                    (look(0, 17, Some(5)), 32, Some(0)),
                    (look(2, 33, Some(6)), 32, Some(0)),
                    (look(4, 34, Some(6)), 32, Some(0)),
                    (look(6, 49, Some(6)), 48, Some(6)),
                ],
            ),
            (
                "busy: as far as the archiver is",
                &[
                    (look(0, 17, None), 16, None),
                    (look(2, 30, None), 16, None),
                    (look(4, 40, None), 32, Some(2)),
                    (look(6, 50, None), 48, Some(4)),
                    (look(8, 50, None), 48, Some(4)),
                ],
            ),
            (
                "a transaction in progress: its commit may come at any time",
                &[
                    (look(0, 17, Some(5)), 32, Some(0)),
                    (look(2, 33, None), 32, Some(0)),
                    (look(4, 33, Some(6)), 32, Some(0)),
                ],
            ),
            (
                "what is archived does not become less",
                &[(look(0, 17, None), 32, Some(0)), (look(2, 20, None), 0, Some(2))],
            ),
        ];
        let one = TimelineId::new(1).unwrap();
        for (name, rows) in table {
            let mut archived = Archived::default();
            for (look, end, expected) in rows {
                archived.look(one, *look, Some(Lsn::new(end << 20)));
                assert_eq!(archived.until(), expected.map(at), "{name}, {look:?}");
            }
            // Another timeline begins anew.
            archived.look(TimelineId::new(2).unwrap(), look(900, 60, Some(5)), None);
            assert_eq!(archived.until(), None, "{name}");
        }
    }

    #[test]
    fn an_archiver_that_is_behind_for_long_costs_no_memory() {
        let (one, mut archived) = (TimelineId::new(1).unwrap(), Archived::default());
        for second in 0..100_000 {
            archived.look(one, look(second, 10 + second.unsigned_abs(), None), None);
        }
        assert!(archived.waiting.len() <= MOST);
        archived.look(one, look(100_000, 200_000, None), Some(Lsn::new(100_009 << 20)));
        assert!(archived.until().unwrap() > at(90_000), "{:?}", archived.until());
    }

    #[test]
    fn a_database_that_is_idle_from_the_beginning_asks_for_one_switch() {
        let one = TimelineId::new(1).unwrap();
        let mut archived = Archived::default();
        let mut wants = |look: Look, end: u64| {
            archived.look(one, look, Some(Lsn::new(end << 20)));
            archived.wants_switch(look)
        };
        assert!(!wants(look(0, 33, Some(5)), 32));
        assert!(!wants(look(359, 33, Some(5)), 32), "archive_timeout may still do it");
        assert!(!wants(Look { timeout: None, ..look(361, 33, Some(5)) }, 32), "nobody wants segments to be finished");
        assert!(wants(look(362, 33, Some(5)), 32));
        assert!(!wants(look(364, 49, Some(5)), 32), "once");
        assert!(!wants(look(366, 49, Some(5)), 48), "proven");
        assert!(!wants(look(900, 50, Some(6)), 48), "another quiet has its own time");
        assert!(!wants(look(1200, 50, None), 48));
        assert!(!wants(look(1300, 50, Some(7)), 48));
        assert!(wants(look(1700, 50, Some(7)), 48));
    }

    #[test]
    fn the_header_of_a_segment_is_nothing() {
        for (lsn, expected) in [("0/3000028", "0/3000000"), ("0/3000000", "0/3000000"), ("0/3000029", "0/3000029")] {
            assert_eq!(without_header(lsn.parse().unwrap(), WalSegmentSize::DEFAULT).to_string(), expected);
        }
    }

    #[test]
    fn what_the_archiver_leaves() {
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
        assert_eq!(found().as_deref(), Some("0/3000000"), "one before it waits");
        std::fs::remove_file(folder.path().join("000000010000000000000003.ready")).unwrap();
        assert_eq!(found().as_deref(), Some("0/5000000"));
    }
}
