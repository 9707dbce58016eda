//! The planner by tables: one valid world, changed by one thing each.
//!
//! The world, in segments of 16 MiB (`LSN 0/N000000` is the start of segment N), times in minutes of one hour:
//!
//! ```text
//! timeline 1   segments 1..=10   A: 2.5 to 3.5, minutes 10 to 12      B: 6.5 to 7.5, minutes 20 to 22
//! timeline 2   branches off 1 at 8.5: segments 8..=14                 C: 10.5 to 11.5, minutes 30 to 32
//! timeline 3   branches off 2 at 13.5: segments 13..=18               D: 15.5 to 16.5, minutes 40 to 42
//! ```
//! The old primary went on on timeline 1 after the switch: its segments 8 to 10 are of the abandoned branch.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::catalog::WalInventory;
use crate::name::{BackupId, ClaimNumber};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::history::HistoryEntry;
use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;
const HALF: u64 = 8 << 20;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// The LSN in the middle of a segment: `half(8)` is 8.5.
fn half(segment: u64) -> Lsn {
    Lsn::new((segment << 24) + HALF)
}

fn start_of(segment: u64) -> Lsn {
    Lsn::new(segment << 24)
}

fn minute(minute: u32) -> DateTime<Utc> {
    format!("2026-08-22T10:{minute:02}:00Z").parse().unwrap()
}

fn id(at: u32) -> BackupId {
    BackupId::new(minute(at)).unwrap()
}

/// A backup from `start` to `stop`, both in the middle of a segment.
fn backup(on: u32, start: u64, stop: u64, from: u32, to: u32) -> Beginning {
    Beginning {
        kind: BeginningKind::Backup,
        backup_id: id(from),
        claim: ClaimNumber::FIRST,
        timeline: timeline(on),
        start_lsn: half(start),
        stop_lsn: half(stop),
        start_segment: SegmentName::containing(half(start), timeline(on), SIZE),
        stop_segment: SegmentName::ending_at(half(stop), timeline(on), SIZE),
        stop_time: minute(to),
    }
}

#[derive(Clone)]
struct World {
    backups: Vec<Beginning>,
    histories: BTreeMap<TimelineId, HistoryFile>,
    segments: BTreeSet<SegmentName>,
    facts: TargetFacts,
    wish: RecoveryWish,
}

impl World {
    fn add(&mut self, on: u32, segments: impl IntoIterator<Item = u64>) {
        let names = segments.into_iter().map(|number| SegmentName::from_number(number, timeline(on), SIZE).unwrap());
        self.segments.extend(names);
    }

    fn remove(&mut self, on: u32, segment: u64) {
        assert!(self.segments.remove(&SegmentName::from_number(segment, timeline(on), SIZE).unwrap()));
    }

    fn history(&mut self, of: u32, parents: &[(u32, Lsn)]) {
        let entries = parents.iter().map(|&(parent, switch_lsn)| HistoryEntry {
            timeline: timeline(parent),
            switch_lsn,
            reason: String::new(),
        });
        let history = HistoryFile::new(timeline(of), entries.collect()).unwrap();
        self.histories.insert(timeline(of), history);
    }

    fn inventory(&self) -> WalInventory {
        WalInventory::from_files(SIZE, self.segments.iter().copied().map(WalFileName::Segment))
    }

    fn path(&self) -> Result<RecoveryPath, Unreachable> {
        let wal = self.inventory();
        let world =
            RecoveryWorld { claim: ClaimNumber::FIRST, backups: &self.backups, histories: &self.histories, wal: &wal };
        RecoveryPath::find(&self.wish, &world)
    }

    fn plan(&self) -> Result<RecoveryPlan, Unreachable> {
        self.path()?.decide(&self.facts)
    }

    /// `20260822T101000Z along 3: 1:2-7 2:8-12 3:13-18`, or the error.
    fn outcome(&self) -> String {
        match self.plan() {
            Ok(plan) => {
                let segments: Vec<String> = plan
                    .segments
                    .iter()
                    .map(|range| format!("{}:{}-{}", range.timeline, range.first.number(SIZE), range.last.number(SIZE)))
                    .collect();
                let letter = match plan.backup.to_string().get(11..13) {
                    Some("10") => "A",
                    Some("20") => "B",
                    Some("30") => "C",
                    Some("40") => "D",
                    _ => "?",
                };
                format!("{letter} along {}: {}", plan.timeline, segments.join(" "))
            }
            Err(error) => format!("error: {error}"),
        }
    }
}

