//! The truth about an archive: what is stored, and what was done.

use chrono::{DateTime, Duration, Utc};
use holdfast_pgtypes::history::HistoryEntry;
use holdfast_pgtypes::{HistoryFile, Lsn, TimelineId, WalSegmentSize};
use holdfast_retention::*;
use holdfast_testkit::random::Random;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const SIZE: u64 = 16 << 20;

/// A timeline of a claim: its parent and the LSN where it branched off, and the number of the segment that is being
/// filled.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) parent: Option<(u32, u64)>,
    pub(crate) next: u64,
    /// When its history file was stored.
    pub(crate) created: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: BackupId,
    pub(crate) claim: u32,
    pub(crate) line: u32,
    pub(crate) start: u64,
    pub(crate) stop: u64,
    pub(crate) start_hour: i64,
    pub(crate) stop_hour: i64,
    pub(crate) packs: Vec<PackId>,
    /// The backups to whose manifests its own refers. A reference names the object that holds the bytes, so these are
    /// its parent and what its parent refers to.
    pub(crate) origins: BTreeSet<BackupId>,
    pub(crate) held: bool,
    pub(crate) damaged: bool,
    /// Its record cannot be read, or is newer.
    pub(crate) unknown: bool,
    /// Its host had a clock years ahead.
    pub(crate) future: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) backup: Stored,
    pub(crate) parent: Option<BackupId>,
    /// A release without leases, which takes only full backups.
    pub(crate) old: bool,
    pub(crate) lease: i64,
    pub(crate) alive: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) hour: i64,
    pub(crate) policy: Policy,
    /// The hour since which each claim exists.
    pub(crate) claims: BTreeMap<u32, i64>,
    pub(crate) lines: BTreeMap<(u32, u32), Line>,
    /// The hour at which each segment was stored.
    pub(crate) wal: BTreeMap<(u32, u32), BTreeMap<u64, i64>>,
    pub(crate) backups: BTreeMap<BackupId, Stored>,
    /// Backups without a record whose manifest is still there.
    pub(crate) half_removed: BTreeSet<BackupId>,
    pub(crate) runs: Vec<Run>,
    pub(crate) packs: BTreeSet<PackId>,
    pub(crate) restores: Vec<(BackupId, i64)>,
    pub(crate) ledger: Vec<Decision>,
    /// Whether no host is about to remove something from an earlier plan.
    pub(crate) is_quiet: bool,
    /// The claim and timeline on which the primary writes.
    pub(crate) current: (u32, u32),
}

pub(crate) fn moment(hour: i64) -> DateTime<Utc> {
    "2020-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + Duration::hours(hour)
}

impl World {
    pub(crate) fn new(seed: u64, random: &mut Random) -> Self {
        let mut count = |most: u64| if random.below(3) == 0 { u32::try_from(random.below(most)).unwrap() } else { 0 };
        let keep = Keep {
            last: count(4),
            hourly: count(4),
            daily: count(5),
            weekly: count(4),
            monthly: count(4),
            yearly: count(2),
            verified: 0,
        };
        let window = (random.below(2) == 0).then(|| Duration::days(random.below(20).cast_signed()));
        Self {
            seed,
            hour: 0,
            policy: Policy { window, keep, ..Policy::default() },
            claims: [(1, 0)].into(),
            lines: [((1, 1), Line { parent: None, next: 1, created: 0 })].into(),
            wal: BTreeMap::new(),
            backups: BTreeMap::new(),
            half_removed: BTreeSet::new(),
            runs: Vec::new(),
            packs: BTreeSet::new(),
            restores: Vec::new(),
            ledger: Vec::new(),
            is_quiet: true,
            current: (1, 1),
        }
    }

    fn line(&mut self) -> &mut Line {
        self.lines.get_mut(&self.current).unwrap()
    }

    /// Fills and archives segments of a line.
    fn archive(&mut self, on: (u32, u32), count: u64) {
        let line = self.lines.get_mut(&on).unwrap();
        for _ in 0..count {
            self.wal.entry(on).or_default().insert(line.next, self.hour);
            line.next += 1;
        }
    }

