//! The gaps in the ledger: a `gap` entry for what is missed, a `gap-closed` entry when it is there again or no longer
//! needed.
//!
//! Entries are never changed. What is missed now follows from all of them in the order of their times: a gap counts
//! from its own entry until one that closes it. So a gap is recorded once, however often it is found.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal_verify::RecordedGap;
use holdfast_pgtypes::{TimelineId, WalSegmentSize};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::name::{ClaimNumber, ClusterName, LedgerKind, LedgerTime};
use holdfast_repo::record::{ClaimRecord, GapOutcome, LedgerEntry, LedgerRecord};
use holdfast_retention::NumberRanges;

use super::findings::Places;
use crate::error::Error;
use crate::repository::Repository;
use crate::repository::listed::Unreadable;

/// The gaps that the ledger has and that are not closed.
#[derive(Debug, Default)]
pub struct RecordedGaps {
    open: BTreeMap<(ClaimNumber, TimelineId), Vec<Open>>,
    sizes: BTreeMap<ClaimNumber, WalSegmentSize>,
    /// Entries that cannot be read; they are ignored.
    pub unreadable: Vec<Unreadable<LedgerTime>>,
}

/// What is still missed of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    segments: NumberRanges,
    since: DateTime<Utc>,
    reason: String,
}

impl RecordedGaps {
    /// Takes the entries in the order of their times. Entries of other kinds, and of claims whose segment size is not
    /// known, count for nothing.
    fn of_entries(sizes: BTreeMap<ClaimNumber, WalSegmentSize>, mut entries: Vec<LedgerRecord>) -> Self {
        entries.sort_by_key(|record| record.time);
        let mut found = Self { sizes, ..Self::default() };
        for record in entries {
            match record.entry {
                LedgerEntry::Gap { claim, first, last, reason, .. } => {
                    let Some(size) = found.sizes.get(&claim) else { continue };
                    let range = NumberRanges::of(first.number(*size), last.number(*size));
                    let segments = range.without(&found.at((claim, first.timeline())));
                    let open = found.open.entry((claim, first.timeline())).or_default();
                    open.push(Open { segments, since: record.time, reason });
                }
                LedgerEntry::GapClosed { claim, first, last, .. } => {
                    let Some(size) = found.sizes.get(&claim) else { continue };
                    let range = NumberRanges::of(first.number(*size), last.number(*size));
                    for open in found.open.entry((claim, first.timeline())).or_default() {
                        open.segments = open.segments.without(&range);
                    }
                }
                _ => {}
            }
        }
        for open in found.open.values_mut() {
            open.retain(|gap| !gap.segments.is_empty());
        }
        found.open.retain(|_, open| !open.is_empty());
        found
    }

    /// All segments that are missed at a place.
    pub(super) fn at(&self, place: (ClaimNumber, TimelineId)) -> NumberRanges {
        self.open.get(&place).into_iter().flatten().flat_map(|open| open.segments.iter()).collect()
    }

    /// The number of segments that are recorded as missing.
    pub fn segment_count(&self) -> u64 {
        self.open.values().flatten().map(|open| open.segments.count()).fold(0, u64::saturating_add)
    }

    /// The claims and timelines that have such a gap.
    pub(super) fn places(&self) -> Vec<(ClaimNumber, TimelineId)> {
        self.open.keys().copied().collect()
    }

    /// Since when a segment is recorded as missing.
    pub(super) fn since(&self, claim: ClaimNumber, timeline: TimelineId, number: u64) -> Option<DateTime<Utc>> {
        let open = self.open.get(&(claim, timeline))?;
        open.iter().find(|open| open.segments.holding(number).is_some()).map(|open| open.since)
    }

    /// The gaps of a claim, without the segments that are there. What cannot be read must not be in `listed`.
    pub fn of_claim(&self, claim: ClaimNumber, listed: &WalInventory) -> Vec<RecordedGap> {
        let Some(size) = self.sizes.get(&claim).copied() else { return Vec::new() };
        let of_claim = self.open.iter().filter(|((of, _), _)| *of == claim);
        let gaps = of_claim.flat_map(|((_, timeline), open)| {
            let there = present(listed, *timeline);
            open.iter().flat_map(move |open| {
                let missing = open.segments.without(&there);
                let ranges: Vec<(u64, u64)> = missing.iter().collect();
                ranges.into_iter().filter_map(move |(first, last)| {
                    let range = SegmentRange::new(*timeline, first, last, size)?;
                    let (since, reason) = (open.since, open.reason.clone());
                    Some(RecordedGap { first: range.first, last: range.last, count: range.count, since, reason })
                })
            })
        });
        gaps.collect()
    }
}

