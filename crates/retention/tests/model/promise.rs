//! Computes again what can be restored and what nothing needs, without any code of the planner.

use crate::world::{SIZE, Stored, World, moment};
use chrono::Datelike as _;
use chrono::Timelike as _;
use holdfast_retention::{BackupId, Keep};
use std::collections::{BTreeMap, BTreeSet};

/// How far a backup reaches on each timeline: the number after the last segment.
pub(crate) type Reach = BTreeMap<(BackupId, (u32, u32)), u64>;

impl World {
    /// The timelines that lead to a line, oldest first, each with the LSN at which it begins.
    pub(crate) fn path(&self, (claim, line): (u32, u32)) -> Vec<(u32, u64)> {
        let mut path = Vec::new();
        let mut at = Some(line);
        while let Some(line) = at {
            let parent = self.lines[&(claim, line)].parent;
            path.push((line, parent.map_or(0, |(_, lsn)| lsn)));
            at = parent.map(|(line, _)| line);
        }
        path.reverse();
        path
    }

    pub(crate) fn leads(&self, backup: &Stored, line: (u32, u32)) -> bool {
        let path = self.path(line);
        let Some(place) = path.iter().position(|(line, _)| *line == backup.line) else { return false };
        let end = path.get(place + 1).map_or(u64::MAX, |(_, lsn)| *lsn);
        backup.claim == line.0 && path[place].1 <= backup.start && backup.stop <= end
    }

    fn has(&self, line: (u32, u32), number: u64) -> bool {
        self.wal.get(&line).is_some_and(|segments| segments.contains_key(&number))
    }

    /// Whether somebody needs the manifest of a backup without a record: another manifest refers to it, or it shows
    /// that packs of its backup may be in use.
    pub(crate) fn needs_manifest(&self, id: BackupId) -> bool {
        self.packs.iter().any(|pack| pack.backup == id) || self.backups.values().any(|one| one.origins.contains(&id))
    }

    /// Whether all packs, all manifests and all WAL that the backup needs are there.
    pub(crate) fn is_intact(&self, backup: &Stored) -> bool {
        let wal = backup.start / SIZE..=(backup.stop - 1) / SIZE;
        let has_manifest = |id: &BackupId| self.backups.contains_key(id) || self.half_removed.contains(id);
        backup.origins.iter().all(has_manifest)
            && backup.packs.iter().all(|pack| self.packs.contains(pack))
            && wal.into_iter().all(|number| self.has((backup.claim, backup.line), number))
    }

    /// Backups without a known fault.
    pub(crate) fn sound(&self) -> Vec<&Stored> {
        let mut sound: Vec<&Stored> = self.dated();
        sound.retain(|backup| !backup.damaged && self.is_intact(backup));
        sound
    }

    /// Backups whose record and time can be believed, newest first.
    fn dated(&self) -> Vec<&Stored> {
        let mut dated: Vec<&Stored> =
            self.backups.values().filter(|backup| !backup.unknown && !backup.future).collect();
        dated.sort_by_key(|backup| std::cmp::Reverse((backup.stop_hour, backup.id)));
        dated
    }

    /// When the newest file of a line was stored: a segment, or its history file.
    pub(crate) fn last_stored(&self, line: (u32, u32)) -> Option<i64> {
        let segments = self.wal.get(&line).and_then(|segments| segments.values().copied().max());
        let history = self.lines[&line].parent.map(|_| self.lines[&line].created);
        segments.max(history)
    }

    pub(crate) fn reach(&self) -> Reach {
        let mut found = Reach::new();
        for backup in self.sound() {
            for line in self.lines.keys().filter(|line| self.leads(backup, **line)) {
                let path = self.path(*line);
                let mut number = backup.start / SIZE;
                loop {
                    let newest = path.iter().rev().find(|(_, begin)| begin / SIZE <= number).unwrap();
                    if !self.has((line.0, newest.0), number) {
                        break;
                    }
                    number += 1;
                }
                if number * SIZE >= backup.stop {
                    found.insert((backup.id, *line), number);
                }
            }
        }
        found
    }

