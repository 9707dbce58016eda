//! Drills in the ledger: one entry for each. The name of an entry has the backup and the result.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use holdfast_contract::report::drill::Drilled;
use holdfast_repo::name::{self, BackupId, ClaimNumber, ClusterName, LedgerTime, ObjectPath};
use holdfast_repo::record::{DrillFound, LedgerEntry, LedgerRecord};

use super::Repository;
use super::ledger::{is_ahead, is_time_of};
use super::listed::{Listed, Unreadable};
use crate::error::{Cause, Error, ResultExt};

/// The maximum number of problems in an entry.
pub(crate) const MOST_PROBLEMS: usize = 1000;

/// The newest drills of a cluster.
#[derive(Debug, Default)]
pub struct Drills {
    /// The newest drill that proved a restore.
    pub last_proven: Option<Drilled>,
    /// The newest drill that failed.
    pub last_failed: Option<Drilled>,
    /// Entries that cannot be read; they are ignored.
    pub unreadable: Vec<Unreadable<BackupId>>,
}

/// Reads the newest entry of each result. An entry with a later time than now does not count.
///
/// # Errors
/// [`Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for an entry.
pub async fn drills(repository: &Repository, cluster: &ClusterName, now: DateTime<Utc>) -> Result<Drills, Error> {
    let listed = repository.store().list(&name::ledger_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", repository.describe()))?;
    // The listing is in ascending order of time.
    let (mut proven, mut failed) = (None, None);
    let mut ahead = Vec::new();
    for object in &listed {
        if let Ok(ObjectPath::Drill { time, backup, proven: is_proven, .. }) = object.name.as_ref().parse() {
            if is_ahead(time, now) {
                ahead.push(Unreadable::ahead(backup, object.name.to_string()));
                continue;
            }
            let newest = if is_proven { &mut proven } else { &mut failed };
            *newest = Some((backup, time, is_proven));
        }
    }
    let of = |(backup, time, proven): (BackupId, LedgerTime, bool)| name::drill(cluster, time, &backup, proven);
    let names = proven.into_iter().chain(failed).map(|key| (key, of(key))).collect();
    let read = Listed::read(names, |key| async move {
        let name = of(key);
        let record: LedgerRecord = repository.read_record(&name).await?;
        understood(&name, key, record).map(|(drilled, _)| drilled)
    });
    let Listed { records, unreadable } = read.await?;
    let mut drills = Drills::default();
    for drilled in records {
        let newest = if drilled.proven { &mut drills.last_proven } else { &mut drills.last_failed };
        *newest = Some(drilled);
    }
    let unreadable = unreadable.into_iter();
    drills.unreadable =
        unreadable.map(|bad| Unreadable { id: bad.id.0, object: bad.object, error: bad.error }).collect();
    drills.unreadable.extend(ahead);
    Ok(drills)
}

/// What the drills of a backup say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DrillEvidence {
    /// The newest drill that says something about the backup proved a restore.
    Proven {
        /// When it ended.
        time: DateTime<Utc>,
    },
    /// It failed because of the backup.
    Failed {
        /// What it found, as text for people.
        why: String,
        /// When it ended.
        time: DateTime<Utc>,
        /// The kinds of what it found; empty if that is not known.
        found: Vec<DrillFound>,
        /// The objects that are damaged or missing, as far as that is known.
        objects: Vec<String>,
    },
}

