//! A small archive, in which each test changes one thing.
//!
//! Time is counted in days, and a day has ten segments. The backup of day 7 begins in segment 70, ends in segment 71,
//! and writes the pack 7/1. The WAL of the first timeline ends at the end of the last day.

use chrono::{DateTime, Duration, Utc};
use holdfast_pgtypes::history::HistoryEntry;
use holdfast_pgtypes::{HistoryFile, Lsn, TimelineId, WalSegmentSize};
use holdfast_retention::*;

pub(crate) const SIZE: WalSegmentSize = WalSegmentSize::DEFAULT;

/// Noon of a day; day 0 is 2026-01-01, a Thursday.
pub(crate) fn day(number: i64) -> DateTime<Utc> {
    let first: DateTime<Utc> = "2026-01-01T12:00:00Z".parse().unwrap();
    first + Duration::days(number)
}

pub(crate) fn id(number: i64) -> BackupId {
    BackupId::new(day(number)).unwrap()
}

pub(crate) fn pack(of: i64, number: u32) -> PackId {
    PackId { backup: id(of), number }
}

pub(crate) fn claim(number: u32) -> ClaimNumber {
    ClaimNumber::new(number).unwrap()
}

pub(crate) fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub(crate) fn lsn(segment: u64) -> Lsn {
    Lsn::new(segment * SIZE.as_u64() + 0x100)
}

pub(crate) struct Archive {
    pub(crate) catalog: Catalog,
    pub(crate) manifests: Manifests,
    pub(crate) policy: Policy,
    pub(crate) today: i64,
}

impl Archive {
    /// Backups on these days, and WAL until today.
    pub(crate) fn new(days: &[i64], today: i64) -> Self {
        let mut archive =
            Self { catalog: Catalog::default(), manifests: Manifests::new(), policy: Policy::default(), today };
        archive.claim(1, 0);
        archive.wal(1, 1, 1, u64::try_from(today).unwrap() * 10 + 9);
        for day in days {
            archive.backup(*day);
        }
        archive
    }

    pub(crate) fn window(mut self, days: i64) -> Self {
        self.policy.window = Some(Duration::days(days));
        self
    }

    pub(crate) fn keep(mut self, keep: Keep) -> Self {
        self.policy.keep = keep;
        self
    }

    pub(crate) fn claim(&mut self, number: u32, since: i64) {
        let wal = WalArchive::new(SIZE);
        self.catalog.claims.insert(claim(number), Claim { since: Some(day(since)), wal });
    }

    pub(crate) fn wal_of(&mut self, of: u32) -> &mut WalArchive {
        &mut self.catalog.claims.get_mut(&claim(of)).unwrap().wal
    }

    /// Adds segments of a timeline. The last one is stored on its day.
    pub(crate) fn wal(&mut self, of: u32, on: u32, first: u64, last: u64) {
        let stored = day(i64::try_from(last / 10).unwrap());
        let wal = self.wal_of(of);
        let all = wal.of(timeline(on)).iter().chain([(first, last)]).collect();
        wal.segments.insert(timeline(on), all);
        wal.last_stored.insert(timeline(on), stored);
    }

    /// Adds a timeline that branches off from its parent in the middle of a segment, with WAL from there on.
    pub(crate) fn branch(&mut self, on: u32, from: u32, at: u64, last: u64) {
        let wal = self.wal_of(1);
        let mut entries = wal.histories.get(&timeline(from)).map_or(Vec::new(), |parent| parent.entries().to_vec());
        entries.push(HistoryEntry { timeline: timeline(from), switch_lsn: lsn(at), reason: String::new() });
        wal.histories.insert(timeline(on), HistoryFile::new(timeline(on), entries).unwrap());
        self.wal(1, on, at, last);
    }

    pub(crate) fn backup(&mut self, on: i64) -> &mut Backup {
        self.backup_of(on, &[])
    }

    /// Adds a backup that also names packs of earlier ones.
    pub(crate) fn backup_of(&mut self, on: i64, others: &[PackId]) -> &mut Backup {
        let own = pack(on, 1);
        self.catalog.packs.push(Pack { id: own, size_bytes: 100 });
        let uses = others.iter().chain([&own]).map(|pack| PackUse { pack: *pack, live_bytes: 100, size_bytes: None });
        self.manifests.insert(id(on), ManifestUses { packs: uses.collect(), origins: Vec::new() });
        self.catalog.manifests.insert(id(on));
        let start = u64::try_from(on).unwrap() * 10;
        self.catalog.backups.push(Backup {
            id: id(on),
            claim: ClaimNumber::FIRST,
            timeline: TimelineId::FIRST,
            start_lsn: lsn(start),
            stop_timeline: TimelineId::FIRST,
            stop_lsn: lsn(start + 1),
            start_time: day(on),
            stop_time: day(on) + Duration::hours(1),
            place: Place::Packs,
            hold: None,
            hold_with_wal: None,
            verified: Verified::Never,
        });
        self.catalog.backups.last_mut().unwrap()
    }

    pub(crate) fn find(&mut self, on: i64) -> &mut Backup {
        self.catalog.backups.iter_mut().find(|backup| backup.id == id(on)).unwrap()
    }

    pub(crate) fn unfinished(&mut self, started: i64) -> &mut UnfinishedBackup {
        self.catalog.unfinished.push(UnfinishedBackup {
            id: id(started),
            claim: Some(ClaimNumber::FIRST),
            started: day(started),
            lease_until: Some(day(started + 1)),
            parent: Parent::Nothing,
            start_lsn: Some(lsn(u64::try_from(started).unwrap() * 10)),
        });
        self.catalog.unfinished.last_mut().unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        decide(&self.catalog, &self.manifests, &self.policy, day(self.today)).unwrap()
    }

    /// The days of the backups to remove.
    pub(crate) fn going(&self) -> Vec<i64> {
        self.plan().going().backups.iter().map(|id| (id.time() - day(0)).num_days()).collect()
    }

    /// The WAL of the first claim to remove: timeline, first and last number.
    pub(crate) fn going_wal(&self) -> Vec<(u32, u64, u64)> {
        let wal = self.plan().going().wal;
        wal.iter()
            .filter(|range| range.claim == claim(1))
            .map(|range| (range.timeline.get(), range.first, range.last))
            .collect()
    }

    pub(crate) fn going_packs(&self) -> Vec<PackId> {
        self.plan().going().packs.into_iter().collect()
    }

    pub(crate) fn reasons(&self, on: i64) -> Vec<BackupKept> {
        match self.plan().backups.get(&id(on)) {
            Some(BackupVerdict::Kept(reasons)) => reasons.clone(),
            other => panic!("backup of day {on}: {other:?}"),
        }
    }

    pub(crate) fn warns(&self, warning: &Warning) -> bool {
        self.plan().warnings.contains(warning)
    }
}
