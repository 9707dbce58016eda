//! PostgreSQL's own facts for Holdfast: LSNs, WAL, control file, page checksums.
#![warn(clippy::indexing_slicing)]

mod bytes;
mod parse_error;

pub mod backup_label;
pub mod backup_manifest;
pub mod checksum;
pub mod control;
pub mod exclude;
pub mod history;
pub mod lsn;
pub mod page;
pub mod relation;
pub mod segment;
pub mod system_identifier;
pub mod tablespace_map;
pub mod timeline;
pub mod version;
pub mod wal;
pub mod wal_file_name;

pub use backup_label::BackupLabel;
pub use control::ControlFile;
pub use history::{Ancestry, HistoryFile};
pub use lsn::Lsn;
pub use parse_error::ParseError;
pub use segment::{SegmentName, WalSegmentSize};
pub use system_identifier::SystemIdentifier;
pub use tablespace_map::TablespaceMap;
pub use timeline::TimelineId;
pub use version::PgVersion;
pub use wal_file_name::WalFileName;
