//! Compares neighbouring segments: by the facts that the archiver stored, or by their bytes.
//!
//! With [`Level::Shallow`], only the newest [`FACTS_READ`] segments of each line are compared, and those around a
//! change of timeline, since each costs two requests. With [`Level::Deep`], every segment is read to its last byte, or
//! every segment of the sample. A segment that several timelines share is read once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{FuturesOrdered, StreamExt};
use holdfast_contract::report::verify::{Level, Sample};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::{PgVersion, SegmentName, WalFileName, WalSegmentSize};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::record::ClaimRecord;
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use super::ends::{Ends, Joint, joint};
use crate::archive::{memory_needed, read_whole, wal_object_name};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::verify::is_chosen;

/// Segments that are looked at together.
const AT_ONCE: usize = 16;

/// How many of the newest segments of a line are compared by their facts, unless all are read: 16 GiB of WAL, and a few
/// seconds at 20 ms for each request.
const FACTS_READ: u64 = 1024;

/// How much of a segment is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Nothing,
    Facts,
    Bytes,
}

/// What was found at a segment.
#[derive(Debug)]
pub(super) enum Fault {
    /// It could not be read.
    Unreadable(SegmentName, Error),
    /// PostgreSQL cannot read it to its end.
    Unfinished(SegmentName),
    /// It is of another history than this one before it.
    Other { before: SegmentName, segment: SegmentName, reason: String },
}

/// Reads segments of one claim.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) repository: Repository,
    pub(super) crew: Crew,
    pub(super) budget: ByteBudget,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) read_bytes: Arc<AtomicU64>,
    pub(super) cancel: CancellationToken,
}

/// How much is compared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope {
    pub(super) level: Level,
    pub(super) sample: Option<Sample>,
}

/// One run of segments without a gap, from the first that a backup needs.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) segments: Vec<SegmentRange>,
    /// Whether it is the newest of its line.
    pub(super) is_newest: bool,
}

impl Row {
    fn number_at(&self, number: u64, size: WalSegmentSize) -> Option<SegmentName> {
        let holds = |range: &&SegmentRange| (range.first.number(size)..=range.last.number(size)).contains(&number);
        let range = self.segments.iter().find(holds)?;
        SegmentName::from_number(number, range.timeline, size)
    }

    /// The number of the last segment.
    fn last(&self, size: WalSegmentSize) -> u64 {
        self.segments.last().map_or(0, |range| range.last.number(size))
    }

    /// Whether a segment is the last of its timeline in this row, or the first of the next one.
    fn is_at_switch(&self, segment: SegmentName) -> bool {
        self.segments.windows(2).any(|pair| match pair {
            [old, new] => old.last == segment || new.first == segment,
            _ => false,
        })
    }
}

impl Reader {
    /// Compares the segments of a row that `seen` does not have, and adds them to it. Returns how many were compared
    /// with the one before them.
    ///
    /// # Errors
    /// Errors that say nothing about a segment: the store could not be asked, or the command was cancelled.
    pub(super) async fn compare(
        &self,
        claim: &ClaimRecord,
        row: &Row,
        wanted: Scope,
        seen: &mut WalInventory,
        faults: &mut Vec<Fault>,
    ) -> Result<u64, Error> {
        let Ok(version) = PgVersion::new(claim.pg_major) else { return Ok(0) };
        let size = claim.wal_segment_size;
        let mut compared = 0;
        for part in unseen(row, seen, size) {
            let mut names = part.predecessor.into_iter().chain(part.range.names(size)).peekable();
            let mut looks = FuturesOrdered::new();
            let mut before: Option<Ends> = None;
            loop {
                while looks.len() < AT_ONCE
                    && let Some(segment) = names.next()
                {
                    let is_new = Some(segment) != part.predecessor;
                    let look = self.look_of(claim, row, segment, wanted, is_new);
                    looks.push_back(self.ends(claim, version, segment, look));
                }
                let Some((segment, found)) = looks.next().await else { break };
                let is_new = Some(segment) != part.predecessor;
                let mut ends = match found {
                    Ok(ends) => ends,
                    // The other part of the archive has reported it.
                    Err(_) if !is_new => None,
                    Err(error) if is_of_the_segment(&error) => {
                        faults.push(Fault::Unreadable(segment, error));
                        None
                    }
                    Err(error) => return Err(error),
                };
                if let (Some(earlier), Some(own)) = (&before, &mut ends) {
                    compared += 1;
                    own.carry_from(earlier);
                    if joint(earlier, own, size) == Joint::NeedsBytes
                        && let Some(read) = self.ends(claim, version, segment, Depth::Bytes).await.1?
                    {
                        *own = read;
                        own.carry_from(earlier);
                    }
                    match joint(earlier, own, size) {
                        Joint::Other(reason) => {
                            faults.push(Fault::Other { before: earlier.name, segment, reason });
                        }
                        Joint::Unfinished => faults.push(Fault::Unfinished(earlier.name)),
                        Joint::Joined(_) | Joint::NeedsBytes | Joint::Unknown => {}
                    }
                }
                before = ends;
            }
            seen.add_range(part.range);
        }
        Ok(compared)
    }

