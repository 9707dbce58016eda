//! The decisions in the ledger: what will be removed, and when that was decided.
//!
//! To take back a part of a decision, its entry is deleted and the rest is written again with the old time. After a
//! crash between the two, the rest is decided again and waits a new grace time, which is safe.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{ClaimNumber, ClusterName, LedgerKind, PackId};
use holdfast_repo::record::{ClaimRecord, DecidedWal, LedgerEntry, LedgerRecord, PackRange};
use holdfast_retention as planner;

use crate::error::Error;
use crate::repository::Repository;
use crate::repository::leases::CLOCK_DIFFERENCE;

/// The maximum number of ranges in an entry: its record stays far below what a reader accepts. A million segments
/// without neighbours need twenty entries.
pub(super) const RANGES_AT_MOST: usize = 50_000;

/// A decision, and the object name of its ledger entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) decision: planner::Decision,
}

/// Takes out the entries whose time is later than now by more than [`CLOCK_DIFFERENCE`]; gives their names. The clock
/// of their host was ahead, so their grace time would end much too late. What they decided is decided again.
pub(super) fn take_future(entries: &mut Vec<Entry>, now: DateTime<Utc>, notes: &mut Vec<String>) -> Vec<String> {
    let is_future =
        |entry: &Entry| entry.decision.at.checked_sub_signed(CLOCK_DIFFERENCE).is_none_or(|earliest| earliest > now);
    let future: Vec<String> = entries.extract_if(.., |entry| is_future(entry)).map(|entry| entry.name).collect();
    if let Some(first) = future.first() {
        notes.push(format!(
            "{} decisions have a time in the future, the first is {first}: they are ignored, and what they decided \
             waits a new grace time; check the clocks",
            future.len()
        ));
    }
    future
}

/// Reads the decisions. An unreadable one is ignored: what it decided is decided again.
pub(super) async fn read(
    repository: &Repository,
    cluster: &ClusterName,
    claims: &BTreeMap<ClaimNumber, ClaimRecord>,
    notes: &mut Vec<String>,
) -> Result<Vec<Entry>, Error> {
    let listed = repository.ledger(cluster, LedgerKind::Deletion).await?;
    for bad in &listed.unreadable {
        notes.push(format!("the decision {} cannot be read and is ignored: {}", bad.object, bad.error));
    }
    let entries = listed.records.into_iter();
    Ok(entries.filter_map(|(name, record)| Some(Entry { name, decision: decision_of(record, claims)? })).collect())
}

fn decision_of(record: LedgerRecord, claims: &BTreeMap<ClaimNumber, ClaimRecord>) -> Option<planner::Decision> {
    let LedgerEntry::Deletion { backups, packs, wal, decided, .. } = record.entry else { return None };
    let packs = packs.iter().flat_map(|range| {
        (range.first..=range.last.min(holdfast_repo::name::MAX_PACK_NUMBER))
            .map(|number| PackId { backup: range.backup, number })
    });
    let wal = wal.iter().filter_map(|range| {
        let size = claims.get(&range.claim)?.wal_segment_size;
        let (first, last) = (range.first.number(size), range.last.number(size));
        (range.first.timeline() == range.last.timeline() && first <= last).then(|| planner::WalRange {
            claim: range.claim,
            timeline: range.first.timeline(),
            first,
            last,
        })
    });
    Some(planner::Decision {
        at: decided.unwrap_or(record.time),
        backups: backups.into_iter().collect(),
        packs: packs.collect(),
        wal: wal.collect(),
    })
}

/// What every write of a ledger entry needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing<'a> {
    pub(super) repository: &'a Repository,
    pub(super) cluster: &'a ClusterName,
    pub(super) host: &'a str,
    pub(super) now: DateTime<Utc>,
    pub(super) grace: TimeDelta,
    pub(super) claims: &'a BTreeMap<ClaimNumber, ClaimRecord>,
    pub(super) packs: &'a [(planner::Pack, planner::PackVerdict)],
}

