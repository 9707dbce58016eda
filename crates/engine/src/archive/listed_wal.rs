//! One listing of the WAL of a claim, from which `wal list`, `info` and `restore` plan.
//!
//! It keeps ranges and sums, not names. A name counts only if `wal get` would ask for it: an object with another codec,
//! or with another encryption than the repository's, is not WAL of this archive.

use std::collections::BTreeMap;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal::{ClaimWal, TimelineWal};
use holdfast_pgtypes::{Lsn, SegmentName, TimelineId, WalFileName};
use holdfast_repo::catalog::{SegmentRange, WalInventory};
use holdfast_repo::frame::HEAD_FRAME_BYTES;
use holdfast_repo::name::ObjectPath;
use holdfast_repo::record::ClaimRecord;
use holdfast_store::ObjectInfo;

use super::known_logs::{KnownLog, KnownLogs};
use super::stored::wal_object_name;
use crate::repository::Repository;

/// The smallest size of a WAL object: its head.
pub(super) const LEAST_OBJECT_BYTES: u64 = HEAD_FRAME_BYTES as u64;

/// Whether an object is large enough to be a WAL object.
pub(crate) fn is_large_enough(object: &ObjectInfo) -> bool {
    object.size_bytes >= LEAST_OBJECT_BYTES
}

/// The WAL of one claim, as a listing shows it.
#[derive(Debug, Clone)]
pub struct ListedWal {
    claim: ClaimRecord,
    from: Option<Lsn>,
    inventory: WalInventory,
    sums: BTreeMap<TimelineId, Sums>,
    /// The same sums for each log folder, by its number.
    logs: BTreeMap<(TimelineId, u32), Log>,
    /// Files whose object is too small to be a WAL object, with its size in bytes.
    stunted: Vec<(WalFileName, u64)>,
}

/// The facts of a listing besides the names.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    segments: u64,
    backup_histories: u64,
    stored_bytes: u64,
    newest: Option<SystemTime>,
}

/// The content of one log folder.
#[derive(Debug, Clone, Copy, Default)]
struct Log {
    segments: u64,
    partials: u64,
    backup_histories: u64,
    stored_bytes: u64,
}

impl ListedWal {
    /// A claim without WAL.
    pub fn nothing(claim: &ClaimRecord) -> Self {
        Self {
            claim: claim.clone(),
            from: None,
            inventory: WalInventory::new(claim.wal_segment_size),
            sums: BTreeMap::new(),
            logs: BTreeMap::new(),
            stunted: Vec::new(),
        }
    }

    pub(super) fn claim(&self) -> &ClaimRecord {
        &self.claim
    }

    /// Records that there is a folder of this timeline.
    pub(super) fn know(&mut self, timeline: TimelineId) {
        self.inventory.know(timeline);
    }

    /// Records that WAL before this LSN may not have been listed.
    pub(super) fn begins_at(&mut self, from: Lsn) {
        self.from = self.from.max(Some(from));
    }

    /// Whether a recovery that begins at this LSN finds all of its WAL here, as far as it is in the archive.
    pub(crate) fn covers(&self, start: Lsn) -> bool {
        let log = |lsn: Lsn| lsn.as_u64() >> 32;
        self.from.is_none_or(|from| log(start) >= log(from))
    }

    /// The number of the first log that was listed in full.
    pub fn first_log(&self) -> u32 {
        self.from.map_or(0, |from| SegmentName::containing(from, TimelineId::FIRST, self.claim.wal_segment_size).log())
    }

    /// Adds an object, if it is WAL of this archive.
    pub(super) fn add(&mut self, repository: &Repository, object: &ObjectInfo) {
        let Ok(ObjectPath::WalFile { file, .. }) = object.name.as_ref().parse() else { return };
        if wal_object_name(repository, &self.claim.cluster, &self.claim, &file) != object.name.as_ref() {
            tracing::debug!(object = %object.name, "not a name that this archive gives to WAL");
            return;
        }
        self.inventory.add(file);
        if !is_large_enough(object) {
            self.stunted.push((file, object.size_bytes));
        }
        let sums = self.sums.entry(file.timeline()).or_default();
        sums.stored_bytes += object.size_bytes;
        sums.newest = sums.newest.max(object.modified);
        let (WalFileName::Segment(segment)
        | WalFileName::Partial(segment)
        | WalFileName::BackupHistory { segment, .. }) = file
        else {
            return;
        };
        let log = self.logs.entry((segment.timeline(), segment.log())).or_default();
        log.stored_bytes += object.size_bytes;
        match file {
            WalFileName::Segment(_) => {
                (sums.segments, log.segments) = (sums.segments + 1, log.segments + 1);
                if let Some(stored) = object.modified {
                    self.inventory.stored_at(segment.timeline(), stored.into());
                }
            }
            WalFileName::Partial(_) => log.partials += 1,
            _ => {
                sums.backup_histories += 1;
                log.backup_histories += 1;
            }
        }
    }

