//! Backups that lost their `backup.json`: without it a backup does not exist, and a listing alone shows nothing wrong.
//!
//! The ledger remembers them. A verification that found a backup sound, or a drill that restored it, has seen it whole,
//! and a run that removes a backup writes that down before the first object goes.

use std::collections::BTreeSet;

use holdfast_repo::name::{self, BackupId, ClusterName, LedgerKind, ObjectPath};
use holdfast_repo::record::LedgerEntry;

use super::Repository;
use super::verified::Verifications;
use crate::error::{Error, ResultExt};

/// The backups that were complete once, that are not among `known`, and that nobody removed.
///
/// # Errors
/// [`crate::error::Cause::Store`] if the ledger cannot be listed, or the store cannot be asked for an entry.
pub(crate) async fn lost_backups(
    repository: &Repository,
    cluster: &ClusterName,
    verified: &Verifications,
    known: &BTreeSet<BackupId>,
) -> Result<BTreeSet<BackupId>, Error> {
    let mut lost = verified.seen_whole(|backup| name::backup_summary(cluster, &backup));
    let listed = repository.store().list(&name::ledger_folder(cluster), None).await;
    let listed = listed.doing(|| format!("listing the ledger of {cluster} in {}", repository.describe()))?;
    lost.extend(listed.iter().filter_map(|object| match object.name.as_ref().parse() {
        Ok(ObjectPath::Drill { backup, proven: true, .. }) => Some(backup),
        _ => None,
    }));
    lost.retain(|backup| !known.contains(backup));
    for kind in [LedgerKind::Removing, LedgerKind::Removal] {
        if lost.is_empty() {
            break;
        }
        for (_, record) in repository.ledger(cluster, kind).await?.records {
            if let LedgerEntry::Removing { backups, .. } | LedgerEntry::Removal { backups, .. } = record.entry {
                lost.retain(|backup| !backups.contains(backup));
            }
        }
    }
    Ok(lost)
}