    /// One random event in the life of the cluster.
    pub(crate) fn live(&mut self, random: &mut Random) {
        match random.below(100) {
            0..35 => self.archive(self.current, random.below(4)),
            35..60 => self.begin(random),
            60..85 => self.end(random),
            85..91 => {
                // A failover. The old primary may continue for a while.
                let (old, at) = (self.current, self.line().next);
                self.branch(at, random);
                self.archive(old, random.below(3));
            }
            91..94 => {
                let begin = self.lines[&self.current].parent.map_or(1, |(_, lsn)| lsn / SIZE + 1);
                let end = self.line().next;
                if begin < end {
                    self.recover_to(begin + random.below(end - begin), random);
                }
            }
            94..96 => {
                let claim = self.current.0 + 1;
                self.claims.insert(claim, self.hour);
                self.current = (claim, 1);
                self.lines.insert(self.current, Line { parent: None, next: 1, created: self.hour });
            }
            _ => {
                self.restores.retain(|(_, lease)| *lease >= self.hour);
                let decided = self.decided();
                let free: Vec<BackupId> = self.backups.keys().filter(|id| !decided.contains(id)).copied().collect();
                if !free.is_empty() {
                    self.restores.push((free[random.index(free.len())], self.hour + 40));
                }
            }
        }
    }

    /// A recovery to an earlier moment: it restores a backup and WAL whose removal is not decided, and begins a new
    /// timeline.
    fn recover_to(&mut self, at: u64, random: &mut Random) {
        let current = self.current;
        let mut from = self.sound();
        from.retain(|backup| self.leads(backup, current) && backup.stop <= at * SIZE);
        let Some((backup, first)) = from.first().map(|backup| (backup.id, backup.start / SIZE)) else { return };
        let wal = self.ledger.iter().flat_map(|one| &one.wal).filter(|range| range.claim.get() == current.0);
        let is_decided = wal.into_iter().any(|range| range.first <= at && first <= range.last);
        if !is_decided && !self.decided().contains(&backup) {
            self.restores.push((backup, self.hour + 40));
            self.branch(at, random);
        }
    }

    fn decided(&self) -> BTreeSet<BackupId> {
        self.ledger.iter().flat_map(|one| one.backups.clone()).collect()
    }

    fn branch(&mut self, at: u64, random: &mut Random) {
        let (claim, old) = self.current;
        // A running backup of the old primary dies with it.
        for run in self.runs.iter_mut().filter(|run| run.backup.claim == claim) {
            run.alive = false;
        }
        let new = self.lines.range((claim, 0)..(claim + 1, 0)).last().unwrap().0.1 + 1;
        let lsn = at * SIZE + if random.below(4) == 0 { 0 } else { 0x50_0000 };
        self.current = (claim, new);
        self.lines.insert(self.current, Line { parent: Some((old, lsn)), next: at, created: self.hour });
    }

    fn begin(&mut self, random: &mut Random) {
        let future = random.below(40) == 0;
        let time = moment(self.hour + if future { 9000 } else { 0 });
        let id = BackupId::new(time).unwrap();
        if self.backups.contains_key(&id)
            || self.half_removed.contains(&id)
            || self.runs.iter().any(|run| run.backup.id == id)
            || self.packs.iter().any(|pack| pack.backup == id)
        {
            return;
        }
        let old = random.below(4) == 0;
        // A release that builds on earlier backups and does not know decisions.
        let careless = self.is_quiet && random.below(4) == 0;
        let decided = if careless { BTreeSet::new() } else { self.decided() };
        let sound = |backup: &&Stored| !backup.damaged && !backup.unknown && !decided.contains(&backup.id);
        let parents: Vec<&Stored> = self.backups.values().filter(sound).collect();
        let parent = (!old && !parents.is_empty() && random.below(4) > 0).then(|| parents[random.index(parents.len())]);
        let mut packs: Vec<PackId> = parent.map_or(Vec::new(), |parent| parent.packs.clone());
        packs.retain(|_| random.below(4) > 0);
        let origins = parent.iter().flat_map(|parent| parent.origins.iter().copied().chain([parent.id]));
        let mut origins: BTreeSet<BackupId> = origins.collect();
        origins.retain(|_| random.below(3) > 0);
        let parent = parent.map(|parent| parent.id);
        for number in 1..=1 + u32::try_from(random.below(2)).unwrap() {
            let pack = PackId { backup: id, number };
            packs.push(pack);
            self.packs.insert(pack);
        }
        let (claim, line) = self.current;
        let start = self.line().next * SIZE + 0x60_0000;
        let backup = Stored {
            id,
            claim,
            line,
            start,
            stop: start,
            start_hour: self.hour,
            stop_hour: self.hour,
            packs,
            origins,
            held: false,
            damaged: false,
            unknown: false,
            future,
        };
        self.runs.push(Run { backup, parent, old, lease: self.hour + 60, alive: true });
    }

