//! WAL that is missing in the archive and that the server no longer has: whether that is true, and what is recorded if
//! it was accepted.

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, WalSegmentSize};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::record::LedgerEntry;

use super::listed::stored_wal;
use super::position::StoredWal;
use super::shared::{SERVER, Shared};
use crate::archive::{Destination, open_all};
use crate::error::{Error, ResultExt};
use crate::repository::RepositoryTarget;
use crate::repository::claim::Identity;

/// The WAL that the server no longer has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gone<'a> {
    pub(super) identity: Identity,
    /// The path of the server's timeline.
    pub(super) ancestry: &'a Ancestry,
    /// The first segment that is missing.
    pub(super) first: SegmentName,
    /// The oldest WAL that the slot keeps.
    pub(super) kept: Option<Lsn>,
}

/// What is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// `archive_command` has stored the segment meanwhile: it is not missing.
    Stored,
    /// It is missing, that was accepted, and it is recorded in every repository that lacks it.
    Accepted,
    /// It is missing.
    Missing,
}

/// Lists the archive again, and records the gap if it was accepted.
pub(super) async fn judge(targets: &[RepositoryTarget], shared: &Shared<'_>, gone: Gone<'_>) -> Result<Verdict, Error> {
    let Gone { identity, ancestry, first, kept } = gone;
    let (size, options) = (identity.wal_segment_size, shared.options);
    let mut push = options.push.clone();
    (push.path, push.now) = (SERVER.into(), shared.clock.now());
    let destinations = open_all(targets, &push, Some(identity)).await?;
    let (stored, _) = stored_wal(&destinations, ancestry, Some(first.start_lsn(size))).await?;
    if stored.iter().all(|one| one.has(first, size)) {
        return Ok(Verdict::Stored);
    }
    let end = kept.map(|kept| ancestry.segment_containing(kept, size)).filter(|_| options.accept_gap);
    let missing = end.map(|end| run_of_missing(&stored, ancestry, first, end, size)).unwrap_or_default();
    if missing.is_empty() {
        return Ok(Verdict::Missing);
    }
    for (Destination { repository, claim }, one) in destinations.iter().zip(&stored) {
        let lacking = missing.iter().copied().filter(|segment| !one.has(*segment, size)).collect::<Vec<_>>();
        for range in ranges(&lacking, size) {
            let SegmentRange { first, last, count, .. } = range;
            let store = repository.describe();
            tracing::warn!(%first, %last, count, store, "these segments are missing, and that was accepted \
                                                         (--accept-gap): take a new backup now");
            let reason = "the server no longer had this WAL when `wal receive` asked for it".to_owned();
            let entry = LedgerEntry::Gap { claim: claim.number, first, last, count, reason, accepted: true };
            repository
                .write_ledger(&push.cluster, &push.host, shared.clock.now(), entry)
                .await
                .doing(|| "recording the gap".to_owned())?;
        }
    }
    Ok(Verdict::Accepted)
}

/// The segments from the first one on, before `end`, until one is in every repository. What is missing after that one
/// is a gap of its own: the server may still have it.
fn run_of_missing(
    stored: &[StoredWal],
    ancestry: &Ancestry,
    first: SegmentName,
    end: SegmentName,
    size: WalSegmentSize,
) -> Vec<SegmentName> {
    let numbers = first.number(size)..end.number(size);
    let named = numbers.map(|number| {
        let start = Lsn::new(number.saturating_mul(size.as_u64()));
        if number == first.number(size) { first } else { ancestry.segment_containing(start, size) }
    });
    named.take_while(|segment| stored.iter().any(|one| !one.has(*segment, size))).collect()
}

/// Segments in ascending order as ranges of one timeline each.
fn ranges(segments: &[SegmentName], size: WalSegmentSize) -> Vec<SegmentRange> {
    let runs = segments.chunk_by(|one, next| {
        one.timeline() == next.timeline() && one.number(size).checked_add(1) == Some(next.number(size))
    });
    let ends = runs.filter_map(|run| Some((run.first()?, run.last()?)));
    ends.filter_map(|(first, last)| SegmentRange::new(first.timeline(), first.number(size), last.number(size), size))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_pgtypes::{HistoryFile, TimelineId, WalFileName};
    use holdfast_repo::catalog::WalInventory;

    use super::*;
    use crate::receive::needed::Needed;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn name(timeline: u32, number: u64) -> SegmentName {
        SegmentName::from_number(number, TimelineId::new(timeline).unwrap(), SIZE).unwrap()
    }

    fn stored(files: &[SegmentName]) -> StoredWal {
        let inventory = WalInventory::from_files(SIZE, files.iter().copied().map(WalFileName::Segment));
        let tail = std::collections::BTreeMap::new();
        StoredWal { store: "s3://one".to_owned(), inventory, tail, needed: Needed::default() }
    }

    #[test]
    fn a_gap_ends_where_the_slot_begins_or_with_the_next_segment_that_is_everywhere() {
        let history = format!("1\t{}\tpromoted\n", Lsn::new((8 << 24) + 1000));
        let history = HistoryFile::parse(TimelineId::new(2).unwrap(), history.as_bytes()).unwrap();
        let path = Ancestry::from_history(&history);
        let (one, other) = (stored(&[name(1, 5), name(1, 7)]), stored(&[name(1, 5), name(1, 6)]));
        let missing = |stored: &[StoredWal], first, end| run_of_missing(stored, &path, first, end, SIZE);
        assert_eq!(missing(std::slice::from_ref(&one), name(1, 6), name(2, 9)), [name(1, 6)]);
        let both = [one, other];
        assert_eq!(missing(&both, name(1, 6), name(2, 8)), [name(1, 6), name(1, 7)]);
        assert_eq!(missing(&both, name(1, 6), name(2, 9)), [name(1, 6), name(1, 7), name(2, 8)]);
        assert_eq!(missing(&both, name(1, 6), name(1, 6)), []);
        let range = |timeline, first, last| SegmentRange::new(TimelineId::new(timeline).unwrap(), first, last, SIZE);
        let found = ranges(&[name(1, 5), name(1, 6), name(1, 8), name(2, 9)], SIZE);
        assert_eq!(found, [range(1, 5, 6), range(1, 8, 8), range(2, 9, 9)].map(Option::unwrap));
    }
}
