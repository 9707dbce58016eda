//! `holdfast drill`: whether a restore brings back what it should.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::recovery::RecoveryPlan;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What a drill did and found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The cluster.
    pub cluster: ClusterName,
    /// The redacted URL of the repository.
    pub repository: String,
    /// The number of the repository in the configuration, from 1.
    pub number: usize,
    /// Whether everything was as it should be.
    pub result: DrillResult,
    /// What was asked for.
    pub target: DrillTarget,
    /// The backup that the restore began with.
    pub backup: BackupId,
    /// The way that PostgreSQL had to go.
    pub recovery: RecoveryPlan,
    /// The last transaction that was replayed; none if there was none, or the server did not get so far.
    pub restored_time: Option<DateTime<Utc>>,
    /// Where replay ended; none if the server did not get so far.
    pub restored_lsn: Option<Lsn>,
    /// The server that was started, such as `18.1`; none if it did not come up.
    pub server_version: Option<String>,
    /// The directory of the drill.
    pub directory: PathBuf,
    /// Whether it is still there.
    pub kept: bool,
    /// Bytes that the store gave, WAL not counted.
    pub fetched_bytes: u64,
    /// Bytes written into the data directory.
    pub written_bytes: u64,
    /// How long each step took.
    pub durations: DrillDurations,
    /// Bytes written in each second of the restore.
    pub restore_bytes_per_second: Option<u64>,
    /// Bytes of WAL in each second of the replay, between the start of the backup and where replay ended.
    pub replay_bytes_per_second: Option<u64>,
    /// The checksums of all pages, or their headers in a cluster without checksums.
    pub pages: PageChecks,
    /// `pg_amcheck`.
    pub amcheck: AmCheck,
    /// The user's queries, in their order.
    pub probes: Vec<Probe>,
    /// What was wrong.
    pub findings: Vec<DrillFinding>,
    /// What one should know besides.
    pub notes: Vec<String>,
    /// Directories that killed drills left.
    pub left_behind: Vec<LeftBehind>,
    /// Whether the result is remembered in the repository.
    pub recorded: bool,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    /// The restore came up, and no check found anything.
    Proven,
    /// Something is wrong.
    Failed,
}

/// What a drill was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTarget {
    /// In the words of the command line, such as `--target-time "2026-08-22 11:30:00+00" --target-timeline 1`; empty for
    /// the newest moment.
    pub flags: String,
    /// The moment, if one was chosen or asked for.
    pub time: Option<DateTime<Utc>>,
    /// The number that chose it at random.
    pub seed: Option<u64>,
}

/// How long each step took. What was not done has no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillDurations {
    /// Choosing the backup and the WAL.
    pub plan_milliseconds: u64,
    /// Restoring the files.
    pub restore_milliseconds: u64,
    /// From the start of the server until it has answered its first query, at the end of recovery.
    pub replay_milliseconds: Option<u64>,
    /// From the beginning to that answer: what an emergency would take on this host.
    pub recovery_milliseconds: Option<u64>,
    /// `pg_amcheck`.
    pub amcheck_milliseconds: Option<u64>,
    /// The user's queries.
    pub probes_milliseconds: Option<u64>,
    /// The checksums of the pages.
    pub pages_milliseconds: Option<u64>,
    /// Everything, removing the directory included.
    pub total_milliseconds: u64,
}

/// What the check of the pages found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageChecks {
    /// Whether it was done and found nothing.
    pub outcome: CheckOutcome,
    /// Pages that were checked.
    pub page_count: u64,
    /// Pages that are not as PostgreSQL wrote them.
    pub bad_count: u64,
    /// Whether the cluster has checksums; if not, only headers were checked.
    pub checksums: bool,
    /// Why it was not done.
    pub reason: Option<String>,
}

/// What `pg_amcheck` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmCheck {
    /// Whether it ran and found nothing.
    pub outcome: CheckOutcome,
    /// Why it did not run.
    pub reason: Option<String>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// Nothing is wrong.
    Passed,
    /// Something is.
    Failed,
    /// It was not done.
    NotRun,
}

/// A query of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The comment before it, or its first words.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The line in which it begins.
    pub line: u64,
    /// Whether it answered with one row that begins with true.
    pub passed: bool,
    /// What it answered instead.
    pub answer: Option<String>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFinding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// What, in words.
    pub what: String,
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An object of the repository.
    Object,
    /// The server does not start, does not reach the target or does not stay up.
    Server,
    /// A page.
    Page,
    /// `pg_amcheck` found it.
    Amcheck,
    /// A query of the user.
    Probe,
    /// The time of the drill was over.
    TimeLimit,
}

impl FindingKind {
    /// What stands before it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Object => "damaged object",
            Self::Server => "server",
            Self::Page => "bad page",
            Self::Amcheck => "pg_amcheck",
            Self::Probe => "probe",
            Self::TimeLimit => "time limit",
        }
    }
}

impl fmt::Display for DrillFinding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.words(), self.what)
    }
}

/// A directory that a drill left when it was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// Where it is.
    pub directory: PathBuf,
    /// When that drill began.
    pub started: DateTime<Utc>,
    /// The server that still runs in it.
    pub server_pid: Option<i32>,
    /// Whether it was kept on purpose (`--keep`).
    pub kept: bool,
}

/// A drill that the repository remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// The backup that the restore began with.
    pub backup_id: BackupId,
    /// When the drill ended.
    pub time: DateTime<Utc>,
    /// Whether it found nothing wrong.
    pub proven: bool,
    /// The timeline that was followed.
    pub timeline: TimelineId,
    /// The last transaction that was replayed.
    pub restored_time: Option<DateTime<Utc>>,
    /// Where replay ended.
    pub restored_lsn: Option<Lsn>,
    /// From the choice of the backup to the first answer of the server.
    pub recovery_milliseconds: u64,
    /// What was wrong.
    pub problems: Vec<String>,
    /// Who did it.
    pub host: String,
    /// With which release.
    pub software_version: String,
}
