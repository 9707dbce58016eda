//! Which pages of a cluster changed since an earlier backup.
//!
//! - [`block_set`]: a compact set of block numbers

pub mod block_set;
