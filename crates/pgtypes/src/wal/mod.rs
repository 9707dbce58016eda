//! WAL: pages, the check of a segment's head, records, and the facts of a segment.
//!
//! Bytes come from a server that may be writing them, from a disk that may have lost some, or from a bucket. Nothing
//! here trusts a length that it reads. Scanning ends without an error where the WAL becomes invalid, because the unused
//! rest of a segment normally has old content or zeros.
//!
//! - [`page`]: the headers at the beginning of each page
//! - [`segment_check`]: whether this file is the segment its name says, of this cluster
//! - [`record`]: the records that matter to an archive: ends of transactions, restore points, checkpoints, switches
//! - [`ddl_record`]: the records that tell what was dropped, truncated or rewritten
//! - [`database_mark`]: the record by which `DROP DATABASE` begins
//! - [`ddl`]: puts these records together
//! - [`relation_file`]: the files of a relation, as WAL names them
//! - [`catalog_name`]: looks for the name of a relation in a commit
//! - [`reader`]: follows records over pages
//! - [`scan`]: the facts of one segment, and searches for recovery targets
//! - [`join`]: the record that crosses from one segment into the next
//! - [`record_part`]: the CRC of a record that lies in several segments

pub mod catalog_name;
pub mod database_mark;
pub mod ddl;
pub mod ddl_record;
pub mod join;
pub mod page;
pub mod reader;
pub mod record;
pub mod record_part;
pub mod relation_file;
pub mod scan;
pub mod segment_check;
