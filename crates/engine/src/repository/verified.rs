//! Results of verifications: a record in the ledger for each backup and run.
//!
//! The name has the backup and the level, so a listing finds the newest of each, and only those are read. A good result
//! that was not deep does not cancel the damage that a deep one found.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use holdfast_contract::report::verify::{Damage, Level, Verified};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, ObjectPath};
use holdfast_repo::record::{BackupRecord, LedgerEntry, LedgerRecord, VerificationProblem};

use super::Repository;
use super::ledger::{is_ahead, is_time_of};
use super::listed::{Listed, Unreadable};
use crate::error::{Cause, Error, ResultExt};

/// The maximum number of problems in a record: a few of them are enough to recognise a damaged folder of packs.
const MOST_PROBLEMS: usize = 1000;

/// The newest verifications of each backup, from the ledger.
#[derive(Debug, Default)]
pub struct Verifications {
    newest: BTreeMap<(BackupId, Level), Verified>,
    /// The objects that each of them found missing or damaged.
    damaged: BTreeMap<(BackupId, Level), Vec<String>>,
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

    /// The damaged ones of these backups, which must be ordered oldest first. A backup is built on its parent, so it
    /// shares the parent's damage until its own deep verification finds none.
    pub(crate) fn damaged<'a>(&self, backups: impl IntoIterator<Item = &'a BackupRecord>) -> BTreeSet<BackupId> {
        let mut damaged = BTreeSet::new();
        for BackupRecord { backup_id, parent, .. } in backups {
            let is_damaged = match self.standing(*backup_id) {
                Some(own) if !own.sound => true,
                Some(own) if own.level == Level::Deep => false,
                _ => parent.is_some_and(|parent| damaged.contains(&parent)),
            };
            if is_damaged {
                damaged.insert(*backup_id);
            }
        }
        damaged
    }

    /// The objects that standing verifications found missing or damaged.
    pub(crate) fn damaged_objects(&self) -> BTreeSet<String> {
        let backups: BTreeSet<BackupId> = self.newest.keys().map(|(backup, _)| *backup).collect();
        let standing =
            backups.into_iter().filter_map(|backup| self.standing(backup)).filter(|verified| !verified.sound);
        let objects = standing.filter_map(|verified| self.damaged.get(&(verified.backup_id, verified.level)));
        objects.flatten().cloned().collect()
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
    let (mut newest, mut damaged) = (BTreeMap::new(), BTreeMap::new());
    for (verified, objects) in records {
        let key = (verified.backup_id, verified.level);
        newest.insert(key, verified);
        damaged.insert(key, objects);
    }
    Ok(Verifications { newest, damaged, unreadable: unreadable.chain(ahead).collect() })
}

fn understood(
    name: &str,
    (backup, deep, named): (BackupId, bool, LedgerTime),
    record: LedgerRecord,
) -> Result<(Verified, Vec<String>), Error> {
    let LedgerRecord { time, host, software_version, entry } = record;
    match entry {
        LedgerEntry::Verification { backup: Some(of), deep: was_deep, problems, .. }
            if (of, was_deep) == (backup, deep) && is_time_of(named, time) =>
        {
            let level = if deep { Level::Deep } else { Level::Shallow };
            let sound = problems.is_empty();
            let objects = problems.into_iter().map(|problem| problem.object).collect();
            Ok((Verified { backup_id: backup, time, level, sound, host, software_version }, objects))
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
    let backups: Vec<BackupId> = found.newest.keys().map(|(backup, _)| *backup).collect();
    let sound = backups.into_iter().filter_map(|backup| {
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
    };
    repository.write_ledger(cluster, result.host, result.time, entry).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use holdfast_contract::report::backup::BackupReport;

    use super::*;

    const REPORT: &str = include_str!("../../../contract/tests/samples/backup-2.json");

    fn id(hour: u32) -> BackupId {
        format!("20261129T{hour:02}0000Z").parse().unwrap()
    }

    /// The damaged backups of a chain of four, by these verifications; backups are numbered by their hours.
    fn damaged(verified: &[(u32, Level, bool)]) -> Vec<u32> {
        let report: BackupReport = serde_json::from_str(REPORT).unwrap();
        let sample = &report.repositories[0].backup;
        let chain: Vec<BackupRecord> = (1..=4)
            .map(|hour| BackupRecord {
                backup_id: id(hour),
                parent: (hour > 1).then(|| id(hour - 1)),
                ..sample.clone()
            })
            .collect();
        let time = "2026-11-30T00:00:00Z".parse().unwrap();
        let (host, software_version) = ("db1".to_owned(), "0.1.0".to_owned());
        let newest = verified.iter().map(|(hour, level, sound)| {
            let (host, software_version) = (host.clone(), software_version.clone());
            let verified =
                Verified { backup_id: id(*hour), time, level: *level, sound: *sound, host, software_version };
            ((id(*hour), *level), verified)
        });
        let verifications = Verifications { newest: newest.collect(), ..Verifications::default() };
        let found = verifications.damaged(&chain);
        (1..=4).filter(|hour| found.contains(&id(*hour))).collect()
    }

    #[test]
    fn a_chain_shares_the_damage_of_its_parents() {
        assert_eq!(damaged(&[]), [0; 0]);
        assert_eq!(damaged(&[(2, Level::Deep, false)]), [2, 3, 4]);
        assert_eq!(damaged(&[(2, Level::Deep, false), (3, Level::Deep, true)]), [2]);
        assert_eq!(
            damaged(&[(2, Level::Deep, false), (3, Level::Shallow, true)]),
            [2, 3, 4],
            "a shallow one is not enough"
        );
        assert_eq!(damaged(&[(1, Level::Deep, true), (4, Level::Shallow, false)]), [4]);
    }
}
