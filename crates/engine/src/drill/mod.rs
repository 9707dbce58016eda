//! Drill: proves that a restore works. It restores a backup to a moment, into a throw-away directory. PostgreSQL
//! recovers there, and the result is checked.
//!
//! Order:
//! 1. [`moment`] chooses the moment: the one that the user gave, or a random one. [`directory`] makes the directory.
//! 2. The restore is planned. [`programs`] finds PostgreSQL of the right version. The free space is checked. A lease
//!    keeps `expire` from removing the backup and its WAL until the end.
//! 3. [`run`] does the rest: first the restore itself, as `restore` does it, with all tablespaces inside the directory.
//! 4. [`server`] starts PostgreSQL with [`settings`] that isolate it. Replay ends at the target.
//! 5. [`amcheck`] and [`probes`] query the running server. The server is shut down, and [`pages`] checks every page.
//! 6. The directory is removed, and the result is written into the ledger ([`crate::repository::drills`]).
//!
//! Invariants: the production server is not touched. Only a lease and the ledger entry are written into the repository.
//! The server is stopped and the directory removed, whatever happens. Only after `kill -9` both are left, and the next
//! drill reports them.
//!
//! A damaged object, a server that does not start, a bad page and a failed query are findings: the drill ran, and the
//! backup is not proven. An error means that the drill could not run; it says nothing about the backup.

mod amcheck;
mod bounds;
mod checks;
mod databases;
mod directory;
mod faults;
mod log;
mod moment;
mod outside;
mod pages;
mod plain;
mod probes;
mod programs;
mod refused;
mod replay;
mod room;
mod run;
mod server;
mod settings;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::report::drill::{CheckOutcome, DrillDurations, DrillReport, DrillResult, FindingKind};
use holdfast_pgtypes::PgVersion;
use holdfast_pgtypes::recovery_target::TargetAction;
use holdfast_repo::name::BackupId;
use holdfast_repo::record::{BackupRecord, DrillFound, LeasePurpose, LedgerEntry};
use holdfast_repo::recovery::RecoveryRequest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use crate::repository::drills::{Drills, drills};
pub use moment::{RequestedMoment, random_seed};

use bounds::Bounds;
use directory::ThrowAway;
use programs::Programs;
use room::Room;
use run::{Run, StepResults};
use settings::Original;

use crate::error::{Cause, Error, ResultExt};
use crate::progress::Progress;
use crate::repository::leases::{Clock, Holder, Lease, new_run};
use crate::repository::{Repository, drills};
use crate::restore::{self, Archiving, RestoreOptions};

/// The time limit for writing the result into the ledger, and for taking or releasing a lease.
const WAIT: Duration = Duration::from_secs(30);

/// The options of a drill.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// The options of the restore. Those that the drill sets itself are overwritten: the directory, tablespaces, the
    /// request, archiving, and the action at the target.
    pub restore: RestoreOptions,
    /// The moment to restore.
    pub moment: RequestedMoment,
    /// The repository's number in the configuration, for the report.
    pub number: usize,
    /// The folder in which the throw-away directory is made; an absolute path.
    pub directory: PathBuf,
    /// The folder of PostgreSQL's programs; `None` searches the `PATH` and the folders of the packages.
    pub bin_dir: Option<PathBuf>,
    /// The folders of the `PATH`.
    pub path: Vec<PathBuf>,
    /// The user and group ids that own the directory and run the server; `None` for those of the caller.
    pub owner: Option<(u32, u32)>,
    /// A superuser of the cluster.
    pub role: String,
    /// The data directory of the configuration. Its server may be stopped.
    pub living: Option<PathBuf>,
    /// The database for the user's queries.
    pub database: String,
    /// The user's queries: files, or folders with `*.sql`.
    pub probes: Vec<PathBuf>,
    /// Further settings of the server, as names and values.
    pub settings: Vec<(String, String)>,
    /// The environment variable that tells `restore_command` where its spool is.
    pub spool_variable: String,
    /// Whether to run `pg_amcheck`, if it is installed.
    pub amcheck: bool,
    /// The time limit for the whole drill.
    pub time_limit: Duration,
    /// Whether to keep the directory.
    pub keep: bool,
    /// Whether to write the result into the ledger.
    pub remember: bool,
}