fn world() -> World {
    let mut world = World {
        backups: vec![
            backup(1, 2, 3, 10, 12),
            backup(1, 6, 7, 20, 22),
            backup(2, 10, 11, 30, 32),
            backup(3, 15, 16, 40, 42),
        ],
        histories: BTreeMap::new(),
        segments: BTreeSet::new(),
        facts: TargetFacts {
            runs: vec![RunFacts { last_record: None, last_transaction_time: Some(minute(50)) }],
            records: Vec::new(),
        },
        wish: RecoveryWish::default(),
    };
    world.add(1, 1..=10);
    world.add(2, 8..=14);
    world.add(3, 13..=18);
    world.history(2, &[(1, half(8))]);
    world.history(3, &[(1, half(8)), (2, half(13))]);
    world
}

/// Only timeline 1, one backup, for the cases where timelines are beside the point.
fn single() -> World {
    let mut world = world();
    world.backups.truncate(2);
    world.histories.clear();
    world.segments.clear();
    world.add(1, 1..=10);
    world
}

fn check(table: &[(&str, World, &str)]) {
    for (name, world, expected) in table {
        assert_eq!(&world.outcome(), expected, "{name}");
    }
}

fn with(mut world: World, change: impl FnOnce(&mut World)) -> World {
    change(&mut world);
    world
}

fn to(target: RecoveryTarget) -> World {
    with(world(), |world| world.wish.target = target)
}

#[test]
fn latest() {
    check(&[
        ("newest backup, to the end", world(), "D along 3: 3:15-18"),
        (
            "from the first backup through both switches",
            with(world(), |w| w.wish.backup = Some(id(10))),
            "A along 3: 1:2-7 2:8-12 3:13-18",
        ),
        ("from a backup in the middle", with(world(), |w| w.wish.backup = Some(id(30))), "C along 3: 2:10-12 3:13-18"),
        (
            "timeline 2 by number: no backup of timeline 3, its own segment 13",
            with(world(), |w| w.wish.timeline = TargetTimeline::Number(timeline(2))),
            "C along 2: 2:10-14",
        ),
        (
            "timeline 1 by number: the abandoned branch to its end",
            with(world(), |w| w.wish.timeline = TargetTimeline::Number(timeline(1))),
            "B along 1: 1:6-10",
        ),
        (
            "current is the timeline of the newest backup",
            with(world(), |w| {
                w.backups.pop();
                w.wish.timeline = TargetTimeline::Current;
            }),
            "C along 2: 2:10-14",
        ),
        (
            "current is the timeline of the named backup",
            with(world(), |w| {
                w.wish.backup = Some(id(20));
                w.wish.timeline = TargetTimeline::Current;
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
fn the_segment_of_a_switch() {
    let from_a = || with(world(), |w| w.wish.backup = Some(id(10)));
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
            "before the switch the old copy will do",
            with(from_a(), |w| {
                w.remove(2, 8);
                w.wish.target = RecoveryTarget::Lsn(start_of(8));
            }),
            "A along 3: 1:2-8",
        ),
        (
            "at the switch it will not",
            with(from_a(), |w| {
                w.remove(2, 8);
                w.wish.target = RecoveryTarget::Lsn(half(8));
            }),
            "error: WAL segment 000000020000000000000008 is missing on the way to LSN 0/8800000",
        ),
        (
            "neither copy",
            with(from_a(), |w| {
                w.remove(1, 8);
                w.remove(2, 8);
                w.wish.target = RecoveryTarget::Lsn(start_of(8));
            }),
            "error: WAL segment 000000020000000000000008 is missing on the way to LSN 0/8000000",
        ),
        (
            "a switch on a border leaves the segment before to the old timeline",
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
                w.wish.target = RecoveryTarget::Lsn(half(8));
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
            with(lsn(half(9)), |w| w.wish.timeline = TargetTimeline::Number(timeline(1))),
            "B along 1: 1:6-10",
        ),
        ("the same LSN on the latest timeline", lsn(half(9)), "B along 3: 1:6-7 2:8-10"),
        (
            "before the named backup",
            with(lsn(half(9)), |w| w.wish.backup = Some(id(30))),
            "error: LSN 0/9800000 is before the end of backup 20260822T103000Z, which is consistent from 0/B800000 on",
        ),
        (
            "from a named older backup than needed",
            with(lsn(half(17)), |w| w.wish.backup = Some(id(20))),
            "B along 3: 1:6-7 2:8-12 3:13-18",
        ),
    ]);
}

#[test]
fn time() {
    let time = |at: u32| to(RecoveryTarget::Time(minute(at)));
    let exclusive = |at: u32| with(time(at), |w| w.wish.inclusive = false);
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
            with(time(31), |w| w.wish.backup = Some(id(30))),
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
            with(name(&[half(9), half(17)]), |w| w.wish.backup = Some(id(20))),
            "B along 3: 1:6-7 2:8-10",
        ),
        (
            "passed by the named backup",
            with(name(&[half(9)]), |w| w.wish.backup = Some(id(40))),
            "error: restore point \"before\" is before the end of backup 20260822T104000Z, which is consistent from 0/10800000 on",
        ),
    ]);
}

