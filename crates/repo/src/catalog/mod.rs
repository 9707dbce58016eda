//! The catalog: what a listing shows without opening any object.
//!
//! [`WalInventory`] is the WAL of one claim as compact ranges, [`BackupCatalog`] the backups of one cluster with their
//! progress. Both are pure values built from object names alone. They do not know whether the objects are sound.

mod backup_catalog;
mod segment_range;
mod wal_inventory;

pub use backup_catalog::{BackupCatalog, BackupObjects};
pub use segment_range::SegmentRange;
pub(crate) use wal_inventory::Tail;
pub use wal_inventory::WalInventory;
