//! The plan itself: its JSON form, and that it never lacks a segment that PostgreSQL would read.

use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{Ancestry, Lsn, SegmentName};
use proptest::prelude::*;

use super::{SIZE, World, half, id, timeline, with, world};
use crate::recovery::RecoveryPlan;

#[test]
fn a_plan_is_json() {
    let plan = with(world(), |w| {
        w.request.backup = Some(id(30));
        w.request.target = RecoveryTarget::Lsn(half(13));
    })
    .plan()
    .unwrap();
    assert_eq!(
        serde_json::to_value(&plan).unwrap(),
        serde_json::json!({
            "begins_with": "backup",
            "backup": "20260822T103000Z",
            "backup_timeline": 2,
            "timeline": 3,
            "start_lsn": "0/A800000",
            "consistent_lsn": "0/B800000",
            "target_lsn": "0/D800000",
            "segments": [
                {"timeline": 2, "first": "00000002000000000000000A", "last": "00000002000000000000000C", "count": 3},
                {"timeline": 3, "first": "00000003000000000000000D", "last": "00000003000000000000000E", "count": 2},
            ],
            "segment_count": 5,
            "wal_bytes": 5 << 24,
            "history_files": [2, 3],
            "window": {
                "timeline": 3,
                "first_backup": "20260822T101000Z",
                "from_lsn": "0/3800000",
                "from_time": "2026-08-22T10:12:00Z",
                "to_lsn": "0/13000000",
                "to_time": "2026-08-22T10:50:00Z",
            },
            "other_lines": [
                {
                    "timeline": 1,
                    "parts_at": "0/8800000",
                    "backup": null,
                    "backup_stop_time": null,
                    "wal_end": "0/B000000",
                    "wal_stored": null,
                    "newer": "nothing",
                },
                {
                    "timeline": 2,
                    "parts_at": "0/D800000",
                    "backup": null,
                    "backup_stop_time": null,
                    "wal_end": "0/F000000",
                    "wal_stored": null,
                    "newer": "nothing",
                },
            ],
        })
    );
    let error = with(world(), |w| w.remove(3, 17)).plan().unwrap_err();
    let error = serde_json::to_value(&error).unwrap();
    assert_eq!(error["reason"], "hole");
    assert_eq!(error["hole"]["first_missing"], "000000030000000000000011");
}

/// What PostgreSQL would do, segment by segment: it reads each from the newest timeline of the history that has begun
/// in it.
fn replay(world: &World, ancestry: &Ancestry, plan: &RecoveryPlan) -> Option<Vec<SegmentName>> {
    let first = plan.start_lsn.as_u64() >> 24;
    (first..first + plan.segment_count)
        .map(|number| {
            let candidates = ancestry.path().iter().rev().filter(|span| span.start.as_u64() >> 24 <= number);
            let mut names = candidates.map(|span| SegmentName::from_number(number, span.timeline, SIZE).unwrap());
            names.find(|name| world.segments.contains(name))
        })
        .collect()
}

proptest! {
    /// Whatever is missing, a plan reads only existing segments, under the names that PostgreSQL finds first, up to its
    /// target.
    #[test]
    fn a_plan_is_never_short(
        missing in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        lsn in 1u64..(20 << 24),
        on in 1u32..4,
        latest in any::<bool>(),
    ) {
        let mut world = world();
        for index in missing {
            let name = *index.get(&world.segments.iter().copied().collect::<Vec<_>>());
            world.segments.remove(&name);
        }
        world.request.timeline = TargetTimeline::Number(timeline(on));
        if !latest {
            world.request.target = RecoveryTarget::Lsn(Lsn::new(lsn));
        }
        match world.plan() {
            Ok(plan) => {
                let planned: Vec<SegmentName> = plan.segments.iter().flat_map(|range| range.names(SIZE)).collect();
                let path = world.path().unwrap();
                prop_assert_eq!(replay(&world, path.ancestry(), &plan), Some(planned.clone()));
                prop_assert_eq!(planned.len() as u64, plan.segment_count);
                let end = planned.last().unwrap().end_lsn(SIZE);
                prop_assert!(plan.consistent_lsn <= end);
                if let Some(target) = plan.target_lsn {
                    prop_assert!(plan.consistent_lsn <= target && target < end);
                    prop_assert!(target < plan.window.to_lsn && plan.window.from_lsn <= target);
                }
            }
            Err(error) => {
                let reachable = error.windows().iter().any(|w| w.from_lsn.as_u64() <= lsn && lsn < w.to_lsn.as_u64());
                prop_assert!(latest || !reachable, "{} but {:?}", error, error.windows());
            }
        }
    }
}
