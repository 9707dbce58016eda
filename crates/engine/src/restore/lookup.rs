//! Answers the recovery planner's questions about the archived WAL: the last transaction before a time, and the records
//! of a transaction or restore point.
//!
//! The archiver stored the facts of each segment at the end of its object, so reading them costs two small requests.
//! The search begins with the newest segments, reads many at a time, and ends as soon as the answer is certain. A
//! restore point needs no more. For a time, the segment in which recovery stops is fetched and scanned, unless it stops
//! at the segment's first transaction or there are at most two. For a transaction, the segments between whose oldest
//! and newest transaction it is are, unless they have at most two. A segment without facts is always scanned. A record
//! that crosses into the next segment is found from the facts of both.

use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::wal::join::{HeadContinuation, join};
use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::wal::record::{Event, XactEnd};
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_pgtypes::{Lsn, PgVersion, SegmentName, WalFileName};
use holdfast_repo::name::{self, BackupId};
use holdfast_repo::record::ClaimRecord;
use holdfast_repo::recovery::{FactsNeeded, RecoveryPath, RecoveryRequest, RunFacts, TargetFacts, WalRun};
use holdfast_repo::wal_object;
use tokio_util::sync::CancellationToken;

use crate::archive::tail;
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::{Repository, object_name};

/// Segments read at the same time, with two small requests each: enough to hide latency, few enough to avoid
/// throttling.
pub(super) const AT_ONCE: usize = 16;

/// How far the clock of a server may have gone backwards between two transactions: a search for a time ends only when
/// it is this far past the target.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::hours(1);

/// Looks into the WAL of one claim.
#[derive(Clone)]
pub(crate) struct WalLookup {
    pub(crate) repository: Repository,
    pub(crate) claim: Arc<ClaimRecord>,
    pub(crate) version: PgVersion,
    pub(crate) crew: Crew,
    pub(crate) cancel: CancellationToken,
}

impl WalLookup {
    /// The facts that the planner needs for a request.
    pub(crate) async fn target_facts(
        &self,
        path: &RecoveryPath,
        request: &RecoveryRequest,
        progress: &dyn Progress,
    ) -> Result<TargetFacts, Error> {
        match (path.facts_needed(), &request.target) {
            (FactsNeeded::LastTransaction, RecoveryTarget::Time(time)) => {
                progress.phase("looking for the target time in the archived WAL", None);
                self.time_facts(path, request, *time)
                    .await
                    .doing(|| format!("looking for {} in the WAL", request.target))
            }
            (FactsNeeded::TargetRecords, _) => {
                progress.phase("looking for the target in the archived WAL", None);
                self.record_facts(path, request).await.doing(|| format!("looking for {} in the WAL", request.target))
            }
            _ => Ok(TargetFacts::default()),
        }
    }

    /// For a target time: the last transaction of each run that has a backup, and where recovery would stop.
    async fn time_facts(
        &self,
        path: &RecoveryPath,
        request: &RecoveryRequest,
        time: DateTime<Utc>,
    ) -> Result<TargetFacts, Error> {
        let mut facts = TargetFacts::default();
        for (index, run) in path.runs().iter().enumerate() {
            let mut known = RunFacts::default();
            let candidates =
                path.candidates().iter().filter(|c| c.run == index && is_eligible(request, c.backup.backup_id));
            let starts: Vec<(Lsn, DateTime<Utc>)> =
                candidates.map(|c| (c.backup.start_lsn, c.backup.stop_time)).collect();
            if let Some(oldest) = starts.iter().map(|(start, _)| *start).min() {
                known.last_transaction_time = self.last_transaction(run, oldest, time).await?;
                let passes = |last: DateTime<Utc>| if request.inclusive { last > time } else { last >= time };
                // The planner will choose the newest backup that is consistent before the target.
                let chosen = starts.iter().filter(|(_, stop)| *stop <= time).map(|(start, _)| *start).max();
                if let Some(start) = chosen.filter(|_| known.last_transaction_time.is_some_and(passes)) {
                    facts.records.extend(self.first_after(run, start, &passes).await?);
                }
            }
            facts.runs.push(known);
        }
        Ok(facts)
    }