/// Restores, recovers and checks, then removes everything.
///
/// # Errors
/// Those of [`restore::plan`] and [`restore::restore`] that are not about the content of an object.
/// [`Cause::NoPrograms`] if there is no PostgreSQL of the version, [`Cause::NoRoom`], [`Cause::File`] for the directory
/// and the queries, [`Cause::Refused`] for a setting that would let the copy act outside, [`Cause::Postgres`] if the
/// server does not accept the role, [`Cause::ReplayStopped`] if the store could not be asked during replay,
/// [`Cause::Host`] if this host lacked memory or room for the server, or ended it, [`Cause::OutOfTime`] if the time was
/// over before anything was restored, [`Cause::Cancelled`].
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
    let deadline = Instant::now() + options.time_limit;
    let (cluster, host, now) = (&options.restore.cluster, options.restore.host.as_str(), options.restore.now);
    let left_behind = directory::left_behind(&options.directory, &options.restore.host);
    let statements = probes::read(&options.probes)?;
    let mut directory = ThrowAway::named(&options.directory, cluster.as_str(), host, now)?;
    let room = Room::of(&options.directory)?;
    let bounds = Bounds { cancel: cancel.clone(), deadline, time_limit: options.time_limit, room };

    progress.phase("choosing the moment", None);
    let jobs = options.restore.jobs;
    let choosing = Box::pin(moment::choose(repository, cluster, &options.moment, jobs, now, cancel));
    let (request, target, mut notes) = bounds.within(choosing).await.map_err(|over| over.into_error(&bounds))??;
    let mut restoring = restore_options(options, request, &directory);
    // If anything is refused after this, the directory is removed again.
    directory.make()?;
    let planning = Box::pin(restore::plan(repository, &restoring, progress, cancel));
    let plan = bounds.within(planning).await.map_err(|over| over.into_error(&bounds))??;
    let backup = record_of(repository, options, plan.recovery.backup).await?;
    let version = PgVersion::new(backup.pg_major)
        .map_err(|source| Cause::StoredVersion { name: format!("backup {}", backup.backup_id), source })?;
    let programs = Programs::find(options.bin_dir.as_deref(), &options.path, version)?;
    let known: Vec<OsString> = backup.tablespaces.iter().map(|tablespace| tablespace.oid.to_string().into()).collect();
    outside::refuse_living(options.living.as_deref(), &known, backup.system_identifier)?;
    // WAL that is archived from now on changes neither the backup nor the end of replay.
    restoring.request.backup = Some(plan.recovery.backup);
    restoring.restore_command = outside::bounded(&restoring.restore_command, &plan.recovery, &restoring.request.target);
    // A bad setting is refused before anything is restored.
    let (path, pgdata) = (directory.path(), &directory.pgdata());
    let original = Original { version, directory: path, pgdata, has_configuration: true, restored: None };
    settings::server(&original, &options.settings)?;
    bounds.room.check(plan.write_bytes, plan.recovery.wal_bytes)?;
    // This note is useless for a copy that is removed.
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
        tablespaces: &known,
        system_identifier: backup.system_identifier,
        found: StepResults::default(),
    };
    let outcome = Box::pin(run.all(repository, &restoring, &mut durations)).await;
    let found = run.found;
    release(lease).await;
    if let Err(error) = outcome {
        return Err(discard(directory, error).await);
    }

    let path = directory.path().to_owned();
    notes.extend(keep_or_remove(directory, options, progress).await);
    // A signal that stopped the drill may have stopped its server first.
    bounds.refuse_cancelled()?;
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
    record_result(repository, options, &mut report, (&backup, found.objects), clock).await;
    Ok(report)
}

async fn release(lease: Option<Lease>) {
    if let Some(lease) = lease
        && tokio::time::timeout(WAIT, lease.release()).await.is_err()
    {
        tracing::debug!("the lease of this drill was not deleted in time, and ends by itself");
    }
}

