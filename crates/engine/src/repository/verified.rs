//! Results of verifications: a record in the ledger for each backup and run.
//!
//! The name has the backup and the level, so a listing finds the newest of each, and only those are read. A good result
//! that was not deep does not cancel the damage that a deep one found.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use holdfast_contract::report::verify::{Damage, Level, Verified};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, ObjectPath};
use holdfast_repo::record::{LedgerEntry, LedgerRecord, VerificationProblem};

use super::Repository;
use super::ledger::{is_ahead, is_time_of};
use super::listed::{Listed, Unreadable};
use crate::error::{Cause, Error, ResultExt};

/// The maximum number of problems in a record: a few of them are enough to recognise a damaged folder of packs.
pub(super) const MOST_PROBLEMS: usize = 1000;

/// The newest verifications of each backup, from the ledger.
#[derive(Debug, Default)]
pub struct Verifications {
    newest: BTreeMap<(BackupId, Level), Verified>,
    /// The objects that each of them found missing or damaged.
    damaged: BTreeMap<(BackupId, Level), Vec<String>>,
    /// The backups whose newest deep verification relied on earlier ones for a part of what it needs.
    partly_read: BTreeSet<BackupId>,
    /// Records that cannot be read; they are ignored.
    pub unreadable: Vec<Unreadable<BackupId>>,
}

impl Verifications {
    /// The verification that counts for a backup, if there is one. A deep one that found damage counts until a later
    /// deep one finds none.
    pub fn standing(&self, backup: BackupId) -> Option<&Verified> {
        let deep = self.newest.get(&(backup, Level::Deep));
        let shallow = self.newest.get(&(backup, Level::Shallow));
        match (deep, shallow) {
            (Some(deep), Some(shallow)) if deep.sound && !shallow.sound && shallow.time > deep.time => Some(shallow),
            (Some(deep), _) => Some(deep),
            (None, shallow) => shallow,
        }
    }

    /// The verifications that found damage and that no later one of the same backup supersedes, with the damaged
    /// objects.
    pub(super) fn unsound(&self) -> impl Iterator<Item = (&Verified, &[String])> {
        let is_superseded = |found: &Verified| {
            let deep = self.newest.get(&(found.backup_id, Level::Deep));
            found.level == Level::Shallow && deep.is_some_and(|deep| deep.time > found.time)
        };
        let unsound = self.newest.iter().filter(move |(_, found)| !found.sound && !is_superseded(found));
        unsound.map(|(key, found)| (found, self.damaged.get(key).map(Vec::as_slice).unwrap_or_default()))
    }

    /// When a verification of a backup last found every object sound: with [`Level::Deep`] one that itself has read
    /// them all.
    pub(super) fn proved(&self, backup: BackupId, level: Level) -> Option<DateTime<Utc>> {
        let of = |level| self.newest.get(&(backup, level)).filter(|found| found.sound).map(|found| found.time);
        let deep = of(Level::Deep);
        match level {
            Level::Deep => deep.filter(|_| !self.partly_read.contains(&backup)),
            Level::Shallow => deep.max(of(Level::Shallow)),
        }
    }

    /// The backups that a verification found sound, and those whose lost record (`summary` is its name) it found
    /// missing: these were found sound before.
    pub(crate) fn seen_whole(&self, summary: impl Fn(BackupId) -> String) -> BTreeSet<BackupId> {
        let is_lost =
            |key: &(BackupId, Level)| self.damaged.get(key).is_some_and(|objects| objects.contains(&summary(key.0)));
        let whole = self.newest.iter().filter(|(key, found)| found.sound || is_lost(key));
        whole.map(|((backup, _), _)| *backup).collect()
    }

    /// The backups that have a verification on record.
    fn backups(&self) -> BTreeSet<BackupId> {
        self.newest.keys().map(|(backup, _)| *backup).collect()
    }

    /// Whether a verification of this level or a deeper one, since that moment, found no damage.
    pub(crate) fn is_sound_since(&self, backup: BackupId, level: Level, since: DateTime<Utc>) -> bool {
        self.standing(backup).is_some_and(|standing| standing.sound)
            && [Level::Shallow, Level::Deep]
                .into_iter()
                .filter(|found| *found >= level)
                .filter_map(|found| self.newest.get(&(backup, found)))
                .any(|verified| verified.sound && verified.time >= since)
    }
}