    pub(crate) fn window_start(&self) -> Option<i64> {
        self.policy.window.map(|window| self.hour - window.num_hours())
    }

    /// The segments of the window to which a restore is possible, with the timeline that it must follow.
    pub(crate) fn restorable_segments(&self, reach: &Reach) -> BTreeSet<((u32, u32), u64)> {
        let Some(start) = self.window_start() else { return BTreeSet::new() };
        let mut found = BTreeSet::new();
        for (line, segments) in &self.wal {
            for (number, _) in segments.iter().filter(|(_, stored)| **stored > start) {
                let by = |id: &BackupId, of: &(u32, u32), end: u64| {
                    of == line && *number < end && self.backups[id].stop <= (number + 1) * SIZE
                };
                if reach.iter().any(|((id, of), end)| by(id, of, *end)) {
                    found.insert((*line, *number));
                }
            }
        }
        found
    }

    /// The backups that the counts of the policy choose.
    fn counted(&self, from: &[&Stored]) -> BTreeSet<BackupId> {
        let Keep { last, hourly, daily, weekly, monthly, yearly, .. } = self.policy.keep;
        let mut chosen: BTreeSet<BackupId> = from.iter().take(last as usize).map(|backup| backup.id).collect();
        let mut count = |count: u32, period: &dyn Fn(i64) -> String| {
            let mut seen: Vec<String> = Vec::new();
            for backup in from {
                let period = period(backup.stop_hour);
                if !seen.contains(&period) && seen.len() < count as usize {
                    seen.push(period);
                    chosen.insert(backup.id);
                }
            }
        };
        count(hourly, &|hour| format!("{} {}", moment(hour).date_naive(), moment(hour).hour()));
        count(daily, &|hour| moment(hour).date_naive().to_string());
        count(weekly, &|hour| moment(hour).format("%G-%V").to_string());
        count(monthly, &|hour| moment(hour).format("%Y-%m").to_string());
        count(yearly, &|hour| moment(hour).year().to_string());
        chosen
    }

    /// The last restorable backups of the newest claim that has one.
    fn last(&self, sound: &[&Stored]) -> BTreeSet<BackupId> {
        let Some(claim) = sound.iter().map(|backup| backup.claim).max() else { return BTreeSet::new() };
        let of_claim = || sound.iter().filter(move |backup| backup.claim == claim);
        let activity = |line: &(u32, u32)| {
            let backups = of_claim().filter(|backup| backup.line == line.1).map(|backup| backup.stop_hour);
            (backups.chain(self.last_stored(*line)).max(), line.1)
        };
        let line = self.lines.keys().filter(|line| line.0 == claim).max_by_key(|line| activity(line)).unwrap();
        let on_line = of_claim().find(|backup| self.leads(backup, *line));
        of_claim().next().into_iter().chain(on_line).map(|backup| backup.id).collect()
    }

    /// Without a window: the newest backup that leads to each line that was written within a week.
    fn in_use(&self, sound: &[&Stored]) -> BTreeSet<BackupId> {
        let (start, mut found) = (self.hour - 7 * 24, BTreeSet::new());
        if self.policy.window.is_some() {
            return found;
        }
        for line in self.lines.keys() {
            let alive = self.last_stored(*line).is_some_and(|hour| hour > start)
                || self.backups.values().any(|one| (one.claim, one.line) == *line && one.stop_hour > start);
            let replaced = self.claims.iter().any(|(claim, since)| *claim > line.0 && *since <= start);
            if alive && !replaced {
                found.extend(sound.iter().filter(|one| self.leads(one, *line)).map(|one| one.id).next());
            }
        }
        found
    }

    /// What must be there after any removal.
    pub(crate) fn promised(&self) -> BTreeSet<BackupId> {
        let sound = self.sound();
        let mut promised = self.counted(&sound);
        promised.extend(self.last(&sound));
        promised.extend(self.in_use(&sound));
        promised.extend(self.backups.values().filter(|backup| backup.held).map(|backup| backup.id));
        promised.extend(self.restores.iter().filter(|(_, lease)| *lease >= self.hour).map(|(id, _)| *id));
        if let Some(start) = self.window_start() {
            promised.extend(sound.iter().filter(|backup| backup.stop_hour > start).map(|backup| backup.id));
        }
        promised
    }

