//! Pieces of a segment that is not whole: what is stored, what recovery gets of them, and who gets nothing.

use holdfast_pgtypes::{Lsn, SegmentName, WalFileName, WalSegmentSize};
use holdfast_repo::name::{ObjectPath, TailRange};
use holdfast_repo::recovery::NeededTail;
use holdfast_store::{Fault, FaultRule, ObjectName, PutMode, Store as _, StoreErrorKind};

use super::*;
use crate::archive::deliver::Destination;
use crate::archive::tail::{add_tails, list_segment, remove_leftovers, store_piece};

const FIRST: TailRange = range(0, 100_000);
const SECOND: TailRange = range(100_000, 100_001);
const THIRD: TailRange = range(100_001, 300_000);

const fn range(start: u32, end: u32) -> TailRange {
    match TailRange::new(start, end) {
        Some(range) => range,
        None => panic!("an empty range"),
    }
}

fn named(number: u64) -> SegmentName {
    name(number).parse().unwrap()
}

impl Bench {
    async fn destination_of(&self, repository: usize) -> Destination {
        let repository = self.open(repository).await;
        let claim = repository.current_claim(&self.cluster).await.unwrap();
        Destination { repository, claim }
    }

    async fn store(&self, repository: usize, range: TailRange, content: &[u8]) -> Result<(), Error> {
        let destination = self.destination_of(repository).await;
        let raw = content[range.start() as usize..range.end() as usize].to_vec().into();
        store_piece(&destination, named(2), range, raw, "zstd:1".parse().unwrap(), &self.crew).await
    }

    async fn with_tail(bench: Self, pieces: &[TailRange]) -> Self {
        let path = bench.segments(1, 1).remove(0);
        bench.push(&path).await.unwrap();
        for repository in 0..bench.targets.len() {
            for piece in pieces {
                bench.store(repository, *piece, &segment(2, 1)).await.unwrap();
            }
        }
        bench
    }

    /// The bytes before the zeros of what recovery gets; 0 if it gets nothing.
    async fn given(&self, tail: Option<NeededTail>) -> usize {
        match self.get_with(&self.tail_options(tail)).await {
            Ok(_) => {
                let given = std::fs::read(self.destination()).unwrap();
                assert_eq!(given.len(), SIZE as usize);
                let end = given.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                assert_eq!(given[..end], segment(2, 1)[..end]);
                end
            }
            Err(error) if is_absent(&error) => 0,
            Err(error) => panic!("{error}"),
        }
    }

    fn tail_options(&self, tail: Option<NeededTail>) -> GetOptions {
        GetOptions { tails: tail.into_iter().collect(), ..self.get_options(&name(2)) }
    }

    async fn piece(&self, repository: usize, wanted: TailRange) -> ObjectName {
        let objects = self.objects(repository, "main/wal-tail/").await;
        let is_wanted =
            |name: &&String| matches!(name.parse(), Ok(ObjectPath::WalTail { range, .. }) if range == wanted);
        objects.iter().find(is_wanted).unwrap().parse().unwrap()
    }
}

/// The tail of a timeline, whose stored end is at this byte of segment 2.
fn needed(timeline: u32, end: u32) -> NeededTail {
    let begin = named(2).start_lsn(WalSegmentSize::new(SIZE).unwrap());
    let end_lsn = begin.saturating_add(u64::from(end));
    NeededTail { timeline: TimelineId::new(timeline).unwrap(), end_lsn, switch_lsn: None }
}

/// The same, without an end that must be reached.
fn any() -> NeededTail {
    NeededTail { end_lsn: Lsn::INVALID, ..needed(1, 0) }
}

/// The last byte of a segment's part may be zero by chance.
fn about(expected: u32, found: usize) {
    assert!((expected as usize - 16..=expected as usize).contains(&found), "{found} of {expected} bytes");
}