    /// The latest transaction of a run, as far as it matters for `time`: a transaction after `time` ends the search.
    pub(super) async fn last_transaction(
        &self,
        run: &WalRun,
        start: Lsn,
        time: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        let mut latest: Option<DateTime<Utc>> = None;
        let mut next_head = None;
        let segments = self.segments(run, start);
        for batch in segments.rchunks(AT_ONCE) {
            let facts = self.batch(batch, run.end_lsn).await?;
            let crossing = self.crossings(&facts, &mut next_head, run.end_lsn);
            let ends = facts.iter().filter_map(|f| f.latest_time).chain(crossing.iter().filter_map(time_of));
            let of_batch = ends.max();
            latest = latest.max(of_batch);
            let past = latest.is_some_and(|latest| latest > time);
            let far_before = of_batch
                .is_some_and(|latest| latest.checked_add_signed(CLOCK_TOLERANCE).is_some_and(|latest| latest < time));
            if past || far_before {
                break;
            }
        }
        Ok(latest)
    }

    /// The first end of a transaction after the target, found by bisection. If the clock has jumped, an earlier one may
    /// be missed: then the plan names more WAL than recovery reads, never less.
    async fn first_after(
        &self,
        run: &WalRun,
        start: Lsn,
        passes: &(dyn Fn(DateTime<Utc>) -> bool + Sync),
    ) -> Result<Option<Lsn>, Error> {
        let segments = self.segments(run, start);
        let (mut low, mut high) = (0, segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(segment) = segments.get(middle) else { break };
            let facts = self.facts(*segment, run.end_lsn).await?;
            if facts.latest_time.is_some_and(passes) { high = middle } else { low = middle + 1 }
        }
        // The record that crosses into the segment comes first.
        let around: Vec<SegmentName> =
            segments.get(low.saturating_sub(1)..segments.len().min(low + 1)).unwrap_or_default().to_vec();
        let facts = self.batch(&around, run.end_lsn).await?;
        let crossing = self.crossings(&facts, &mut None, run.end_lsn);
        let crossed = crossing.iter().filter(|event| time_of(event).is_some_and(passes)).filter_map(lsn_of).min();
        if crossed.is_some() {
            return Ok(crossed);
        }
        let Some(segment) = segments.get(low) else { return Ok(None) };
        let facts = self.facts(*segment, run.end_lsn).await?;
        if let Some(lsn) = facts.first_xact_end.filter(|end| passes(end.time)).map(|end| end.lsn) {
            return Ok(Some(lsn));
        }
        if let Some(mut ends) = all_ends(&facts) {
            return Ok(ends.find(|end| passes(end.time)).map(|end| end.lsn));
        }
        let events = self.events(*segment, run.end_lsn).await?;
        Ok(events.iter().filter(|event| time_of(event).is_some_and(passes)).filter_map(lsn_of).min())
    }

