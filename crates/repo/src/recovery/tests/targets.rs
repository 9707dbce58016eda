//! Each kind of target: which backup is used for it, and how far the WAL is read; or why it cannot be reached.

use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};

use super::{SIZE, check, half, id, minute, start_of, timeline, to, with, world};
use crate::recovery::{RunFacts, TargetFacts};

#[test]
fn latest() {
    check(&[
        ("newest backup, to the end", world(), "D along 3: 3:15-18"),
        (
            "from the first backup through both switches",
            with(world(), |w| w.request.backup = Some(id(10))),
            "A along 3: 1:2-7 2:8-12 3:13-18",
        ),
        (
            "from a backup in the middle",
            with(world(), |w| w.request.backup = Some(id(30))),
            "C along 3: 2:10-12 3:13-18",
        ),
        (
            "timeline 2 by number: no backup of timeline 3, its own segment 13",
            with(world(), |w| w.request.timeline = TargetTimeline::Number(timeline(2))),
            "C along 2: 2:10-14",
        ),
        (
            "timeline 1 by number: the abandoned branch to its end",
            with(world(), |w| w.request.timeline = TargetTimeline::Number(timeline(1))),
            "B along 1: 1:6-10",
        ),
        (
            "current is the timeline of the newest backup",
            with(world(), |w| {
                w.backups.pop();
                w.request.timeline = TargetTimeline::Current;
            }),
            "C along 2: 2:10-14",
        ),
        (
            "current is the timeline of the named backup",
            with(world(), |w| {
                w.request.backup = Some(id(20));
                w.request.timeline = TargetTimeline::Current;
            }),
            "B along 1: 1:6-10",
        ),
        (
            "no WAL after the backup",
            with(world(), |w| {
                w.segments.retain(|segment| segment.timeline().get() < 3 || segment.number(SIZE) <= 16);
            }),
            "D along 3: 3:15-16",
        ),
    ]);
}

#[test]
fn lsn() {
    let lsn = |lsn: Lsn| to(RecoveryTarget::Lsn(lsn));
    let just_before = |lsn: Lsn| Lsn::new(lsn.as_u64() - 1);
    check(&[
        ("after the newest backup", lsn(half(17)), "D along 3: 3:15-18"),
        ("at a stop LSN", lsn(half(16)), "D along 3: 3:15-17"),
        ("just before it", lsn(just_before(half(16))), "C along 3: 2:10-12 3:13-17"),
        ("between two backups across a switch", lsn(half(14)), "C along 3: 2:10-12 3:13-15"),
        ("at the first stop LSN", lsn(half(3)), "A along 3: 1:2-4"),
        (
            "just before the first stop LSN",
            lsn(just_before(half(3))),
            "error: LSN 0/37FFFFF is before the end of the oldest backup",
        ),
        ("the last byte", lsn(just_before(start_of(19))), "D along 3: 3:15-18"),
        ("the end", lsn(start_of(19)), "error: LSN 0/13000000 is beyond the archived WAL, which ends at 0/13000000"),
        (
            "after the last record",
            with(lsn(half(18)), |w| {
                w.facts.runs = vec![RunFacts { last_record: Some(start_of(18)), last_transaction_time: None }];
            }),
            "error: LSN 0/12800000 is beyond the archived WAL, which ends at 0/13000000",
        ),
        (
            "at the last record",
            with(lsn(start_of(18)), |w| {
                w.facts.runs = vec![RunFacts { last_record: Some(start_of(18)), last_transaction_time: None }];
            }),
            "D along 3: 3:15-18",
        ),
        (
            "on a timeline before the switch, by number: past the switch it is the abandoned branch",
            with(lsn(half(9)), |w| w.request.timeline = TargetTimeline::Number(timeline(1))),
            "B along 1: 1:6-10",
        ),
        ("the same LSN on the latest timeline", lsn(half(9)), "B along 3: 1:6-7 2:8-10"),
        (
            "before the named backup",
            with(lsn(half(9)), |w| w.request.backup = Some(id(30))),
            "error: LSN 0/9800000 is before the end of backup 20260822T103000Z, which is consistent from 0/B800000 on",
        ),
        (
            "from a named older backup than needed",
            with(lsn(half(17)), |w| w.request.backup = Some(id(20))),
            "B along 3: 1:6-7 2:8-12 3:13-18",
        ),
    ]);
}

