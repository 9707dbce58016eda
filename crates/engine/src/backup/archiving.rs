//! Checks that the server's archiving works. A backup sends the WAL that it needs by itself. So nobody would notice an
//! `archive_command` that stores nothing here (`/bin/true`, another tool, a wrong configuration) until a restore needs
//! WAL from after the backup.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_pgtypes::SegmentName;
use holdfast_repo::catalog::BackupCatalog;
use holdfast_repo::name::{self, ClusterName};
use holdfast_repo::record::{BackupRecord, ClaimRecord};

use crate::archive;
use crate::error::Error;
use crate::repository::Repository;

/// The number of newest backups that are searched for the previous one on this timeline. Others can be on other
/// timelines.
const LOOKED_AT: usize = 8;

/// The warning about segments that the server counts as archived but that this backup had to send.
pub(super) fn sent_in_its_place(counted: &BTreeSet<SegmentName>) -> Option<String> {
    let first = counted.first()?;
    Some(format!(
        "the server counts {} WAL segment(s) of this backup as archived, but they were not in the repository, the \
         first one {first}: its archive_command (or archive_library) reports success without storing them there. This \
         backup has stored its own WAL. Later moments cannot be restored until this is repaired: run `holdfast check`",
        counted.len()
    ))
}

/// The warning about missing WAL between the previous backup and this one.
pub(super) async fn gap_before(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    pg_wal: &Path,
) -> Option<String> {
    match gap_before_inner(repository, cluster, claim, first, pg_wal).await {
        Ok(warning) => warning,
        // The check is about earlier backups. This one is sound.
        Err(error) => {
            tracing::debug!(%error, "the WAL since the previous backup could not be checked");
            None
        }
    }
}

async fn gap_before_inner(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
    pg_wal: &Path,
) -> Result<Option<String>, Error> {
    let Some(before) = backup_before(repository, cluster, claim, first).await? else { return Ok(None) };
    let from = before.stop_segment;
    let mut missing = archive::missing_segments(repository, cluster, claim, from, first).await?;
    // A segment that the archiver still has to send is late, but not missing.
    missing.retain(|segment| !pg_wal.join("archive_status").join(format!("{segment}.ready")).exists());
    let Some(first_missing) = missing.first() else { return Ok(None) };
    Ok(Some(format!(
        "{} WAL segment(s) between backup {} and this one are not in {}, the first one {first_missing}: no moment \
         between that segment and this backup can be restored; see archive_command and `holdfast wal list`",
        missing.len(),
        before.backup_id,
        repository.describe()
    )))
}

/// The newest complete backup of this claim and timeline that ends before the segment.
async fn backup_before(
    repository: &Repository,
    cluster: &ClusterName,
    claim: &ClaimRecord,
    first: SegmentName,
) -> Result<Option<BackupRecord>, Error> {
    let objects = repository.store().list(&name::backups_folder(cluster), None).await?;
    let listed = BackupCatalog::from_listing(cluster, objects.iter().map(|object| object.name.as_ref()));
    let complete: Vec<_> = listed.complete().collect();
    for backup in complete.into_iter().rev().take(LOOKED_AT) {
        let record = repository.backup(cluster, backup).await?;
        let same_line = record.claim == claim.number && record.stop_segment.timeline() == first.timeline();
        if same_line && record.stop_segment <= first {
            return Ok(Some(record));
        }
    }
    Ok(None)
}
