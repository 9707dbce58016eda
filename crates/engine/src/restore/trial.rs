//! Whether a restore would take a backup, asked before the backup is called complete: a fault of the writer is found while
//! the data directory is still there.
//!
//! The stored manifest is read back and goes through the same checks as in a restore, and so do the packs that it names.
//! It is held in memory, 52 bytes for a MiB of data, as a restore holds it.

use std::path::Path;

use holdfast_repo::manifest::Manifest;
use holdfast_repo::record::{BackupRecord, TablespaceEntry};

use super::layout::{Layout, PathIndex, TablespaceMapping, check};
use super::preflight::read_manifest;
use super::stored::check_packs;
use crate::error::{Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;

/// Fails as a restore of this backup would.
pub(crate) async fn would_take(repository: &Repository, backup: &BackupRecord, crew: &Crew) -> Result<(), Error> {
    would_take_inner(repository, backup, crew)
        .await
        .doing(|| format!("checking backup {} as a restore does", backup.backup_id))
}

async fn would_take_inner(repository: &Repository, backup: &BackupRecord, crew: &Crew) -> Result<(), Error> {
    let (manifest, _) = checked_manifest(repository, backup, crew).await?;
    check_packs(repository, &manifest).await
}

/// The manifest of a backup after a restore's checks of it, but the look at its packs; with the paths of its files.
pub(crate) async fn checked_manifest(
    repository: &Repository,
    backup: &BackupRecord,
    crew: &Crew,
) -> Result<(Manifest, PathIndex), Error> {
    // Places of which none is in another: where the tablespaces go is decided by a restore, not the backup's.
    let place = |oid: u32| Path::new("/tablespaces").join(oid.to_string());
    let tablespaces: Vec<TablespaceEntry> = backup
        .tablespaces
        .iter()
        .map(|found| TablespaceEntry { name: found.oid.to_string(), ..found.clone() })
        .collect();
    let outside = tablespaces.iter().filter(|found| Path::new(&found.path).is_absolute());
    let mappings: Vec<TablespaceMapping> = outside
        .map(|found| TablespaceMapping { tablespace: found.name.clone(), directory: place(found.oid) })
        .collect();
    let layout = Layout::new(Path::new("/data"), &tablespaces, &mappings)?;
    let manifest = read_manifest(repository, backup).await?;
    crew.run(move || check(&manifest, &layout).map(|index| (manifest, index))).await?
}
