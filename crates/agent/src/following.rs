//! Which segments recovery asks for next.

use holdfast_pgtypes::{Ancestry, SegmentName, WalSegmentSize};

/// The segments after `reached`, at most `count` and none after `until`.
///
/// If recovery is on the way to a later timeline, PostgreSQL asks for a segment by the name of the newest timeline that
/// has begun in it or before it (`XLogFileReadAnyTLI` in `xlogrecovery.c`).
pub(crate) fn following(
    path: Option<&Ancestry>,
    reached: SegmentName,
    size: WalSegmentSize,
    count: usize,
    until: Option<SegmentName>,
) -> Vec<SegmentName> {
    let path = path.filter(|path| path.span(reached.timeline()).is_some());
    let name = |segment: SegmentName| match path {
        Some(path) => path.segment_containing(segment.start_lsn(size), size),
        None => segment,
    };
    let wanted = |segment: &SegmentName| until.is_none_or(|until| segment.on_timeline(until.timeline()) <= until);
    std::iter::successors(reached.next(size), |segment| segment.next(size))
        .map(name)
        .take_while(wanted)
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use holdfast_pgtypes::{HistoryFile, TimelineId};

    fn names(history: Option<&str>, reached: &str, until: Option<&str>) -> Vec<String> {
        let path = history.map(|text| {
            let history = HistoryFile::parse(TimelineId::new(3).unwrap(), text.as_bytes()).unwrap();
            Ancestry::from_history(&history)
        });
        let size = WalSegmentSize::new(16 << 20).unwrap();
        let until = until.map(|until| until.parse().unwrap());
        let found = following(path.as_ref(), reached.parse().unwrap(), size, 4, until);
        found.into_iter().map(|segment| segment.to_string()).collect()
    }

    #[test]
    fn they_stay_on_the_timeline_without_a_history() {
        assert_eq!(
            names(None, "0000000100000000000000FE", None),
            [
                "0000000100000000000000FF",
                "000000010000000100000000",
                "000000010000000100000001",
                "000000010000000100000002"
            ]
        );
    }

    #[test]
    fn the_segment_of_a_switch_belongs_to_the_new_timeline() {
        // Timeline 2 begins in segment 5, timeline 3 at the start of segment 7.
        let history = "1\t0/5000123\tno recovery target specified\n2\t0/7000000\tno recovery target specified\n";
        assert_eq!(
            names(Some(history), "000000010000000000000003", None),
            [
                "000000010000000000000004",
                "000000020000000000000005",
                "000000020000000000000006",
                "000000030000000000000007"
            ]
        );
        // Recovery of a timeline that is not on that path stays on it.
        assert_eq!(names(Some(history), "000000040000000000000003", None)[0], "000000040000000000000004");
    }

    #[test]
    fn none_is_fetched_after_the_last_one_that_is_wanted() {
        assert_eq!(
            names(None, "000000010000000000000003", Some("000000010000000000000005")),
            ["000000010000000000000004", "000000010000000000000005"]
        );
        assert!(names(None, "000000010000000000000005", Some("000000010000000000000005")).is_empty());
    }
}