#[tokio::test]
async fn recovery_gets_the_stored_beginning_and_nobody_else_does() {
    for bench in [Bench::new(1).await, Bench::encrypted().await, Bench::new(2).await] {
        let bench = Bench::with_tail(bench, &[FIRST, SECOND, THIRD]).await;
        about(THIRD.end(), bench.given(Some(needed(1, THIRD.end()))).await);
        assert_eq!(bench.given(None).await, 0);
        assert_eq!(bench.given(Some(needed(2, THIRD.end()))).await, 0, "another timeline is followed");
        // A whole segment comes first.
        let path = bench.wal(&name(2), &segment(2, 1));
        bench.push(&path).await.unwrap();
        about(SIZE, bench.given(Some(any())).await);
    }
}

#[tokio::test]
async fn a_tail_that_ends_before_the_planned_end_is_an_error_and_no_end() {
    let bench = Bench::with_tail(Bench::new(2).await, &[FIRST, SECOND, THIRD]).await;
    let planned = || bench.tail_options(Some(needed(1, THIRD.end())));
    for repository in [0, 1] {
        bench.get_with(&planned()).await.unwrap();
        let third = bench.piece(repository, THIRD).await;
        bench.stores[repository].delete(&[third]).await.unwrap();
    }
    let error = bench.get_with(&planned()).await.unwrap_err();
    assert_eq!(kind(&error), "TailTooShort", "{error}");
    about(SECOND.end(), bench.given(Some(needed(1, SECOND.end()))).await);
    // Nothing is left of it, and the end is after it.
    for repository in [0, 1] {
        let pieces = [bench.piece(repository, FIRST).await, bench.piece(repository, SECOND).await];
        bench.stores[repository].delete(&pieces).await.unwrap();
    }
    for end in [1, SIZE, SIZE + 1] {
        let error = bench.get_with(&bench.tail_options(Some(needed(1, end)))).await.unwrap_err();
        assert_eq!(kind(&error), "TailTooShort", "{error}");
    }
    assert_eq!(bench.given(Some(needed(1, 0))).await, 0, "the end is where the segment begins");
}

#[tokio::test]
async fn nothing_after_the_switch_is_given_not_even_of_a_whole_segment() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND, THIRD]).await;
    let cut = |at: u32| {
        let switch_lsn = Some(needed(1, at).end_lsn);
        Some(NeededTail { switch_lsn, ..needed(1, at) })
    };
    about(90_000, bench.given(cut(90_000)).await);
    assert_eq!(bench.given(cut(0)).await, 0);
    let path = bench.wal(&name(2), &segment(2, 1));
    bench.push(&path).await.unwrap();
    about(90_000, bench.given(cut(90_000)).await);
    assert_eq!(bench.given(cut(0)).await, 0);
}

#[tokio::test]
async fn pieces_in_a_hole_count() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND, THIRD]).await;
    let later = bench.wal(&name(3), &segment(3, 1));
    bench.push(&later).await.unwrap();
    let Destination { repository, claim } = bench.destination_of(0).await;
    let size = WalSegmentSize::new(SIZE).unwrap();
    let listed = || {
        let files = [named(1), named(3)].map(WalFileName::Segment);
        holdfast_repo::catalog::WalInventory::from_files(size, files)
    };
    let (mut incomplete, mut expected) = (listed(), listed());
    add_tails(&repository, &claim, &mut incomplete, &bench.crew).await.unwrap();
    expected.add_tail(named(2), needed(1, THIRD.end()).end_lsn);
    assert_eq!(incomplete, expected, "the pieces do not reach the end, and were acknowledged");
    about(THIRD.end(), bench.given(Some(needed(1, THIRD.end()))).await);
    bench.store(0, range(THIRD.end(), SIZE), &segment(2, 1)).await.unwrap();
    let (mut complete, mut expected) = (listed(), listed());
    add_tails(&repository, &claim, &mut complete, &bench.crew).await.unwrap();
    expected.add_tail(named(2), named(2).end_lsn(size));
    assert_eq!(complete, expected);
    about(SIZE, bench.given(Some(needed(1, SIZE))).await);
}

