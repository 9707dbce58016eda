//! Missing WAL: which requests need it, what the error reports, and what can still be reached.

use super::{World, check, half, id, minute, with, world};
use crate::recovery::RunFacts;
use holdfast_pgtypes::recovery_target::RecoveryTarget;

/// Only timeline 1 and one backup, for the cases in which timelines do not matter.
fn single() -> World {
    let mut world = world();
    world.backups.truncate(2);
    world.histories.clear();
    world.segments.clear();
    world.add(1, 1..=10);
    world
}

#[test]
fn holes() {
    let hole = |on: u32, segment: u64| with(world(), |w| w.remove(on, segment));
    let target = |world: World, target: RecoveryTarget| with(world, |w| w.request.target = target);
    check(&[
        ("before every backup: nobody needs it", hole(1, 1), "D along 3: 3:15-18"),
        ("between backups: nobody needs it", hole(1, 5), "D along 3: 3:15-18"),
        (
            "between the only backup before the target and the target",
            target(hole(1, 5), RecoveryTarget::Lsn(half(6))),
            "error: WAL segment 000000010000000000000005 is missing on the way to LSN 0/6800000",
        ),
        ("the target is before the hole", target(hole(1, 5), RecoveryTarget::Lsn(half(4))), "A along 3: 1:2-4"),
        (
            "inside of the newest backup: it cannot be used, and the older one cannot pass it",
            hole(3, 16),
            "error: WAL segment 000000030000000000000010 is missing on the way to the end of the archived WAL",
        ),
        (
            "inside of the newest backup, an earlier target",
            target(hole(3, 16), RecoveryTarget::Lsn(half(14))),
            "C along 3: 2:10-12 3:13-15",
        ),
        (
            "inside of the named backup",
            with(hole(1, 3), |w| {
                w.request.backup = Some(id(10));
                w.request.target = RecoveryTarget::Immediate;
            }),
            "error: WAL segment 000000010000000000000003 is missing on the way to the end of the backup",
        ),
        (
            "after the newest backup",
            hole(3, 17),
            "error: WAL segment 000000030000000000000011 is missing on the way to the end of the archived WAL",
        ),
        (
            "several segments",
            with(target(hole(1, 5), RecoveryTarget::Lsn(half(6))), |w| w.remove(1, 4)),
            "error: 2 WAL segments from 000000010000000000000004 on are missing on the way to LSN 0/6800000",
        ),
        (
            "across a switch: named as recovery asks for the first of them",
            with(target(hole(1, 7), RecoveryTarget::Lsn(half(10))), |w| {
                w.remove(2, 8);
                w.remove(1, 8);
                w.remove(2, 9);
                w.backups.remove(1);
            }),
            "error: 3 WAL segments from 000000010000000000000007 on are missing on the way to LSN 0/A800000",
        ),
        ("on the abandoned branch: not on the path", hole(1, 9), "D along 3: 3:15-18"),
        (
            "no WAL at all",
            with(world(), |w| w.segments.clear()),
            "error: 2 WAL segments from 00000003000000000000000F on are missing on the way to the end of the archived WAL",
        ),
    ]);
}

#[test]
fn windows_say_what_can_be_reached() {
    let mut world = single();
    world.remove(1, 5);
    world.request.target = RecoveryTarget::Lsn(half(6));
    world.facts.runs = vec![
        RunFacts::default(),
        RunFacts { last_record: None, last_transaction_time: Some(minute(15)) },
        RunFacts { last_record: None, last_transaction_time: Some(minute(50)) },
    ];
    world.remove(1, 1);
    world.add(1, [0]);
    let error = world.plan().unwrap_err();
    let windows: Vec<String> = error.windows().iter().map(ToString::to_string).collect();
    assert_eq!(
        windows,
        [
            "0/3800000 (2026-08-22T10:12:00Z) to 0/5000000 (2026-08-22T10:15:00Z) on timeline 1",
            "0/7800000 (2026-08-22T10:22:00Z) to 0/B000000 (2026-08-22T10:50:00Z) on timeline 1",
        ]
    );
}
