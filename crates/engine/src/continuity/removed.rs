//! Which missing WAL `expire` removed, so that it is no gap.
//!
//! Of a backup outside of the window, `expire` keeps the WAL from its start to its stop, and removes all WAL up to the
//! start of the next kept backup. The ledger says that it removed WAL, and not which. So missing segments count as
//! removed only if they reach exactly from the stop of one backup to the start of another.

use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::LedgerKind;
use holdfast_repo::record::{ClaimRecord, LedgerEntry, SnapshotRecord};
use holdfast_repo::recovery::Beginning;

use crate::error::Error;
use crate::repository::Repository;

/// What is known about WAL of a claim that `expire` removed.
#[derive(Debug, Clone, Default)]
pub(super) struct Removed {
    /// Whether `expire` ever removed WAL of this cluster.
    ever: bool,
    /// The first and the last segment number of each backup and snapshot.
    kept: Vec<(u64, u64)>,
    /// The segments that a run of `expire` is removing, or was removing when it was killed.
    going: Vec<SegmentRange>,
}

impl Removed {
    /// Reads what the ledger says.
    pub(super) async fn read(
        repository: &Repository,
        claim: &ClaimRecord,
        backups: &[Beginning],
        snapshots: &[SnapshotRecord],
    ) -> Result<Self, Error> {
        let (cluster, size) = (&claim.cluster, claim.wal_segment_size);
        let (removals, removing) = tokio::try_join!(
            repository.ledger_names(cluster, LedgerKind::Removal),
            repository.ledger(cluster, LedgerKind::Removing)
        )?;
        let kept = backups.iter().cloned().chain(snapshots.iter().map(Beginning::from));
        let kept = kept.filter(|begins| begins.claim == claim.number);
        let kept = kept.map(|begins| (begins.start_segment.number(size), begins.stop_segment.number(size)));
        let going = removing.records.into_iter().filter_map(|(_, record)| match record.entry {
            LedgerEntry::Removing { wal, .. } => Some(wal),
            _ => None,
        });
        let going = going.flatten().filter(|wal| wal.claim == claim.number).filter_map(|wal| {
            SegmentRange::new(wal.first.timeline(), wal.first.number(size), wal.last.number(size), size)
        });
        Ok(Self { ever: !removals.is_empty(), kept: kept.collect(), going: going.collect() })
    }

    /// Whether these missing segments, both included, are all WAL between the stop of one kept backup and the start of
    /// another.
    pub(super) fn is_between_backups(&self, first: u64, last: u64) -> bool {
        self.ever
            && self.kept.iter().any(|(_, stop)| stop + 1 == first)
            && self.kept.iter().any(|(start, _)| *start == last + 1)
    }

    /// Whether a run of `expire` is removing these segments.
    pub(super) fn is_going(&self, range: &SegmentRange) -> bool {
        self.going
            .iter()
            .any(|going| going.timeline == range.timeline && going.first <= range.first && range.last <= going.last)
    }
}
