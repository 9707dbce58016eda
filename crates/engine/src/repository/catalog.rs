//! Lists the backups of an archive.

use std::collections::BTreeSet;

use holdfast_repo::catalog::{BackupCatalog, BackupObjects};
use holdfast_repo::name::{self, BackupId, ClusterName};
use holdfast_repo::record::{BackupRecord, StartRecord};
use holdfast_store::{Failure, Operation, StoreError, StoreErrorKind};

use super::listed::Listed;
use super::{Repository, object_name};
use crate::error::{Cause, Error, ResultExt};

/// A backup without `backup.json`: running somewhere, or dead.
#[derive(Debug)]
pub struct UnfinishedBackup {
    /// Its id, which is its start time.
    pub backup_id: BackupId,
    /// Its start record; `None` if `start.json` is gone or cannot be read.
    pub start: Option<StartRecord>,
    /// Why `start.json` cannot be read, if it exists.
    pub unreadable: Option<Error>,
}

impl Repository {
    /// The names of all clusters with an archive here.
    ///
    /// # Errors
    /// [`Cause::Store`] if the repository cannot be listed.
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, Error> {
        let folders = self.store().list_folders("").await.doing(|| format!("listing {}", self.describe()))?;
        Ok(folders.iter().filter_map(|folder| folder.trim_end_matches('/').parse().ok()).collect())
    }

    /// All complete backups, oldest first, and those whose `backup.json` exists and cannot be read.
    ///
    /// The last write of a run that was taken for dead can arrive after its removal began. Such a record is not a
    /// backup, and counts as unreadable ([`Cause::Remnant`]).
    ///
    /// # Errors
    /// [`Cause::Store`] if the backups cannot be listed, or the store cannot be asked for one. The error of a single
    /// record is in [`Listed::unreadable`].
    pub async fn backups(&self, cluster: &ClusterName) -> Result<Listed<BackupRecord, BackupId>, Error> {
        self.backups_of(cluster, &self.listed(cluster).await?).await
    }

    /// The complete backups of a listing.
    pub(crate) async fn backups_of(
        &self,
        cluster: &ClusterName,
        listed: &BackupCatalog,
    ) -> Result<Listed<BackupRecord, BackupId>, Error> {
        let names = listed.complete().map(|backup| (backup, name::backup_summary(cluster, &backup)));
        let objects = |backup| listed.objects(backup).unwrap_or_default();
        Listed::read(names.collect(), |backup| async move { self.look_at(cluster, backup, objects(backup)).await })
            .await
    }

    /// One complete backup. A listing shows these objects of it.
    ///
    /// # Errors
    /// Those of [`Repository::backup`]; [`Cause::Remnant`] if none of its data is left, [`Cause::LostPack`] if some of
    /// it is.
    pub(crate) async fn look_at(
        &self,
        cluster: &ClusterName,
        backup: BackupId,
        objects: BackupObjects,
    ) -> Result<BackupRecord, Error> {
        let record = self.backup(cluster, backup).await?;
        let BackupObjects { start, manifest, .. } = objects;
        // The removal of a run that seems dead begins with its start record. So does the removal of a whole backup. A
        // backup that lacks its start record and some data may also be damaged, and damaged backups are kept.
        if !start && let Some((missing, is_all)) = self.lost_object(cluster, backup, manifest).await? {
            // This fails if `expire` is removing all of it at this moment.
            let name = name::backup_summary(cluster, &backup);
            self.store().head(&object_name(&name)?).await?;
            let what = if is_all { Cause::Remnant { name, missing } } else { Cause::LostPack { missing } };
            return Err(what.into());
        }
        if manifest {
            return Ok(record);
        }
        let (store, name) = (self.describe(), name::manifest(cluster, &backup));
        let detail = "backup.json names it".to_owned();
        let missing = Failure { store, name, operation: Operation::Head, detail, source: None };
        Err(StoreError::new(StoreErrorKind::NotFound, missing).into())
    }

