//! Drills in the ledger: one entry for each. The name of an entry has the backup and the result.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_contract::report::drill::Drilled;
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerTime, ObjectPath};
use holdfast_repo::record::{LedgerEntry, LedgerRecord};

use super::Repository;
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

/// Reads the newest entry of each result.
///
/// # Errors
/// [`Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for an entry.
pub async fn drills(repository: &Repository, cluster: &ClusterName) -> Result<Drills, Error> {
    let listed = repository.store().list(&name::ledger_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", repository.describe()))?;
    // The listing is in ascending order of time.
    let (mut proven, mut failed) = (None, None);
    for object in &listed {
        if let Ok(ObjectPath::Drill { time, backup, proven: is_proven, .. }) = object.name.as_ref().parse() {
            let newest = if is_proven { &mut proven } else { &mut failed };
            *newest = Some((backup, time, is_proven));
        }
    }
    let of = |(backup, time, proven): (BackupId, LedgerTime, bool)| name::drill(cluster, time, &backup, proven);
    let names = proven.into_iter().chain(failed).map(|key| (key, of(key))).collect();
    let read = Listed::read(names, |key| async move {
        let name = of(key);
        let record: LedgerRecord = repository.read_record(&name).await?;
        understood(&name, key.0, key.2, record)
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
    Ok(drills)
}

/// The backups whose newest drill proved a restore. An entry that cannot be read is ignored.
pub(crate) async fn proven_backups(
    repository: &Repository,
    cluster: &ClusterName,
) -> Result<BTreeSet<BackupId>, Error> {
    let listed = repository.store().list(&name::ledger_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", repository.describe()))?;
    // The listing is in ascending order of time.
    let mut newest: BTreeMap<BackupId, (LedgerTime, bool)> = BTreeMap::new();
    for object in &listed {
        if let Ok(ObjectPath::Drill { time, backup, proven, .. }) = object.name.as_ref().parse() {
            newest.insert(backup, (time, proven));
        }
    }
    let of = |(backup, time): (BackupId, LedgerTime)| name::drill(cluster, time, &backup, true);
    let proven = newest.into_iter().filter(|(_, (_, proven))| *proven).map(|(backup, (time, _))| (backup, time));
    let names = proven.map(|key| (key, of(key))).collect();
    let read = Listed::read(names, |key| async move {
        let name = of(key);
        let record: LedgerRecord = repository.read_record(&name).await?;
        understood(&name, key.0, true, record)
    });
    Ok(read.await?.records.into_iter().map(|drilled| drilled.backup_id).collect())
}

fn understood(name: &str, of: BackupId, proven: bool, record: LedgerRecord) -> Result<Drilled, Error> {
    let LedgerRecord { time, host, software_version, entry } = record;
    match entry {
        LedgerEntry::Drill {
            backup,
            timeline,
            restored_time,
            restored_lsn,
            restore_milliseconds,
            replay_milliseconds,
            problems,
            ..
        } if backup == of && problems.is_empty() == proven => Ok(Drilled {
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
        }),
        // Without encryption only this check binds an entry to its name.
        _ => Err(Cause::Malformed { name: name.to_owned(), reason: "it is another entry".to_owned() }.into()),
    }
}
