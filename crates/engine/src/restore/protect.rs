//! The lease of a restore: while it is valid, `expire` on any host keeps the backup and the WAL after it.
//!
//! A restore may have read-only credentials, or a store that is half broken. So a failure to take the lease is
//! reported, and the restore continues.

use std::time::Duration;

use holdfast_repo::name::{self, BackupId, LedgerKind};
use holdfast_repo::record::{DecidedWal, LeasePurpose, LedgerEntry};
use holdfast_store::StoreErrorKind;

use super::RestoreOptions;
use super::preflight::Preflight;
use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::repository::{Repository, object_name};

/// How long a restore waits for its lease in total. A restore may be urgent, and the store answered a moment ago.
const WAIT: Duration = Duration::from_secs(30);

/// The lease of a restore, and notes about it.
pub(super) struct Protection {
    lease: Option<Lease>,
    pub(super) notes: Vec<String>,
}

impl Protection {
    /// Gives the lease back.
    pub(super) async fn end(self) {
        if let Some(lease) = self.lease
            && tokio::time::timeout(WAIT, lease.release()).await.is_err()
        {
            tracing::debug!("the lease of this restore was not deleted in time, and ends by itself");
        }
    }
}

/// Takes the lease, then checks whether the backup still exists and whether its removal is decided. In this order,
/// because the removal by an `expire` that did not see the lease is then seen.
pub(super) async fn protect(
    repository: &Repository,
    options: &RestoreOptions,
    found: &Preflight,
    clock: Clock,
    progress: &dyn Progress,
) -> Result<Protection, Error> {
    let backup = found.plan.backup;
    let holder = Holder {
        cluster: &options.cluster,
        purpose: LeasePurpose::Restore,
        backups: vec![backup],
        host: &options.host,
    };
    let mut notes = Vec::new();
    let taken = tokio::time::timeout(WAIT, Lease::take(repository, new_run()?, holder, clock)).await;
    let lease = match taken {
        Ok(Ok(lease)) => Some(lease),
        Ok(Err(error)) => {
            notes.push(unprotected(&error.to_string()));
            None
        }
        Err(_) => {
            notes.push(unprotected("the store did not answer in time"));
            None
        }
    };
    let gone = is_gone(repository, options, backup);
    // If the store cannot say whether the backup is there, the restore finds out itself.
    if matches!(tokio::time::timeout(WAIT, gone).await, Ok(Ok(true))) {
        if let Some(lease) = lease {
            lease.release().await;
        }
        let gone = Cause::NoSuchBackup { backup: backup.to_string(), cluster: options.cluster.to_string() };
        return Err(gone).doing(|| "looking for the backup once more, since `expire` may have removed it".to_owned());
    }
    if let Ok(Ok(Some(note))) = tokio::time::timeout(WAIT, is_decided(repository, options, found)).await {
        notes.push(note);
    }
    for note in &notes {
        progress.note(note);
    }
    Ok(Protection { lease, notes })
}

fn unprotected(why: &str) -> String {
    format!("no lease was taken, so run no `holdfast expire` before this restore has ended: {why}")
}

async fn is_gone(repository: &Repository, options: &RestoreOptions, backup: BackupId) -> Result<bool, Error> {
    let name = object_name(&name::backup_summary(&options.cluster, &backup))?;
    match repository.store().head(&name).await {
        Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(true),
        looked => Ok(looked.map(|_| false)?),
    }
}

/// A note if the ledger holds a decision to remove the backup, or WAL that the server will fetch.
async fn is_decided(
    repository: &Repository,
    options: &RestoreOptions,
    found: &Preflight,
) -> Result<Option<String>, Error> {
    let backup = found.plan.backup;
    let needs = |wal: &DecidedWal| {
        wal.claim == found.backup.claim
            && found.plan.segments.iter().any(|range| {
                range.timeline == wal.first.timeline() && range.first <= wal.last && wal.first <= range.last
            })
    };
    let decided = repository.ledger(&options.cluster, LedgerKind::Deletion).await?.records;
    let ends = decided.iter().filter_map(|(_, record)| match &record.entry {
        LedgerEntry::Deletion { backups, wal, not_before, .. }
            if backups.contains(&backup) || wal.iter().any(needs) =>
        {
            Some(*not_before)
        }
        _ => None,
    });
    Ok(ends.min().map(|end| {
        format!(
            "the removal of backup {backup}, or of WAL that the restored server has to fetch, is decided, and not before \
             {end}: run no `holdfast expire` after that until the server has recovered, or run `holdfast backup hold \
             {backup}` to keep the backup",
            end = end.format("%Y-%m-%d %H:%M:%SZ")
        )
    }))
}
