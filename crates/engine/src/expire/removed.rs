//! The ledger entries of a removal: they are complete even if the run is killed.
//!
//! Before the first object is deleted, `removing` entries name everything that will be deleted. At its end, the run
//! writes a `removal` entry with what it deleted, and deletes the `removing` entries. They stay if the run is killed,
//! or if a request to delete fails and nobody knows how much of it was done. Then the next run looks which objects are
//! gone, writes the `removal` entry, and deletes the `removing` entries. Both kinds carry the id of the run that
//! removed, so that nothing is recorded twice.
//!
//! `removal` names the segments that are gone: `wal verify` takes no other missing segment for one that `expire`
//! removed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use holdfast_pgtypes::TimelineId;
use holdfast_repo::name::{BackupId, ClaimNumber, LedgerKind, LedgerTime, PackId, RunId};
use holdfast_repo::record::{DecidedWal, LedgerEntry, LedgerRecord, PackRange};
use holdfast_retention as planner;

use super::carry_out::Done;
use super::decided::{RANGES_AT_MOST, Writing, decided_wal, pack_ranges};
use super::gather::{Gathered, Users};
use crate::error::{Cause, Error};

/// Writes what will be deleted, before the first object is. Gives the names of the entries.
pub(super) async fn begin(
    to: Writing<'_>,
    run: &RunId,
    removal: &planner::Removal,
    users: &Users,
) -> Result<Vec<String>, Error> {
    // An interrupted removal has named its backups before.
    let mut backups: Vec<BackupId> = removal.backups.iter().copied().filter(|id| users.complete.contains(id)).collect();
    let packs = pack_ranges(&removal.packs);
    let wal: Vec<DecidedWal> = removal.wal.iter().filter_map(|range| decided_wal(range, to.claims)).collect();
    let goes = to.packs.iter().map(|(pack, _)| pack).filter(|pack| removal.packs.contains(&pack.id));
    let mut pack_bytes: u64 = goes.map(|pack| pack.size_bytes).sum();
    let pieces = packs.len().div_ceil(RANGES_AT_MOST).max(wal.len().div_ceil(RANGES_AT_MOST)).max(1);
    let (mut packs, mut wal) = (packs.chunks(RANGES_AT_MOST), wal.chunks(RANGES_AT_MOST));
    let mut names = Vec::new();
    for _ in 0..pieces {
        let entry = LedgerEntry::Removing {
            run: run.clone(),
            backups: std::mem::take(&mut backups),
            packs: packs.next().unwrap_or_default().to_vec(),
            wal: wal.next().unwrap_or_default().to_vec(),
            pack_bytes: std::mem::take(&mut pack_bytes),
        };
        names.push(to.repository.write_ledger(to.cluster, to.host, to.now, entry).await?);
    }
    Ok(names)
}

/// Writes what was deleted. If that is not known, the entries of [`begin`] stay.
pub(super) async fn end(to: Writing<'_>, run: &RunId, began: &[String], done: &Done) -> Result<(), Error> {
    if done.in_doubt {
        return Ok(());
    }
    if !done.is_nothing() {
        let entry = LedgerEntry::Removal {
            backups: done.backups.clone(),
            pack_count: done.packs,
            wal_file_count: done.wal_files,
            size_bytes: done.size_bytes,
            run: Some(run.clone()),
            found_later: false,
            wal: Vec::new(),
        };
        let ranges = done.wal.iter().flat_map(|((claim, timeline), ranges)| {
            let ranges: planner::NumberRanges = ranges.iter().copied().collect();
            wal_ranges(*claim, *timeline, &ranges)
        });
        write(to, entry, ranges).await?;
    }
    to.repository.delete_ledger(began).await
}

fn wal_ranges(claim: ClaimNumber, timeline: TimelineId, ranges: &planner::NumberRanges) -> Vec<planner::WalRange> {
    ranges.iter().map(|(first, last)| planner::WalRange { claim, timeline, first, last }).collect()
}

/// Writes a `removal` entry with the segments that are gone. What one entry cannot hold is in further ones. These are
/// written first and name no run: an entry with the run says that everything is recorded.
async fn write(
    to: Writing<'_>,
    entry: LedgerEntry,
    ranges: impl Iterator<Item = planner::WalRange>,
) -> Result<(), Error> {
    let ranges: Vec<DecidedWal> = ranges.filter_map(|range| decided_wal(&range, to.claims)).collect();
    let mut pieces: Vec<&[DecidedWal]> = ranges.chunks(RANGES_AT_MOST).collect();
    let own = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let more = LedgerEntry::Removal {
            backups: Vec::new(),
            pack_count: 0,
            wal_file_count: 0,
            size_bytes: 0,
            run: None,
            found_later: false,
            wal: piece.to_vec(),
        };
        to.repository.write_ledger(to.cluster, to.host, to.now, more).await?;
    }
    let entry = match entry {
        LedgerEntry::Removal { backups, pack_count, wal_file_count, size_bytes, run, found_later, wal: _ } => {
            let wal = own.to_vec();
            LedgerEntry::Removal { backups, pack_count, wal_file_count, size_bytes, run, found_later, wal }
        }
        other => other,
    };
    to.repository.write_ledger(to.cluster, to.host, to.now, entry).await?;
    Ok(())
}

