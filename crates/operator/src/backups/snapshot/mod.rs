//! Backups as volume snapshots.
//!
//! Order of the steps:
//!
//! 1. The instance makes its volumes ready: backup mode for a hot snapshot, a stopped server for a cold one.
//! 2. A `VolumeSnapshot` of each volume is created.
//! 3. When the point in time of each is taken, the instance ends the mode, waits for the WAL and writes the record into
//!    the archive.
//! 4. `backup_label` and `tablespace_map` are kept on the snapshots and in `Backup.status`.
//! 5. When the driver says that all snapshots are ready to use, the backup is complete.
//!
//! The state is in `Backup.status`, in the snapshots that exist (found by a label with the uid of the `Backup`) and in
//! what the instance reports. Nothing is only in this process, so a restart continues where it was. Snapshots of a
//! failed attempt are deleted. The instance is released in every case, by the operator or by its own deadline.

mod follow;
mod objects;
mod volumes;

pub(crate) use follow::{delete_all, follow, request};
pub(crate) use objects::{BACKUP_UID, api_resource, manifest, seen};
pub use objects::{ObservedSnapshot, Owner, SnapshotPlan};
