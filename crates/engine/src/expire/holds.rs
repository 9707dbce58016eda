//! `backup hold` and `backup release`: a backup that no policy removes.
//!
//! A hold stays written, whatever fails after that, because it may be needed most just then. It is withdrawn only if
//! the backup is known to be gone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, ClusterName, LedgerKind};
use holdfast_repo::record::LedgerEntry;
use holdfast_retention as planner;

use crate::error::{Cause, Error, ResultExt};
use crate::repository::Repository;
use crate::repository::leases::Clock;

/// The time that a hold waits for a running `expire` to end.
const EXPIRE_ENDS_WITHIN: Duration = Duration::from_secs(30);

/// The options of [`hold`].
#[derive(Debug, Clone)]
pub struct HoldOptions {
    /// The cluster of the backup.
    pub cluster: ClusterName,
    /// The backup to hold, which must be complete.
    pub backup: BackupId,
    /// When the hold ends; `None` holds the backup until it is released.
    pub until: Option<DateTime<Utc>>,
    /// Whether all WAL after it stays as well, for a server that was restored from it.
    pub with_wal: bool,
    /// The reason in the user's words, stored with the hold.
    pub reason: Option<String>,
    /// The name of this host, for the ledger entry.
    pub host: String,
    /// The time of this host's clock.
    pub now: DateTime<Utc>,
}

/// Holds a backup, or the WAL of a volume snapshot. Earlier holds of it are replaced. Returns notes for the user, such
/// as that an earlier hold kept more.
///
/// # Errors
/// [`Cause::Refused`] if the hold would already be over; [`Cause::NoSuchBackup`] if no backup with this id is complete,
/// also if an `expire` removes it at this moment; [`Cause::Remnant`] if only its record is left.
/// [`Cause::HeldInDoubt`] if it is held but may still be removed; otherwise as [`Repository::create_record`].
pub async fn hold(repository: &Repository, options: &HoldOptions) -> Result<Vec<String>, Error> {
    let phrase = || format!("holding backup {} in {}", options.backup, repository.describe());
    hold_inner(repository, options).await.doing(phrase)
}

async fn hold_inner(repository: &Repository, options: &HoldOptions) -> Result<Vec<String>, Error> {
    if let Some(until) = options.until.filter(|until| *until <= options.now) {
        return Err(
            Cause::Refused(format!("the hold would end at {}, which is not later than now", said(until))).into()
        );
    }
    // A lease that was written with a newer key cannot be read, and may be that of an `expire`.
    repository.check_newest_key()?;
    check_exists(repository, options).await?;
    let earlier = of_backup(repository, &options.cluster, options.backup).await?;
    let entry = LedgerEntry::Hold {
        backup: options.backup,
        until: options.until,
        reason: options.reason.clone(),
        with_wal: options.with_wal,
    };
    let written = repository.write_ledger(&options.cluster, &options.host, options.now, entry).await?;
    let stays = || "looking whether it is there still; the hold is written, and stays".to_owned();
    // An `expire` that did not see the hold may be about to remove `backup.json`. Whether it did is known after it has
    // ended.
    let clock = Clock::starting(options.now);
    let ended = repository.wait_for_expire(&options.cluster, &options.host, clock, &written, EXPIRE_ENDS_WITHIN).await;
    match check_exists(repository, options).await {
        Err(error) if matches!(*error.what, Cause::NoSuchBackup { .. } | Cause::Remnant { .. }) => {
            repository.delete_ledger(&[written]).await?;
            return Err(error);
        }
        looked => looked.doing(stays)?,
    }
    let in_doubt =
        |why: &str| -> Error { Cause::HeldInDoubt { backup: options.backup.to_string(), why: why.to_owned() }.into() };
    match ended {
        Err(error) if matches!(*error.what, Cause::AnotherRun { .. }) => {
            return Err(in_doubt("an `expire` that may not have seen this hold is at work or was killed"));
        }
        ended => ended.doing(stays)?,
    }
    if is_being_removed(repository, options).await.doing(stays)? {
        return Err(in_doubt("a run that did not come to its end was removing it"));
    }
    let names: Vec<String> = earlier.iter().map(|one| one.name.clone()).collect();
    if !names.is_empty() {
        repository.delete_ledger(&names).await?;
    }
    Ok(shortened(&earlier, options))
}

