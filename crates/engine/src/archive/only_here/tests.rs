//! Which files of `pg_wal` are the last copies of their WAL.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use holdfast_pgtypes::TimelineId;

use super::super::tests::{Bench, SIZE, name};
use super::*;

/// The first 24 kB of a segment that a server wrote: its records end in them.
const WRITTEN: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/segment-0A.18");
const CONTROL: &[u8] = include_bytes!("../../../../pgtypes/tests/fixtures/pg_control.18");

/// The segment of the fixture, with this byte in everything after its records.
fn segment_with(rest: u8) -> Vec<u8> {
    let mut bytes = WRITTEN.to_vec();
    bytes.resize(SIZE as usize, 0);
    let end = end_of(&bytes);
    bytes[end..].fill(rest);
    bytes
}

fn end_of(bytes: &[u8]) -> usize {
    let size = holdfast_pgtypes::WalSegmentSize::new(SIZE).unwrap();
    let version = holdfast_pgtypes::PgVersion::V18;
    records_of(WalSegment { bytes, name: name(10).parse().unwrap(), size, version }).0
}

struct Case {
    bench: Bench,
    control: ControlFile,
}

impl Case {
    /// An archive that has been claimed by this cluster.
    async fn new() -> Self {
        let bench = Bench::new(1).await;
        let path = bench.segments(3, 3).remove(0);
        bench.push(&path).await.unwrap();
        let control = ControlFile { state: DbState::InProduction, ..ControlFile::parse(CONTROL).unwrap() };
        Self { bench, control }
    }

    fn file(&self, name: &str, content: &[u8]) {
        std::fs::write(self.bench.pgdata().join("pg_wal").join(name), content).unwrap();
    }

    async fn store(&self, name: &str, content: &[u8]) {
        let folder = self.bench.pgdata().join("elsewhere");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), content).unwrap();
        self.bench.push(&folder.join(name)).await.unwrap();
    }

    async fn is_only_here(&self, name: &str) -> bool {
        let repository = self.bench.open(0).await;
        let claim = repository.current_claim(&self.bench.cluster).await.unwrap();
        let pg_wal = self.bench.pgdata().join("pg_wal");
        let own = OwnWal { repository: &repository, cluster: &self.bench.cluster, claim: &claim, pg_wal: &pg_wal };
        is_only_here(&own, name.parse().unwrap(), &self.control, &Crew::new(1)).await.unwrap()
    }
}

#[tokio::test]
async fn wal_is_kept_for_its_records_whatever_comes_after_them() {
    let (mine, partial) = (name(10), format!("{}.partial", name(10)));
    let end = end_of(&segment_with(0));
    assert!(end > 8192 && end < WRITTEN.len(), "{end}");
    let case = Case::new().await;
    case.file(&mine, &segment_with(0x55));
    assert!(case.is_only_here(&mine).await, "it is in no form in the archive");
    // Another server has a partial segment of this name, with fewer records.
    let mut fewer = segment_with(0);
    fewer[8192..].fill(0);
    case.store(&partial, &fewer).await;
    assert!(case.is_only_here(&mine).await, "a record is missing");
    // The primary has archived the segment of which this standby has received a part.
    case.store(&mine, &segment_with(0)).await;
    assert!(!case.is_only_here(&mine).await);
    assert!(!case.is_only_here(&name(11)).await, "there is no such file");
    // The same WAL in a partial segment.
    let case = Case::new().await;
    case.file(&mine, &segment_with(0x55));
    case.store(&partial, &segment_with(0)).await;
    assert!(!case.is_only_here(&mine).await);
    // WAL of another history has the same name.
    let case = Case::new().await;
    let mut other = segment_with(0);
    other[100] ^= 1;
    case.store(&mine, &other).await;
    case.file(&mine, &segment_with(0));
    assert!(case.is_only_here(&mine).await);
}

#[tokio::test]
async fn files_without_wal_of_their_name_may_go() {
    let case = Case::new().await;
    // Recycled for a later segment; made and not written.
    case.file(&name(12), &segment_with(0));
    case.file(&name(13), &vec![0; SIZE as usize]);
    case.file(&format!("{}.00000028.backup", name(10)), b"START WAL LOCATION");
    for name in [name(12), name(13), format!("{}.00000028.backup", name(10))] {
        assert!(!case.is_only_here(&name).await, "{name}");
    }
    // Not whole, so it cannot be compared.
    case.file(&name(10), WRITTEN);
    assert!(case.is_only_here(&name(10)).await);
}

#[tokio::test]
async fn history_files_and_the_end_of_a_timeline_that_was_left() {
    let mut case = Case::new().await;
    let history = "00000002.history";
    let fork = format!("1\t0/{:X}\tno recovery target specified\n", 10 * u64::from(SIZE) + 0x4000);
    case.file(history, fork.as_bytes());
    assert!(case.is_only_here(history).await);
    // This directory is still on timeline 1: a file that it received does not give its WAL up.
    case.file(&name(10), &segment_with(0));
    assert!(case.is_only_here(&name(10)).await);
    case.control.timeline = TimelineId::new(2).unwrap();
    assert!(!case.is_only_here(&name(10)).await, "the first segment of timeline 2 has a copy");
    case.store(history, fork.as_bytes()).await;
    assert!(!case.is_only_here(history).await);
}

/// An archiving server ends its segment when it is stopped, and writes the last checkpoint into the next one.
#[test]
fn the_checkpoint_of_a_clean_stop_is_no_loss() {
    let control = ControlFile::parse(CONTROL).unwrap();
    let here = |only_record| Here { bytes: Vec::new(), end: 150, only_record };
    for (state, only_record, expected) in [
        (DbState::ShutDown, Some(control.checkpoint), true),
        (DbState::ShutDown, None, false),
        (DbState::ShutDown, Some(control.redo.saturating_add(8)), false),
        (DbState::InProduction, Some(control.checkpoint), false),
    ] {
        let control = ControlFile { state, ..control.clone() };
        assert_eq!(is_shutdown_alone(&here(only_record), &control), expected, "{state:?}");
    }
}
