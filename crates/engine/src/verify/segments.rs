//! Reads WAL segments as `wal get` does: checksums, authentication, length, hash, and the header of the first page.

use futures::stream::{FuturesUnordered, StreamExt};
use holdfast_contract::report::verify::Sample;
use holdfast_pgtypes::{SegmentName, WalFileName};
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::record::ClaimRecord;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use super::is_chosen;
use super::judge::{Judged, judge};
use super::packs::Reader;
use crate::archive::{look_at, memory_needed, wal_object_name};
use crate::error::{Cause, Error};

/// Segments that are read at the same time, within the budget.
const AT_ONCE: usize = 16;

/// The result of reading segments.
#[derive(Debug, Default)]
pub(super) struct SegmentsRead {
    /// The number of segments that were read.
    pub(super) count: u64,
    /// The segments that are not sound, with their errors.
    pub(super) faults: Vec<(SegmentName, Error)>,
}

impl SegmentsRead {
    fn settle(&mut self, segment: SegmentName, read: Result<(), Error>) -> Result<(), Error> {
        match read {
            Ok(()) => {}
            Err(error) if judge(&error, "") != Judged::Nothing => self.faults.push((segment, error)),
            Err(error) => return Err(error),
        }
        self.count += 1;
        Ok(())
    }
}

impl Reader {
    /// Reads the segments of these ranges, or only those in the sample.
    ///
    /// # Errors
    /// Only errors that say nothing about a segment: the store could not be asked, or the command was cancelled.
    pub(super) async fn read_segments(
        &self,
        claim: &ClaimRecord,
        ranges: &[SegmentRange],
        sample: Option<Sample>,
    ) -> Result<SegmentsRead, Error> {
        let size = claim.wal_segment_size;
        let mut found = SegmentsRead::default();
        let mut reads = FuturesUnordered::new();
        for range in ranges {
            for number in range.first.number(size)..=range.last.number(size) {
                let Some(segment) = SegmentName::from_number(number, range.timeline, size) else { continue };
                let file = WalFileName::Segment(segment);
                if !is_chosen(sample, &wal_object_name(&self.repository, &claim.cluster, claim, &file)) {
                    continue;
                }
                if reads.len() >= AT_ONCE
                    && let Some((segment, read)) = reads.next().await
                {
                    found.settle(segment, read)?;
                }
                reads.push(self.read_named(claim, segment));
            }
        }
        while let Some((segment, read)) = reads.next().await {
            found.settle(segment, read)?;
        }
        drop(reads);
        found.faults.sort_unstable_by_key(|(segment, _)| *segment);
        Ok(found)
    }

    async fn read_named(&self, claim: &ClaimRecord, segment: SegmentName) -> (SegmentName, Result<(), Error>) {
        (segment, self.read_segment(claim, segment).await)
    }

    async fn read_segment(&self, claim: &ClaimRecord, segment: SegmentName) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let file = WalFileName::Segment(segment);
        let _permit = self.stored.acquire(memory_needed(claim, file)).await;
        if let Some(bytes) = look_at(&self.repository, claim, &file, &self.crew).await? {
            self.count(bytes);
            return Ok(());
        }
        let name = wal_object_name(&self.repository, &claim.cluster, claim, &file);
        let store = self.repository.describe();
        let detail = "a listing named it".to_owned();
        let missing = Failure { store, name, operation: Operation::Get, detail, source: None };
        Err(StoreError::new(StoreErrorKind::NotFound, missing).into())
    }
}
