//! WAL: pages, the check of a segment's head, records, and the facts of a segment.
//!
//! Bytes come from a server that may be writing them, from a disk that may have lost some, or from a bucket. Nothing
//! here trusts a length that it reads. Scanning ends without an error where the WAL becomes invalid, because the unused
//! rest of a segment normally has old content or zeros.
//!
//! - [`page`]: the headers at the beginning of each page
//! - [`segment_check`]: whether this file is the segment its name says, of this cluster
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
