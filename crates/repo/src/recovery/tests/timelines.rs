//! Timelines: from which one a segment is read at a branch, and which backups lead to which of them.

use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};

use super::{backup, check, half, id, start_of, timeline, with, world};
use crate::name::ClaimNumber;

#[test]
fn the_segment_of_a_switch() {
    let from_a = || with(world(), |w| w.request.backup = Some(id(10)));
    check(&[
        (
            "the old timeline's copy is not needed",
            with(from_a(), |w| (8..=10).for_each(|segment| w.remove(1, segment))),
            "A along 3: 1:2-7 2:8-12 3:13-18",
        ),
        (
            "the new timeline's copy is",
            with(from_a(), |w| w.remove(2, 8)),
            "error: WAL segment 000000020000000000000008 is missing on the way to the end of the archived WAL",
        ),
        (
            "before the switch the old copy is enough",
            with(from_a(), |w| {
                w.remove(2, 8);
                w.request.target = RecoveryTarget::Lsn(start_of(8));
            }),
            "A along 3: 1:2-8",
        ),
        (
            "at the switch it is not enough",
            with(from_a(), |w| {
                w.remove(2, 8);
                w.request.target = RecoveryTarget::Lsn(half(8));
            }),
            "error: WAL segment 000000020000000000000008 is missing on the way to LSN 0/8800000",
        ),
        (
            "neither copy",
            with(from_a(), |w| {
                w.remove(1, 8);
                w.remove(2, 8);
                w.request.target = RecoveryTarget::Lsn(start_of(8));
            }),
            "error: WAL segment 000000020000000000000008 is missing on the way to LSN 0/8000000",
        ),
        (
            "after a switch on a boundary the segment before it is the old timeline's",
            with(from_a(), |w| {
                w.history(2, &[(1, start_of(9))]);
                w.history(3, &[(1, start_of(9)), (2, half(13))]);
            }),
            "A along 3: 1:2-8 2:9-12 3:13-18",
        ),
        (
            "two switches in one segment",
            with(from_a(), |w| {
                let second = Lsn::new(half(8).as_u64() + 4096);
                w.history(3, &[(1, half(8)), (2, second)]);
                w.add(3, 8..=12);
                w.backups.remove(2);
            }),
            "A along 3: 1:2-7 3:8-18",
        ),
        (
            "two switches in one segment, only the oldest copy: the first switch is the end",
            with(from_a(), |w| {
                let second = Lsn::new(half(8).as_u64() + 4096);
                w.history(3, &[(1, half(8)), (2, second)]);
                w.add(3, 9..=12);
                w.remove(2, 8);
                w.backups.remove(2);
                w.request.target = RecoveryTarget::Lsn(half(8));
            }),
            "error: WAL segment 000000030000000000000008 is missing on the way to LSN 0/8800000",
        ),
        (
            "a timeline just born, without WAL of its own and with its parent's whole segment",
            with(world(), |w| {
                w.history(4, &[(1, half(8)), (2, half(13)), (3, half(18))]);
            }),
            "error: WAL segment 000000040000000000000012 is missing on the way to the end of the archived WAL",
        ),
        (
            "a timeline just born, its parent's last segment was partial",
            with(world(), |w| {
                w.history(4, &[(1, half(8)), (2, half(13)), (3, half(18))]);
                w.remove(3, 18);
            }),
            "D along 4: 3:15-17",
        ),
    ]);
}