    /// The backups that the window needs, chosen from these.
    fn windowed(&self, from: &[&Stored]) -> BTreeSet<BackupId> {
        let Some(start) = self.window_start() else { return BTreeSet::new() };
        let mut found: BTreeSet<BackupId> =
            from.iter().filter(|backup| backup.stop_hour > start).map(|backup| backup.id).collect();
        for line in self.lines.keys() {
            let alive = self.last_stored(*line).is_some_and(|hour| hour > start)
                || self.backups.values().any(|one| (one.claim, one.line) == *line && one.stop_hour > start);
            let replaced = self.claims.iter().any(|(claim, since)| *claim > line.0 && *since <= start);
            if alive && !replaced {
                let before = from.iter().filter(|one| one.stop_hour <= start);
                found.extend(before.filter(|one| self.leads(one, *line)).map(|one| one.id).next());
            }
        }
        found
    }
}

/// Checks an archive at rest: it has only the backups that the policy keeps, the packs that they name, and the WAL that
/// they need.
pub(crate) fn nothing_useless_is_left(world: &World) {
    let seed = world.seed;
    if world.policy.is_empty() {
        return;
    }
    let (sound, dated) = (world.sound(), world.dated());
    let last = world.last(&sound);
    let mut continuous: BTreeSet<BackupId> = world.windowed(&sound);
    let mut expected = world.counted(&sound);
    let unsound: BTreeSet<BackupId> =
        dated.iter().map(|backup| backup.id).filter(|id| sound.iter().all(|one| one.id != *id)).collect();
    expected.extend(world.counted(&dated).intersection(&unsound));
    continuous.extend(world.windowed(&dated).intersection(&unsound));
    if world.policy.window.is_none() {
        for list in [&sound, &dated] {
            let last = list.iter().take(world.policy.keep.last as usize).map(|backup| backup.id);
            continuous.extend(last.filter(|id| expected.contains(id)));
        }
    }
    continuous.extend(last);
    continuous.extend(world.in_use(&sound));
    expected.extend(&continuous);
    assert_eq!(world.backups.keys().copied().collect::<BTreeSet<_>>(), expected, "seed {seed}: backups");
    // A manifest of a removed backup is left only if packs of that backup, or parts of the manifest, are needed.
    assert!(world.half_removed.iter().all(|id| world.needs_manifest(*id)), "seed {seed}: half removed");

    let named = world.backups.values().flat_map(|backup| backup.packs.iter().copied());
    let remains: BTreeSet<BackupId> = world.runs.iter().map(|run| run.backup.id).collect();
    let remains = world
        .packs
        .iter()
        .copied()
        .filter(|pack| remains.contains(&pack.backup) || pack.backup.time() > moment(world.hour));
    assert_eq!(world.packs, named.chain(remains).collect(), "seed {seed}: packs");

    for (line, segments) in &world.wal {
        for number in segments.keys() {
            let needed = world.backups.values().filter(|backup| backup.claim == line.0).any(|backup| {
                let (first, last) = (backup.start / SIZE, (backup.stop - 1) / SIZE);
                (backup.line == line.1 && (first..=last).contains(number))
                    || continuous.contains(&backup.id)
                        && *number >= first
                        && world.lines.keys().filter(|to| to.0 == line.0 && world.leads(backup, **to)).any(|to| {
                            let path = world.path(*to);
                            let place = path.iter().position(|(on, _)| *on == line.1);
                            place.is_some_and(|place| {
                                let end = path.get(place + 1).map_or(u64::MAX, |(_, lsn)| (lsn - 1) / SIZE);
                                (path[place].1 / SIZE..=end).contains(number)
                            })
                        })
            });
            assert!(needed, "seed {seed}: segment {number} of {line:?} is left");
        }
    }
}
