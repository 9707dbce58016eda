//! What a deep verification reads: objects that were read and found sound within the requested time are not read again.
//!
//! An object is due before it gets too old: the next run is expected a day later. Objects that are known to be damaged
//! are always due.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_pgtypes::TimelineId;
use holdfast_repo::catalog::SegmentRange;
use holdfast_repo::name::{ClaimNumber, ObjectPath, PackId};
use holdfast_repo::record::ClaimRecord;
use holdfast_retention::NumberRanges;
use tokio::time::Instant;

use crate::repository::damaged::KnownDamage;
use crate::repository::readings::{Known, Readings, Sizes};

/// The time between two runs of a scrub. An object that would be too old in the next run is read in this one.
const BETWEEN_RUNS: TimeDelta = TimeDelta::days(1);

/// What is known before a run, and what it adds.
#[derive(Debug)]
pub(super) struct Scrub {
    pub(super) damage: KnownDamage,
    pub(super) known: Known,
    /// Objects that were read at this time or later are not due; `None` if all are.
    since: Option<DateTime<Utc>>,
    /// What this run has read since it last wrote it down.
    pub(super) new: Readings,
    pub(super) written: Instant,
    /// The packs that manifests name; `None` if a manifest could not be read.
    pub(super) named: Option<BTreeSet<PackId>>,
    pub(super) sizes: Sizes,
}

impl Scrub {
    /// `max_age` is how old a reading may be; `None` reads everything.
    pub(super) fn new(now: DateTime<Utc>, max_age: Option<Duration>) -> Self {
        Self {
            damage: KnownDamage::default(),
            known: Known::default(),
            since: max_age.map(|age| due_before(now, age)),
            new: Readings::default(),
            written: Instant::now(),
            named: Some(BTreeSet::new()),
            sizes: Sizes::new(),
        }
    }

    /// Whether a pack is due at the beginning of this run.
    pub(super) fn is_due(&self, pack: &str) -> bool {
        let Some(since) = self.since else { return true };
        self.damage.is_damaged(pack) || self.known.readings.object(pack).is_none_or(|read| read < since)
    }

    /// Records that a manifest names this pack.
    pub(super) fn names(&mut self, pack: &str) {
        if let (Some(named), Some(pack)) = (&mut self.named, id_of(pack)) {
            named.insert(pack);
        }
    }

    /// Records that a manifest cannot be read.
    pub(super) fn cannot_name_all(&mut self) {
        self.named = None;
    }

    /// The segments of these ranges that are due, and the number of the others.
    pub(super) fn due(&self, claim: &ClaimRecord, ranges: Vec<SegmentRange>) -> (Vec<SegmentRange>, u64) {
        let Some(since) = self.since else { return (ranges, 0) };
        let size = claim.wal_segment_size;
        let (mut due, mut count) = (Vec::new(), 0);
        for range in ranges {
            let place = (claim.number, range.timeline);
            let read = self.known.readings.wal_since(place, since);
            let read: NumberRanges = read.iter().chain(self.new.wal_since(place, since).iter()).collect();
            let all = NumberRanges::of(range.first.number(size), range.last.number(size));
            let left = all.without(&read);
            count += all.count() - left.count();
            let parts = left.iter().filter_map(|(first, last)| SegmentRange::new(range.timeline, first, last, size));
            due.extend(parts);
        }
        (due, count)
    }

    pub(super) fn read_pack(&mut self, pack: &str, now: DateTime<Utc>) {
        if let Some(pack) = id_of(pack) {
            self.new.read_pack(pack, now);
        }
    }

    pub(super) fn read_wal(&mut self, place: (ClaimNumber, TimelineId), numbers: &NumberRanges, now: DateTime<Utc>) {
        self.new.read_wal(place, numbers, now);
    }
}

fn id_of(pack: &str) -> Option<PackId> {
    match pack.parse() {
        Ok(ObjectPath::Pack { backup, number, .. }) => Some(PackId { backup, number }),
        _ => None,
    }
}

/// What was read before this time would be older than `max_age` in the next run.
fn due_before(now: DateTime<Utc>, max_age: Duration) -> DateTime<Utc> {
    let age = TimeDelta::from_std(max_age).unwrap_or(TimeDelta::MAX);
    now.checked_sub_signed(age - BETWEEN_RUNS.min(age / 2)).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    /// With a run each night, nothing gets older than the requested time, and nothing is read much earlier.
    #[test]
    fn an_object_is_read_before_it_is_too_old() {
        let now: DateTime<Utc> = "2026-11-30T02:00:00Z".parse().unwrap();
        for (age, since) in [
            (Duration::from_hours(30 * 24), "2026-11-01T02:00:00Z"),
            (Duration::from_hours(48), "2026-11-29T02:00:00Z"),
            (Duration::from_hours(1), "2026-11-30T01:30:00Z"),
            (Duration::ZERO, "2026-11-30T02:00:00Z"),
        ] {
            assert_eq!(due_before(now, age), since.parse::<DateTime<Utc>>().unwrap(), "{age:?}");
        }
        assert_eq!(due_before(now, Duration::MAX), DateTime::<Utc>::MIN_UTC);
    }
}
