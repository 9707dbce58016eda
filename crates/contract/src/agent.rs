//! What `holdfast wal push` and `wal get` ask the agent, and what it answers.
//!
//! One line of JSON goes each way over a Unix socket: [`Ask`], then [`Answer`]. Until the answer is known, the agent
//! sends [`Answer::Working`] about every second: a client that hears nothing for some seconds does the work itself. The
//! two programs may be of different releases. A client of a later [`PROTOCOL`], or with a request that the agent does
//! not know, gets [`Answer::Declined`], and does the work itself as well.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SegmentName, SystemIdentifier, WalFileName};
use holdfast_repo::ChunkHash;
use serde::{Deserialize, Serialize};

use crate::problem::ErrorReport;
use crate::report::wal::PushOutcome;

/// The number of this protocol.
pub const PROTOCOL: u32 = 1;

/// How long the agent is silent at most while it works, in seconds.
pub const WORKING_EVERY_SECONDS: u64 = 1;

/// Distinguishes one file from another, and from itself after a change. PostgreSQL recycles segments by renaming them,
/// which changes the time of the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Number of the file system.
    pub device: u64,
    /// Number of the inode.
    pub inode: u64,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Time of the content's last change: seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Time of the inode's last change: seconds and nanoseconds.
    pub changed: (i64, i64),
}

impl FileIdentity {
    /// The identity of a file with this metadata.
    pub fn of(metadata: &impl MetadataExt) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// [`PROTOCOL`] of the client.
    pub protocol: u32,
    /// A digest of the settings that the answer depends on: an agent with other settings must not answer.
    pub settings: String,
    /// What is wanted.
    pub request: Request,
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Archive this file; the answer is sent when it is durable in every repository.
    Push {
        /// The absolute path.
        path: PathBuf,
        /// The file that the client sees there. Agent and client may be in different containers.
        file: FileIdentity,
    },
    /// Fetch this file.
    Get {
        /// What recovery asks for, as `%f` of `restore_command`.
        file: WalFileName,
        /// The cluster in recovery.
        system_identifier: SystemIdentifier,
        /// No segment after this one is wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<SegmentName>,
    },
    /// Tell how the agent is.
    Status,
}

/// One line of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The answer is not known yet.
    Working,
    /// The file is durable in every repository, or is not needed.
    Pushed(PushOutcome),
    /// The segment is in this file, whole and verified. The client compares its content with the hash, and moves it to
    /// its destination. The agent keeps it until the client disconnects.
    Fetched {
        /// The absolute path.
        path: PathBuf,
        /// BLAKE3 of its content.
        blake3: ChunkHash,
        /// Length in bytes.
        size_bytes: u64,
    },
    /// The content of a small file, in hexadecimal digits.
    Content(String),
    /// The request failed, as it would have failed in the client.
    Failed(ErrorReport),
    /// The agent does not do this; the client does it itself.
    Declined(String),
    /// The state of the agent.
    Status(Box<AgentStatus>),
}

/// The state of an agent, for `holdfast agent status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// Its process.
    pub pid: u32,
    /// Its release.
    pub version: String,
    /// When it began.
    pub since: Option<DateTime<Utc>>,
    /// Archiving.
    pub push: PushStatus,
    /// Fetching.
    pub get: GetStatus,
    /// Missing WAL in each repository; empty before the first look.
    pub gaps: Vec<GapStatus>,
    /// Questions that were left to the command, which did the work without the agent.
    pub declined: u64,
    /// Why the last of these was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_declined: Option<String>,
}

/// Missing WAL, as `wal verify` recorded it in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapStatus {
    /// The repository.
    pub repository: String,
    /// Segments that are recorded as missing.
    pub segment_count: u64,
    /// When the agent read that.
    pub looked_at: DateTime<Utc>,
    /// When `wal verify` looked last, as far as the repository records it: without it, nobody knows of new gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<DateTime<Utc>>,
}

/// Counters of archiving.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PushStatus {
    /// Requests that were answered with success.
    pub answered: u64,
    /// Of these, the ones that were durable when they were asked.
    pub answered_at_once: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Files that are being stored now.
    pub in_flight: u64,
    /// Files that are durable, and for which PostgreSQL has not asked yet.
    pub ahead: u64,
    /// The most files that are stored at the same time now: it falls to 0 after a failure.
    pub window: u64,
    /// Files that wait for PostgreSQL's archiver (`.ready`), at the last look.
    pub waiting: u64,
    /// The newest file that PostgreSQL asked for and that is durable.
    pub last_archived: Option<String>,
    /// When it was answered.
    pub last_archived_at: Option<DateTime<Utc>>,
    /// The last failure, if no success came after it.
    pub last_failure: Option<ErrorReport>,
}

/// Counters of fetching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GetStatus {
    /// Requests that were answered with a file.
    pub answered: u64,
    /// Of these, the ones that had been fetched ahead.
    pub answered_at_once: u64,
    /// Requests for files that the archive does not have.
    pub absent: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Segments that are being fetched now.
    pub in_flight: u64,
    /// Segments that are fetched, and for which PostgreSQL has not asked yet.
    pub ahead: u64,
}
