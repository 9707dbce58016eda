//! `holdfast drill`: whether a restore brings back what it should.

use chrono::{DateTime, Utc};
use holdfast_pgtypes::{Lsn, TimelineId};
use holdfast_repo::name::{BackupId, ClusterName};
use holdfast_repo::recovery::RecoveryPlan;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The name of the cluster's archive.
    pub cluster: ClusterName,
    /// The redacted URL of the repository.
    pub repository: String,
    /// The number of the repository in the configuration, from 1.
    pub number: usize,
    /// Whether no check found anything wrong.
    pub result: DrillResult,
    /// The requested target.
    pub target: DrillTarget,
    /// The backup from which the restore began.
    pub backup: BackupId,
    /// The backup, the timelines and the WAL of the recovery.
    pub recovery: RecoveryPlan,
    /// The time of the last transaction that was replayed; `None` if there was none, or the server did not get that
    /// far.
    pub restored_time: Option<DateTime<Utc>>,
    /// The LSN where replay ended; `None` if the server did not get that far.
    pub restored_lsn: Option<Lsn>,
    /// The version of the server, such as `18.1`; `None` if it did not start.
    pub server_version: Option<String>,
    pub directory: PathBuf,
    /// Whether the directory was kept.
    pub kept: bool,
    /// Bytes that were fetched from the store, without WAL.
    pub fetched_bytes: u64,
    /// Bytes written into the data directory.
    pub written_bytes: u64,
    /// How long each step took.
    pub durations: DrillDurations,
    /// Bytes written per second of the restore.
    pub restore_bytes_per_second: Option<u64>,
    /// Bytes of WAL per second of the replay, between the start of the backup and the end of the replay.
    pub replay_bytes_per_second: Option<u64>,
    /// The checksums of all pages, or their headers in a cluster without checksums.
    pub pages: PageChecks,
    /// The result of `pg_amcheck`.
    pub amcheck: AmCheck,
    /// The user's queries, in their order.
    pub probes: Vec<Probe>,
    /// What was wrong; empty if the restore is proven.
    pub findings: Vec<DrillFinding>,
    /// Further notes, as text for people.
    pub notes: Vec<String>,
    /// Directories that killed drills left.
    pub left_behind: Vec<LeftBehind>,
    /// Whether the result was recorded in the repository.
    pub recorded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    /// The server started, and no check found anything.
    Proven,
    /// At least one finding.
    Failed,
}

/// The requested target of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTarget {
    /// As flags of the command line, such as `--target-time "2026-08-22 11:30:00+00" --target-timeline 1`; empty for
    /// the newest moment.
    pub flags: String,
    /// The time, if one was chosen or requested.
    pub time: Option<DateTime<Utc>>,
    /// The seed that chose it at random.
    pub seed: Option<u64>,
}

/// The duration of each step; `None` for a step that was not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillDurations {
    /// Choosing the backup and the WAL.
    pub plan_milliseconds: u64,
    /// Restoring the files.
    pub restore_milliseconds: u64,
    /// From the start of the server to its first answer, after the end of recovery.
    pub replay_milliseconds: Option<u64>,
    /// From the start of the drill to that answer: the time that a real recovery would take on this host.
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

/// The result of the check of the pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageChecks {
    /// Whether it was run, and found nothing.
    pub outcome: CheckOutcome,
    /// Pages that were checked.
    pub page_count: u64,
    /// Pages with a wrong checksum or header.
    pub bad_count: u64,
    /// Whether the cluster has checksums; if not, only headers were checked.
    pub checksums: bool,
    /// Why it was not run.
    pub reason: Option<String>,
}

/// The result of `pg_amcheck`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmCheck {
    /// Whether it ran and found nothing.
    pub outcome: CheckOutcome,
    /// Why it did not run.
    pub reason: Option<String>,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// It found nothing wrong.
    Passed,
    /// It found something wrong.
    Failed,
    NotRun,
}

/// A query of the user and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The comment before it, or its first words.
    pub name: String,
    pub file: PathBuf,
    /// The line in which it begins, from 1.
    pub line: u64,
    /// Whether it answered with one row that begins with true.
    pub passed: bool,
    /// The answer, if it did not pass.
    pub answer: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFinding {
    pub kind: FindingKind,
    /// The finding, as text for people.
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An object of the repository.
    Object,
    /// The server does not start, does not reach the target or does not stay up.
    Server,
    /// A page of the restored cluster has a wrong checksum.
    Page,
    /// `pg_amcheck` found it.
    Amcheck,
    /// A query of the user.
    Probe,
    /// The time limit of the drill was reached.
    TimeLimit,
}

impl FindingKind {
    /// The words before the text of the finding.
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
    pub directory: PathBuf,
    /// When that drill began.
    pub started: DateTime<Utc>,
    /// The process id of the server that still runs in it.
    pub server_pid: Option<i32>,
    /// Whether it was kept on purpose (`--keep`).
    pub kept: bool,
    /// The host or container that made it, if its processes cannot be seen from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

/// A drill that the repository has on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// The backup from which the restore began.
    pub backup_id: BackupId,
    /// When the drill ended.
    pub time: DateTime<Utc>,
    /// Whether it found nothing wrong.
    pub proven: bool,
    /// The timeline that was followed.
    pub timeline: TimelineId,
    /// The last transaction that was replayed.
    pub restored_time: Option<DateTime<Utc>>,
    /// The LSN where replay ended.
    pub restored_lsn: Option<Lsn>,
    /// From the choice of the backup to the first answer of the server.
    pub recovery_milliseconds: u64,
    /// What was wrong; empty if it was proven.
    pub problems: Vec<String>,
    /// The name of the host that ran it.
    pub host: String,
    /// The release of Holdfast that ran it.
    pub software_version: String,
}
