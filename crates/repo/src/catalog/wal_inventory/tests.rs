//! Ranges are compared with a set of numbers.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use proptest::prelude::*;
use std::time::Instant;

const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

fn segment(number: u64) -> SegmentName {
    SegmentName::from_number(number, TimelineId::FIRST, SIZE).unwrap()
}

fn inventory(numbers: impl IntoIterator<Item = u64>) -> WalInventory {
    WalInventory::from_files(SIZE, numbers.into_iter().map(|number| WalFileName::Segment(segment(number))))
}

#[test]
fn a_listing_becomes_ranges() {
    let names = [
        "main/wal/1/00000001/0000000100000000/000000010000000000000001.zst",
        "main/wal/1/00000001/0000000100000000/000000010000000000000002.zst",
        "main/wal/1/00000001/0000000100000000/000000010000000000000002.00000028.backup.zst",
        "main/wal/1/00000001/0000000100000000/0000000100000000000000FF.zst",
        "main/wal/1/00000001/0000000100000001/000000010000000100000000.zst",
        "main/wal/1/00000001/0000000100000001/000000010000000100000001.partial.zst",
        "main/wal/1/00000002/00000002.history.zst",
        // strays: of another claim, of another cluster, with a name that this segment size cannot have, of another
        // program
        "main/wal/2/00000001/0000000100000000/000000010000000000000003.zst",
        "other/wal/1/00000001/0000000100000000/000000010000000000000003.zst",
        "main/wal/1/00000001/0000000100000000/000000010000000000000100.zst",
        "main/wal/1/junk",
    ];
    let wal = WalInventory::from_listing(SIZE, &"main".parse().unwrap(), ClaimNumber::FIRST, names);
    let ranges: Vec<String> = wal.ranges(TimelineId::FIRST).iter().map(ToString::to_string).collect();
    assert_eq!(
        ranges,
        [
            "000000010000000000000001..000000010000000000000002 (2)",
            "0000000100000000000000FF..000000010000000100000000 (2)"
        ]
    );
    assert_eq!((wal.segment_count(), wal.stray_count()), (4, 4));
    assert_eq!(wal.timelines().collect::<Vec<_>>(), [TimelineId::FIRST]);
    assert_eq!(wal.histories().map(TimelineId::get).collect::<Vec<_>>(), [2]);
    assert_eq!(wal.partials().collect::<Vec<_>>(), ["000000010000000100000001".parse().unwrap()]);
    assert_eq!(wal.contiguous_end(segment(0xFF)), Some(segment(0x100)));
    assert_eq!(wal.contiguous_end(segment(3)), None);
    let holes: Vec<String> = wal.holes(segment(0), segment(0x102)).iter().map(ToString::to_string).collect();
    assert_eq!(
        holes,
        [
            "000000010000000000000000..000000010000000000000000 (1)",
            "000000010000000000000003..0000000100000000000000FE (252)",
            "000000010000000100000001..000000010000000100000002 (2)"
        ]
    );
}

#[test]
fn a_million_segments_are_cheap() {
    let begin = Instant::now();
    let wal = inventory((0..1_000_000).filter(|number| number % 250_000 != 7));
    assert!(begin.elapsed().as_secs() < 10);
    assert_eq!((wal.segment_count(), wal.ranges(TimelineId::FIRST).len()), (999_996, 5));
}

proptest! {
    #[test]
    fn ranges_tell_what_a_set_would(numbers in prop::collection::vec(0u64..60, 0..80), from in 0u64..60, length in 0u64..30) {
        let set: BTreeSet<u64> = numbers.iter().copied().collect();
        let wal = inventory(numbers.iter().copied());
        prop_assert_eq!(&wal, &inventory(set.iter().copied()), "the order of the listing does not matter");
        prop_assert_eq!(wal.segment_count(), set.len() as u64);
        for number in 0..60 {
            prop_assert_eq!(wal.contains(segment(number)), set.contains(&number));
        }
        let missing: Vec<SegmentName> = (from..=from + length).filter(|n| !set.contains(n)).map(segment).collect();
        let mut without = wal.clone();
        without.remove(segment(from));
        let expected = inventory(set.iter().copied().filter(|n| *n != from));
        prop_assert_eq!(without.ranges(TimelineId::FIRST), expected.ranges(TimelineId::FIRST));
        let holes = wal.holes(segment(from), segment(from + length));
        prop_assert_eq!(holes.iter().flat_map(|hole| hole.names(SIZE)).collect::<Vec<_>>(), missing);
        for pair in holes.windows(2) {
            prop_assert!(pair[0].end_lsn(SIZE) < pair[1].start_lsn(SIZE));
        }
        let end = (from..100).take_while(|n| set.contains(n)).last().map(segment);
        prop_assert_eq!(wal.contiguous_end(segment(from)), end);
    }
}