    fn look_of(&self, claim: &ClaimRecord, row: &Row, segment: SegmentName, wanted: Scope, is_new: bool) -> Depth {
        let size = claim.wal_segment_size;
        let object = || wal_object_name(&self.repository, &claim.cluster, claim, &WalFileName::Segment(segment));
        let is_newest = row.is_newest && segment.number(size) + FACTS_READ > row.last(size);
        match wanted.level {
            Level::Deep if is_new && (wanted.sample.is_none() || is_chosen(wanted.sample, &object())) => Depth::Bytes,
            // One segment is read twice where two timelines part, rather than compared by its facts alone.
            Level::Deep if !is_new && wanted.sample.is_none() => Depth::Bytes,
            _ if is_newest || row.is_at_switch(segment) || !is_new => Depth::Facts,
            _ => Depth::Nothing,
        }
    }

    /// The two ends of a segment, as far as they should be known.
    pub(super) async fn ends(
        &self,
        claim: &ClaimRecord,
        version: PgVersion,
        segment: SegmentName,
        look: Depth,
    ) -> (SegmentName, Result<Option<Ends>, Error>) {
        let found = match look {
            Depth::Nothing => Ok(None),
            Depth::Facts => self.by_facts(claim, segment).await,
            Depth::Bytes => self.by_bytes(claim, version, segment).await,
        };
        (segment, found.doing(|| format!("looking at WAL segment {segment}")))
    }

    async fn by_facts(&self, claim: &ClaimRecord, segment: SegmentName) -> Result<Option<Ends>, Error> {
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let object = wal_object_name(&self.repository, &claim.cluster, claim, &WalFileName::Segment(segment));
        let facts = self.repository.wal_facts(&object).await?;
        Ok(serde_json::from_value(facts.facts).ok().and_then(|facts| Ends::of_facts(segment, &facts)))
    }

    /// The bytes of a segment, verified to the last one.
    pub(super) async fn whole(&self, claim: &ClaimRecord, segment: SegmentName) -> Result<Vec<u8>, Error> {
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let file = WalFileName::Segment(segment);
        let object = wal_object_name(&self.repository, &claim.cluster, claim, &file);
        let read = read_whole(&self.repository, claim, &object, &file, &self.crew).await;
        if let Some((bytes, _)) = read.doing(|| format!("reading WAL segment {segment}"))? {
            return Ok(bytes);
        }
        let (store, detail) = (self.repository.describe(), "a listing named it".to_owned());
        let missing = Failure { store, name: object, operation: Operation::Get, detail, source: None };
        Err(StoreError::new(StoreErrorKind::NotFound, missing).into())
    }

    async fn by_bytes(
        &self,
        claim: &ClaimRecord,
        version: PgVersion,
        segment: SegmentName,
    ) -> Result<Option<Ends>, Error> {
        let _permit = self.budget.acquire(memory_needed(claim, WalFileName::Segment(segment))).await;
        let bytes = self.whole(claim, segment).await?;
        self.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.progress.advance(bytes.len() as u64);
        let size = claim.wal_segment_size;
        let ends =
            self.crew.run(move || Ends::scan(WalSegment { bytes: &bytes, name: segment, size, version })).await?;
        Ok(Some(ends))
    }
}

/// Whether an error says something about the segment, and not about the store or this machine.
pub(super) fn is_of_the_segment(error: &Error) -> bool {
    use crate::verify::judge::{Judged, judge};
    judge(error, "") != Judged::Nothing
}

/// Segments to look at, and the one before them, which was looked at before.
struct Part {
    predecessor: Option<SegmentName>,
    range: SegmentRange,
}

/// The parts of a row that were not looked at.
fn unseen(row: &Row, seen: &WalInventory, size: WalSegmentSize) -> Vec<Part> {
    let parts = row.segments.iter().flat_map(|range| seen.holes(range.first, range.last));
    let with_predecessor = parts.map(|range| {
        let before = range.first.number(size).checked_sub(1);
        Part { predecessor: before.and_then(|number| row.number_at(number, size)), range }
    });
    with_predecessor.collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use holdfast_pgtypes::TimelineId;

    use super::*;

    #[test]
    fn what_two_timelines_share_is_looked_at_once() {
        let size = WalSegmentSize::DEFAULT;
        let timeline = |number| TimelineId::new(number).unwrap();
        let range = |on, first, last| SegmentRange::new(timeline(on), first, last, size).unwrap();
        let old = Row { segments: vec![range(1, 3, 9)], is_newest: true };
        let new = Row { segments: vec![range(1, 3, 6), range(2, 7, 9)], is_newest: true };
        let mut seen = WalInventory::new(size);
        let parts = |row: &Row, seen: &WalInventory| {
            let parts = unseen(row, seen, size).into_iter();
            parts
                .map(|part| (part.predecessor.map(|name| name.to_string()), part.range.to_string()))
                .collect::<Vec<_>>()
        };
        let name = |on: u32, number: u64| SegmentName::from_number(number, timeline(on), size).unwrap().to_string();
        assert_eq!(parts(&old, &seen), [(None, format!("{}..{} (7)", name(1, 3), name(1, 9)))]);
        seen.add_range(range(1, 3, 9));
        assert_eq!(parts(&new, &seen), [(Some(name(1, 6)), format!("{}..{} (3)", name(2, 7), name(2, 9)))]);
    }
}
