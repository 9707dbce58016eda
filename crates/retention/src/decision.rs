//! A decision, as recorded in the ledger: these backups, packs and WAL will be removed, decided at this time.

use crate::number_ranges::NumberRanges;
use crate::verdict::WalRange;
use chrono::{DateTime, Duration, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::name::{BackupId, ClaimNumber, PackId};
use std::collections::{BTreeMap, BTreeSet};

/// One decision. Several can be in force at once. Anything that was taken back must be left out of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// When it was decided.
    pub at: DateTime<Utc>,
    /// The backups to remove.
    pub backups: BTreeSet<BackupId>,
    /// The packs to remove.
    pub packs: BTreeSet<PackId>,
    /// The WAL to remove, sorted by claim, timeline and number.
    pub wal: Vec<WalRange>,
}

impl Decision {
    /// Whether it removes nothing.
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.packs.is_empty() && self.wal.is_empty()
    }

    /// Whether its grace time is over. A decision with a time in the future was made by another clock, and is not ripe.
    pub fn is_ripe(&self, now: DateTime<Utc>, grace: Duration) -> bool {
        self.at <= now && self.at.checked_add_signed(grace).is_some_and(|end| end <= now)
    }
}

pub(crate) type WalSet = BTreeMap<(ClaimNumber, TimelineId), NumberRanges>;

/// The union of ranges.
pub(crate) fn wal_set<'a>(ranges: impl IntoIterator<Item = &'a WalRange>) -> WalSet {
    let mut lists: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
    for range in ranges {
        lists.entry((range.claim, range.timeline)).or_default().push((range.first, range.last));
    }
    lists.into_iter().map(|(key, list)| (key, list.into_iter().collect())).collect()
}

pub(crate) fn wal_ranges(set: &WalSet) -> Vec<WalRange> {
    let ranges = |(&(claim, timeline), numbers): (&(ClaimNumber, TimelineId), &NumberRanges)| {
        let list: Vec<WalRange> =
            numbers.iter().map(|(first, last)| WalRange { claim, timeline, first, last }).collect();
        list
    };
    set.iter().flat_map(ranges).collect()
}

/// Applies an operation to the ranges of the same timeline of two sets.
pub(crate) fn combine(
    left: &WalSet,
    right: &WalSet,
    operation: fn(&NumberRanges, &NumberRanges) -> NumberRanges,
) -> WalSet {
    let nothing = NumberRanges::nothing();
    left.iter().map(|(key, ranges)| (*key, operation(ranges, right.get(key).unwrap_or(&nothing)))).collect()
}
