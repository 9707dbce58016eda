//! Checks without a directory whether a restore would accept a backup: before the backup is called complete, while the
//! data directory still exists, and in `verify`.
//!
//! The stored manifest is read back and goes through the same checks as in a restore, and so do the packs that it
//! names. Memory holds it as in a restore: 52 bytes for each MiB of data.

use std::path::Path;
use std::sync::Arc;

use holdfast_repo::manifest::Manifest;
use holdfast_repo::record::{BackupRecord, TablespaceEntry};

use super::layout::{Layout, PathIndex, TablespaceMapping, check, check_tablespaces};
use super::manifest::read_manifest;
use super::packs::Packs;
use super::preflight::held_files;
use super::stored::check_packs;
use crate::error::{Error, ResultExt};
use crate::pipeline::crew::Crew;
use crate::repository::Repository;

/// A manifest that a restore would accept.
#[derive(Debug)]
pub(crate) struct Trial {
    /// All of its entries, checked.
    pub(crate) manifest: Arc<Manifest>,
    /// The positions of its files.
    pub(crate) index: PathIndex,
}

/// Checks a backup; the errors are those of a restore.
pub(crate) async fn would_take(repository: &Repository, backup: &BackupRecord, crew: &Crew) -> Result<(), Error> {
    let trying = async {
        let trial = try_manifest(repository, backup, crew).await?;
        check_packs(repository, &trial.manifest).await
    };
    trying.await.doing(|| format!("checking backup {} as a restore does", backup.backup_id))
}

/// Reads the manifest of a backup, and checks it as a restore does before it looks at the packs.
pub(crate) async fn try_manifest(repository: &Repository, backup: &BackupRecord, crew: &Crew) -> Result<Trial, Error> {
    // Directories that do not overlap: a restore decides where the tablespaces go, not the backup.
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
    let manifest = Arc::new(read_manifest(repository, backup).await?);
    let (checking, major) = (Arc::clone(&manifest), backup.pg_major);
    let index = crew
        .run(move || {
            let index = check(&checking, &layout)?;
            check_tablespaces(&checking, &layout, major)?;
            Ok::<_, Error>(index)
        })
        .await??;
    Ok(Trial { manifest, index })
}

/// Reads the files that a restore holds in memory, and checks them as a restore does.
pub(crate) async fn try_held_files(repository: &Repository, trial: &Trial, backup: &BackupRecord) -> Result<(), Error> {
    let packs = Packs::new(repository.clone(), Arc::clone(&trial.manifest));
    held_files(&packs, &trial.manifest, &trial.index, backup).await.map(|_| ())
}
