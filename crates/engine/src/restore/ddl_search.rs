//! Finds what was dropped, truncated and rewritten in a run of archived WAL.
//!
//! The archiver stored this with the facts of each segment. A segment is read and scanned only if an earlier release
//! archived it, if it has more changes than facts can list, if the path leaves the timeline within it, or if a long
//! commit crosses its boundary.
//!
//! The newest segments come first, because a search may end at a time. Then the pieces are put together in LSN order:
//! a transaction may leave evidence in one segment and commit in another.

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_pgtypes::wal::ddl::{DdlChange, DdlEvent, DdlFacts, DdlTracker, RelationChanges};
use holdfast_pgtypes::wal::ddl_record::DdlRecord;
use holdfast_pgtypes::wal::join::{CrossingRecord, HeadContinuation, TailFragment};
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{Lsn, SegmentName};
use holdfast_repo::recovery::WalRun;

use super::lookup::{AT_ONCE, CLOCK_TOLERANCE, WalLookup};
use crate::error::Error;

/// The times between which changes are wanted, both included.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub(crate) since: Option<DateTime<Utc>>,
    pub(crate) until: Option<DateTime<Utc>>,
}

impl Span {
    /// Whether a change at this time is wanted. One whose time is not known is.
    fn holds(&self, time: Option<DateTime<Utc>>) -> bool {
        time.is_none_or(|time| {
            self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
        })
    }

    /// Whether all WAL before that of a transaction at this time is too early.
    fn begins_long_after(&self, time: Option<DateTime<Utc>>) -> bool {
        let long_after = |time: DateTime<Utc>| time.checked_add_signed(CLOCK_TOLERANCE);
        self.since.zip(time.and_then(long_after)).is_some_and(|(since, time)| time < since)
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct DdlSearch {
    /// The changes in LSN order. Lists may be bounded; [`WalLookup::complete`] makes them complete.
    pub(crate) events: Vec<DdlEvent>,
    /// The number of segments whose facts were looked at.
    pub(crate) segments: u64,
    /// The number of segments that were read as a whole.
    pub(crate) segments_read: u64,
}

/// The evidence of a segment, and of the record that begins in it and ends in a later one.
struct Piece {
    ddl: DdlFacts,
    crossing: Option<(Lsn, Lsn, DdlRecord)>,
}

impl WalLookup {
    /// The changes of a run.
    pub(crate) async fn ddl(&self, run: &WalRun, span: Span) -> Result<DdlSearch, Error> {
        let segments = self.segments(run, run.start_lsn);
        let mut search = DdlSearch::default();
        let mut pieces = Vec::new();
        // The parts of a record at the beginning of the segments that follow, up to the one in which it ends.
        let mut heads: Vec<HeadContinuation> = Vec::new();
        for batch in segments.rchunks(AT_ONCE) {
            let reads: Vec<_> = batch.iter().map(|segment| self.facts_with_ddl(*segment, run.end_lsn)).collect();
            let facts: Vec<(SegmentFacts, bool)> = stream::iter(reads).buffered(AT_ONCE).try_collect().await?;
            let latest = facts.iter().filter_map(|(facts, _)| facts.latest_time).max();
            search.segments += facts.len() as u64;
            search.segments_read += facts.iter().filter(|(_, was_read)| *was_read).count() as u64;
            for (segment, (facts, _)) in batch.iter().zip(facts).rev() {
                let mut crossing = None;
                if let Some(tail) = &facts.tail_fragment {
                    crossing = self.crossing(*segment, tail, &heads, run, &mut search).await?;
                }
                pieces.push(Piece { ddl: facts.ddl.unwrap_or_default(), crossing });
                match facts.head_continuation {
                    Some(head) if head.end_lsn.is_none() => heads.insert(0, head),
                    head => heads = head.into_iter().collect(),
                }
            }
            if span.begins_long_after(latest) {
                break;
            }
        }
        let mut tracker = DdlTracker::default();
        for piece in pieces.into_iter().rev() {
            search.events.extend(tracker.add_facts(piece.ddl));
            if let Some((lsn, end_lsn, record)) = piece.crossing {
                tracker.add(lsn, end_lsn, record, &mut search.events);
            }
        }
        search.events.extend(tracker.into_facts(Vec::new()).events);
        search.events.retain(|event| span.holds(event.time));
        search.events.sort_by_key(|event| event.lsn);
        Ok(search)
    }

    /// The facts about a segment's records before `end`, and whether the segment was read for them.
    async fn facts_with_ddl(&self, segment: SegmentName, end: Lsn) -> Result<(SegmentFacts, bool), Error> {
        let whole = segment.end_lsn(self.claim.wal_segment_size) <= end;
        if whole && let Some(facts) = self.stored_facts(segment).await? {
            let is_complete = facts.ddl.as_ref().is_some_and(|ddl| ddl.left_out == 0);
            if is_complete {
                return Ok((facts, false));
            }
        }
        Ok((self.scan(segment, move |segment| SegmentFacts::scan_whole(segment, end)).await?, true))
    }

    /// The record that begins at the end of `segment` and continues with `heads`. If facts hold only its beginning, its
    /// segments are read.
    async fn crossing(
        &self,
        segment: SegmentName,
        tail: &TailFragment,
        heads: &[HeadContinuation],
        run: &WalRun,
        search: &mut DdlSearch,
    ) -> Result<Option<(Lsn, Lsn, DdlRecord)>, Error> {
        let put_together = |tail: &TailFragment, heads: &[HeadContinuation]| {
            let begun = Some(CrossingRecord::begin(tail)).filter(|record| record.lsn() < run.end_lsn);
            let record = heads.iter().fold(begun, |record, head| record?.continue_with(head))?;
            let (ddl, end_lsn) = record.ddl(self.version)?;
            Some((record.lsn(), end_lsn, ddl))
        };
        let found = put_together(tail, heads);
        if !matches!(&found, Some((_, _, DdlRecord::XactEnd(effects))) if effects.is_cut && effects.is_commit) {
            return Ok(found);
        }
        let all = self.segments(run, segment.start_lsn(self.claim.wal_segment_size));
        let mut parts = Vec::new();
        for segment in all.into_iter().take(heads.len() + 1) {
            let end = run.end_lsn;
            parts.push(self.scan(segment, move |segment| SegmentFacts::scan_whole(segment, end)).await?);
            search.segments_read += 1;
        }
        let whole: Vec<HeadContinuation> = parts.iter().skip(1).filter_map(|f| f.head_continuation.clone()).collect();
        let tail = parts.first().and_then(|facts| facts.tail_fragment.as_ref());
        Ok(tail.and_then(|tail| put_together(tail, &whole)).or(found))
    }

    /// Adds what the facts of `segment` left out of the lists of one of its changes. Reads the segment.
    pub(crate) async fn complete(&self, segment: SegmentName, event: &mut DdlEvent) -> Result<(), Error> {
        let facts = self.scan(segment, |segment| SegmentFacts::scan_whole(segment, Lsn::MAX)).await?;
        let events = facts.ddl.map(|ddl| ddl.events).unwrap_or_default();
        let whole = events.into_iter().find(|found| found.lsn == event.lsn);
        if let (DdlChange::Relations(known), Some(DdlEvent { change: DdlChange::Relations(whole), .. })) =
            (&mut event.change, whole)
        {
            // Files that the transaction made in earlier segments are in no list of this one.
            let (created, truncated) = (known.created.clone(), known.truncated.clone());
            *known = RelationChanges { created, truncated, ..whole };
        }
        Ok(())
    }
}
