//! What was read to its last byte and found sound, and when: packs, and WAL by ranges of segments.
//!
//! A verification that reads everything writes an entry `reading` to the ledger from time to time, so that a run that
//! was killed is continued, and one at its end. The last one also has what earlier entries said, and names them. So a
//! reader reads the newest entry, and then only the entries that it does not name: those of killed runs and of a run at
//! the same time. `expire` removes the entries that another one names ([`superseded`]).
//!
//! Nothing is lost if two runs write at once, because both entries count, and the later time of reading counts for each
//! object. An entry that cannot be read, or that is gone, only means that some objects are read again.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, TimelineId, WalSegmentSize};
use holdfast_repo::name::{self, ClaimNumber, ClusterName, LedgerKind, LedgerTime, ObjectPath, PackId};
use holdfast_repo::record::{LedgerEntry, LedgerRecord, PacksRead, WalRead};
use holdfast_retention::NumberRanges;

use super::Repository;
use super::ledger::is_ahead;
use super::listed::Listed;
use crate::error::{Cause, Error};

/// The maximum number of ranges in an entry: its record stays far below what a reader accepts.
const RANGES_AT_MOST: usize = 50_000;

/// A timeline of a claim.
type Place = (ClaimNumber, TimelineId);

/// When packs and segments were last read and found sound.
#[derive(Debug, Default, Clone)]
pub(crate) struct Readings {
    packs: BTreeMap<PackId, DateTime<Utc>>,
    /// By the time of reading. A segment that was read twice is in both.
    wal: BTreeMap<Place, BTreeMap<DateTime<Utc>, NumberRanges>>,
    /// Ranges of claims whose segment size is not known here.
    unknown: Vec<WalRead>,
}

/// The readings of an archive, with their entries.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) readings: Readings,
    /// The listed entries whose content is in `readings`.
    entries: BTreeSet<LedgerTime>,
}

impl Readings {
    /// Records that a pack was read at this time.
    pub(crate) fn read_pack(&mut self, pack: PackId, time: DateTime<Utc>) {
        let known = self.packs.entry(pack).or_insert(time);
        *known = time.max(*known);
    }

    /// Records that segments of a timeline were read at this time.
    pub(crate) fn read_wal(&mut self, place: Place, numbers: &NumberRanges, time: DateTime<Utc>) {
        if !numbers.is_empty() {
            let known = self.wal.entry(place).or_default().entry(time).or_default();
            *known = known.iter().chain(numbers.iter()).collect();
        }
    }

    /// When a pack was last read.
    pub(crate) fn pack(&self, pack: PackId) -> Option<DateTime<Utc>> {
        self.packs.get(&pack).copied()
    }

    /// When the pack with this object name was last read.
    pub(crate) fn object(&self, object: &str) -> Option<DateTime<Utc>> {
        match object.parse() {
            Ok(ObjectPath::Pack { backup, number, .. }) => self.pack(PackId { backup, number }),
            _ => None,
        }
    }

    /// The segments of a timeline that were read at this time or later.
    pub(crate) fn wal_since(&self, place: Place, since: DateTime<Utc>) -> NumberRanges {
        let of_place = self.wal.get(&place).into_iter().flat_map(|times| times.range(since..));
        of_place.flat_map(|(_, numbers)| numbers.iter()).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.wal.is_empty() && self.unknown.is_empty()
    }

    /// Adds what others have read.
    pub(crate) fn add(&mut self, other: &Self) {
        for (pack, time) in &other.packs {
            self.read_pack(*pack, *time);
        }
        for (place, times) in &other.wal {
            for (time, numbers) in times {
                self.read_wal(*place, numbers, *time);
            }
        }
        let more = other.unknown.iter().filter(|range| !self.unknown.contains(range));
        let more: Vec<WalRead> = more.copied().collect();
        self.unknown.extend(more);
    }

    /// Forgets packs that do not exist any more.
    pub(crate) fn keep_packs(&mut self, exists: impl Fn(PackId) -> bool) {
        self.packs.retain(|pack, _| exists(*pack));
    }

