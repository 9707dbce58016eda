//! The ledger of a cluster: entries of events, decisions and holds.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use holdfast_repo::name::{self, BackupId, ClusterName, LedgerKind, LedgerTime, ObjectPath};
use holdfast_repo::record::{LedgerEntry, LedgerRecord};

use super::leases::CLOCK_DIFFERENCE;
use super::listed::{Listed, Unreadable};
use super::{Repository, object_name};
use crate::error::{Cause, Error, ResultExt};

/// Whether the time in an entry's name is further ahead than clocks can differ. Such an entry would hide all later
/// ones of its kind.
pub(crate) fn is_ahead(named: LedgerTime, now: DateTime<Utc>) -> bool {
    named.time().checked_sub_signed(CLOCK_DIFFERENCE).is_none_or(|earliest| earliest > now)
}

/// Whether the time of a record is the time in its name. That is later by some microseconds if earlier names were
/// taken.
pub(crate) fn is_time_of(named: LedgerTime, time: DateTime<Utc>) -> bool {
    (named.time() - time).abs() < TimeDelta::seconds(1)
}

impl<N> Unreadable<N> {
    /// An entry that is later than now.
    pub(crate) fn ahead(id: N, object: String) -> Self {
        let reason = "it is later than now: look at the clocks".to_owned();
        Self { id, error: Cause::Malformed { name: object.clone(), reason }.into(), object }
    }
}

/// An entry with the name of its object.
pub(crate) type NamedEntry = (String, LedgerRecord);

impl Repository {
    /// Writes an entry and returns the name of its object.
    pub(crate) async fn write_ledger(
        &self,
        cluster: &ClusterName,
        host: &str,
        now: DateTime<Utc>,
        entry: LedgerEntry,
    ) -> Result<String, Error> {
        let record = LedgerRecord {
            time: now,
            host: host.to_owned(),
            software_version: env!("CARGO_PKG_VERSION").to_owned(),
            entry,
        };
        let mut time = LedgerTime::new(now).map_err(|e| Cause::Internal(e.to_string()))?;
        // Another writer may have used the same microsecond.
        for _ in 0..64 {
            let name = name_of(cluster, time, &record.entry);
            match self.create_record(&name, &record).await {
                Err(error) if error.is_already_exists() => time = time.next(),
                Err(error) => return Err(error),
                Ok(()) => return Ok(name),
            }
        }
        Err(Cause::Internal("no free name in the ledger".to_owned()).into())
    }

    /// The names of the entries of one kind, oldest first.
    pub(crate) async fn ledger_names(
        &self,
        cluster: &ClusterName,
        kind: LedgerKind,
    ) -> Result<Vec<(LedgerTime, String)>, Error> {
        let listed = self.store().list(&name::ledger_folder(cluster), None).await;
        let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", self.describe()))?;
        let of_kind = listed.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Ledger { time, kind: of, .. }) if of == kind => Some((time, object.name.to_string())),
            _ => None,
        });
        Ok(of_kind.collect())
    }

    /// The entries of one kind, oldest first, and those that cannot be read.
    pub(crate) async fn ledger(
        &self,
        cluster: &ClusterName,
        kind: LedgerKind,
    ) -> Result<Listed<NamedEntry, LedgerTime>, Error> {
        let names = self.ledger_names(cluster, kind).await?;
        Listed::read(names, |time| async move {
            let name = name::ledger(cluster, time, kind);
            let record: LedgerRecord = self.read_record(&name).await?;
            // Without encryption only this check binds a record to its name.
            if record.entry.kind() != kind {
                let reason = format!("it is an entry of the kind {}", record.entry.kind());
                return Err(Cause::Malformed { name, reason }.into());
            }
            Ok((name, record))
        })
        .await
    }

    /// The backups whose removal is decided: a new backup is not built on one of them.
    ///
    /// # Errors
    /// [`Cause::Store`] if the ledger cannot be listed or asked.
    pub(crate) async fn decided_backups(&self, cluster: &ClusterName) -> Result<BTreeSet<BackupId>, Error> {
        let entries = self.ledger(cluster, LedgerKind::Deletion).await?.records.into_iter();
        let backups = entries.filter_map(|(_, record)| match record.entry {
            LedgerEntry::Deletion { backups, .. } => Some(backups),
            _ => None,
        });
        Ok(backups.flatten().collect())
    }

    /// Deletes entries: finished decisions and released holds.
    pub(crate) async fn delete_ledger(&self, names: &[String]) -> Result<(), Error> {
        let names: Vec<_> = names.iter().map(|name| object_name(name)).collect::<Result<_, _>>()?;
        self.store().delete(&names).await.doing(|| format!("deleting entries of the ledger in {}", self.describe()))
    }
}

/// The name of an entry. For a verification or a drill it has the id of the backup, so that a listing finds the newest
/// one.
fn name_of(cluster: &ClusterName, time: LedgerTime, entry: &LedgerEntry) -> String {
    match entry {
        LedgerEntry::Verification { backup: Some(backup), deep, .. } => {
            name::verification(cluster, time, backup, *deep)
        }
        LedgerEntry::Drill { backup, problems, .. } => name::drill(cluster, time, backup, problems.is_empty()),
        _ => name::ledger(cluster, time, entry.kind()),
    }
}
