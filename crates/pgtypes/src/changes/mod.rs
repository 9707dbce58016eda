//! Which pages of a cluster changed since an earlier backup.
//!
//! - [`block_set`]: a compact set of block numbers
//! - [`changed_blocks`]: the union of WAL summaries ([`crate::wal_summary`]), in memory

pub mod block_set;
pub mod changed_blocks;

pub use changed_blocks::{ChangedBlocks, ForkChanges};
