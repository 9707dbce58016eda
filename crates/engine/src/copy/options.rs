//! The options and the result of a copy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::copy::{CopiedWal, CopyOutcome};
use holdfast_repo::codec::Codec;
use holdfast_repo::name::{BackupId, ClusterName};

use crate::error::Error;

/// Which backups are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyChoice {
    /// All backups, with all WAL since the oldest.
    All,
    /// The newest backup, with the WAL that it needs.
    Latest,
    /// These backups, with the WAL that they need.
    These(Vec<BackupId>),
}

/// The options of a copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The cluster's name in both repositories.
    pub cluster: ClusterName,
    /// Which backups are copied.
    pub which: CopyChoice,
    /// Whether all WAL since the start of the oldest of them is copied, even if `which` is not [`CopyChoice::All`].
    pub all_wal: bool,
    /// The codec for the WAL of a claim that the copy takes in the target.
    pub wal_codec: Codec,
    /// The number of threads that open and seal; 0 for one per processor.
    pub jobs: usize,
    /// The maximum size of all buffers together, in bytes.
    pub memory_bytes: u64,
    /// Size of upload parts in bytes.
    pub part_size_bytes: usize,
    /// The name of this host, for leases and the ledger.
    pub host: String,
    /// The time of this host's clock.
    pub now: DateTime<Utc>,
}

/// The result for one backup.
#[derive(Debug)]
pub struct CopiedBackup {
    /// The id of the backup.
    pub backup_id: BackupId,
    /// Whether it was copied.
    pub outcome: CopyOutcome,
    /// The number of packs that its manifest names, and their size in bytes.
    pub packs: (u64, u64),
    /// The number of these packs that this run stored, and their size in bytes.
    pub new_packs: (u64, u64),
    /// Why it was not copied, if it failed.
    pub error: Option<Error>,
}

/// The result of a copy.
#[derive(Debug, Default)]
pub struct Copied {
    /// The requested backups, oldest first.
    pub backups: Vec<CopiedBackup>,
    /// The WAL, by claim.
    pub wal: Vec<CopiedWal>,
    /// The ids of the volume snapshots whose records were copied.
    pub snapshots: Vec<BackupId>,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
    /// The error of the first WAL file that could not be read.
    pub wal_error: Option<Error>,
    /// The duration of the copy.
    pub duration: Duration,
}