/// Reads the records about these backups in the ledger of a cluster. A record with a time in the future is ignored.
///
/// # Errors
/// [`Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for a record.
pub async fn verifications(
    repository: &Repository,
    cluster: &ClusterName,
    wanted: impl Fn(BackupId) -> bool,
    now: DateTime<Utc>,
) -> Result<Verifications, Error> {
    let mut ahead = Vec::new();
    let mut newest: BTreeMap<(BackupId, bool), LedgerTime> = BTreeMap::new();
    let (prefix, mut next) = (name::ledger_folder(cluster), None);
    loop {
        let listing = || format!("listing the ledger of {cluster} in {}", repository.describe());
        let page = repository.store().list_page(&prefix, None, next.as_deref()).await.doing(listing)?;
        for object in &page.objects {
            let Ok(ObjectPath::Verification { backup, time, deep, .. }) = object.name.as_ref().parse() else {
                continue;
            };
            if wanted(backup) && is_ahead(time, now) {
                ahead.push(Unreadable::ahead(backup, object.name.to_string()));
            } else if wanted(backup) {
                let known = newest.entry((backup, deep)).or_insert(time);
                *known = time.max(*known);
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let names = newest.iter().map(|((backup, deep), time)| (*backup, *deep, *time));
    let of = |(backup, deep, time): (BackupId, bool, LedgerTime)| name::verification(cluster, time, &backup, deep);
    let names: Vec<_> = names.map(|key| (key, of(key))).collect();
    let read = Listed::read(names, |key| async move {
        let name = name::verification(cluster, key.2, &key.0, key.1);
        let record: LedgerRecord = repository.read_record(&name).await?;
        understood(&name, key, record)
    });
    let Listed { records, unreadable } = read.await?;
    let unreadable =
        unreadable.into_iter().map(|bad| Unreadable { id: bad.id.0, object: bad.object, error: bad.error });
    let mut found = Verifications { unreadable: unreadable.chain(ahead).collect(), ..Verifications::default() };
    for Understood { verified, objects, is_partly_read } in records {
        let key = (verified.backup_id, verified.level);
        if is_partly_read {
            found.partly_read.insert(verified.backup_id);
        }
        found.newest.insert(key, verified);
        found.damaged.insert(key, objects);
    }
    Ok(found)
}

/// The content of a record.
struct Understood {
    verified: Verified,
    objects: Vec<String>,
    is_partly_read: bool,
}

fn understood(
    name: &str,
    (backup, deep, named): (BackupId, bool, LedgerTime),
    record: LedgerRecord,
) -> Result<Understood, Error> {
    let LedgerRecord { time, host, software_version, entry } = record;
    match entry {
        LedgerEntry::Verification { backup: Some(of), deep: was_deep, problems, passed_over_count, .. }
            if (of, was_deep) == (backup, deep) && is_time_of(named, time) =>
        {
            let level = if deep { Level::Deep } else { Level::Shallow };
            let sound = problems.is_empty();
            let objects = problems.into_iter().map(|problem| problem.object).collect();
            let verified = Verified { backup_id: backup, time, level, sound, host, software_version };
            Ok(Understood { verified, objects, is_partly_read: deep && passed_over_count > 0 })
        }
        // Without encryption only this check binds a record to its name.
        _ => Err(Cause::Malformed { name: name.to_owned(), reason: "it is another entry".to_owned() }.into()),
    }
}

/// The backups whose verification succeeded, oldest first, with the verification that counts.
///
/// # Errors
/// Those of [`verifications`].
pub async fn sound_backups(
    repository: &Repository,
    cluster: &ClusterName,
    now: DateTime<Utc>,
) -> Result<BTreeMap<BackupId, Verified>, Error> {
    let found = verifications(repository, cluster, |_| true, now).await?;
    let sound = found.backups().into_iter().filter_map(|backup| {
        let standing = found.standing(backup).filter(|standing| standing.sound)?;
        Some((backup, standing.clone()))
    });
    Ok(sound.collect())
}

/// The result of a verification of one backup.
#[derive(Debug)]
pub(crate) struct ToRemember<'a> {
    pub backup: BackupId,
    pub deep: bool,
    pub sample_percent: Option<u8>,
    pub object_count: u64,
    pub size_bytes: u64,
    /// The packs and segments that an earlier run had read, so that this one did not.
    pub passed_over_count: u64,
    pub damage: Vec<&'a Damage>,
    pub host: &'a str,
    pub time: DateTime<Utc>,
}

/// Writes a result to the ledger.
pub(crate) async fn remember(
    repository: &Repository,
    cluster: &ClusterName,
    result: &ToRemember<'_>,
) -> Result<(), Error> {
    let problems = result.damage.iter().take(MOST_PROBLEMS).map(|damage| VerificationProblem {
        object: damage.object.clone(),
        problem: match damage.problem.as_str() {
            "" => damage.kind.words().to_owned(),
            problem => format!("{}: {problem}", damage.kind.words()),
        },
    });
    let entry = LedgerEntry::Verification {
        backup: Some(result.backup),
        deep: result.deep,
        object_count: result.object_count,
        size_bytes: result.size_bytes,
        problems: problems.collect(),
        sample_percent: result.sample_percent,
        passed_over_count: result.passed_over_count,
    };
    repository.write_ledger(cluster, result.host, result.time, entry).await.map(|_| ())
}

#[cfg(test)]
impl Verifications {
    /// Verifications with the objects that they found damaged.
    pub(super) fn of_results(results: impl Iterator<Item = (Verified, Vec<String>)>) -> Self {
        let mut found = Self::default();
        for (verified, objects) in results {
            let key = (verified.backup_id, verified.level);
            found.newest.insert(key, verified);
            found.damaged.insert(key, objects);
        }
        found
    }
}
