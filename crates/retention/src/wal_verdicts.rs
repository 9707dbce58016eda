//! The verdict on each range of WAL: compares the needed WAL with the segments that are there.

use crate::judge::Judged;
use crate::number_ranges::NumberRanges;
use crate::setting::Setting;
use crate::verdict::{WalGoes, WalKept, WalRange, WalVerdict};
use crate::wal_needs::{self, Need};
use std::collections::{BTreeMap, BTreeSet};

/// Every range of WAL with its verdict, sorted by claim, timeline and number. Ranges are split where the verdict
/// changes.
pub(crate) fn of_all(setting: &Setting<'_>, judged: &Judged) -> Vec<(WalRange, WalVerdict)> {
    let mut found = Vec::new();
    for (claim, lines) in &setting.lines {
        let needs = wal_needs::of_claim(setting, judged, *claim, lines);
        // A partial segment can be the only file with its number, or even the only file of its timeline. After an
        // interrupted removal, a backup history file can be the only one too.
        let mut segments: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
        for other in lines.wal.partials.iter().chain(&lines.wal.backup_histories) {
            let (timeline, number) = (other.timeline(), other.number(lines.wal.segment_size));
            if lines.wal.of(timeline).holding(number).is_none() {
                segments.entry(timeline).or_default().push((number, number));
            }
        }
        for timeline in lines.wal.segments.keys() {
            segments.entry(*timeline).or_default();
        }
        for (timeline, others) in segments {
            let own = needs.on.get(&timeline).map_or(&[][..], Vec::as_slice);
            let painted = painted(own.iter().chain(&needs.everywhere).copied().collect());
            let is_reached = needs.reached.contains(&timeline);
            let whole = lines.wal.of(timeline);
            let mut push = |first: u64, last: u64| {
                cut(first, last, &painted, is_reached, &mut |first, last, verdict| {
                    found.push((WalRange { claim: *claim, timeline, first, last }, verdict));
                });
            };
            if others.is_empty() {
                whole.iter().for_each(|(first, last)| push(first, last));
            } else {
                let all: NumberRanges = whole.iter().chain(others).collect();
                all.iter().for_each(|(first, last)| push(first, last));
            }
        }
    }
    found
}

/// The needs as sorted ranges without overlaps, each with its first reason.
fn painted(mut needs: Vec<Need>) -> Vec<Need> {
    needs.sort_unstable_by_key(|(first, last, _)| (*first, *last));
    let mut borders: BTreeSet<u64> = needs.iter().map(|(first, _, _)| *first).collect();
    borders.extend(needs.iter().filter_map(|(_, last, _)| last.checked_add(1)));
    let mut active: BTreeSet<(WalKept, u64)> = BTreeSet::new();
    let mut waiting = needs.into_iter().peekable();
    let mut painted: Vec<Need> = Vec::new();
    let mut borders = borders.into_iter().peekable();
    while let Some(first) = borders.next() {
        while let Some((_, last, reason)) = waiting.next_if(|need| need.0 <= first) {
            active.insert((reason, last));
        }
        // Drop reasons whose range is over. Then the first one applies.
        while active.first().is_some_and(|(_, last)| *last < first) {
            active.pop_first();
        }
        let Some((reason, _)) = active.first() else { continue };
        let last = borders.peek().map_or(u64::MAX, |next| next - 1);
        match painted.last_mut() {
            Some((_, end, before)) if before == reason && end.checked_add(1) == Some(first) => *end = last,
            _ => painted.push((first, last, *reason)),
        }
    }
    painted
}

/// Splits one range of segments where its verdict changes.
fn cut(first: u64, last: u64, painted: &[Need], is_reached: bool, push: &mut impl FnMut(u64, u64, WalVerdict)) {
    let goes = |number: u64| {
        WalVerdict::Goes(match painted.first() {
            Some((begin, _, _)) if number >= *begin => WalGoes::BetweenBackups,
            _ if is_reached => WalGoes::BeforeAllBackups,
            _ => WalGoes::Unreachable,
        })
    };
    let mut next = first;
    let begin = painted.partition_point(|(_, end, _)| *end < first);
    for (need_first, need_last, reason) in painted.get(begin..).unwrap_or_default() {
        if *need_first > last {
            break;
        }
        if *need_first > next {
            push(next, need_first - 1, goes(next));
        }
        let end = last.min(*need_last);
        push(next.max(*need_first), end, WalVerdict::Kept(*reason));
        match end.checked_add(1).filter(|after| *after <= last) {
            Some(after) => next = after,
            None => return,
        }
    }
    push(next, last, goes(next));
}