    fn end(&mut self, random: &mut Random) {
        let alive: Vec<usize> = (0..self.runs.len()).filter(|index| self.runs[*index].alive).collect();
        if alive.is_empty() {
            return;
        }
        let index = alive[random.index(alive.len())];
        let lasted = self.hour - self.runs[index].backup.start_hour;
        // A living run renews its lease, and no run lives for a week.
        let run = &mut self.runs[index];
        if random.below(5) == 0 || lasted > 160 || (run.backup.claim, run.backup.line) != self.current {
            run.alive = false;
            return;
        }
        let mut run = self.runs.remove(index);
        self.archive(self.current, random.below(3));
        run.backup.stop = self.line().next * SIZE + 0x70_0000;
        run.backup.stop_hour = self.hour;
        self.archive(self.current, 1);
        assert!(self.is_intact(&run.backup), "seed {}: {} ended without what it needs", self.seed, run.backup.id);
        self.backups.insert(run.backup.id, run.backup);
    }

    /// Changes a backup: a hold, the result of a verification, a record that cannot be read for a while.
    pub(crate) fn change_backups(&mut self, random: &mut Random) {
        let ids: Vec<BackupId> = self.backups.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let backup = self.backups.get_mut(&ids[random.index(ids.len())]).unwrap();
        match random.below(4) {
            0 => backup.held = true,
            1 => backup.held = false,
            2 => backup.damaged = random.below(3) == 0,
            _ => backup.unknown = random.below(3) == 0,
        }
    }

    /// Ends all runs, restores and holds. Backups that cannot be judged are removed by hand. Then a few more backups
    /// are taken.
    pub(crate) fn come_to_rest(&mut self, random: &mut Random) {
        self.runs.iter_mut().for_each(|run| run.alive = false);
        self.restores.clear();
        let by_hand = |backup: &Stored| backup.unknown || backup.future;
        let removed: Vec<BackupId> = self.backups.values().filter(|one| by_hand(one)).map(|one| one.id).collect();
        self.backups.retain(|_, backup| !by_hand(backup));
        // Who removes a record by hand does not know what others need of the rest.
        let left = removed.into_iter().filter(|id| self.needs_manifest(*id)).collect::<Vec<_>>();
        self.half_removed.extend(left);
        self.backups.values_mut().for_each(|backup| backup.held = false);
        self.runs.retain(|run| !run.backup.future);
        self.remove_future_packs();
        for _ in 0..3 {
            self.hour += 24 * 31;
            self.begin(&mut Random::of_seed(random.word()));
            self.hour += 1;
            if let Some(run) = self.runs.last_mut().filter(|run| run.alive) {
                run.alive = true;
                let mut run = self.runs.pop().unwrap();
                run.backup.stop = self.line().next * SIZE + 0x70_0000;
                run.backup.stop_hour = self.hour;
                self.archive(self.current, 1);
                if !run.backup.future {
                    self.backups.insert(run.backup.id, run.backup);
                }
            }
        }
        self.remove_future_packs();
    }