#[tokio::test]
async fn a_damaged_or_missing_piece_ends_the_tail() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND, THIRD]).await;
    let store = bench.stores[0].clone();
    let second = bench.piece(0, SECOND).await;
    let third = bench.piece(0, THIRD).await;
    let sound = store.get(&third).await.unwrap();
    let mut damaged = sound.to_vec();
    damaged[200] ^= 1;
    store.put(&third, damaged.into(), PutMode::Overwrite).await.unwrap();
    about(SECOND.end(), bench.given(Some(any())).await);
    store.put(&third, sound, PutMode::Overwrite).await.unwrap();
    store.delete(&[second]).await.unwrap();
    about(FIRST.end(), bench.given(Some(any())).await);
    // A piece of another run that overlaps closes the hole.
    bench.store(0, range(99_000, 100_050), &segment(2, 1)).await.unwrap();
    about(THIRD.end(), bench.given(Some(any())).await);
}

#[tokio::test]
async fn a_piece_of_another_segment_is_not_believed() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST]).await;
    let store = bench.stores[0].clone();
    let first = bench.piece(0, FIRST).await;
    let moved: ObjectName = first.to_string().replace(&name(2), &name(3)).parse().unwrap();
    store.put(&moved, store.get(&first).await.unwrap(), PutMode::Create).await.unwrap();
    let options = GetOptions { tails: vec![any()], ..bench.get_options(&name(3)) };
    let error = bench.get_with(&options).await.unwrap_err();
    assert!(is_absent(&error), "{error}");
}

#[tokio::test]
async fn a_piece_is_stored_once_and_never_replaced() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST]).await;
    bench.store(0, FIRST, &segment(2, 1)).await.unwrap();
    let error = bench.store(0, FIRST, &segment(2, 9)).await.unwrap_err();
    assert_eq!(kind(&error), "Divergence", "{error}");
    about(FIRST.end(), bench.given(Some(any())).await);
}

#[tokio::test]
async fn a_store_that_is_away_is_a_doubt_and_no_end() {
    let mut bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND]).await;
    let rule = FaultRule::new(&[], 1.0, Fault::Refuse(StoreErrorKind::Unreachable)).on("main/wal-tail/");
    bench.faulty(0, vec![rule]);
    let options = bench.tail_options(Some(any()));
    let error = bench.get_with(&options).await.unwrap_err();
    assert_eq!(kind(&error), "Store", "{error}");
}

#[tokio::test]
async fn leftovers_of_whole_segments_are_removed() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND]).await;
    let Destination { repository, claim } = bench.destination_of(0).await;
    assert_eq!(remove_leftovers(&repository, &claim).await.unwrap(), 0);
    let mut listed = holdfast_repo::catalog::WalInventory::new(WalSegmentSize::new(SIZE).unwrap());
    add_tails(&repository, &claim, &mut listed, &bench.crew).await.unwrap();
    assert_eq!(listed.timelines().count(), 1, "the tail makes the timeline known");
    let path = bench.wal(&name(2), &segment(2, 1));
    bench.push(&path).await.unwrap();
    assert_eq!(remove_leftovers(&repository, &claim).await.unwrap(), 2);
    assert_eq!(list_segment(&repository, &claim, named(2)).await.unwrap(), []);
}

/// A whole segment that is damaged is no reason to delete the only good copy of its bytes.
#[tokio::test]
async fn leftovers_stay_if_the_whole_segment_cannot_be_read() {
    let bench = Bench::with_tail(Bench::new(1).await, &[FIRST, SECOND]).await;
    let Destination { repository, claim } = bench.destination_of(0).await;
    bench.push(&bench.wal(&name(2), &segment(2, 1))).await.unwrap();
    let listed = bench.stores[0].list("main/wal/", None).await.unwrap();
    let whole = listed.into_iter().find(|object| object.name.as_ref().contains(&name(2))).unwrap().name;
    let stored = bench.stores[0].get(&whole).await.unwrap();
    let mut changed = stored.to_vec();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for damaged in [stored.slice(..stored.len() - 1), changed.into()] {
        bench.stores[0].put(&whole, damaged, PutMode::Overwrite).await.unwrap();
        assert_eq!(remove_leftovers(&repository, &claim).await.unwrap(), 0);
        assert_eq!(list_segment(&repository, &claim, named(2)).await.unwrap().len(), 2);
    }
    bench.stores[0].put(&whole, stored, PutMode::Overwrite).await.unwrap();
    assert_eq!(remove_leftovers(&repository, &claim).await.unwrap(), 2);
}