    /// Forgets segments of this claim that do not exist any more.
    pub(crate) fn keep_wal(&mut self, claim: ClaimNumber, exists: impl Fn(TimelineId) -> NumberRanges) {
        for ((of, timeline), times) in &mut self.wal {
            if *of == claim {
                let there = exists(*timeline);
                for numbers in times.values_mut() {
                    *numbers = numbers.common(&there);
                }
            }
        }
        self.tidy();
    }

    /// Keeps each segment only at the last time at which it was read.
    fn tidy(&mut self) {
        for times in self.wal.values_mut() {
            let mut later = NumberRanges::nothing();
            for numbers in times.values_mut().rev() {
                *numbers = numbers.without(&later);
                later = later.iter().chain(numbers.iter()).collect();
            }
            times.retain(|_, numbers| !numbers.is_empty());
        }
        self.wal.retain(|_, times| !times.is_empty());
    }

    fn packs_read(&self) -> Vec<PacksRead> {
        let mut ranges: Vec<PacksRead> = Vec::new();
        for (PackId { backup, number }, time) in &self.packs {
            match ranges.last_mut() {
                Some(range)
                    if range.backup == *backup && range.time == *time && range.last.checked_add(1) == Some(*number) =>
                {
                    range.last = *number;
                }
                _ => ranges.push(PacksRead { backup: *backup, first: *number, last: *number, time: *time }),
            }
        }
        ranges
    }

    fn wal_read(&self, sizes: &Sizes) -> Vec<WalRead> {
        let mut ranges = self.unknown.clone();
        for ((claim, timeline), times) in &self.wal {
            let Some(size) = sizes.get(claim) else { continue };
            let named = |number| SegmentName::from_number(number, *timeline, *size);
            for (time, numbers) in times {
                ranges.extend(numbers.iter().filter_map(|(first, last)| {
                    Some(WalRead { claim: *claim, first: named(first)?, last: named(last)?, time: *time })
                }));
            }
        }
        ranges
    }

    fn of_entry(packs: &[PacksRead], wal: &[WalRead], sizes: &Sizes) -> Self {
        let mut readings = Self::default();
        for PacksRead { backup, first, last, time } in packs {
            // A range that nobody can have written must not fill the memory.
            for number in *first..=(*last).min(first.saturating_add(name::MAX_PACK_NUMBER)) {
                readings.read_pack(PackId { backup: *backup, number }, *time);
            }
        }
        for range in wal {
            match sizes.get(&range.claim) {
                Some(size) => {
                    let numbers = NumberRanges::of(range.first.number(*size), range.last.number(*size));
                    readings.read_wal((range.claim, range.first.timeline()), &numbers, range.time);
                }
                None => readings.unknown.push(*range),
            }
        }
        readings
    }
}

/// The segment size of each claim.
pub(crate) type Sizes = BTreeMap<ClaimNumber, WalSegmentSize>;

/// The content of an entry.
struct Read {
    time: LedgerTime,
    readings: Readings,
    includes: Vec<LedgerTime>,
}

/// Reads what was read in an archive. An entry that cannot be read, or that is of the future, does not count.
///
/// # Errors
/// [`Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for an entry.
pub(crate) async fn readings(
    repository: &Repository,
    cluster: &ClusterName,
    sizes: &Sizes,
    now: DateTime<Utc>,
) -> Result<Known, Error> {
    let listed = repository.ledger_names(cluster, LedgerKind::Reading).await?;
    let mut left: Vec<LedgerTime> = listed.into_iter().map(|(time, _)| time).filter(|it| !is_ahead(*it, now)).collect();
    let listed: BTreeSet<LedgerTime> = left.iter().copied().collect();
    let mut known = Known::default();
    // Usually the newest entry names all others.
    let mut next = left.pop().map_or_else(Vec::new, |newest| vec![newest]);
    while !next.is_empty() {
        let names = std::mem::take(&mut next).into_iter().map(|time| (time, name::ledger(cluster, time, KIND)));
        let read = Listed::read(names.collect(), |time| read_one(repository, cluster, time, sizes));
        for Read { time, readings, includes } in read.await?.records {
            known.readings.add(&readings);
            known.entries.insert(time);
            known.entries.extend(includes.into_iter().filter(|time| listed.contains(time)));
        }
        left.retain(|time| !known.entries.contains(time));
        next = std::mem::take(&mut left);
    }
    // A reading of the future would hide damage that is found until then.
    known.readings.forget_after(now);
    Ok(known)
}