/// Removes the directory of a drill that failed with this error.
async fn discard(directory: ThrowAway, error: Error) -> Error {
    if let Err(left) = remove(directory).await {
        tracing::warn!(error = %left, "the directory of the drill could not be removed");
    }
    error
}

/// The options of the restore: what the drill sets itself, over the caller's.
fn restore_options(options: &DrillOptions, request: RecoveryRequest, directory: &ThrowAway) -> RestoreOptions {
    RestoreOptions {
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
    }
}

/// Keeps or removes the directory; gives a note if that failed. The result of the drill is known nevertheless.
async fn keep_or_remove(directory: ThrowAway, options: &DrillOptions, progress: &Arc<dyn Progress>) -> Option<String> {
    let path = directory.path().to_owned();
    let is_left = if options.keep {
        directory.keep()
    } else {
        progress.phase("removing the directory", None);
        remove(directory).await
    };
    let error = is_left.err()?;
    let what = if options.keep { "kept, and its mark does not say so" } else { "left: it could not be removed" };
    Some(format!("the directory {} was {what}: {error}", path.display()))
}

/// Writes the result into the ledger, if it says something about the backup.
async fn record_result(
    repository: &Repository,
    options: &DrillOptions,
    report: &mut DrillReport,
    (backup, objects): (&BackupRecord, Vec<String>),
    clock: Clock,
) {
    let says_something =
        report.findings.is_empty() || report.findings.iter().any(|finding| finding.kind != FindingKind::TimeLimit);
    if options.remember && !says_something {
        report
            .notes
            .push("the drill ran out of time before it could check the backup: no result is recorded".to_owned());
    } else if options.remember {
        let entry = entry(report, backup, objects);
        let (cluster, host) = (&options.restore.cluster, options.restore.host.as_str());
        let remembering = repository.write_ledger(cluster, host, clock.now(), entry);
        match tokio::time::timeout(WAIT, remembering).await {
            Ok(Ok(_)) => report.recorded = true,
            Ok(Err(error)) => report.notes.push(not_remembered(&error.to_string())),
            Err(_) => report.notes.push(not_remembered("the store did not answer in time")),
        }
    }
}

fn not_remembered(why: &str) -> String {
    format!("the result could not be recorded in the repository: {why}")
}

async fn record_of(repository: &Repository, options: &DrillOptions, id: BackupId) -> Result<BackupRecord, Error> {
    let backups = repository.backups(&options.restore.cluster).await?;
    backups.records.into_iter().find(|backup| backup.backup_id == id).ok_or_else(|| {
        let cluster = options.restore.cluster.to_string();
        Cause::NoSuchBackup { backup: id.to_string(), cluster }.into()
    })
}

/// Takes a lease for the whole drill. The restored server fetches WAL long after the restore has released its own
/// lease.
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
    notes.push(format!("no lease was taken, so `expire` may remove what this drill reads: {why}"));
    None
}

async fn remove(directory: ThrowAway) -> Result<(), Error> {
    blocking(move || directory.remove()).await
}

fn entry(report: &DrillReport, backup: &BackupRecord, objects: Vec<String>) -> LedgerEntry {
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
        found: found_by(report),
        objects,
    }
}

/// The kinds of the findings, each once.
fn found_by(report: &DrillReport) -> Vec<DrillFound> {
    let kinds = report.findings.iter().map(|finding| match finding.kind {
        FindingKind::Object => DrillFound::Object,
        FindingKind::Server => DrillFound::Server,
        FindingKind::Page => DrillFound::Page,
        FindingKind::Amcheck => DrillFound::Amcheck,
        FindingKind::Probe => DrillFound::Probe,
        FindingKind::TimeLimit => DrillFound::Time,
    });
    let kinds: BTreeSet<DrillFound> = kinds.collect();
    kinds.into_iter().collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes per second; `None` for no bytes or no time.
fn rate(bytes: u64, milliseconds: Option<u64>) -> Option<u64> {
    let milliseconds = milliseconds.filter(|milliseconds| *milliseconds > 0 && bytes > 0)?;
    u64::try_from(u128::from(bytes) * 1000 / u128::from(milliseconds)).ok()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Cause::Internal(format!("a blocking task failed: {e}")).into()))
}
