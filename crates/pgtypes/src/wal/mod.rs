//! WAL: pages, the check of a segment's head, records, and what a segment holds.
//!
//! Bytes come from a server that may be writing them, from a disk that may have lost some, or from a bucket. Nothing
//! here trusts a length it reads, and scanning ends quietly where the WAL ends to make sense, because a segment's unused
//! rest is old or zero in the normal course of things.
//!
//! - [`page`]: the headers that stand at the beginning of each page
//! - [`segment_check`]: is this file the segment its name says, of this cluster?
//! - [`record`]: the records that matter to an archive: ends of transactions, restore points, checkpoints, switches
//! - [`reader`]: follows records over pages
//! - [`scan`]: the facts of one segment, and searches for recovery targets
//! - [`join`]: the record that crosses from one segment into the next

pub mod join;
pub mod page;
pub mod reader;
pub mod record;
pub mod scan;
pub mod segment_check;