#[test]
fn timelines_and_backups() {
    check(&[
        ("no backups", with(world(), |w| w.backups.clear()), "error: there is no complete backup"),
        (
            "backups of another claim only",
            with(world(), |w| {
                for backup in &mut w.backups {
                    backup.claim = ClaimNumber::new(2).unwrap();
                }
            }),
            "error: there is no complete backup",
        ),
        (
            "unknown backup",
            with(world(), |w| w.request.backup = Some(id(11))),
            "error: there is no complete backup 20260822T101100Z",
        ),
        (
            "unknown timeline",
            with(world(), |w| w.request.timeline = TargetTimeline::Number(timeline(9))),
            "error: timeline 9 is not in the archive",
        ),
        (
            "a backup of a later timeline does not lead back",
            with(world(), |w| {
                w.request.timeline = TargetTimeline::Number(timeline(1));
                w.request.backup = Some(id(30));
            }),
            "error: backup 20260822T103000Z of timeline 2 does not lead to timeline 1",
        ),
        (
            "a backup taken after its timeline was left does not lead to later ones",
            with(world(), |w| {
                w.backups.push(backup(1, 8, 9, 35, 36));
                w.request.timeline = TargetTimeline::Number(timeline(3));
                w.request.backup = Some(id(35));
            }),
            "error: backup 20260822T103500Z of timeline 1 does not lead to timeline 3",
        ),
        (
            "named alone, it leads to the end of its own timeline",
            with(world(), |w| {
                w.backups.push(backup(1, 8, 9, 35, 36));
                w.request.backup = Some(id(35));
            }),
            "? along 1: 1:8-10",
        ),
        (
            "it is not a candidate on the latest timeline, however new, and the timeline must be named",
            with(world(), |w| w.backups.push(backup(1, 8, 9, 55, 56))),
            "error: the newest timeline that a backup leads to is 3, but backup 20260822T105500Z of timeline 1 is newer and \
             does not lead there",
        ),
        (
            "the latest one named by its number",
            with(world(), |w| {
                w.backups.push(backup(1, 8, 9, 55, 56));
                w.request.timeline = TargetTimeline::Number(timeline(3));
            }),
            "D along 3: 3:15-18",
        ),
        (
            "a backup that ends at the switch is on both",
            with(world(), |w| {
                w.backups.truncate(1);
                w.backups.push(backup(1, 7, 8, 20, 22));
            }),
            "B along 3: 1:7-7 2:8-12 3:13-18",
        ),
        (
            "a backup that crosses the switch is on neither later one",
            with(world(), |w| {
                w.backups.truncate(1);
                let mut crossing = backup(1, 7, 8, 20, 22);
                crossing.stop_lsn = Lsn::new(half(8).as_u64() + 8);
                w.backups.push(crossing);
                w.request.timeline = TargetTimeline::Number(timeline(3));
            }),
            "A along 3: 1:2-7 2:8-12 3:13-18",
        ),
        (
            "a standby's backup that followed the switch is on the later one",
            with(world(), |w| {
                w.backups.truncate(1);
                let mut following = backup(1, 7, 9, 20, 22);
                following.stop_segment = following.stop_segment.on_timeline(timeline(2));
                w.backups.push(following);
            }),
            "B along 3: 1:7-7 2:8-12 3:13-18",
        ),
        (
            "no backup leads to the wanted timeline",
            with(world(), |w| {
                w.backups = vec![backup(1, 8, 9, 35, 36)];
                w.request.timeline = TargetTimeline::Number(timeline(2));
            }),
            "error: no backup leads to timeline 2",
        ),
        (
            "without its history file a timeline has no parents",
            with(world(), |w| {
                w.histories.remove(&timeline(3));
                w.backups.pop();
            }),
            "C along 2: 2:10-14",
        ),
        (
            "latest need not be the next number",
            with(world(), |w| w.history(7, &[(1, half(8)), (2, half(13)), (3, half(18))])),
            "error: WAL segment 000000070000000000000012 is missing on the way to the end of the archived WAL",
        ),
        (
            "latest ignores a higher timeline that no backup leads to",
            with(world(), |w| {
                w.history(4, &[(1, half(1))]);
                w.add(4, 1..=4);
            }),
            "D along 3: 3:15-18",
        ),
    ]);
    let over = with(world(), |w| w.history(4, &[(1, half(1))]));
    assert_eq!(over.path().unwrap().higher_timelines(), [timeline(4)]);
}