/// The newest result for each of these backups, and notes for the user. A drill that failed because of a query, its
/// time or its host says nothing about the backup, so an earlier result stays valid. A proof that cannot be read does
/// not count. A failure that cannot be read counts, because then more is kept.
pub(crate) async fn newest_results(
    repository: &Repository,
    cluster: &ClusterName,
    claims: &BTreeMap<BackupId, ClaimNumber>,
    now: DateTime<Utc>,
) -> Result<(BTreeMap<BackupId, DrillEvidence>, Vec<String>), Error> {
    let listed = repository.store().list(&name::ledger_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", repository.describe()))?;
    let (mut drilled, mut notes) = (BTreeMap::<BackupId, Vec<DrillKey>>::new(), Vec::new());
    // The listing ascends by time.
    for object in &listed {
        if let Ok(ObjectPath::Drill { time, backup, proven, .. }) = object.name.as_ref().parse() {
            if is_ahead(time, now) {
                notes.push(format!(
                    "{} has a time in the future and is ignored: check the clocks of the hosts",
                    object.name
                ));
            } else if claims.contains_key(&backup) {
                drilled.entry(backup).or_default().push((backup, time, proven));
            }
        }
    }
    let mut found = BTreeMap::new();
    // For nearly every backup, its newest drill decides.
    while !drilled.is_empty() {
        let newest = drilled.values_mut().filter_map(Vec::pop);
        let names = newest.map(|key| (key, name::drill(cluster, key.1, &key.0, key.2))).collect();
        drilled.retain(|_, left| !left.is_empty());
        let read = Listed::read(names, |key: DrillKey| async move {
            let name = name::drill(cluster, key.1, &key.0, key.2);
            let record: LedgerRecord = repository.read_record(&name).await?;
            let (drilled, found) = understood(&name, key, record)?;
            if claims.get(&key.0) == Some(&found.claim) {
                return Ok((drilled, found));
            }
            let reason = format!("it is of claim {}, and the backup is not", found.claim);
            Err(Cause::Malformed { name, reason }.into())
        });
        let Listed { records, unreadable } = read.await?;
        for (drilled_one, kinds) in records {
            let time = drilled_one.time;
            let worth = match drilled_one.proven {
                true => DrillEvidence::Proven { time },
                false if DrillFound::blames_the_backup(&kinds.found) => {
                    let why = drilled_one.problems.first().cloned().unwrap_or_default();
                    DrillEvidence::Failed { why, time, found: kinds.found, objects: kinds.objects }
                }
                false => continue,
            };
            drilled.remove(&drilled_one.backup_id);
            found.insert(drilled_one.backup_id, worth);
        }
        for bad in unreadable {
            let (backup, time, proven) = bad.id;
            let counts = if proven { "is ignored" } else { "counts as a failed drill" };
            notes.push(format!("{} cannot be read, so it {counts}: {}", bad.object, bad.error));
            if !proven {
                drilled.remove(&backup);
                let why = "its entry in the ledger cannot be read".to_owned();
                let (found_nothing, objects) = (Vec::new(), Vec::new());
                found.insert(backup, DrillEvidence::Failed { why, time: time.time(), found: found_nothing, objects });
            }
        }
    }
    Ok((found, notes))
}

/// What the name of an entry says: the backup, the time and whether a restore was proven.
type DrillKey = (BackupId, LedgerTime, bool);

/// What the content of an entry adds to its name.
struct DrillDetails {
    claim: ClaimNumber,
    found: Vec<DrillFound>,
    objects: Vec<String>,
}

fn understood(name: &str, key: DrillKey, record: LedgerRecord) -> Result<(Drilled, DrillDetails), Error> {
    let LedgerRecord { time, host, software_version, entry } = record;
    let (of, named, proven) = key;
    match entry {
        LedgerEntry::Drill {
            backup,
            claim,
            timeline,
            restored_time,
            restored_lsn,
            restore_milliseconds,
            replay_milliseconds,
            problems,
            found,
            objects,
            ..
        } if backup == of && problems.is_empty() == proven && is_time_of(named, time) => {
            let drilled = Drilled {
                backup_id: backup,
                time,
                proven,
                timeline,
                restored_time,
                restored_lsn,
                recovery_milliseconds: restore_milliseconds.saturating_add(replay_milliseconds),
                problems,
                host,
                software_version,
            };
            Ok((drilled, DrillDetails { claim, found, objects }))
        }
        // Without encryption only this check binds an entry to its name.
        _ => Err(Cause::Malformed { name: name.to_owned(), reason: "it is another entry".to_owned() }.into()),
    }
}
