//! Drill: proof that a restore brings back what it should. A backup is restored up to a moment into a throw-away directory,
//! PostgreSQL recovers there, and what has come back is looked at.
//!
//! Order:
//! 1. [`moment`]: the moment that was asked for, or a random one. [`directory`]: made fresh.
//! 2. The restore is planned; [`programs`] finds PostgreSQL of the right version; there is room. A lease keeps `expire` from
//!    the backup and its WAL until the end.
//! 3. [`run`], from here on: the restore itself, as `restore` does it, with all tablespaces inside of the directory.
//! 4. [`server`]: started with [`settings`] that keep it apart from everything else. Replay ends at the target.
//! 5. [`amcheck`] and [`probes`] ask the running server. It is stopped in an orderly way, and [`pages`] checks every page.
//! 6. The directory is removed, and the result written into the ledger ([`crate::repository::drills`]).
//!
//! Invariants: the living server is not touched, nothing is written into the repository but a lease and the entry of the
//! ledger, and the server is stopped and the directory removed whatever happens. After `kill -9` both are left, and the next
//! drill names them.
//!
//! A damaged object, a server that does not come up, a bad page and a failed query are findings: the drill ran, and the
//! backup is not proven. An error says that the drill could not run; it says nothing of the backup.

mod amcheck;
mod directory;
mod moment;
mod outside;
mod pages;
mod probes;
mod programs;
mod run;
mod server;
mod settings;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::drill::{CheckOutcome, DrillDurations, DrillReport, DrillResult};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::recovery_target::TargetAction;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::{BackupRecord, LeasePurpose, LedgerEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::repository::drills::{Drills, drills};
pub use moment::{Moment, random_seed};

use directory::ThrowAway;
use programs::Programs;
use run::{Found, Run};

use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::repository::{Repository, drills};
use crate::restore::{self, Archiving, RestoreOptions};

/// Room besides the data and its WAL: what the server makes itself.
const ROOM_BESIDES: u64 = 64 << 20;

/// How long a result may take to reach the ledger, and a lease to be taken or given back.
const WAIT: Duration = Duration::from_secs(30);

/// What is drilled, where and how.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// As for a restore. What is a drill's own to say is replaced: the directory, tablespaces, the request, archiving, what
    /// happens at the target.
    pub restore: RestoreOptions,
    /// Which moment.
    pub moment: Moment,
    /// The repository's number in the configuration, for the report.
    pub number: usize,
    /// Where the throw-away directory is made, absolute.
    pub directory: PathBuf,
    /// Where PostgreSQL's programs are; `None` for the `PATH` and the folders of the packages.
    pub bin_dir: Option<PathBuf>,
    /// The folders of the `PATH`.
    pub path: Vec<PathBuf>,
    /// Whose the directory becomes, and who runs the server; `None` for the caller.
    pub owner: Option<(u32, u32)>,
    /// A superuser of the cluster.
    pub role: String,
    /// The data directory of the configuration, whose server may be stopped.
    pub living: Option<PathBuf>,
    /// The database of the user's queries.
    pub database: String,
    /// The user's queries: files, or folders with `*.sql`.
    pub probes: Vec<PathBuf>,
    /// Further settings of the server.
    pub settings: Vec<(String, String)>,
    /// The variable that names the spool to `restore_command`.
    pub spool_variable: String,
    /// Whether `pg_amcheck` runs where it is there.
    pub amcheck: bool,
    /// How long all of it may take.
    pub time_limit: Duration,
    /// Whether the directory stays.
    pub keep: bool,
    /// Whether the result is written into the ledger.
    pub remember: bool,
}

/// Until when a drill goes on.
#[derive(Debug)]
struct Bounds {
    cancel: CancellationToken,
    deadline: Instant,
}

impl Bounds {
    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the time is over.
    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Returns when the drill is cancelled or the time is over.
    async fn over(&self) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep_until(self.deadline) => {}
        }
    }
}