const KIND: LedgerKind = LedgerKind::Reading;

async fn read_one(
    repository: &Repository,
    cluster: &ClusterName,
    time: LedgerTime,
    sizes: &Sizes,
) -> Result<Read, Error> {
    let name = name::ledger(cluster, time, KIND);
    let record: LedgerRecord = repository.read_record(&name).await?;
    match record.entry {
        LedgerEntry::Reading { packs, wal, includes } => {
            Ok(Read { time, readings: Readings::of_entry(&packs, &wal, sizes), includes })
        }
        // Without encryption only this check binds a record to its name.
        entry => Err(Cause::Malformed { name, reason: format!("it is an entry of the kind {}", entry.kind()) }.into()),
    }
}

impl Readings {
    fn forget_after(&mut self, now: DateTime<Utc>) {
        self.packs.retain(|_, time| *time <= now);
        for times in self.wal.values_mut() {
            times.retain(|time, _| *time <= now);
        }
    }
}

/// Where an entry is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) cluster: &'a ClusterName,
    pub(crate) host: &'a str,
    pub(crate) now: DateTime<Utc>,
}

impl Known {
    /// Writes what a run has read since its last entry.
    pub(crate) async fn write(&mut self, to: Writer<'_>, new: &Readings, sizes: &Sizes) -> Result<(), Error> {
        self.entries.extend(write(to, new, sizes, &BTreeSet::new()).await?);
        self.readings.add(new);
        Ok(())
    }

    /// Whether it came from several entries.
    pub(crate) fn has_several(&self) -> bool {
        self.entries.len() > 1
    }

    /// Writes everything that is known, in the place of all entries that it came from.
    pub(crate) async fn write_all(&mut self, to: Writer<'_>, sizes: &Sizes) -> Result<(), Error> {
        self.readings.tidy();
        write(to, &self.readings, sizes, &self.entries).await.map(|_| ())
    }
}

/// Writes entries; the last of them names the entries that they include. Returns their times.
async fn write(
    to: Writer<'_>,
    readings: &Readings,
    sizes: &Sizes,
    includes: &BTreeSet<LedgerTime>,
) -> Result<Vec<LedgerTime>, Error> {
    let (packs, wal) = (readings.packs_read(), readings.wal_read(sizes));
    let pieces = packs.len().div_ceil(RANGES_AT_MOST).max(wal.len().div_ceil(RANGES_AT_MOST)).max(1);
    let (mut packs, mut wal) = (packs.chunks(RANGES_AT_MOST), wal.chunks(RANGES_AT_MOST));
    let mut written = Vec::new();
    for piece in 1..=pieces {
        let entry = LedgerEntry::Reading {
            packs: packs.next().unwrap_or_default().to_vec(),
            wal: wal.next().unwrap_or_default().to_vec(),
            // The others must exist before the last one takes the place of all earlier entries.
            includes: if piece == pieces { includes.iter().copied().collect() } else { Vec::new() },
        };
        let name = to.repository.write_ledger(to.cluster, to.host, to.now, entry).await?;
        if let Ok(ObjectPath::Ledger { time, .. }) = name.parse() {
            written.push(time);
        }
    }
    Ok(written)
}

/// The names of the entries whose content is in another one.
///
/// # Errors
/// Those of [`readings`].
pub(crate) async fn superseded(
    repository: &Repository,
    cluster: &ClusterName,
    now: DateTime<Utc>,
) -> Result<Vec<String>, Error> {
    let listed = repository.ledger_names(cluster, KIND).await?;
    if listed.len() < 2 {
        return Ok(Vec::new());
    }
    let names: Vec<(LedgerTime, String)> = listed.clone();
    let (none, mut included) = (Sizes::new(), BTreeSet::new());
    let read = Listed::read(names, |time| read_one(repository, cluster, time, &none)).await?;
    for entry in read.records.into_iter().filter(|entry| !is_ahead(entry.time, now)) {
        included.extend(entry.includes.into_iter().filter(|time| *time < entry.time));
    }
    Ok(listed.into_iter().filter(|(time, _)| included.contains(time)).map(|(_, name)| name).collect())
}
