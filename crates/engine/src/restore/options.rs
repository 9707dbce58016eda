//! What a restore is asked for.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::recovery_target::TargetAction;
use holdfast_repo::name::ClusterName;
use holdfast_repo::recovery::RecoveryRequest;

use super::layout::TablespaceMapping;
use super::settings::Archiving;
use crate::path_overlap::Place;

/// What to restore, where and how.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// The data directory to make, as an absolute path.
    pub pgdata: PathBuf,
    /// The recovery target, the timeline to follow, and perhaps the backup to use.
    pub request: RecoveryRequest,
    /// What the server does at the target; `None` means [`TargetAction::Pause`], as in PostgreSQL. Without a target the
    /// server ends recovery at the end of the WAL, whatever is set here, unless it is a standby.
    pub target_action: Option<TargetAction>,
    /// Whether an existing data directory of the same cluster may be changed to the state of the backup.
    pub delta: bool,
    /// Other directories for tablespaces.
    pub tablespaces: Vec<TablespaceMapping>,
    /// A directory for all other tablespaces, each in a folder named by its OID; `None` for their original directories.
    pub tablespace_root: Option<PathBuf>,
    /// Tablespaces, by name or OID, whose directories are reused although their data directory was lost.
    pub reuse_tablespaces: Vec<String>,
    /// Whether WAL of an existing data directory that was never archived may be removed.
    pub discard_wal: bool,
    /// What the restore and the restored server need: no directory of the restore may contain it or be inside it.
    pub places: Vec<Place>,
    /// The directories of the data directory from which this one may be a copy, if they are not the same: its links
    /// lead to them. No directory of the restore may be one of them, except a tablespace in `reuse_tablespaces`.
    pub originals: Vec<Place>,
    /// The configured retention, which decides whether the WAL that the restored server fetches may be removed; `None`
    /// if something else keeps that WAL meanwhile.
    pub retention: Option<holdfast_retention::Policy>,
    /// Whether the restored server archives.
    pub archiving: Archiving,
    /// Whether the server follows the archive (`standby.signal`) instead of ending recovery.
    pub standby: bool,
    /// Threads that decompress and check; 0 for one per processor.
    pub jobs: usize,
    /// The total size of the buffers, in bytes.
    pub memory_bytes: u64,
    /// The `restore_command` for PostgreSQL, called for each WAL file.
    pub restore_command: String,
    /// The same for a recovery that needs segments that are not whole: the text around the values of `--tail`. `None`
    /// for a recovery that ends with the last whole segment.
    pub tail_command: Option<(String, String)>,
    /// The name of this host, for the resume point.
    pub host: String,
    /// The time of the restore; recorded in the settings and compared with times of the repository.
    pub now: DateTime<Utc>,
}
