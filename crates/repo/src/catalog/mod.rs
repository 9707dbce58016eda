//! The catalog: what a listing says is there, without opening anything.
//!
//! [`WalInventory`] is the WAL of one claim as compact ranges, [`BackupCatalog`] the backups of one cluster by how far they
//! came. Both are built from object names alone, are pure values, and say nothing about whether the objects are sound.

mod backup_catalog;
mod segment_range;
mod wal_inventory;

pub use backup_catalog::{BackupCatalog, BackupObjects};
pub use segment_range::SegmentRange;
pub use wal_inventory::WalInventory;
