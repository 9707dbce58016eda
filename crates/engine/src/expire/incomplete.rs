//! Incomplete backups. A user may hold or restore one, so `expire` keeps what is left of it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::record::BackupRecord;
use holdfast_retention as planner;

use crate::error::{Cause, Error};
use crate::repository::Repository;
use crate::repository::listed::{Listed, Unreadable};

/// Of several holds the longest counts.
pub(super) fn hold(
    catalog: &mut planner::Catalog,
    backup: BackupId,
    hold: planner::Hold,
    with_wal: bool,
    now: DateTime<Utc>,
) {
    let id = backup;
    for held in catalog.backups.iter_mut().filter(|one| one.id == id) {
        held.hold = Some(hold.longer(held.hold));
        if with_wal {
            held.hold_with_wal = Some(hold.longer(held.hold_with_wal));
        }
    }
    if hold.is_in_force(now) {
        believe(catalog, id);
    }
}

/// What somebody holds or reads was a backup to them: it stays, although nothing but its record seems to be left.
pub(super) fn believe(catalog: &mut planner::Catalog, id: BackupId) {
    if catalog.remnants.remove(&id) {
        let reason = "its data is missing, but somebody holds or restores it".to_owned();
        let reason = planner::UnknownReason::Unreadable(reason);
        catalog.unknown.push(planner::UnknownBackup { id, claim: None, reason });
    }
}

/// Backups that lost some of their packs, with their records. They are damaged, and stay as long as they would if they
/// were sound.
pub(super) async fn take_damaged(
    repository: &Repository,
    cluster: &ClusterName,
    backups: &mut Listed<BackupRecord, BackupId>,
) -> Result<BTreeSet<BackupId>, Error> {
    let is_damaged = |bad: &mut Unreadable<BackupId>| matches!(*bad.error.what, Cause::LostPack { .. });
    let mut damaged = BTreeSet::new();
    for bad in backups.unreadable.extract_if(.., is_damaged).collect::<Vec<_>>() {
        match repository.backup(cluster, bad.id).await {
            Ok(record) => {
                damaged.insert(bad.id);
                backups.records.push(record);
            }
            Err(error) if error.is_of_one_object() => backups.unreadable.push(Unreadable { error, ..bad }),
            Err(error) => return Err(error),
        }
    }
    backups.records.sort_by_key(|record| record.backup_id);
    Ok(damaged)
}