#[test]
fn time() {
    let time = |at: u32| to(RecoveryTarget::Time(minute(at)));
    let exclusive = |at: u32| with(time(at), |w| w.request.inclusive = false);
    check(&[
        ("after the newest backup", time(45), "D along 3: 3:15-18"),
        ("while the newest backup ran", time(41), "C along 3: 2:10-12 3:13-18"),
        ("at a stop time", time(32), "C along 3: 2:10-12 3:13-18"),
        (
            "at a stop time, exclusive: a commit of that moment may be before it",
            exclusive(32),
            "B along 3: 1:6-7 2:8-12 3:13-18",
        ),
        (
            "before the first backup",
            time(11),
            "error: time 2026-08-22T10:11:00Z is before the end of the oldest backup",
        ),
        (
            "the last commit itself",
            time(50),
            "error: time 2026-08-22T10:50:00Z is beyond the archived WAL, which ends at 0/13000000",
        ),
        ("the last commit itself, exclusive", exclusive(50), "D along 3: 3:15-18"),
        (
            "no commits at all",
            with(time(45), |w| w.facts = TargetFacts::default()),
            "error: time 2026-08-22T10:45:00Z is beyond the archived WAL, which ends at 0/13000000",
        ),
        ("the stopping commit is known", with(time(45), |w| w.facts.records = vec![half(16)]), "D along 3: 3:15-17"),
        (
            "before the named backup",
            with(time(31), |w| w.request.backup = Some(id(30))),
            "error: time 2026-08-22T10:31:00Z is before the end of backup 20260822T103000Z, which is consistent from 0/B800000 on",
        ),
    ]);
}

#[test]
fn transactions_and_restore_points() {
    let xid = |records: &[Lsn]| with(to(RecoveryTarget::Xid(771)), |w| w.facts.records = records.to_vec());
    let name =
        |records: &[Lsn]| with(to(RecoveryTarget::Name("before".to_owned())), |w| w.facts.records = records.to_vec());
    check(&[
        ("after the newest backup", xid(&[half(17)]), "D along 3: 3:15-18"),
        ("while the newest backup ran: from the one before", xid(&[start_of(16)]), "C along 3: 2:10-12 3:13-17"),
        ("at the stop LSN", xid(&[half(16)]), "D along 3: 3:15-17"),
        ("before the first backup", xid(&[half(1)]), "error: transaction 771 is before the end of the oldest backup"),
        ("nowhere", xid(&[]), "error: transaction 771 is not in the archived WAL"),
        ("a name nowhere", name(&[]), "error: restore point \"before\" is not in the archived WAL"),
        ("one name twice: the newest backup meets the last", name(&[half(17), half(9)]), "D along 3: 3:15-18"),
        (
            "one name twice, the last one while the newest backup ran",
            name(&[half(9), start_of(16)]),
            "C along 3: 2:10-12 3:13-17",
        ),
        (
            "one name twice, from a named backup: it meets the first",
            with(name(&[half(9), half(17)]), |w| w.request.backup = Some(id(20))),
            "B along 3: 1:6-7 2:8-10",
        ),
        (
            "passed by the named backup",
            with(name(&[half(9)]), |w| w.request.backup = Some(id(40))),
            "error: restore point \"before\" is before the end of backup 20260822T104000Z, which is consistent from 0/10800000 on",
        ),
    ]);
}

#[test]
fn immediate() {
    check(&[
        ("the newest backup", to(RecoveryTarget::Immediate), "D along 3: 3:15-17"),
        ("a named one", with(to(RecoveryTarget::Immediate), |w| w.request.backup = Some(id(10))), "A along 3: 1:2-4"),
        (
            "a backup that ends on a boundary, with nothing after it",
            with(to(RecoveryTarget::Immediate), |w| {
                w.backups.last_mut().unwrap().stop_lsn = start_of(19);
                w.backups.last_mut().unwrap().stop_segment = "000000030000000000000012".parse().unwrap();
            }),
            "error: the end of the backup is beyond the archived WAL, which ends at 0/13000000",
        ),
    ]);
}
