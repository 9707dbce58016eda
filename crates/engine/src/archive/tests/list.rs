//! Ranges and gaps of a listing.

use super::{Bench, name, segment};
use crate::archive::list;

#[tokio::test]
async fn ranges_and_gaps_per_timeline() {
    let bench = Bench::new(1).await;
    for number in [1, 2, 3, 6, 7, 9] {
        let path = bench.segments(number, number).remove(0);
        bench.push(&path).await.unwrap();
    }
    let history = bench.wal("00000002.history", b"1\t0/900000\tswitch\n");
    bench.push(&history).await.unwrap();
    let partial = bench.wal(&format!("{}.partial", name(10)), &segment(10, 1));
    bench.push(&partial).await.unwrap();

    let listing = list(&bench.open(0).await, &bench.cluster).await.unwrap();
    assert_eq!(listing.claims.len(), 1);
    let [first, second] = listing.claims[0].timelines.as_slice() else { panic!("{listing:?}") };
    let text = |ranges: &[holdfast_repo::catalog::SegmentRange]| -> Vec<String> {
        ranges.iter().map(ToString::to_string).collect()
    };
    let range = |first, last, count: u64| format!("{}..{} ({count})", name(first), name(last));
    assert_eq!(text(&first.ranges), [range(1, 3, 3), range(6, 7, 2), range(9, 9, 1)]);
    assert_eq!(text(&first.gaps), [range(4, 5, 2), range(8, 8, 1)]);
    assert_eq!((first.segments, first.partials.len(), first.has_history), (6, 1, false));
    assert!(first.stored_bytes > 0 && first.newest.is_some());
    assert!(second.has_history && second.ranges.is_empty());
    let json = serde_json::to_value(&listing).unwrap();
    assert_eq!(json["claims"][0]["timelines"][0]["ranges"][0]["first"], name(1));

    let nothing = list(&bench.open(0).await, &"other".parse().unwrap()).await.unwrap();
    assert!(nothing.claims.is_empty());
}
