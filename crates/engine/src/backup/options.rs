//! What a backup is asked for, and how it ended.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use holdfast_contract::report::backup::{Resumed, StoredBackup};
use holdfast_repo::Compression;
use holdfast_repo::name::ClusterName;
use holdfast_secret::Secret;

use crate::error::Error;
use crate::server::Environment;

/// The time in which a cancelled run can end by itself and abort its uploads. After that, its work is dropped.
pub(super) const CANCEL_WITHIN: Duration = Duration::from_secs(10);

/// The time in which a failed or cancelled run tries to remove what it stored in one repository: once for its
/// unfinished uploads, and once for its objects. An unreachable store must not delay the end of a run.
pub(super) const CLEAN_WITHIN: Duration = Duration::from_secs(5);

/// Whether a backup stores everything or only changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// An incremental backup if there is a suitable parent; otherwise a full one.
    #[default]
    Auto,
    /// All files, without a parent.
    Full,
    /// What changed since the parent. It fails if there is no suitable parent.
    Incremental,
}

/// The options of a backup.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The archive's name.
    pub cluster: ClusterName,
    /// The owner for whom the archive is claimed. A claim of another owner is refused.
    pub owner: Option<String>,
    /// Whether the backup is full or incremental.
    pub kind: Kind,
    /// The data directory.
    pub pgdata: PathBuf,
    /// The connection string of the server; `None` takes the address from `postmaster.pid`.
    pub connection: Option<Secret>,
    /// For a backup from a standby: the connection string of the primary, which then finishes its WAL segment.
    pub primary_connection: Option<Secret>,
    /// Whether an archive without an owner may be begun. `false` if a configured repository could not be opened, since
    /// it might refuse this server.
    pub begins_archives: bool,
    /// The values that libpq would take from the environment.
    pub environment: Environment,
    /// The label of the backup, written into `backup_label`.
    pub label: String,
    /// Whether to ask for an immediate checkpoint.
    pub start_fast: bool,
    /// The number of threads that compress; 0 for one per processor.
    pub jobs: usize,
    /// The limit for all buffers, in bytes.
    pub memory_bytes: u64,
    /// The size of upload parts, in bytes.
    pub part_size_bytes: usize,
    /// The compression of data.
    pub compression: Compression,
    /// The compression of WAL. Its codec is recorded if this backup is the first to claim the archive.
    pub wal_compression: Compression,
    /// Whether to verify page checksums while reading.
    pub page_checks: bool,
    /// The maximum time to wait for the WAL after the copy.
    pub archive_timeout: Duration,
    /// The name of this host, for records and leases.
    pub host: String,
    /// An id that replaces the machine's id if the data directory moves between machines: see `runner`.
    pub machine: Option<String>,
    /// The time of this host's clock when the backup starts.
    pub now: DateTime<Utc>,
}

/// How a backup ended.
#[derive(Debug)]
pub struct BackupOutcome {
    /// One record for each repository that has the backup.
    pub repositories: Vec<StoredBackup>,
    /// The repositories that do not have the backup, in the order of the targets; never all of them.
    pub failed: Vec<FailedBackup>,
    /// What this backup reused from killed runs.
    pub resumed: Option<Resumed>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// A repository that, as far as is known, does not have the backup.
#[derive(Debug)]
pub struct FailedBackup {
    /// The redacted URL.
    pub repository: String,
    /// The reason.
    pub error: Error,
    /// Whether `backup.json` was sent. If so, the backup may exist in spite of the error.
    pub may_exist: bool,
}
