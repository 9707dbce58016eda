//! [`PushOptions`]: what `wal push` and the archiver of an agent need to know.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use holdfast_repo::Compression;
use holdfast_repo::name::ClusterName;

use super::spool::{RepositorySetId, Spool};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;

/// The options of `wal push`.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// The owner for whom the archive is claimed; a claim with another owner is refused.
    pub owner: Option<String>,
    /// The path of the file, `%p` of PostgreSQL: relative to the data directory, which is the current directory, or
    /// absolute.
    pub path: PathBuf,
    /// Codec and level; an archive keeps the codec of its claim.
    pub compression: Compression,
    /// How many further files are stored in the same run; none without a spool.
    pub push_ahead: usize,
    /// Where marks are kept; without it, every file is handled on its own.
    pub spool: Option<Spool>,
    /// The repositories, in the form that [`marked_durable`](super::marked_durable) takes.
    pub repository_set: RepositorySetId,
    /// The threads that compress.
    pub crew: Crew,
    /// The limit on memory.
    pub budget: ByteBudget,
    /// Name of this host, for claims and ledger records.
    pub host: String,
    /// The present time.
    pub now: DateTime<Utc>,
}
