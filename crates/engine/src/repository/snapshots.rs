//! Reads the records of volume snapshots in an archive.

use holdfast_repo::name::{self, BackupId, ClusterName, ObjectPath};
use holdfast_repo::record::SnapshotRecord;

use super::Repository;
use super::listed::Listed;
use crate::error::{Cause, Error, ResultExt};

impl Repository {
    /// All snapshots of a cluster, oldest first, and those whose record cannot be read.
    ///
    /// # Errors
    /// [`Cause::Store`] if the snapshots cannot be listed, or the store cannot be asked for one. The error of a single
    /// record is in [`Listed::unreadable`].
    pub async fn snapshots(&self, cluster: &ClusterName) -> Result<Listed<SnapshotRecord, BackupId>, Error> {
        let listed = self
            .store()
            .list(&name::snapshots_folder(cluster), None)
            .await
            .doing(|| format!("listing the snapshots of {cluster} in {}", self.describe()))?;
        let names = listed.iter().filter_map(|object| match object.name.as_ref().parse() {
            Ok(ObjectPath::Snapshot { snapshot, .. }) => Some((snapshot, object.name.to_string())),
            _ => None,
        });
        Listed::read(names.collect(), |snapshot| self.snapshot(cluster, snapshot)).await
    }

    /// The record of one snapshot.
    ///
    /// # Errors
    /// [`Cause::NoSuchSnapshot`] if there is no record, [`Cause::Malformed`] if it is that of another snapshot;
    /// otherwise as [`Repository::read_record`].
    pub async fn snapshot(&self, cluster: &ClusterName, snapshot: BackupId) -> Result<SnapshotRecord, Error> {
        let name = name::snapshot(cluster, &snapshot);
        let record: SnapshotRecord = match self.read_record(&name).await {
            Err(error) if error.is_not_found() => {
                return Err(
                    Cause::NoSuchSnapshot { snapshot: snapshot.to_string(), cluster: cluster.to_string() }.into()
                );
            }
            read => read?,
        };
        // Without encryption only this check binds a record to its name.
        if record.snapshot_id != snapshot || record.cluster != *cluster {
            let reason = format!("it is of snapshot {} of cluster {}", record.snapshot_id, record.cluster);
            return Err(Cause::Malformed { name, reason }.into());
        }
        Ok(record)
    }
}
