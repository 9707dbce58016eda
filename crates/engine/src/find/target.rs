//! Describes the record at which a recovery to a target stops.

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal_find::{FoundPlace, FoundWhat, StopSide};
use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::recovery_target::RecoveryTarget;
use holdfast_pgtypes::wal::record::{Event, XactEnd};
use holdfast_repo::recovery::{RecoveryPath, RecoveryPlan, TargetFacts, WalRun};

use super::restore_flags::FlagsFinder;
use crate::error::Error;
use crate::restore::WalLookup;

/// The place of a target that a plan reaches. Reads the segment in which it is.
pub(super) async fn describe(
    lookup: &WalLookup,
    path: &RecoveryPath,
    target: &RecoveryTarget,
    plan: &RecoveryPlan,
    ways: &FlagsFinder<'_>,
    facts: &TargetFacts,
) -> Result<FoundPlace, Error> {
    let lsn = plan.target_lsn.unwrap_or(plan.consistent_lsn);
    let size = lookup.claim.wal_segment_size;
    let segment = path.ancestry().segment_containing(lsn, size);
    let end = path.runs().iter().find(|run| run.contains(lsn)).map_or(Lsn::MAX, |run: &WalRun| run.end_lsn);
    let mut events = lookup.events(segment, end).await?;
    let next = path.ancestry().segment_containing(segment.end_lsn(size), size);
    events.extend(lookup.crossing_into(next, segment, end).await?);
    let here = events.iter().find(|event| start_of(event) == lsn);
    let before: Option<DateTime<Utc>> =
        events.iter().filter_map(xact_end).filter(|e| e.lsn < lsn).map(|e| e.time).next_back();
    let (what, time, xid) = match (target, here) {
        (RecoveryTarget::Lsn(_), _) => (FoundWhat::Position, before, None),
        (_, Some(Event::XactEnd(end))) if end.kind.is_commit() => (FoundWhat::Commit, Some(end.time), end.xid),
        (_, Some(Event::XactEnd(end))) => (FoundWhat::Rollback, Some(end.time), end.xid),
        (_, Some(Event::RestorePoint(point))) => (FoundWhat::RestorePoint, Some(point.time), None),
        _ => (FoundWhat::Unknown, before, None),
    };
    let name = match target {
        RecoveryTarget::Name(name) => Some(name.clone()),
        _ => None,
    };
    let sides: &[StopSide] = match target {
        RecoveryTarget::Xid(_) | RecoveryTarget::Lsn(_) => &[StopSide::Before, StopSide::After],
        _ => &[StopSide::After],
    };
    let mut found: Vec<_> = sides.iter().map(|side| ways.to(target, *side, Some(facts))).collect();
    if let RecoveryTarget::Time(_) = target {
        // Recovery to a time stops before the first transaction after it, which is the place that is shown.
        for way in &mut found {
            way.stops = StopSide::Before;
        }
    }
    Ok(FoundPlace { timeline: segment.timeline(), segment, lsn, time, xid, what, name, change: None, ways: found })
}

fn xact_end(event: &Event) -> Option<&XactEnd> {
    match event {
        Event::XactEnd(end) => Some(end),
        _ => None,
    }
}

fn start_of(event: &Event) -> Lsn {
    match event {
        Event::XactEnd(end) => end.lsn,
        Event::RestorePoint(point) => point.lsn,
        Event::Checkpoint(checkpoint) => checkpoint.lsn,
        Event::Switch { lsn } => *lsn,
    }
}
