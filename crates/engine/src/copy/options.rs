//! What a copy is asked for, and what came of it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::copy::{CopiedWal, CopyOutcome};
use holdfast_repo::codec::Codec;
use holdfast_repo::name::{BackupId, ClusterName};

use crate::error::Error;

/// Which backups are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of them, with all WAL since the oldest.
    All,
    /// The newest, with its own WAL.
    Latest,
    /// These, with their own WAL.
    These(Vec<BackupId>),
}

/// What is copied, and how.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The cluster's name in both repositories.
    pub cluster: ClusterName,
    /// Which backups.
    pub which: Which,
    /// Whether all WAL since the start of the oldest of them is copied, whatever backups are.
    pub all_wal: bool,
    /// The codec of the WAL of a claim that is taken.
    pub wal_codec: Codec,
    /// Threads that open and seal; 0 for one a processor.
    pub jobs: usize,
    /// Bytes that the buffers may hold together.
    pub memory_bytes: u64,
    /// Size of upload parts in bytes.
    pub part_size_bytes: usize,
    /// This host, for leases and the ledger.
    pub host: String,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What became of one backup.
#[derive(Debug)]
pub struct CopiedBackup {
    /// Its id.
    pub backup_id: BackupId,
    /// What became of it.
    pub outcome: CopyOutcome,
    /// Packs that its manifest names, and their bytes.
    pub packs: (u64, u64),
    /// Those of them that were stored now.
    pub new_packs: (u64, u64),
    /// Why it is not there.
    pub error: Option<Error>,
}

/// What was copied.
#[derive(Debug, Default)]
pub struct Copied {
    /// The backups that were asked for, oldest first.
    pub backups: Vec<CopiedBackup>,
    /// The WAL, by claim.
    pub wal: Vec<CopiedWal>,
    /// Records of volume snapshots.
    pub snapshots: Vec<BackupId>,
    /// What one should know besides.
    pub notes: Vec<String>,
    /// The first WAL file that could not be read.
    pub wal_error: Option<Error>,
    /// How long it took.
    pub duration: Duration,
}