    /// The first missing object of a backup, and whether all of its data is gone. Its data is its manifest, and the
    /// packs of its own that the manifest names. `None` if nothing is missing, or if the manifest cannot be read.
    async fn lost_object(
        &self,
        cluster: &ClusterName,
        backup: BackupId,
        has_manifest: bool,
    ) -> Result<Option<(String, bool)>, Error> {
        let manifest = name::manifest(cluster, &backup);
        if !has_manifest {
            return Ok(self.is_gone(&manifest).await?.then_some((manifest, true)));
        }
        let end = match self.manifest_end(&manifest).await {
            Err(error) if error.is_of_one_object() || error.is_newer() => return Ok(None),
            end => end?,
        };
        let folder = name::packs_folder(cluster, &backup);
        let listed = self.store().list(&folder, None).await?;
        let there: BTreeSet<&str> = listed.iter().map(|object| object.name.as_ref()).collect();
        let own = end.packs.into_iter().map(|pack| pack.name).filter(|pack| pack.starts_with(&folder));
        let (left, gone): (Vec<String>, Vec<String>) = own.partition(|pack| there.contains(pack.as_str()));
        let Some(missing) = gone.into_iter().next() else { return Ok(None) };
        // An incomplete listing must not turn a sound backup into a remnant.
        Ok(self.is_gone(&missing).await?.then_some((missing, left.is_empty())))
    }

    /// Whether the store says that this object does not exist.
    async fn is_gone(&self, name: &str) -> Result<bool, Error> {
        match self.store().head(&object_name(name)?).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(true),
            looked => Ok(looked.map(|_| false)?),
        }
    }

    /// One complete backup.
    ///
    /// # Errors
    /// [`Cause::Store`] of kind `NotFound` if no such backup is complete, [`Cause::Malformed`] if the record is that of
    /// another backup; otherwise as [`Repository::read_record`].
    pub async fn backup(&self, cluster: &ClusterName, backup: BackupId) -> Result<BackupRecord, Error> {
        let name = name::backup_summary(cluster, &backup);
        let record: BackupRecord = self.read_record(&name).await?;
        // Without encryption only this check binds a record to its name.
        if record.backup_id != backup || record.cluster != *cluster {
            let reason = format!("it is of backup {} of cluster {}", record.backup_id, record.cluster);
            return Err(Cause::Malformed { name, reason }.into());
        }
        Ok(record)
    }

    /// The ids of backups that have begun and have no `backup.json`.
    ///
    /// # Errors
    /// [`Cause::Store`] if the backups cannot be listed.
    pub async fn unfinished_backups(&self, cluster: &ClusterName) -> Result<Vec<BackupId>, Error> {
        let listed = self.listed(cluster).await?;
        // A manifest without a start record remains of a removed backup, for backups that share its packs.
        let begun = listed.unfinished().filter(|(_, objects)| objects.start || !objects.manifest);
        Ok(begun.map(|(backup, _)| backup).collect())
    }

    /// The same, with their start records.
    ///
    /// # Errors
    /// [`Cause::Store`] if the backups cannot be listed, or the store cannot be asked for a start record. The error of
    /// a single record is in [`UnfinishedBackup::unreadable`].
    pub async fn describe_unfinished(&self, cluster: &ClusterName) -> Result<Vec<UnfinishedBackup>, Error> {
        let mut described = Vec::new();
        for backup_id in self.unfinished_backups(cluster).await? {
            let start = self.read_record(&name::backup_start(cluster, &backup_id)).await;
            let (start, unreadable) = match start {
                Ok(start) => (Some(start), None),
                Err(error) if error.is_not_found() => (None, None),
                Err(error) if error.is_of_one_object() => (None, Some(error)),
                Err(error) => return Err(error),
            };
            described.push(UnfinishedBackup { backup_id, start, unreadable });
        }
        Ok(described)
    }

    /// The objects of all backups, by a listing.
    pub(crate) async fn listed(&self, cluster: &ClusterName) -> Result<BackupCatalog, Error> {
        let objects = self
            .store()
            .list(&name::backups_folder(cluster), None)
            .await
            .doing(|| format!("listing the backups of {cluster} in {}", self.describe()))?;
        Ok(BackupCatalog::from_listing(cluster, objects.iter().map(|object| object.name.as_ref())))
    }
}
