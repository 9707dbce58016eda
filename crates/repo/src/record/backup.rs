//! `backup.json`: the summary that makes a backup exist.

use super::{Closed, EncryptionKind, RecordBody, RecordKind};
use crate::name::{BackupId, ClaimNumber, ClusterName};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, SegmentName, SystemIdentifier, TimelineId, WalSegmentSize};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most page checksum failures that a summary lists; all of them are counted.
pub const MAX_LISTED_CHECKSUM_FAILURES: usize = 1000;

/// The kind of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupType {
    /// Every extent was read and stored.
    Full,
    /// Only changes since its parent were stored. It restores like a full one and does not need the parent's records:
    /// its manifest names the place of every extent, in its own packs and in those of earlier backups.
    Incremental,
}

/// Everything that `list`, `info` and the recovery planner need to know about a backup without its manifest.
///
/// Written last, after data, manifest and all WAL from start to stop LSN: if it exists, the backup can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// Identity of the backup, as in its name.
    pub backup_id: BackupId,
    /// The label given to PostgreSQL's backup start function.
    pub label: String,
    /// Cluster of the backup, as in its name.
    pub cluster: ClusterName,
    /// Claim under which its WAL is archived.
    pub claim: ClaimNumber,
    /// The kind of the backup.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The backup that an incremental one was built on. A restore does not need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// PostgreSQL's system identifier.
    pub system_identifier: SystemIdentifier,
    /// The server's version as it reports it, such as `18.1 (Debian 18.1-1)`.
    pub pg_version: String,
    /// PostgreSQL's major version, such as 18.
    pub pg_major: u16,
    /// Catalog version, from `pg_control`.
    pub catalog_version: u32,
    /// WAL segment size in bytes.
    #[serde(rename = "wal_segment_size_bytes")]
    pub wal_segment_size: WalSegmentSize,
    /// Timeline of the backup (`START TIMELINE` of its label).
    pub timeline: TimelineId,
    /// Redo LSN of the backup's checkpoint: recovery reads WAL from here.
    pub start_lsn: Lsn,
    /// End of the backup: recovery is consistent once it has read the WAL up to here.
    pub stop_lsn: Lsn,
    /// The first WAL segment the backup needs.
    pub start_segment: SegmentName,
    /// The last WAL segment the backup needs: the one that contains the byte before the stop LSN.
    pub stop_segment: SegmentName,
    /// When the backup started, by the server's clock.
    pub start_time: DateTime<Utc>,
    /// When the backup stopped, by the server's clock.
    pub stop_time: DateTime<Utc>,
    /// How long the backup took in milliseconds, including the wait for WAL.
    pub duration_milliseconds: u64,
    /// Whether it was taken from a standby.
    pub from_standby: bool,
    /// Whether the cluster has page checksums.
    pub data_checksums: bool,
    /// Pages whose checksum was wrong when they were read.
    pub checksum_failures: ChecksumFailures,
    /// Number of files in the backup, without directories and links.
    pub file_count: u64,
    /// Files that PostgreSQL removed while the backup ran.
    pub removed_file_count: u64,
    /// Sum of the sizes of the files, in bytes.
    pub size_bytes: u64,
    /// Sum of the sizes of its packs and its manifest as stored, in bytes: what this backup added to the repository.
    /// Its packs are those that it wrote, and packs of killed runs that no earlier backup uses.
    pub stored_bytes: u64,
    /// Number of its packs.
    pub pack_count: u32,
    /// Tablespaces other than `pg_default` and `pg_global`.
    pub tablespaces: Vec<TablespaceEntry>,
    /// Databases at the start of the backup.
    pub databases: Vec<DatabaseEntry>,
    /// Compression of the packs, such as `zstd:3`.
    pub compression: String,
    /// The encryption of packs and manifest.
    pub encryption: EncryptionKind,
    /// The manifest that belongs to this summary.
    pub manifest: ManifestEntry,
    /// Next transaction id at the start: 64 bits, epoch in the upper half.
    pub next_xid: u64,
    /// Host the backup ran on.
    pub host: String,
    /// The release of Holdfast that wrote it.
    pub software_version: String,
    /// The warnings of the backup that matter to a restore: links that were kept as links, files whose content replaces
    /// a link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Free text from the user.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Page checksum failures of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksumFailures {
    /// The number of all failures.
    pub count: u64,
    /// The first [`MAX_LISTED_CHECKSUM_FAILURES`] of them.
    pub listed: Vec<ChecksumFailure>,
}

/// One page whose checksum was wrong, also when the page was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksumFailure {
    /// The file, relative to the data directory; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Block number within the relation fork (it continues through the segment files of one fork).
    pub block: u32,
    /// The checksum computed from the page's bytes.
    pub expected: u16,
    /// The checksum in the page's header.
    pub found: u16,
}

/// A tablespace of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceEntry {
    /// The OID of the tablespace, which is the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// The tablespace's name.
    pub name: String,
    /// The tablespace's folder on the server.
    pub path: String,
}

/// A database of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// The database's OID.
    pub oid: u32,
    /// The database's name.
    pub name: String,
}

/// The manifest object as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// Object name, relative to the repository's prefix.
    pub name: String,
    /// Size of the object in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the object, 64 hex digits.
    pub sha256: String,
}

impl RecordBody for BackupRecord {
    const KIND: RecordKind = RecordKind::Backup;
    const CLOSED: &'static [Closed] = &[
        Closed { at: "/type", values: &["full", "incremental"] },
        Closed { at: "/encryption", values: EncryptionKind::WORDS },
    ];
}