    /// The records of a transaction or of the restore points of a name.
    async fn record_facts(&self, path: &RecoveryPath, request: &RecoveryRequest) -> Result<TargetFacts, Error> {
        let mut found = TargetFacts::default();
        for (index, run) in path.runs().iter().enumerate().rev() {
            let eligible: Vec<_> = path
                .candidates()
                .iter()
                .filter(|c| c.run == index && is_eligible(request, c.backup.backup_id))
                .map(|c| &c.backup)
                .collect();
            let Some(oldest) = eligible.iter().map(|backup| backup.start_lsn).min() else { continue };
            let segments = self.segments(run, oldest);
            let mut next_head = None;
            for batch in segments.rchunks(AT_ONCE) {
                let facts = self.batch(batch, run.end_lsn).await?;
                let crossing = self.crossings(&facts, &mut next_head, run.end_lsn);
                found
                    .records
                    .extend(crossing.iter().filter(|event| is_target(event, &request.target)).filter_map(lsn_of));
                for (segment, facts) in batch.iter().zip(&facts) {
                    self.records_in(*segment, facts, &request.target, run.end_lsn, &mut found.records).await?;
                }
                // Recovery stops at the first such record. That is certain once all WAL after the start of the chosen
                // backup has been searched.
                let Some(first) = found.records.iter().min() else { continue };
                let chosen = eligible.iter().filter(|b| b.stop_lsn <= *first).max_by_key(|b| b.stop_lsn);
                let reached = batch.first().map(|segment| segment.start_lsn(self.claim.wal_segment_size));
                if chosen.is_some_and(|chosen| reached.is_some_and(|reached| reached <= chosen.start_lsn)) {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    async fn records_in(
        &self,
        segment: SegmentName,
        facts: &SegmentFacts,
        target: &RecoveryTarget,
        end: Lsn,
        records: &mut Vec<Lsn>,
    ) -> Result<(), Error> {
        match target {
            RecoveryTarget::Name(name) => {
                records.extend(facts.restore_points.iter().filter(|point| point.name == *name).map(|point| point.lsn));
            }
            RecoveryTarget::Xid(xid) if facts.may_end_xid(*xid as u32) => {
                if let Some(ends) = all_ends(facts) {
                    records.extend(ends.filter(|end| end.xid == Some(*xid as u32)).map(|end| end.lsn));
                    return Ok(());
                }
                // Only the segment itself shows which transactions are between the oldest and the newest.
                let events = self.events(segment, end).await?;
                records.extend(events.iter().filter(|event| is_target(event, target)).filter_map(lsn_of));
            }
            _ => {}
        }
        Ok(())
    }

    /// The records that cross between segments of a batch, and from its last segment into the previously read batch,
    /// whose first head is in `next_head`.
    fn crossings(&self, facts: &[SegmentFacts], next_head: &mut Option<HeadContinuation>, end: Lsn) -> Vec<Event> {
        let heads = facts.iter().skip(1).map(|f| f.head_continuation.as_ref()).chain([next_head.as_ref()]);
        let events: Vec<Event> = facts
            .iter()
            .zip(heads)
            .filter_map(|(facts, head)| join(facts.tail_fragment.as_ref()?, head?, self.version))
            .filter(|event| lsn_of(event).is_none_or(|lsn| lsn < end))
            .collect();
        *next_head = facts.first().and_then(|f| f.head_continuation.clone());
        events
    }

    /// The record that begins in a segment and ends in the next one of the path, if it is reported.
    pub(crate) async fn crossing_into(
        &self,
        next: SegmentName,
        segment: SegmentName,
        end: Lsn,
    ) -> Result<Option<Event>, Error> {
        let Some(tail) = self.facts(segment, end).await?.tail_fragment else { return Ok(None) };
        if next.start_lsn(self.claim.wal_segment_size) >= end {
            return Ok(None);
        }
        let head = self.facts(next, end).await?.head_continuation;
        Ok(head.and_then(|head| join(&tail, &head, self.version)))
    }

    /// The segments of a run, beginning with the one that holds `start`.
    pub(super) fn segments(&self, run: &WalRun, start: Lsn) -> Vec<SegmentName> {
        let size = self.claim.wal_segment_size;
        run.segments
            .iter()
            .flat_map(|range| range.names(size))
            .filter(|segment| segment.end_lsn(size) > start)
            .collect()
    }

    async fn batch(&self, segments: &[SegmentName], end: Lsn) -> Result<Vec<SegmentFacts>, Error> {
        let each = segments.iter().map(|segment| self.facts(*segment, end));
        stream::iter(each.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect().await
    }

    /// The facts of a segment about its records before `end`.
    async fn facts(&self, segment: SegmentName, end: Lsn) -> Result<SegmentFacts, Error> {
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let whole = segment.end_lsn(self.claim.wal_segment_size) <= end;
        if whole && let Some(facts) = self.stored_facts(segment).await? {
            return Ok(facts);
        }
        let mut facts = self.scan(segment, SegmentFacts::scan).await?;
        if !whole {
            // The path leaves the timeline in this segment: later records belong to an abandoned branch.
            let mut before =
                SegmentFacts { head_continuation: facts.head_continuation.take(), ..SegmentFacts::default() };
            for event in self.events(segment, end).await? {
                before.add(event);
            }
            return Ok(before);
        }
        Ok(facts)
    }

    /// The facts that the archiver stored. `None` if it did not read the records or the facts cannot be used: then the
    /// segment itself is read and verified.
    pub(super) async fn stored_facts(&self, segment: SegmentName) -> Result<Option<SegmentFacts>, Error> {
        match self.stored_facts_inner(segment).await {
            Err(error) if matches!(&*error.what, Cause::Format(_)) => {
                tracing::debug!(%segment, %error, "the facts of a segment cannot be used, so it is read");
                Ok(None)
            }
            // It may be a segment of the tail, which has pieces only.
            Err(error) if error.is_not_found() => Ok(None),
            found => found,
        }
    }

    async fn stored_facts_inner(&self, segment: SegmentName) -> Result<Option<SegmentFacts>, Error> {
        let facts = self.repository.wal_facts(&self.object(segment)).await?;
        let facts: Option<SegmentFacts> = serde_json::from_value(facts.facts).ok();
        // In every segment a record begins or ends. If the facts name neither, the archiver stored a note instead.
        Ok(facts.filter(|facts| facts.first_record_lsn.is_some() || facts.last_record_end.is_some()))
    }

    /// The reported records of a segment before `end`.
    pub(crate) async fn events(&self, segment: SegmentName, end: Lsn) -> Result<Vec<Event>, Error> {
        self.scan(segment, move |segment| {
            let records = segment.records().take_while(|record| record.lsn < end);
            records.filter_map(|record| record.event).collect()
        })
        .await
    }

    pub(super) async fn scan<T: Send + 'static>(
        &self,
        segment: SegmentName,
        look: impl FnOnce(WalSegment<'_>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if self.cancel.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let object = self.object(segment);
        let reading = || format!("reading WAL segment {segment}");
        let most = wal_object::Bounds::of_archive(self.claim.wal_segment_size);
        let bytes = self.repository.store().get_at_most(&object_name(&object)?, most.object_bytes()).await;
        let bytes = bytes.doing(reading);
        let (repository, size, version) = (self.repository.clone(), self.claim.wal_segment_size, self.version);
        if bytes.as_ref().is_err_and(Error::is_not_found)
            && let Some(raw) = tail::unfinished_segment(&repository, &self.claim, segment, &self.crew).await?
        {
            return self.crew.run(move || look(WalSegment { bytes: &raw, name: segment, size, version })).await;
        }
        let bytes = bytes?;
        self.crew
            .run(move || {
                let (raw, _) = wal_object::decode_within(most, &object, &bytes, repository.id(), repository.key())?;
                Ok::<_, Error>(look(WalSegment { bytes: &raw, name: segment, size, version }))
            })
            .await?
            .doing(reading)
    }

    fn object(&self, segment: SegmentName) -> String {
        name::wal_file(
            &self.claim.cluster,
            self.claim.number,
            &WalFileName::Segment(segment),
            self.claim.wal_codec,
            self.repository.is_encrypted(),
        )
    }
}

fn is_eligible(request: &RecoveryRequest, backup: BackupId) -> bool {
    request.backup.is_none_or(|named| named == backup)
}

fn is_target(event: &Event, target: &RecoveryTarget) -> bool {
    match (event, target) {
        // PostgreSQL compares the lower 32 bits, which is all that a record holds.
        (Event::XactEnd(end), RecoveryTarget::Xid(xid)) => end.xid == Some(*xid as u32),
        (Event::RestorePoint(point), RecoveryTarget::Name(name)) => point.name == *name,
        _ => false,
    }
}

/// The ends of all transactions of a segment, if its facts have them: the first and the last.
fn all_ends(facts: &SegmentFacts) -> Option<impl Iterator<Item = XactEnd>> {
    let all = facts.commits + facts.aborts;
    let last = facts.last_xact_end.filter(|_| all == 2);
    (all <= 2).then(|| facts.first_xact_end.into_iter().chain(last))
}

fn time_of(event: &Event) -> Option<DateTime<Utc>> {
    match event {
        Event::XactEnd(end) => Some(end.time),
        _ => None,
    }
}

fn lsn_of(event: &Event) -> Option<Lsn> {
    match event {
        Event::XactEnd(end) => Some(end.lsn),
        Event::RestorePoint(point) => Some(point.lsn),
        _ => None,
    }
}