    /// Adds a log folder that an earlier listing found complete.
    pub(super) fn add_known(&mut self, timeline: TimelineId, number: u32, known: KnownLog) {
        let segments = self.claim.wal_segment_size.segments_per_id();
        let first = u64::from(number) * segments;
        if let Some(range) = SegmentRange::new(timeline, first, first + segments - 1, self.claim.wal_segment_size) {
            self.inventory.add_range(range);
        }
        let log =
            Log { segments, partials: 0, backup_histories: known.backup_histories, stored_bytes: known.stored_bytes };
        let sums = self.sums.entry(timeline).or_default();
        sums.segments += segments;
        sums.backup_histories += log.backup_histories;
        sums.stored_bytes += log.stored_bytes;
        self.logs.insert((timeline, number), log);
    }

    /// Adds the results of a listing of other folders.
    pub(super) fn absorb(&mut self, other: Self) {
        self.inventory.absorb(other.inventory);
        for (timeline, more) in other.sums {
            let sums = self.sums.entry(timeline).or_default();
            sums.segments += more.segments;
            sums.backup_histories += more.backup_histories;
            sums.stored_bytes += more.stored_bytes;
            sums.newest = sums.newest.max(more.newest);
        }
        self.logs.extend(other.logs);
        self.stunted.extend(other.stunted);
    }

    /// Files whose object has too few bytes to be a WAL object, with the number of its bytes.
    pub(crate) fn stunted(&self) -> &[(WalFileName, u64)] {
        &self.stunted
    }

    /// The log folders that get no more objects: all segments exist, and there are later ones. The last folder of a
    /// timeline is never among them, nor is one with a partial segment.
    pub fn whole_logs(&self) -> KnownLogs {
        let per_log = self.claim.wal_segment_size.segments_per_id();
        let mut whole = KnownLogs::default();
        for (&(timeline, number), log) in &self.logs {
            let has_later = self.logs.range((timeline, number)..).nth(1).is_some_and(|((of, _), _)| *of == timeline);
            if has_later && log.segments == per_log && log.partials == 0 {
                let known = KnownLog { stored_bytes: log.stored_bytes, backup_histories: log.backup_histories };
                whole.insert(timeline, number, known);
            }
        }
        whole
    }

    /// The names, in the form that the recovery planner uses.
    pub fn inventory(&self) -> &WalInventory {
        &self.inventory
    }

    /// The same without the segments whose object is too small to be one.
    pub fn whole(&self) -> WalInventory {
        let mut whole = self.inventory.clone();
        for (file, _) in &self.stunted {
            if let WalFileName::Segment(segment) = file {
                whole.remove(*segment);
            }
        }
        whole
    }

    /// The same in a form for reports.
    pub fn describe(&self) -> ClaimWal {
        let timeline = |(timeline, sums): (&TimelineId, &Sums)| {
            let ranges = self.inventory.ranges(*timeline);
            let ends = ranges.first().zip(ranges.last());
            TimelineWal {
                timeline: *timeline,
                gaps: ends.map(|(first, last)| self.inventory.holes(first.first, last.last)).unwrap_or_default(),
                ranges,
                has_history: self.inventory.histories().any(|found| found == *timeline),
                partials: self.inventory.partials().filter(|partial| partial.timeline() == *timeline).collect(),
                backup_histories: sums.backup_histories,
                segments: sums.segments,
                stored_bytes: sums.stored_bytes,
                newest: sums.newest.map(Into::into),
            }
        };
        ClaimWal {
            claim: self.claim.number,
            system_identifier: self.claim.system_identifier,
            pg_major: self.claim.pg_major,
            wal_segment_size_bytes: self.claim.wal_segment_size,
            listed_from: self.from,
            timelines: self.sums.iter().map(timeline).collect(),
        }
    }

    /// When the newest object of a timeline was stored, by the store's clock.
    pub fn newest(&self, timeline: TimelineId) -> Option<DateTime<Utc>> {
        self.sums.get(&timeline)?.newest.map(Into::into)
    }
}
