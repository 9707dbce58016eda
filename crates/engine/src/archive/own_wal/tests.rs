//! WAL of another history under the same names, and everything that only looks like it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::tests::{Bench, SIZE, kind, name, segment};
use super::*;

/// The comparison of one `pg_wal` with its archive.
struct Beside {
    bench: Bench,
    repository: Repository,
    claim: ClaimRecord,
    pg_wal: PathBuf,
}

impl Beside {
    /// Segments 3 to 5 are archived, and all still have their marks.
    async fn new() -> Self {
        let bench = Bench::new(1).await;
        for path in bench.segments(3, 5) {
            bench.push(&path).await.unwrap();
        }
        let repository = bench.open(0).await;
        let claim = repository.current_claim(&bench.cluster).await.unwrap();
        let pg_wal = bench.pgdata().join("pg_wal");
        Self { bench, repository, claim, pg_wal }
    }

    fn own(&self) -> OwnWal<'_> {
        let (cluster, claim) = (&self.bench.cluster, &self.claim);
        OwnWal { repository: &self.repository, cluster, claim, pg_wal: &self.pg_wal }
    }

    /// The PostgreSQL of this directory has another history from this segment on.
    fn other(&self, number: u64) {
        self.bench.wal(&name(number), &segment(number, 2));
    }

    fn archived(&self, name: &str) {
        std::fs::remove_file(self.pg_wal.join("archive_status").join(format!("{name}.ready"))).unwrap();
    }

    async fn archiver(&self) -> String {
        self.own().refuse_stopped_archiver().await.map_or_else(|error| kind(&error), |()| "ok".to_owned())
    }

    /// Of the segments from 3 to `last`, before the byte of this number.
    async fn history(&self, last: u64, end: u64) -> String {
        let ranges = [(name(3).parse().unwrap(), name(last).parse().unwrap())];
        let (own, crew) = (self.own(), Crew::new(1));
        let compared = own.refuse_other_history(&ranges, Lsn::new(end), TimelineId::FIRST, &crew);
        compared.await.map_or_else(|error| kind(&error), |()| "ok".to_owned())
    }
}

fn start_of(number: u64) -> u64 {
    number * u64::from(SIZE)
}

#[tokio::test]
async fn an_archiver_that_meets_other_content_has_stopped() {
    let beside = Beside::new().await;
    assert_eq!(beside.archiver().await, "ok", "the archive has the same");
    // Late is not stopped, whatever comes after it.
    beside.other(5);
    for number in [3, 4] {
        beside.archived(&name(number));
    }
    assert_eq!(beside.archiver().await, "Divergence");
    beside.bench.wal(&name(2), &segment(2, 1));
    assert_eq!(beside.archiver().await, "ok", "the archiver sends this one first");
    beside.archived(&name(2));
    beside.archived(&name(5));
    assert_eq!(beside.archiver().await, "ok", "nothing waits");
    // History files come first.
    let fork = |lsn: &str| format!("1\t{lsn}\tno recovery target specified\n");
    let history = beside.bench.wal("00000002.history", fork("0/380000").as_bytes());
    beside.bench.push(&history).await.unwrap();
    assert_eq!(beside.archiver().await, "ok");
    beside.bench.wal("00000002.history", fork("0/390000").as_bytes());
    assert_eq!(beside.archiver().await, "Divergence");
}

#[tokio::test]
async fn segments_of_another_history_are_found_by_their_content() {
    for number in [3, 4, 5] {
        let beside = Beside::new().await;
        assert_eq!(beside.history(5, start_of(6)).await, "ok");
        beside.other(number);
        assert_eq!(beside.history(5, start_of(6)).await, "Divergence", "{number}");
        beside.archived(&name(number));
        assert_eq!(beside.history(5, start_of(6)).await, "Divergence", "{number}, whatever its mark");
        assert_eq!(beside.history(2, start_of(6)).await, "ok", "it is outside of the range");
    }
}

#[tokio::test]
async fn files_without_finished_wal_of_their_name_are_not_compared() {
    let beside = Beside::new().await;
    // Recycled: the content of segment 1 under the name of a later one; made and never written; gone; cut short.
    std::fs::write(beside.pg_wal.join(name(3)), segment(1, 7)).unwrap();
    std::fs::write(beside.pg_wal.join(name(4)), vec![0; SIZE as usize]).unwrap();
    std::fs::remove_file(beside.pg_wal.join(name(5))).unwrap();
    std::fs::write(beside.pg_wal.join(name(6)), b"cut").unwrap();
    assert_eq!(beside.history(6, start_of(7)).await, "ok");
    // Not in the archive.
    beside.other(7);
    assert_eq!(beside.history(7, start_of(8)).await, "ok");
}

/// A standby receives its newest segment: only what it has replayed is compared.
#[tokio::test]
async fn of_an_unfinished_segment_the_written_part_is_compared() {
    let beside = Beside::new().await;
    let mut half = segment(5, 1);
    half[SIZE as usize / 2..].fill(0x55);
    beside.bench.wal(&name(5), &half);
    let middle = start_of(5) + u64::from(SIZE) / 2;
    assert_eq!(beside.history(5, middle).await, "ok");
    assert_eq!(beside.history(5, start_of(5)).await, "ok", "nothing of it is written");
    assert_eq!(beside.history(5, middle + 1).await, "Divergence");
}

/// The end of a timeline that this server left. Another server may have continued it.
#[tokio::test]
async fn a_segment_that_the_history_of_the_server_left_is_no_divergence() {
    let beside = Beside::new().await;
    beside.other(5);
    let fork = format!("1\t0/{:X}\tno recovery target specified\n", start_of(5) + 0x100);
    std::fs::write(beside.pg_wal.join("00000002.history"), fork).unwrap();
    beside.bench.on_timeline(1);
    assert_eq!(beside.history(5, start_of(6)).await, "Divergence", "it is the history of another server");
    beside.bench.on_timeline(2);
    assert_eq!(beside.history(5, start_of(6)).await, "ok");
    assert_eq!(
        beside.own().compare(WalFileName::Segment(name(5).parse().unwrap())).await.unwrap(),
        Compared::LeftBehind
    );
}

#[test]
fn a_long_range_is_compared_at_both_ends_and_where_files_wait() {
    let segments = |waiting: &[u64]| -> Vec<(SegmentName, bool)> {
        (1..=9).map(|number| (name(number).parse().unwrap(), waiting.contains(&number))).collect()
    };
    for (waiting, at_each_end, expected) in [
        (&[][..], 2, &[1, 2, 8, 9][..]),
        (&[5], 2, &[1, 2, 5, 8, 9]),
        (&[1, 2, 9], 1, &[1, 2, 3, 8, 9]),
        (&[], 9, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ] {
        let chosen: Vec<String> =
            worth_comparing(&segments(waiting), at_each_end).iter().map(ToString::to_string).collect();
        assert_eq!(chosen, expected.iter().map(|number| name(*number)).collect::<Vec<_>>(), "{waiting:?}");
    }
}