fn present(listed: &WalInventory, timeline: TimelineId) -> NumberRanges {
    let size = listed.segment_size();
    listed.ranges(timeline).iter().map(|range| (range.first.number(size), range.last.number(size))).collect()
}

/// Reads the gaps from the ledger of a cluster.
///
/// # Errors
/// [`Cause::Store`](crate::Cause::Store) if the ledger cannot be listed, or the store cannot be asked for an entry.
pub async fn recorded_gaps(
    repository: &Repository,
    cluster: &ClusterName,
    claims: &[ClaimRecord],
) -> Result<RecordedGaps, Error> {
    let (gaps, closed) = tokio::try_join!(
        repository.ledger(cluster, LedgerKind::Gap),
        repository.ledger(cluster, LedgerKind::GapClosed)
    )?;
    let sizes = claims.iter().map(|claim| (claim.number, claim.wal_segment_size)).collect();
    let entries = gaps.records.into_iter().chain(closed.records).map(|(_, record)| record);
    let unreadable = gaps.unreadable.into_iter().chain(closed.unreadable).collect();
    Ok(RecordedGaps { unreadable, ..RecordedGaps::of_entries(sizes, entries.collect()) })
}

/// When WAL was verified last, as far as the ledger says; the time is in the name of the entry.
///
/// # Errors
/// [`Cause::Store`](crate::Cause::Store) if the ledger cannot be listed.
pub async fn last_verified(repository: &Repository, cluster: &ClusterName) -> Result<Option<DateTime<Utc>>, Error> {
    let names = repository.ledger_names(cluster, LedgerKind::Verification).await?;
    Ok(names.into_iter().map(|(time, _)| time.time()).max())
}

/// What a verification knows about the segments that the ledger calls missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Segments that are missing now.
    pub(super) missing: &'a Places,
    /// Segments that are there again, and were read.
    pub(super) back: &'a Places,
    /// Segments about which nothing is known: they are on their way, or there and not read, or cannot be read.
    pub(super) in_doubt: &'a Places,
    /// Whether everything was looked at, so that a segment that is in none of these is not needed.
    pub(super) is_complete: bool,
}

