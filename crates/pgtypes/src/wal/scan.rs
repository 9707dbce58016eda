//! `SegmentFacts`: the facts of one WAL segment, and searches for recovery targets.
//!
//! The facts are stored with the segment, as JSON. With them a catalog knows the times to which a cluster can be
//! recovered, and which segment contains a transaction, a time or a restore point, without reading WAL again. Empty
//! fields are left out, and fields may be added later; a reader takes a missing field as empty.
//!
//! Times are from the server's clock and need not grow with the LSN. Recovery to a time T ends before the first record
//! in LSN order with a time after T. Such a record is in the first segment whose `latest_time` is after T.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::version::PgVersion;
use crate::wal::ddl::{DdlFacts, DdlTracker};
use crate::wal::join::{HeadContinuation, TailFragment, join};
use crate::wal::reader::{ReadEnd, RecordReader, WalSegment};
use crate::wal::record::{Checkpoint, Event, RestorePoint, XactEnd};

/// The facts from the records that begin and end in one segment. A record that crosses a boundary of the segment is not
/// counted; its pieces are kept, and `SegmentFacts::join` adds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentFacts {
    /// The first end of a transaction in LSN order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_xact_end: Option<XactEnd>,
    /// The last end of a transaction in LSN order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_xact_end: Option<XactEnd>,
    /// The earliest time of an end of a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_time: Option<DateTime<Utc>>,
    /// The latest time of an end of a transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_time: Option<DateTime<Utc>>,
    /// The oldest transaction that ended, in the order of transaction ids, which wrap around.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_xid: Option<u32>,
    /// The newest transaction that ended, in the same order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_xid: Option<u32>,
    /// Number of commits, including those of prepared transactions.
    #[serde(skip_serializing_if = "is_zero")]
    pub commits: u64,
    /// Number of rollbacks, including those of prepared transactions.
    #[serde(skip_serializing_if = "is_zero")]
    pub aborts: u64,
    /// Restore points in LSN order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restore_points: Vec<RestorePoint>,
    /// Checkpoints in LSN order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// The start of the first record that is whole in this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_record_lsn: Option<Lsn>,
    /// The end of the last record that ends in this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_record_end: Option<Lsn>,
    /// Whether the segment was ended early by a switch.
    #[serde(skip_serializing_if = "is_false")]
    pub ends_with_switch: bool,
    /// Whether bytes that are not WAL follow the last record: the segment is partial, or damaged.
    #[serde(skip_serializing_if = "is_false")]
    pub is_incomplete: bool,
    /// The rest of the record that the segment before began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_continuation: Option<HeadContinuation>,
    /// The beginning of the record that ends in the segment after this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_fragment: Option<TailFragment>,
    /// What was dropped, truncated and rewritten; `None` if a release stored the facts that did not look for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ddl: Option<DdlFacts>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl SegmentFacts {
    /// Reads a segment from its first record to its last. Lists are bounded, so that the facts can be stored.
    pub fn scan(segment: WalSegment<'_>) -> Self {
        let mut facts = Self::of_records(segment.records(), Lsn::MAX);
        facts.ddl = facts.ddl.map(DdlFacts::bounded);
        facts
    }

    /// Reads the records that begin before `end`. All lists are complete, and so are the parts of records at the
    /// segment's boundaries.
    pub fn scan_whole(segment: WalSegment<'_>, end: Lsn) -> Self {
        Self::of_records(segment.records_with_whole_ends(), end)
    }

    fn of_records(mut records: RecordReader<'_>, end: Lsn) -> Self {
        let mut facts = Self::default();
        let (mut tracker, mut ddl) = (DdlTracker::default(), Vec::new());
        for record in records.by_ref().take_while(|record| record.lsn < end) {
            facts.first_record_lsn.get_or_insert(record.lsn);
            facts.last_record_end = Some(record.end_lsn);
            if let Some(event) = record.event {
                facts.add(event);
            }
            if let Some(record_of_ddl) = record.ddl {
                tracker.add(record.lsn, record.end_lsn, record_of_ddl, &mut ddl);
            }
        }
        facts.ddl = Some(tracker.into_facts(ddl));
        facts.is_incomplete = records.end() == Some(ReadEnd::Stopped);
        facts.head_continuation = records.head().cloned();
        facts.tail_fragment = records.tail().cloned();
        if facts.last_record_end.is_none() {
            facts.last_record_end = facts.head_continuation.as_ref().and_then(|head| head.end_lsn);
        }
        facts
    }

    /// The facts of the one record that crosses from the segment with `tail` into its neighbour with `head`. Empty if
    /// that record is not one that is reported.
    pub fn join(tail: &TailFragment, head: &HeadContinuation, version: PgVersion) -> Self {
        let mut facts = Self::default();
        if let Some(event) = join(tail, head, version) {
            facts.add(event);
        }
        facts
    }

    /// Adds the content of a record. Records must be added in LSN order.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::XactEnd(end) => self.add_xact_end(end),
            Event::RestorePoint(point) => self.restore_points.push(point),
            Event::Checkpoint(checkpoint) => self.checkpoints.push(checkpoint),
            Event::Switch { .. } => self.ends_with_switch = true,
        }
    }

    fn add_xact_end(&mut self, end: XactEnd) {
        self.first_xact_end.get_or_insert(end);
        self.last_xact_end = Some(end);
        self.earliest_time = Some(self.earliest_time.map_or(end.time, |time| time.min(end.time)));
        self.latest_time = Some(self.latest_time.map_or(end.time, |time| time.max(end.time)));
        if end.kind.is_commit() {
            self.commits += 1;
        } else {
            self.aborts += 1;
        }
        if let Some(xid) = end.xid {
            self.oldest_xid = Some(self.oldest_xid.filter(|oldest| !xid_precedes(xid, *oldest)).unwrap_or(xid));
            self.newest_xid = Some(self.newest_xid.filter(|newest| !xid_precedes(*newest, xid)).unwrap_or(xid));
        }
    }

    /// Whether the end of this transaction may be in the segment. `true` does not promise that it is there. `false`
    /// promises that it is not, except in the records that cross the segment's boundaries.
    pub fn may_end_xid(&self, xid: u32) -> bool {
        match (self.oldest_xid, self.newest_xid) {
            (Some(oldest), Some(newest)) => !xid_precedes(xid, oldest) && !xid_precedes(newest, xid),
            _ => false,
        }
    }
}

