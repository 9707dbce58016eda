//! `backup hold` and `backup release`. No policy removes a held backup.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, ClusterName, LedgerKind};
use holdfast_repo::record::LedgerEntry;

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
    /// The reason in the user's words, stored with the hold.
    pub reason: Option<String>,
    /// The name of this host, for the ledger entry.
    pub host: String,
    /// The time of this host's clock.
    pub now: DateTime<Utc>,
}

/// Holds a backup. The hold replaces earlier holds of the same backup.
///
/// # Errors
/// [`Cause::NoSuchBackup`] if there is no complete backup with this id, or if an `expire` removes it at this moment;
/// otherwise as [`Repository::create_record`].
pub async fn hold(repository: &Repository, options: &HoldOptions) -> Result<(), Error> {
    let phrase = || format!("holding backup {} in {}", options.backup, repository.describe());
    hold_inner(repository, options).await.doing(phrase)
}

async fn hold_inner(repository: &Repository, options: &HoldOptions) -> Result<(), Error> {
    check_exists(repository, options).await?;
    let earlier = names_of(repository, &options.cluster, options.backup).await?;
    let entry = LedgerEntry::Hold { backup: options.backup, until: options.until, reason: options.reason.clone() };
    let written = repository.write_ledger(&options.cluster, &options.host, options.now, entry).await?;
    // An `expire` that did not see the hold may be removing `backup.json`. After its end we know whether it did.
    let still_there = async {
        let clock = Clock::starting(options.now);
        repository.wait_for_expire(&options.cluster, &options.host, clock, EXPIRE_ENDS_WITHIN).await?;
        check_exists(repository, options).await
    };
    if let Err(error) = still_there.await {
        repository.delete_ledger(&[written]).await?;
        return Err(error);
    }
    repository.delete_ledger(&earlier).await
}

async fn check_exists(repository: &Repository, options: &HoldOptions) -> Result<(), Error> {
    match repository.backup(&options.cluster, options.backup).await {
        Err(error) if error.is_not_found() => {
            let (backup, cluster) = (options.backup.to_string(), options.cluster.to_string());
            Err(Cause::NoSuchBackup { backup, cluster }.into())
        }
        // A backup that cannot be read here may be held: a newer release wrote it, or somebody will repair it.
        Err(error) if error.is_of_one_object() => Ok(()),
        read => read.map(|_| ()),
    }
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
        let names = names_of(repository, cluster, backup).await?;
        if !names.is_empty() {
            repository.delete_ledger(&names).await?;
        }
        Ok::<_, Error>(!names.is_empty())
    };
    released.await.doing(phrase)
}

/// The entries that hold a backup.
async fn names_of(repository: &Repository, cluster: &ClusterName, backup: BackupId) -> Result<Vec<String>, Error> {
    let holds = repository.ledger(cluster, LedgerKind::Hold).await?;
    if let Some(bad) = holds.unreadable.into_iter().next() {
        return Err(bad.error).doing(|| format!("reading {} to see which backup it holds", bad.object));
    }
    let of_backup = holds
        .records
        .into_iter()
        .filter(|(_, record)| matches!(record.entry, LedgerEntry::Hold { backup: held, .. } if held == backup));
    Ok(of_backup.map(|(name, _)| name).collect())
}