/// The entries that are due.
pub(super) fn entries_due(recorded: &RecordedGaps, known: &Known<'_>, reason: &str) -> Vec<LedgerEntry> {
    let mut due = Vec::new();
    for ((claim, timeline), segments) in known.missing {
        let Some(size) = recorded.sizes.get(claim) else { continue };
        for (first, last) in segments.without(&recorded.at((*claim, *timeline))).iter() {
            if let Some(SegmentRange { first, last, count, .. }) = SegmentRange::new(*timeline, first, last, *size) {
                let (claim, reason) = (*claim, reason.to_owned());
                due.push(LedgerEntry::Gap { claim, first, last, count, reason, accepted: false });
            }
        }
    }
    let none = NumberRanges::nothing();
    for place in recorded.open.keys() {
        let (claim, timeline) = *place;
        let Some(size) = recorded.sizes.get(&claim) else { continue };
        let of = |places: &'_ Places| places.get(place).unwrap_or(&none).clone();
        let open = recorded.at(*place);
        let back = open.common(&of(known.back)).without(&of(known.in_doubt));
        let gone = open.without(&back).without(&of(known.missing)).without(&of(known.in_doubt));
        let gone = if known.is_complete { gone } else { NumberRanges::nothing() };
        for (outcome, segments) in [(GapOutcome::CameBack, back), (GapOutcome::NotNeeded, gone)] {
            for (first, last) in segments.iter() {
                if let Some(SegmentRange { first, last, count, .. }) = SegmentRange::new(timeline, first, last, *size) {
                    due.push(LedgerEntry::GapClosed { claim, first, last, count, outcome });
                }
            }
        }
    }
    due
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_pgtypes::{SegmentName, WalFileName};

    use super::*;

    const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

    fn segment(number: u64) -> SegmentName {
        SegmentName::from_number(number, TimelineId::FIRST, SIZE).unwrap()
    }

    fn gap(first: u64, last: u64) -> LedgerEntry {
        LedgerEntry::Gap {
            claim: ClaimNumber::FIRST,
            first: segment(first),
            last: segment(last),
            count: last - first + 1,
            reason: "found".to_owned(),
            accepted: false,
        }
    }

    fn closed(first: u64, last: u64, outcome: GapOutcome) -> LedgerEntry {
        let (first, last, count) = (segment(first), segment(last), last - first + 1);
        LedgerEntry::GapClosed { claim: ClaimNumber::FIRST, first, last, count, outcome }
    }

    fn recorded(entries: &[LedgerEntry]) -> RecordedGaps {
        let records = entries.iter().zip(0..).map(|(entry, minute)| LedgerRecord {
            time: DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::minutes(minute),
            host: "db1".to_owned(),
            software_version: "0.1.0".to_owned(),
            entry: entry.clone(),
        });
        RecordedGaps::of_entries([(ClaimNumber::FIRST, SIZE)].into(), records.collect())
    }

    fn places(ranges: &[(u64, u64)]) -> Places {
        [((ClaimNumber::FIRST, TimelineId::FIRST), ranges.iter().copied().collect())].into()
    }

    fn due(entries: &[LedgerEntry], missing: &[(u64, u64)], back: &[u64], is_complete: bool) -> Vec<LedgerEntry> {
        let back: Vec<(u64, u64)> = back.iter().map(|number| (*number, *number)).collect();
        let (missing, back, in_doubt) = (places(missing), places(&back), Places::new());
        entries_due(
            &recorded(entries),
            &Known { missing: &missing, back: &back, in_doubt: &in_doubt, is_complete },
            "found",
        )
    }

    #[test]
    fn what_is_in_doubt_stays_recorded() {
        let (none, back, in_doubt) = (Places::new(), places(&[(5, 6)]), places(&[(6, 7)]));
        let known = Known { missing: &none, back: &back, in_doubt: &in_doubt, is_complete: true };
        let expected = [closed(5, 5, GapOutcome::CameBack), closed(8, 8, GapOutcome::NotNeeded)];
        assert_eq!(entries_due(&recorded(&[gap(5, 8)]), &known, "found"), expected);
    }

    /// (what it is, entries, missing now, back now, whether everything was looked at, entries that are due)
    #[test]
    fn a_gap_is_recorded_once_and_closed_once() {
        use GapOutcome::{CameBack, NotNeeded};
        type Case<'a> = (&'a str, Vec<LedgerEntry>, Vec<(u64, u64)>, Vec<u64>, bool, Vec<LedgerEntry>);
        let cases: Vec<Case<'_>> = vec![
            ("nothing", vec![], vec![], vec![1, 2], true, vec![]),
            ("a new gap", vec![], vec![(5, 7)], vec![4, 8], true, vec![gap(5, 7)]),
            ("a known gap", vec![gap(5, 7)], vec![(5, 7)], vec![4, 8], true, vec![]),
            ("a gap that grew", vec![gap(5, 7)], vec![(4, 8)], vec![3, 9], true, vec![gap(4, 4), gap(8, 8)]),
            ("all came back", vec![gap(5, 7)], vec![], vec![5, 6, 7], true, vec![closed(5, 7, CameBack)]),
            ("one came back", vec![gap(5, 7)], vec![(5, 5), (7, 7)], vec![6], true, vec![closed(6, 6, CameBack)]),
            ("closed before", vec![gap(5, 7), closed(5, 7, CameBack)], vec![], vec![5, 6, 7], true, vec![]),
            ("missing again", vec![gap(5, 7), closed(5, 7, CameBack)], vec![(6, 6)], vec![5, 7], true, vec![gap(6, 6)]),
            ("nothing needs it", vec![gap(5, 7)], vec![], vec![9], true, vec![closed(5, 7, NotNeeded)]),
            ("not everything was looked at", vec![gap(5, 7)], vec![], vec![9], false, vec![]),
        ];
        for (what, entries, missing, there, is_complete, expected) in cases {
            assert_eq!(due(&entries, &missing, &there, is_complete), expected, "{what}");
        }
    }

    #[test]
    fn a_gap_is_known_since_its_own_entry() {
        let found = recorded(&[gap(5, 7), gap(6, 9), closed(5, 5, GapOutcome::CameBack)]);
        let minute = |number| {
            let since = found.since(ClaimNumber::FIRST, TimelineId::FIRST, number)?;
            Some((since - DateTime::<Utc>::UNIX_EPOCH).num_minutes())
        };
        assert_eq!((minute(5), minute(6), minute(7), minute(8), minute(10)), (None, Some(0), Some(0), Some(1), None));
        let listed = WalInventory::from_files(SIZE, [WalFileName::Segment(segment(7))]);
        let reported = found.of_claim(ClaimNumber::FIRST, &listed);
        let reported: Vec<_> = reported.iter().map(|gap| (gap.first, gap.last, gap.count)).collect();
        assert_eq!(reported, [(segment(6), segment(6), 1), (segment(8), segment(9), 2)]);
    }
}