/// Whether transaction `a` is older than `b`, as `TransactionIdPrecedes` for normal transactions: ids wrap around, and
/// half of them are older than a given one.
pub const fn xid_precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The end of a transaction, as `recovery_target_xid` finds it: the first record that commits or rolls back exactly
/// this transaction, or the prepared transaction with this id. Subtransactions are not found.
///
/// Records that cross the segment's boundaries are not found; see `SegmentFacts::join`.
pub fn find_xact_end(segment: WalSegment<'_>, xid: u32) -> Option<XactEnd> {
    xact_ends(segment).find(|end| end.xid == Some(xid))
}

/// How a time is compared with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBound {
    /// The first record later than the target: where recovery with `recovery_target_inclusive = on` ends.
    After,
    /// The first record at the target or later: where recovery with `recovery_target_inclusive = off` ends.
    AtOrAfter,
}

/// The first end of a transaction after a time, in LSN order: recovery to the time ends before this record.
///
/// Records that cross the segment's boundaries are not found; see `SegmentFacts::join`.
pub fn find_first_after(segment: WalSegment<'_>, time: DateTime<Utc>, bound: TimeBound) -> Option<XactEnd> {
    xact_ends(segment).find(|end| match bound {
        TimeBound::After => end.time > time,
        TimeBound::AtOrAfter => end.time >= time,
    })
}

fn xact_ends(segment: WalSegment<'_>) -> impl Iterator<Item = XactEnd> {
    segment.records().filter_map(|record| match record.event {
        Some(Event::XactEnd(end)) => Some(end),
        _ => None,
    })
}