#[test]
fn immediate() {
    check(&[
        ("the newest backup", to(RecoveryTarget::Immediate), "D along 3: 3:15-17"),
        ("a named one", with(to(RecoveryTarget::Immediate), |w| w.wish.backup = Some(id(10))), "A along 3: 1:2-4"),
        (
            "a backup that ends on a border, with nothing behind it",
            with(to(RecoveryTarget::Immediate), |w| {
                w.backups.last_mut().unwrap().stop_lsn = start_of(19);
                w.backups.last_mut().unwrap().stop_segment = "000000030000000000000012".parse().unwrap();
            }),
            "error: the end of the backup is beyond the archived WAL, which ends at 0/13000000",
        ),
    ]);
}

#[test]
fn holes() {
    let hole = |on: u32, segment: u64| with(world(), |w| w.remove(on, segment));
    let target = |world: World, target: RecoveryTarget| with(world, |w| w.wish.target = target);
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
            "inside of the newest backup: it cannot be used, and the older one does not get over it",
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
                w.wish.backup = Some(id(10));
                w.wish.target = RecoveryTarget::Immediate;
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
            with(world(), |w| w.wish.backup = Some(id(11))),
            "error: there is no complete backup 20260822T101100Z",
        ),
        (
            "unknown timeline",
            with(world(), |w| w.wish.timeline = TargetTimeline::Number(timeline(9))),
            "error: timeline 9 is not in the archive",
        ),
        (
            "a backup of a later timeline does not lead back",
            with(world(), |w| {
                w.wish.timeline = TargetTimeline::Number(timeline(1));
                w.wish.backup = Some(id(30));
            }),
            "error: backup 20260822T103000Z of timeline 2 does not lead to timeline 1",
        ),
        (
            "a backup taken after its timeline was left does not lead on",
            with(world(), |w| {
                w.backups.push(backup(1, 8, 9, 35, 36));
                w.wish.timeline = TargetTimeline::Number(timeline(3));
                w.wish.backup = Some(id(35));
            }),
            "error: backup 20260822T103500Z of timeline 1 does not lead to timeline 3",
        ),
        (
            "named alone, it leads to the end of its own timeline",
            with(world(), |w| {
                w.backups.push(backup(1, 8, 9, 35, 36));
                w.wish.backup = Some(id(35));
            }),
            "? along 1: 1:8-10",
        ),
        (
            "it is no candidate on the latest timeline, however new",
            with(world(), |w| w.backups.push(backup(1, 8, 9, 55, 56))),
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
                w.wish.timeline = TargetTimeline::Number(timeline(2));
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
            "latest passes over a higher timeline that no backup leads to",
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

#[test]
fn windows_say_what_can_be_reached() {
    let mut world = single();
    world.remove(1, 5);
    world.wish.target = RecoveryTarget::Lsn(half(6));
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

#[test]
fn a_plan_is_json() {
    let plan = with(world(), |w| {
        w.wish.backup = Some(id(30));
        w.wish.target = RecoveryTarget::Lsn(half(13));
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
        })
    );
    let error = with(world(), |w| w.remove(3, 17)).plan().unwrap_err();
    let error = serde_json::to_value(&error).unwrap();
    assert_eq!(error["reason"], "hole");
    assert_eq!(error["hole"]["first_missing"], "000000030000000000000011");
}

/// What PostgreSQL would do, one segment at a time: read each from the newest timeline of the history that has begun in it.
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
    /// Whatever is missing: a plan reads only what is there, under the names PostgreSQL finds first, up to its target.
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
        world.wish.timeline = TargetTimeline::Number(timeline(on));
        if !latest {
            world.wish.target = RecoveryTarget::Lsn(Lsn::new(lsn));
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