/// What one run was removing.
#[derive(Debug)]
struct Unsettled {
    /// The `removal` of this run, if there is one, is not older than this.
    since: LedgerTime,
    names: Vec<String>,
    backups: BTreeSet<BackupId>,
    packs: Vec<PackRange>,
    wal: Vec<DecidedWal>,
    pack_bytes: u64,
}

/// Writes the `removal` entries of earlier runs that ended before they could.
pub(super) async fn settle(to: Writing<'_>, found: &Gathered, notes: &mut Vec<String>) -> Result<(), Error> {
    let listed = to.repository.ledger(to.cluster, LedgerKind::Removing).await?;
    for bad in &listed.unreadable {
        notes.push(format!("the entry {} cannot be read, so what it removed is not known: {}", bad.object, bad.error));
    }
    let mut runs: BTreeMap<RunId, Unsettled> = BTreeMap::new();
    for (name, record) in listed.records {
        let LedgerEntry::Removing { run, backups, packs, wal, pack_bytes } = record.entry else { continue };
        // One day earlier: no clock may have been set back by more than that.
        let since = LedgerTime::new(record.time - TimeDelta::days(1)).map_err(|e| Cause::Internal(e.to_string()))?;
        let of_run = runs.entry(run).or_insert_with(|| Unsettled {
            since,
            names: Vec::new(),
            backups: BTreeSet::new(),
            packs: Vec::new(),
            wal: Vec::new(),
            pack_bytes: 0,
        });
        of_run.names.push(name);
        of_run.backups.extend(backups);
        of_run.packs.extend(packs);
        of_run.wal.extend(wal);
        of_run.pack_bytes += pack_bytes;
    }
    let Some(since) = runs.values().map(|removing| removing.since).min() else { return Ok(()) };
    let recorded = match recorded(to, since).await {
        Err(error) if error.is_of_one_object() => {
            notes.push(format!("what earlier runs removed is not recorded, because an entry cannot be read: {error}"));
            return Ok(());
        }
        recorded => recorded?,
    };
    for (run, removing) in runs {
        if !recorded.contains(&run) {
            let Some((entry, ranges)) = gone(&run, &removing, found) else {
                notes.push(format!(
                    "what the run {run} removed is not recorded, because the record of a claim cannot be read"
                ));
                continue;
            };
            if let LedgerEntry::Removal { backups, pack_count, wal_file_count, .. } = &entry
                && (!backups.is_empty() || *pack_count > 0 || *wal_file_count > 0)
            {
                notes.push(format!(
                    "an earlier run ended before it recorded its removals: {} backups, {pack_count} packs and \
                     {wal_file_count} WAL segments",
                    backups.len()
                ));
                write(to, entry, ranges.into_iter()).await?;
            }
        }
        to.repository.delete_ledger(&removing.names).await?;
    }
    Ok(())
}

/// The runs that have a `removal` entry. An entry that cannot be read is an error: nothing may be recorded twice.
async fn recorded(to: Writing<'_>, since: LedgerTime) -> Result<BTreeSet<RunId>, Error> {
    let mut runs = BTreeSet::new();
    for (time, name) in to.repository.ledger_names(to.cluster, LedgerKind::Removal).await? {
        if time >= since
            && let LedgerEntry::Removal { run, .. } = to.repository.read_record::<LedgerRecord>(&name).await?.entry
        {
            runs.extend(run);
        }
    }
    Ok(runs)
}

/// The `removal` entry for the objects that are gone, and the whole segments among them; `None` if that cannot be
/// known.
fn gone(run: &RunId, removing: &Unsettled, found: &Gathered) -> Option<(LedgerEntry, Vec<planner::WalRange>)> {
    let Gathered { catalog, claims, users, .. } = found;
    let packs: BTreeMap<PackId, u64> = catalog.packs.iter().map(|pack| (pack.id, pack.size_bytes)).collect();
    let (mut pack_count, mut left_bytes) = (0, 0);
    for range in &removing.packs {
        for number in range.first..=range.last.min(holdfast_repo::name::MAX_PACK_NUMBER) {
            match packs.get(&PackId { backup: range.backup, number }) {
                Some(size) => left_bytes += size,
                None => pack_count += 1,
            }
        }
    }
    let (mut wal_file_count, mut ranges) = (0, Vec::new());
    for range in &removing.wal {
        let size = claims.get(&range.claim)?.wal_segment_size;
        let wal = &catalog.claims.get(&range.claim)?.wal;
        let timeline = range.first.timeline();
        let partials = wal.partials.iter().filter(|partial| partial.timeline() == timeline);
        let partials = partials.map(|partial| partial.number(size)).map(|number| (number, number));
        let there: planner::NumberRanges = wal.of(timeline).iter().chain(partials).collect();
        let decided = planner::NumberRanges::of(range.first.number(size), range.last.number(size));
        let segments: planner::NumberRanges = wal.of(timeline).iter().collect();
        ranges.extend(wal_ranges(range.claim, timeline, &decided.without(&segments)));
        let gone = decided.without(&there);
        wal_file_count += gone.iter().map(|(first, last)| last - first + 1).sum::<u64>();
    }
    let entry = LedgerEntry::Removal {
        backups: removing.backups.difference(&users.complete).copied().collect(),
        pack_count,
        wal_file_count,
        size_bytes: removing.pack_bytes.saturating_sub(left_bytes),
        run: Some(run.clone()),
        found_later: true,
        wal: Vec::new(),
    };
    Some((entry, ranges))
}
