//! [`Needed`]: from where on a hole in the archive counts, and which holes do not count.

use std::collections::BTreeMap;

use holdfast_pgtypes::{Ancestry, Lsn, SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::name::LedgerKind;
use holdfast_repo::record::{ClaimRecord, LedgerEntry};
use holdfast_repo::recovery::Beginning;
use holdfast_retention::NumberRanges;

use crate::error::Error;
use crate::repository::Repository;

/// What a recovery to the present needs of one repository's WAL.
#[derive(Debug, Clone, Default)]
pub(super) struct Needed {
    /// The start of the newest backup or snapshot on the server's path; `None` if there is none.
    pub(super) from: Option<Lsn>,
    /// The segments whose absence somebody has accepted.
    accepted: BTreeMap<TimelineId, NumberRanges>,
}

impl Needed {
    /// Reads the newest backup or snapshot that leads to the server's timeline, and the accepted gaps.
    ///
    /// # Errors
    /// [`Cause::Store`](crate::Cause::Store) if the store cannot be asked.
    pub(super) async fn read(repository: &Repository, claim: &ClaimRecord, path: &Ancestry) -> Result<Self, Error> {
        let mut needed = Self { from: newest_start(repository, claim, path).await?, ..Self::default() };
        let size = claim.wal_segment_size;
        for (_, record) in repository.ledger(&claim.cluster, LedgerKind::Gap).await?.records {
            if let LedgerEntry::Gap { claim: of, first, last, accepted: true, .. } = record.entry
                && of == claim.number
                && first.timeline() == last.timeline()
            {
                needed.accept(first.timeline(), first.number(size), last.number(size));
            }
        }
        Ok(needed)
    }

    /// Everything from an LSN on.
    #[cfg(test)]
    pub(super) fn beginning(from: Lsn) -> Self {
        Self { from: Some(from), ..Self::default() }
    }

    /// Adds segments whose absence was accepted, by their numbers, both included.
    pub(super) fn accept(&mut self, timeline: TimelineId, first: u64, last: u64) {
        let known = self.accepted.entry(timeline).or_default();
        *known = known.iter().chain([(first, last)]).collect();
    }

    /// Whether the absence of the segment was accepted.
    pub(super) fn is_accepted(&self, segment: SegmentName, size: WalSegmentSize) -> bool {
        let accepted = self.accepted.get(&segment.timeline());
        accepted.is_some_and(|numbers| numbers.holding(segment.number(size)).is_some())
    }
}

/// The start of the newest backup or snapshot on the path. A record that cannot be read counts for nothing: then more
/// WAL is looked at.
async fn newest_start(repository: &Repository, claim: &ClaimRecord, path: &Ancestry) -> Result<Option<Lsn>, Error> {
    let leads_here = |begins: &Beginning| begins.claim == claim.number && begins.is_on(path);
    let snapshots = repository.snapshots(&claim.cluster).await?.records;
    let snapshots = snapshots.iter().map(Beginning::from).filter(leads_here).map(|begins| begins.start_lsn);
    let of_snapshots = snapshots.max();
    // The ids of backups are in the order of their starts, and one record is usually enough.
    for backup in repository.listed(&claim.cluster).await?.complete().rev() {
        match repository.backup(&claim.cluster, backup).await {
            Ok(record) => {
                let begins = Beginning::from(&record);
                if leads_here(&begins) {
                    return Ok(of_snapshots.max(Some(begins.start_lsn)));
                }
            }
            Err(error) if error.is_of_one_object() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(of_snapshots)
}