    fn remove_future_packs(&mut self) {
        let named: BTreeSet<PackId> = self.backups.values().flat_map(|backup| backup.packs.clone()).collect();
        self.packs.retain(|pack| pack.backup.time() <= moment(self.hour) || named.contains(pack));
    }

    /// What the planner sees.
    pub(crate) fn catalog(&self) -> (Catalog, Manifests) {
        let number = |number: u32| ClaimNumber::new(number).unwrap();
        let timeline = |number: u32| TimelineId::new(number).unwrap();
        let mut catalog = Catalog::default();
        for (claim, since) in &self.claims {
            let mut wal = WalArchive::new(WalSegmentSize::DEFAULT);
            for ((_, line), segments) in self.wal.range((*claim, 0)..(*claim + 1, 0)) {
                let numbers = segments.keys().map(|number| (*number, *number)).collect();
                wal.segments.insert(timeline(*line), numbers);
            }
            for line in self.lines.keys().filter(|line| line.0 == *claim) {
                wal.last_stored.extend(self.last_stored(*line).map(|hour| (timeline(line.1), moment(hour))));
            }
            for (line, _) in self.lines.range((*claim, 0)..(*claim + 1, 0)).skip(1) {
                let path = self.path(*line);
                let entries = path.windows(2).map(|pair| HistoryEntry {
                    timeline: timeline(pair[0].0),
                    switch_lsn: Lsn::new(pair[1].1),
                    reason: String::new(),
                });
                let history = HistoryFile::new(timeline(line.1), entries.collect()).unwrap();
                wal.histories.insert(timeline(line.1), history);
            }
            catalog.claims.insert(number(*claim), Claim { since: Some(moment(*since)), wal });
        }
        for backup in self.backups.values() {
            if backup.unknown {
                let claim = (backup.start % 3 == 0).then(|| number(backup.claim));
                catalog.unknown.push(UnknownBackup { id: backup.id, claim, reason: UnknownReason::Newer });
                continue;
            }
            let ahead = if backup.future { 9000 } else { 0 };
            catalog.backups.push(Backup {
                id: backup.id,
                claim: number(backup.claim),
                timeline: timeline(backup.line),
                start_lsn: Lsn::new(backup.start),
                stop_timeline: timeline(backup.line),
                stop_lsn: Lsn::new(backup.stop),
                start_time: moment(backup.start_hour + ahead),
                stop_time: moment(backup.stop_hour + ahead),
                place: Place::Packs,
                hold: backup.held.then_some(Hold { until: None }),
                hold_with_wal: None,
                verified: if backup.damaged { Verified::Damaged } else { Verified::Never },
            });
        }
        for run in &self.runs {
            catalog.unfinished.push(UnfinishedBackup {
                id: run.backup.id,
                claim: Some(number(run.backup.claim)),
                started: run.backup.id.time(),
                lease_until: (!run.old).then(|| moment(if run.alive { self.hour + 9 } else { run.lease })),
                parent: if run.old { Parent::Unknown } else { run.parent.map_or(Parent::Nothing, Parent::Backup) },
                start_lsn: (!run.old && run.backup.start % 2 == 0).then(|| Lsn::new(run.backup.start)),
            });
        }
        catalog.half_removed.clone_from(&self.half_removed);
        catalog.packs = self.packs.iter().map(|id| Pack { id: *id, size_bytes: 1 }).collect();
        catalog.restores = self
            .restores
            .iter()
            .map(|(id, lease)| RunningRestore { backup: Some(*id), lease_until: moment(*lease) })
            .collect();
        catalog.manifests = self.backups.keys().chain(&self.half_removed).copied().collect();
        let uses = |backup: &Stored| {
            let packs = backup.packs.iter().map(|pack| PackUse { pack: *pack, live_bytes: 1, size_bytes: None });
            ManifestUses { packs: packs.collect(), origins: backup.origins.iter().copied().collect() }
        };
        let manifests = self.backups.values().map(|backup| (backup.id, uses(backup))).collect();
        (catalog, manifests)
    }
}
