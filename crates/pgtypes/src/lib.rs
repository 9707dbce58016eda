//! PostgreSQL's own formats for Holdfast: the files of a cluster and its WAL, for the majors 13 to 19.
//!
//! Everything here is a pure function over bytes and texts: no I/O, no clock, no async. The bytes may come from a disk,
//! a network or a bucket, and no function panics on them. Input that cannot be read gives an error that repeats it. If
//! WAL simply ends, that is not an error.
//!
//! | for | see |
//! |---|---|
//! | positions and names in the WAL | [`Lsn`], [`TimelineId`], [`SegmentName`], [`WalSegmentSize`], [`WalFileName`] |
//! | the cluster and its major | [`SystemIdentifier`], [`PgVersion`], [`ControlFile`] |
//! | the files of a backup | [`BackupLabel`], [`TablespaceMap`], [`backup_manifest`], [`exclude`] |
//! | branches of history | [`HistoryFile`], [`Ancestry`] |
//! | data pages | [`relation`], [`page`], [`checksum`] |
//! | names in system catalogs | [`catalog`] |
//! | WAL segments | [`wal`] |
//! | which pages changed since a backup | [`wal_summary`], [`changes`] |
//! | the recovery settings | [`recovery_target`] |
//!
//! Names are PostgreSQL's own, and the documentation gives the C name if there is one. [`PgVersion`] knows the
//! differences between majors.
//!
//! ```
//! use holdfast_pgtypes::{Ancestry, HistoryFile, Lsn, SegmentName, TimelineId, WalSegmentSize};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Which segment is needed to replay from this redo LSN towards timeline 2?
//! let size = WalSegmentSize::new(16 << 20)?;
//! let redo: Lsn = "A/FF000028".parse()?;
//! let history = HistoryFile::parse(TimelineId::from_hex("00000002")?, b"1\tB/5000060\tno recovery target specified\n")?;
//! let ancestry = Ancestry::from_history(&history);
//! assert_eq!(ancestry.owner(redo), TimelineId::FIRST);
//! let segment = ancestry.segment_containing(redo, size);
//! assert_eq!(segment.to_string(), "000000010000000A000000FF");
//!
//! // A stop LSN on a boundary belongs to the segment that ends there.
//! let stop: Lsn = "B/0".parse()?;
//! assert_eq!(SegmentName::ending_at(stop, TimelineId::FIRST, size), segment);
//! # Ok(())
//! # }
//! ```
#![warn(clippy::indexing_slicing)]
// A caller decides by the kind of an error, so every public function documents its errors (docs/style.md).
#![warn(clippy::missing_errors_doc)]

mod bytes;
mod parse_error;

pub mod backup_label;
pub mod backup_manifest;
pub mod catalog;
pub mod changes;
pub mod checksum;
pub mod control;
pub mod exclude;
pub mod history;
pub mod lsn;
pub mod page;
pub mod recovery_target;
pub mod relation;
pub mod segment;
pub mod system_identifier;
pub mod tablespace_map;
pub mod timeline;
pub mod version;
pub mod wal;
pub mod wal_file_name;
pub mod wal_summary;

pub use backup_label::BackupLabel;
pub use control::ControlFile;
pub use history::{Ancestry, HistoryFile, TimelineSpan};
pub use lsn::Lsn;
pub use parse_error::ParseError;
pub use segment::{SegmentName, WalSegmentSize};
pub use system_identifier::SystemIdentifier;
pub use tablespace_map::TablespaceMap;
pub use timeline::TimelineId;
pub use version::PgVersion;
pub use wal_file_name::WalFileName;
