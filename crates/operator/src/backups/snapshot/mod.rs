//! Backups as volume snapshots.
//!
//! Order of the steps: the instance makes its volumes ready (backup mode for a hot one, a stopped server for a cold
//! one); a `VolumeSnapshot` of each volume is created; once each one's point in time is taken the instance ends the
//! mode and writes the record into the archive, WAL confirmed; `backup_label` and `tablespace_map` are kept on the
//! snapshots and in `Backup.status`; when the driver says that all are ready to use the backup is complete.
//!
//! The state is in `Backup.status`, in the snapshots that exist (found by a label with the uid of the `Backup`) and in
//! what the instance says: nothing of it is in this process, so that a restart in the middle goes on where it was.
//! Snapshots of an attempt that failed are deleted; the instance is released in every case, by the operator or by its
//! own deadline.

mod follow;
mod objects;
mod volumes;

pub(crate) use follow::{delete_all, follow, request};
pub(crate) use objects::{BACKUP_UID, api_resource, manifest, seen};
pub use objects::{Owner, SnapshotPlan, SnapshotSeen};
