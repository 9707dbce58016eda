//! Which missing WAL `expire` removed, so that it is no gap.
//!
//! `expire` names the segments in the ledger: in `removal` entries those that it removed, and in `removing` entries
//! those that a run is removing, or was removing when it was killed. Nothing else counts as removed on purpose.

use std::collections::BTreeMap;

use holdfast_pgtypes::{TimelineId, WalSegmentSize};
use holdfast_repo::name::{LedgerKind, LedgerTime};
use holdfast_repo::record::{ClaimRecord, DecidedWal, LedgerEntry};
use holdfast_retention::NumberRanges;

use crate::error::Error;
use crate::repository::Repository;
use crate::repository::listed::Unreadable;

/// The WAL of a claim that `expire` removed, or is removing.
#[derive(Debug, Default)]
pub(super) struct Removed {
    numbers: BTreeMap<TimelineId, NumberRanges>,
    /// Entries that cannot be read: what they name counts as missing.
    pub(super) unreadable: Vec<Unreadable<LedgerTime>>,
}

impl Removed {
    /// Reads what the ledger says.
    pub(super) async fn read(repository: &Repository, claim: &ClaimRecord) -> Result<Self, Error> {
        let cluster = &claim.cluster;
        // First what is being removed: an entry that becomes a `removal` meanwhile is found there.
        let removing = repository.ledger(cluster, LedgerKind::Removing).await?;
        let removals = repository.ledger(cluster, LedgerKind::Removal).await?;
        let ranges = removals.records.into_iter().chain(removing.records).flat_map(|(_, record)| match record.entry {
            LedgerEntry::Removal { wal, .. } | LedgerEntry::Removing { wal, .. } => wal,
            _ => Vec::new(),
        });
        let of_claim = ranges.filter(|wal| wal.claim == claim.number).collect::<Vec<_>>();
        let unreadable = removals.unreadable.into_iter().chain(removing.unreadable).collect();
        Ok(Self { numbers: by_timeline(&of_claim, claim.wal_segment_size), unreadable })
    }

    /// The removed segments of a timeline.
    pub(super) fn of(&self, timeline: TimelineId) -> NumberRanges {
        self.numbers.get(&timeline).cloned().unwrap_or_default()
    }
}

fn by_timeline(ranges: &[DecidedWal], size: WalSegmentSize) -> BTreeMap<TimelineId, NumberRanges> {
    let mut found: BTreeMap<TimelineId, Vec<(u64, u64)>> = BTreeMap::new();
    for range in ranges.iter().filter(|range| range.first.timeline() == range.last.timeline()) {
        found.entry(range.first.timeline()).or_default().push((range.first.number(size), range.last.number(size)));
    }
    found.into_iter().map(|(timeline, ranges)| (timeline, ranges.into_iter().collect())).collect()
}