async fn check_exists(repository: &Repository, options: &HoldOptions) -> Result<(), Error> {
    let (cluster, backup) = (&options.cluster, options.backup);
    let objects = repository.listed(cluster).await?.objects(backup).unwrap_or_default();
    let read = match repository.look_at(cluster, backup, objects).await {
        // A snapshot has no data here, but it has WAL.
        Err(error) if error.is_not_found() && !objects.summary => match repository.snapshot(cluster, backup).await {
            Err(error) if matches!(*error.what, Cause::NoSuchSnapshot { .. }) => {
                let (backup, cluster) = (backup.to_string(), cluster.to_string());
                return Err(Cause::NoSuchBackup { backup, cluster }.into());
            }
            read => read.map(drop),
        },
        read => read.map(drop),
    };
    match read {
        Err(error) if matches!(*error.what, Cause::Remnant { .. }) => Err(error),
        // A backup that cannot be read here may be held: a newer release wrote it, or somebody will repair it.
        Err(error) if error.is_of_one_object() => Ok(()),
        read => read,
    }
}

/// Whether a run began to remove the backup and did not record what it removed. An unreadable entry counts as such a
/// run.
async fn is_being_removed(repository: &Repository, options: &HoldOptions) -> Result<bool, Error> {
    let removing = repository.ledger(&options.cluster, LedgerKind::Removing).await?;
    let names_it = |entry: &LedgerEntry| {
        matches!(entry, LedgerEntry::Removing { backups, packs, .. }
            if backups.contains(&options.backup) || packs.iter().any(|range| range.backup == options.backup))
    };
    Ok(!removing.unreadable.is_empty() || removing.records.iter().any(|(_, record)| names_it(&record.entry)))
}

/// Notes about what earlier holds kept and this one does not keep.
fn shortened(earlier: &[OneHold], options: &HoldOptions) -> Vec<String> {
    let of = |with_wal: bool| {
        let holds = earlier.iter().filter(|one| one.hold.is_in_force(options.now) && (one.with_wal || !with_wal));
        holds.fold(None, |longest, one| Some(one.hold.longer(longest)))
    };
    let now = planner::Hold { until: options.until };
    let end = |hold: planner::Hold| {
        hold.until.map_or_else(|| "until it is released".to_owned(), |until| format!("until {}", said(until)))
    };
    let mut notes = Vec::new();
    if let Some(before) = of(false).filter(|before| before.longer(Some(now)) != now) {
        notes.push(format!("this hold replaces an earlier, longer one ({})", end(before)));
    }
    if let Some(before) = of(true).filter(|_| !options.with_wal) {
        notes
            .push(format!("an earlier hold kept the WAL after the backup as well, {}: this one does not", end(before)));
    }
    notes
}

fn said(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Releases a backup. Returns `true` if it was held.
///
/// # Errors
/// [`Cause::Store`] if the ledger cannot be listed, read or written; [`Cause::NewerFeature`].
pub async fn release(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<bool, Error> {
    let phrase = || format!("releasing backup {backup} in {}", repository.describe());
    let released = async {
        repository.check_writable()?;
        repository.check_newest_key()?;
        let names: Vec<String> =
            of_backup(repository, cluster, backup).await?.into_iter().map(|one| one.name).collect();
        if !names.is_empty() {
            repository.delete_ledger(&names).await?;
        }
        Ok::<_, Error>(!names.is_empty())
    };
    released.await.doing(phrase)
}

/// An entry that holds a backup.
struct OneHold {
    name: String,
    hold: planner::Hold,
    with_wal: bool,
}

/// The entries that hold a backup.
async fn of_backup(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<Vec<OneHold>, Error> {
    let holds = repository.ledger(cluster, LedgerKind::Hold).await?;
    if let Some(bad) = holds.unreadable.into_iter().next() {
        return Err(bad.error).doing(|| format!("reading {} to see which backup it holds", bad.object));
    }
    let of_backup = holds.records.into_iter().filter_map(|(name, record)| match record.entry {
        LedgerEntry::Hold { backup: held, until, with_wal, .. } if held == backup => {
            Some(OneHold { name, hold: planner::Hold { until }, with_wal })
        }
        _ => None,
    });
    Ok(of_backup.collect())
}