/// Restores, recovers and looks, then removes everything.
///
/// # Errors
/// Those of [`restore::plan`] and [`restore::restore`] that are not about the content of an object. [`Cause::NoPrograms`] if
/// there is no PostgreSQL of the version, [`Cause::NoRoom`], [`Cause::File`] for the directory and the queries,
/// [`Cause::Refused`] for a setting that would let the copy out, [`Cause::Postgres`] if the server does not take the role,
/// [`Cause::ReplayStopped`] if the store could not be asked during replay, [`Cause::Cancelled`].
pub async fn drill(
    repository: &Repository,
    options: &DrillOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<DrillReport, Error> {
    let phrase = || format!("drilling a restore of {} from {}", options.restore.cluster, repository.describe());
    Box::pin(drill_inner(repository, options, progress, cancel)).await.doing(phrase)
}

async fn drill_inner(
    repository: &Repository,
    options: &DrillOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<DrillReport, Error> {
    let clock = Clock::starting(options.restore.now);
    let bounds = Bounds { cancel: cancel.clone(), deadline: Instant::now() + options.time_limit };
    let cluster = &options.restore.cluster;
    let left_behind = directory::left_behind(&options.directory, &options.restore.host);
    let statements = probes::read(&options.probes)?;
    let (host, now) = (options.restore.host.as_str(), options.restore.now);
    let mut directory = ThrowAway::named(&options.directory, cluster.as_str(), host, now)?;

    progress.phase("choosing the moment", None);
    let jobs = options.restore.jobs;
    let (request, target, mut notes) =
        Box::pin(moment::choose(repository, cluster, &options.moment, jobs, now, cancel)).await?;
    let mut restoring = RestoreOptions {
        pgdata: directory.pgdata(),
        request,
        target_action: Some(TargetAction::Promote),
        delta: false,
        tablespaces: Vec::new(),
        tablespace_root: Some(directory.tablespaces()),
        reuse_tablespaces: Vec::new(),
        discard_wal: false,
        archiving: Archiving::Off,
        standby: false,
        ..options.restore.clone()
    };
    // It is removed again where anything is refused.
    directory.make()?;
    let plan = Box::pin(restore::plan(repository, &restoring, progress, cancel)).await?;
    let backup = record_of(repository, options, plan.recovery.backup).await?;
    let version =
        PgVersion::new(backup.pg_major).map_err(|e| Cause::Refused(format!("backup {}: {e}", backup.backup_id)))?;
    let programs = Programs::find(options.bin_dir.as_deref(), &options.path, version)?;
    let known: Vec<OsString> = backup.tablespaces.iter().map(|tablespace| tablespace.oid.to_string().into()).collect();
    outside::refuse_living(options.living.as_deref(), &known, backup.system_identifier)?;
    // What is archived from now on changes neither the backup nor the end.
    restoring.request.backup = Some(plan.recovery.backup);
    restoring.restore_command = outside::bounded(&restoring.restore_command, &plan.recovery, &restoring.request.target);
    // Refused before anything is restored.
    settings::server(version, directory.path(), &directory.pgdata(), true, &options.settings)?;
    let needed = plan.write_bytes.saturating_add(plan.recovery.wal_bytes).saturating_add(ROOM_BESIDES);
    directory::check_room(&options.directory, needed)?;
    // A copy that is removed again archives nothing anyway.
    notes.extend(plan.notes.into_iter().filter(|note| note != restore::ARCHIVES_NOTHING));
    let mut durations = DrillDurations { plan_milliseconds: milliseconds(clock.passed()), ..DrillDurations::default() };
    let lease = take_lease(repository, options, backup.backup_id, clock, &mut notes).await;
    let mut run = Run {
        options,
        directory: &directory,
        programs: &programs,
        version,
        bounds: &bounds,
        progress,
        clock,
        statements: &statements,
        backup_stop: backup.stop_time,
        plan: &plan.recovery,
        target: &restoring.request.target,
        wal_segment_size: backup.wal_segment_size,
        tablespaces: &known,
        system_identifier: backup.system_identifier,
        found: Found::default(),
    };
    let outcome = Box::pin(run.all(repository, &restoring, &mut durations)).await;
    let found = run.found;
    if let Some(lease) = lease
        && tokio::time::timeout(WAIT, lease.release()).await.is_err()
    {
        tracing::debug!("the lease of this drill was not deleted in time, and ends by itself");
    }
    if let Err(error) = outcome {
        remove(directory).await?;
        return Err(error);
    }

    let path = directory.path().to_owned();
    if options.keep {
        directory.keep()?;
    } else {
        progress.phase("removing the directory", None);
        remove(directory).await?;
    }
    durations.total_milliseconds = milliseconds(clock.passed());
    let replayed = found.restored_lsn.map(|lsn| lsn.bytes_since(plan.recovery.start_lsn));
    let mut report = DrillReport {
        cluster: cluster.clone(),
        repository: repository.describe(),
        number: options.number,
        result: if found.findings.is_empty() { DrillResult::Proven } else { DrillResult::Failed },
        target,
        backup: backup.backup_id,
        restored_time: found.restored_time,
        restored_lsn: found.restored_lsn,
        server_version: found.server_version,
        directory: path,
        kept: options.keep,
        fetched_bytes: found.fetched_bytes,
        written_bytes: found.written_bytes,
        restore_bytes_per_second: rate(found.written_bytes, Some(durations.restore_milliseconds)),
        replay_bytes_per_second: replayed.and_then(|bytes| rate(bytes, durations.replay_milliseconds)),
        durations,
        pages: found.pages,
        amcheck: found.amcheck,
        probes: found.probes,
        findings: found.findings,
        notes: notes.into_iter().chain(found.notes).collect(),
        left_behind,
        recorded: false,
        recovery: plan.recovery,
    };
    if options.remember {
        let entry = entry(&report, &backup);
        let remembering = drills::remember(repository, cluster, host, clock.now(), entry);
        match tokio::time::timeout(WAIT, remembering).await {
            Ok(Ok(())) => report.recorded = true,
            Ok(Err(error)) => report.notes.push(not_remembered(&error.to_string())),
            Err(_) => report.notes.push(not_remembered("the store did not answer in time")),
        }
    }
    Ok(report)
}

fn not_remembered(why: &str) -> String {
    format!("the result cannot be remembered in the repository: {why}")
}

async fn record_of(repository: &Repository, options: &DrillOptions, id: BackupId) -> Result<BackupRecord, Error> {
    let backups = repository.backups(&options.restore.cluster).await?;
    backups.records.into_iter().find(|backup| backup.backup_id == id).ok_or_else(|| {
        let cluster = options.restore.cluster.to_string();
        Cause::NoSuchBackup { backup: id.to_string(), cluster }.into()
    })
}

/// The lease lasts until the end: the restored server fetches WAL long after the restore has given back its own.
async fn take_lease(
    repository: &Repository,
    options: &DrillOptions,
    backup: BackupId,
    clock: Clock,
    notes: &mut Vec<String>,
) -> Option<Lease> {
    let holder = Holder {
        cluster: &options.restore.cluster,
        purpose: LeasePurpose::Restore,
        backups: vec![backup],
        host: &options.restore.host,
    };
    let taking = async { Lease::take(repository, new_run()?, holder, clock).await };
    let why = match tokio::time::timeout(WAIT, taking).await {
        Ok(Ok(lease)) => return Some(lease),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the store did not answer in time".to_owned(),
    };
    notes.push(format!("`expire` is not told that this drill is running: {why}"));
    None
}

async fn remove(directory: ThrowAway) -> Result<(), Error> {
    blocking(move || directory.remove()).await
}

fn entry(report: &DrillReport, backup: &BackupRecord) -> LedgerEntry {
    let durations = &report.durations;
    LedgerEntry::Drill {
        backup: backup.backup_id,
        claim: backup.claim,
        timeline: report.recovery.timeline,
        restored_time: report.restored_time,
        restored_lsn: report.restored_lsn,
        size_bytes: report.written_bytes,
        wal_bytes: report.recovery.wal_bytes,
        restore_milliseconds: durations.plan_milliseconds.saturating_add(durations.restore_milliseconds),
        replay_milliseconds: durations.replay_milliseconds.unwrap_or_default(),
        page_count: report.pages.page_count,
        amcheck: report.amcheck.outcome != CheckOutcome::NotRun,
        probe_count: report.probes.len() as u64,
        problems: report.findings.iter().take(drills::MOST_PROBLEMS).map(ToString::to_string).collect(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Of nothing, or in no time, there is no rate.
fn rate(bytes: u64, milliseconds: Option<u64>) -> Option<u64> {
    let milliseconds = milliseconds.filter(|milliseconds| *milliseconds > 0 && bytes > 0)?;
    u64::try_from(u128::from(bytes) * 1000 / u128::from(milliseconds)).ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Cause::Internal(format!("a blocking task failed: {e}")).into()))
}
