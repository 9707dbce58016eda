//! The planner by tables: one valid world, in which each row changes one thing.
//!
//! The world, in segments of 16 MiB (`LSN 0/N000000` is the start of segment N), times in minutes of one hour:
//!
//! ```text
//! timeline 1   segments 1..=10   A: 2.5 to 3.5, minutes 10 to 12      B: 6.5 to 7.5, minutes 20 to 22
//! timeline 2   branches off 1 at 8.5: segments 8..=14                 C: 10.5 to 11.5, minutes 30 to 32
//! timeline 3   branches off 2 at 13.5: segments 13..=18               D: 15.5 to 16.5, minutes 40 to 42
//! ```
//! The old primary continued on timeline 1 after the switch: its segments 8 to 10 belong to the abandoned branch.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod holes;
mod other_lines;
mod plan;
mod targets;
mod timelines;

use super::*;
use crate::catalog::WalInventory;
use crate::name::{BackupId, ClaimNumber};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::history::HistoryEntry;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetTimeline};
use holdfast_pgtypes::{HistoryFile, Lsn, SegmentName, TimelineId, WalFileName, WalSegmentSize};
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
    /// The minute at which the newest segment of a timeline was stored.
    stored: BTreeMap<u32, u32>,
    facts: TargetFacts,
    request: RecoveryRequest,
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
        let mut wal = WalInventory::from_files(SIZE, self.segments.iter().copied().map(WalFileName::Segment));
        for (on, at) in &self.stored {
            wal.stored_at(timeline(*on), minute(*at));
        }
        wal
    }

    fn path(&self) -> Result<RecoveryPath, Unreachable> {
        let wal = self.inventory();
        let world =
            RecoveryWorld { claim: ClaimNumber::FIRST, backups: &self.backups, histories: &self.histories, wal: &wal };
        RecoveryPath::find(&self.request, &world)
    }

    fn plan(&self) -> Result<RecoveryPlan, Unreachable> {
        self.path()?.decide(&self.facts)
    }

    /// Compares the plan from only the WAL that is listed first with the plan from all WAL: if the first one begins
    /// with the backup that was guessed, they are the same.
    fn check_likely_start(&self, name: &str) {
        let all = self.inventory();
        let mut none = WalInventory::new(SIZE);
        self.segments.iter().for_each(|segment| none.know(segment.timeline()));
        let seen =
            |wal| RecoveryWorld { claim: ClaimNumber::FIRST, backups: &self.backups, histories: &self.histories, wal };
        let Some(likely) = LikelyStart::find(&self.request, &seen(&none)) else { return };
        let first = SegmentName::containing(likely.start_lsn, TimelineId::FIRST, SIZE).number(SIZE);
        let newest = |timeline| self.segments.iter().filter(|segment| segment.timeline() == timeline).max();
        let listed = self.segments.iter().filter(|segment| {
            let is_later = likely.is_on_path(segment.timeline()) && segment.number(SIZE) >= first;
            is_later || newest(segment.timeline()) == Some(*segment)
        });
        let mut wal = WalInventory::from_files(SIZE, listed.copied().map(WalFileName::Segment));
        self.segments.iter().for_each(|segment| wal.know(segment.timeline()));
        for (on, at) in &self.stored {
            wal.stored_at(timeline(*on), minute(*at));
        }
        let plan = |wal| {
            let path = RecoveryPath::find(&self.request, &seen(wal)).unwrap();
            // The facts belong to a run, whatever its number is here.
            let whole = RecoveryPath::find(&self.request, &seen(&all)).unwrap();
            let facts = |run: &WalRun| {
                let same = whole.runs().iter().position(|other| other.end_lsn == run.end_lsn);
                same.and_then(|index| self.facts.runs.get(index)).copied().unwrap_or_default()
            };
            let runs = path.runs().iter().map(facts).collect();
            path.decide(&TargetFacts { runs, records: self.facts.records.clone() })
        };
        let quick = plan(&wal);
        let Some(quick) = quick.ok().filter(|plan| plan.backup == likely.backup) else { return };
        let mut whole = plan(&all).unwrap_or_else(|error| panic!("{name}: {quick:?} and with all WAL: {error}"));
        // Only the beginning of the window is not known.
        whole.window = quick.window.clone();
        assert_eq!(quick, whole, "{name}");
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
        stored: BTreeMap::new(),
        facts: TargetFacts {
            runs: vec![RunFacts { last_record: None, last_transaction_time: Some(minute(50)) }],
            records: Vec::new(),
        },
        request: RecoveryRequest::default(),
    };
    world.add(1, 1..=10);
    world.add(2, 8..=14);
    world.add(3, 13..=18);
    world.history(2, &[(1, half(8))]);
    world.history(3, &[(1, half(8)), (2, half(13))]);
    world
}

fn check(table: &[(&str, World, &str)]) {
    for (name, world, expected) in table {
        assert_eq!(&world.outcome(), expected, "{name}");
        world.check_likely_start(name);
    }
}

fn with(mut world: World, change: impl FnOnce(&mut World)) -> World {
    change(&mut world);
    world
}

fn to(target: RecoveryTarget) -> World {
    with(world(), |world| world.request.target = target)
}

#[test]
fn the_likely_start_is_the_newest_backup_before_the_target() {
    let find = |request: &RecoveryRequest| {
        let world = world();
        let wal = WalInventory::new(SIZE);
        let world = RecoveryWorld {
            claim: ClaimNumber::FIRST,
            backups: &world.backups,
            histories: &world.histories,
            wal: &wal,
        };
        LikelyStart::find(request, &world).map(|likely| likely.backup)
    };
    let to = |target| find(&RecoveryRequest { target, ..RecoveryRequest::default() });
    assert_eq!(to(RecoveryTarget::Latest), Some(id(40)));
    assert_eq!(to(RecoveryTarget::Immediate), Some(id(40)));
    assert_eq!(to(RecoveryTarget::Time(minute(31))), Some(id(20)));
    assert_eq!(to(RecoveryTarget::Time(minute(5))), None);
    assert_eq!(to(RecoveryTarget::Lsn(half(12))), Some(id(30)));
    assert_eq!(to(RecoveryTarget::Xid(7)), Some(id(40)));
    assert_eq!(to(RecoveryTarget::Name("before".to_owned())), Some(id(40)));
    let named = RecoveryRequest { backup: Some(id(10)), ..RecoveryRequest::default() };
    assert_eq!(find(&named), Some(id(10)));
    let on = RecoveryRequest { timeline: TargetTimeline::Number(timeline(1)), ..RecoveryRequest::default() };
    assert_eq!(find(&on), Some(id(20)));
}