/// Writes a decision, in as many entries as it needs.
pub(super) async fn write(to: Writing<'_>, decision: &planner::Decision) -> Result<Vec<Entry>, Error> {
    let mut backups: Vec<_> = decision.backups.iter().copied().collect();
    let packs = pack_ranges(&decision.packs);
    let wal: Vec<DecidedWal> = decision.wal.iter().filter_map(|range| decided_wal(range, to.claims)).collect();
    let segments: u64 = decision.wal.iter().map(planner::WalRange::count).fold(0, u64::saturating_add);
    let of_decision = to.packs.iter().map(|(pack, _)| pack).filter(|pack| decision.packs.contains(&pack.id));
    let mut size_bytes: u64 = of_decision.map(|pack| pack.size_bytes).sum();
    let mut object_count = (decision.packs.len() as u64).saturating_add(segments);
    let not_before = decision.at.checked_add_signed(to.grace).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let pieces = packs.len().div_ceil(RANGES_AT_MOST).max(wal.len().div_ceil(RANGES_AT_MOST)).max(1);
    let (mut packs, mut wal) = (packs.chunks(RANGES_AT_MOST), wal.chunks(RANGES_AT_MOST));
    let mut written = Vec::new();
    for _ in 0..pieces {
        let entry = LedgerEntry::Deletion {
            // All backups are in the first entry: if the writing is interrupted, no pack is decided before its backup.
            backups: std::mem::take(&mut backups),
            packs: packs.next().unwrap_or_default().to_vec(),
            wal: wal.next().unwrap_or_default().to_vec(),
            decided: (decision.at != to.now).then_some(decision.at),
            object_count: std::mem::take(&mut object_count),
            size_bytes: std::mem::take(&mut size_bytes),
            not_before,
            reason: "no rule keeps it".to_owned(),
        };
        let record =
            LedgerRecord { time: to.now, host: String::new(), software_version: String::new(), entry: entry.clone() };
        let name = to.repository.write_ledger(to.cluster, to.host, to.now, entry).await?;
        written.extend(decision_of(record, to.claims).map(|decision| Entry { name, decision }));
    }
    Ok(written)
}

pub(super) fn decided_wal(
    range: &planner::WalRange,
    claims: &BTreeMap<ClaimNumber, ClaimRecord>,
) -> Option<DecidedWal> {
    let (first, last) = range.names(claims.get(&range.claim)?.wal_segment_size)?;
    Some(DecidedWal { claim: range.claim, first, last })
}

pub(super) fn pack_ranges(packs: &BTreeSet<PackId>) -> Vec<PackRange> {
    let mut ranges: Vec<PackRange> = Vec::new();
    for &PackId { backup, number } in packs {
        match ranges.last_mut() {
            Some(range) if range.backup == backup && range.last + 1 == number => range.last = number,
            _ => ranges.push(PackRange { backup, first: number, last: number }),
        }
    }
    ranges
}

/// Takes out of the ledger what is kept now; gives the entries that are left.
pub(super) async fn take_back(
    to: Writing<'_>,
    entries: Vec<Entry>,
    kept: &planner::Decision,
) -> Result<Vec<Entry>, Error> {
    let mut left = Vec::new();
    for entry in entries {
        let rest = without(&entry.decision, kept);
        if rest == entry.decision {
            left.push(entry);
            continue;
        }
        to.repository.delete_ledger(&[entry.name]).await?;
        if !rest.is_empty() {
            left.extend(write(to, &rest).await?);
        }
    }
    Ok(left)
}

/// The decision without the backups, packs and WAL of another one.
pub(super) fn without(decision: &planner::Decision, other: &planner::Decision) -> planner::Decision {
    let mut taken: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
    for range in &other.wal {
        taken.entry((range.claim, range.timeline)).or_default().push((range.first, range.last));
    }
    let taken: BTreeMap<_, planner::NumberRanges> =
        taken.into_iter().map(|(key, ranges)| (key, ranges.into_iter().collect())).collect();
    let mut wal = Vec::new();
    for range in &decision.wal {
        let own = planner::NumberRanges::of(range.first, range.last);
        let left = taken.get(&(range.claim, range.timeline)).map_or_else(|| own.clone(), |taken| own.without(taken));
        wal.extend(left.iter().map(|(first, last)| planner::WalRange { first, last, ..*range }));
    }
    planner::Decision {
        at: decision.at,
        backups: decision.backups.difference(&other.backups).copied().collect(),
        packs: decision.packs.difference(&other.packs).copied().collect(),
        wal,
    }
}
