//! Restore: puts a backup and its recovery settings into a directory in which PostgreSQL can start.
//!
//! Order:
//! 1. [`preflight`]: the backup and the WAL for the request, the manifest, the packs, the directories. All refusals
//!    happen here, before the first byte is written. [`lookup`] answers the planner's questions. [`foreign`] looks for
//!    things there that are not ours. [`protect`] then takes a lease, so that nobody removes the backup meanwhile.
//! 2. [`prepare`]: take the directory: resume point and lock, then remove an existing `global/pg_control`.
//! 3. [`reuse`], if something is there: remove what is not in the backup, keep what is equal.
//! 4. [`durable::make_tree`], then [`fetch`]: requests planned by [`coalesce`], frames opened and checked, [`files`]
//!    written.
//! 5. [`settings`]: recovery settings, signal file, `backup_label`, tablespace map, `backup_manifest`.
//! 6. [`durable`]: one `syncfs` for each file system, then write `global/pg_control`, then remove the resume point.
//!
//! Invariant: from step 2 until the end of step 6 there is no `global/pg_control`, so that PostgreSQL refuses to start.
//! [`from_snapshot`] is the shorter path for a directory that was filled from volume snapshots.
//!
//! After a crash, a cancel or a failure the directory holds `holdfast.restore`, and the same command continues it: it
//! compares the existing files by hash and fetches the rest. The calling user owns all files.

mod chain;
mod coalesce;
mod configured;
mod copied;
mod ddl_search;
mod durable;
mod fetch;
mod files;
mod foreign;
mod from_snapshot;
mod histories;
mod last_copies;
mod late;
mod layout;
mod listening;
mod lookup;
mod manifest;
mod options;
mod packs;
mod preflight;
mod prepare;
mod protect;
mod reach;
mod resume;
mod reuse;
mod run_since;
mod settings;
mod stored;
mod trial;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast_pgtypes::backup_manifest::ManifestWriter;
use holdfast_pgtypes::recovery_target::{RecoveryTarget, TargetAction};
use holdfast_pgtypes::{BackupLabel, TablespaceMap};
use holdfast_repo::manifest::Manifest;
use holdfast_repo::recovery::RecoveryPlan;
use tokio_util::sync::CancellationToken;

pub(crate) use chain::{Chains, Line, LineHole, Stretch};
pub(crate) use coalesce::{Fetches, FrameWork, WantedExtent};
pub(crate) use ddl_search::{DdlSearch, Span};
pub(crate) use fetch::{open as open_checked, with_buffers};
pub(crate) use foreign::refuse_made_again;
pub use from_snapshot::{plan_snapshot, restore_snapshot};
pub(crate) use histories::read_history;
pub use holdfast_contract::report::restore::{
    RestorePlan, RestoreReport, SnapshotRestoreReport, TablespacePlace, TargetState,
};
pub(crate) use layout::PathIndex;
pub use layout::TablespaceMapping;
pub(crate) use lookup::WalLookup;
pub(crate) use manifest::read_manifest;
pub use options::RestoreOptions;
pub(crate) use packs::Packs;
pub(crate) use preflight::Archive;
pub use reach::{Reached, reach};
pub use resume::{RESUME_POINT, ResumePoint};
pub(crate) use settings::ARCHIVES_NOTHING;
pub use settings::Archiving;
pub(crate) use stored::{ListedSizes, check_packs, faults_of_objects};
pub(crate) use trial::{Trial, try_held_files, try_manifest, would_take};

use durable::{Rewritten, Roots};
use fetch::Mover;
use files::Files;
use preflight::{AUTO_CONF, Preflight};
use prepare::Taken;
use resume::ResumeLock;
use reuse::Comparison;
use settings::Recovery;

use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::repository::leases::Clock;
use crate::server::running::RunningServer;

/// Says what [`restore`] would do; refuses what it would refuse. Writes nothing.
///
/// # Errors
/// Those of [`restore`] up to its first change.
pub async fn plan(
    repository: &Repository,
    options: &RestoreOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<RestorePlan, Error> {
    let phrase = || format!("planning a restore of {} into {}", options.cluster, options.pgdata.display());
    let crew = Crew::new(options.jobs);
    check_options(options).doing(phrase)?;
    let found = preflight::preflight(repository, options, &crew, progress.as_ref(), cancel).await.doing(phrase)?;
    let found = Arc::new(found);
    refuse_foreign(repository, &found, options, &crew).await.doing(phrase)?;
    let wanted = everything(&found);
    let fetch_bytes =
        Fetches::new(&found.manifest, wanted.iter().copied()).map(|fetch| fetch.range.end - fetch.range.start).sum();
    let (file_count, write_bytes, hole_bytes) = sizes(&found);
    Ok(RestorePlan {
        cluster: options.cluster.clone(),
        pgdata: options.pgdata.clone(),
        target_state: found.state,
        tablespaces: found.layout.tablespaces().to_vec(),
        file_count,
        fetch_bytes,
        write_bytes,
        hole_bytes,
        auto_conf_lines: settings::lines(&recovery(options, &found.plan, found.has_tablespace_in_place()), options.now),
        signal_file: settings::signal_file(options.standby).to_owned(),
        notes: notes(options, &found, foreign::notes(&found.layout, found.backup.system_identifier)),
        recovery: found.plan.clone(),
    })
}

/// Restores a backup so that PostgreSQL recovers to the requested moment when it is started.
///
/// # Errors
/// About the request: [`Cause::NoSuchBackup`] if the backup that is named is not there; [`Cause::Unreachable`],
/// [`Cause::UnreadableHistory`] or [`Cause::NoClaim`] if the archive does not lead there; [`Cause::Refused`] for
/// options that do not fit the backup or the directory.
///
/// About the directories: [`Cause::NotEmpty`], [`Cause::TablespaceNotEmpty`], [`Cause::NotOurs`],
/// [`Cause::UnarchivedWal`], [`Cause::WrongCluster`], [`Cause::ControlFile`] or [`Cause::Overlap`] if something else is
/// there; [`Cause::ServerRunning`], [`Cause::UnseenServer`], [`Cause::UnclearLockFile`], [`Cause::PostmasterPid`],
/// [`Cause::InUse`] or [`Cause::AnotherRun`] if somebody uses them; [`Cause::File`].
///
/// About the repository: [`Cause::Store`], and [`Cause::Format`], [`Cause::Record`], [`Cause::Malformed`] or
/// [`Cause::NotReadable`] if a part of the backup is not what it should be.
///
/// [`Cause::Cancelled`] at any time. After an error in the middle no server starts in the directory, and the same call
/// continues.
pub async fn restore(
    repository: &Repository,
    options: &RestoreOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let phrase = || format!("restoring {} into {}", options.cluster, options.pgdata.display());
    restore_inner(repository, options, progress, cancel).await.doing(phrase)
}

async fn restore_inner(
    repository: &Repository,
    options: &RestoreOptions,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let clock = Clock::starting(options.now);
    check_options(options)?;
    let crew = Crew::new(options.jobs);
    let found = Arc::new(preflight::preflight(repository, options, &crew, progress.as_ref(), cancel).await?);
    progress.backup(&found.backup.backup_id.to_string());
    progress.note(&format!("restoring backup {}", found.backup.backup_id));

    let reads = protect::Reads::of_backup(&found.backup, &found.plan);
    let mut protection = protect::protect(repository, options, &reads, clock, progress.as_ref()).await?;
    let restored = restore_found(repository, options, found, &crew, progress, cancel).await;
    let mut notes = std::mem::take(&mut protection.notes);
    protection.end().await;
    let mut report = restored?;
    report.duration = clock.passed();
    notes.append(&mut report.notes);
    Ok(RestoreReport { notes, ..report })
}

/// All steps after the preflight, with the first change.
async fn restore_found(
    repository: &Repository,
    options: &RestoreOptions,
    found: Arc<Preflight>,
    crew: &Crew,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    refuse_foreign(repository, &found, options, crew).await?;
    let foreign = foreign::notes(&found.layout, found.backup.system_identifier);
    let (taking, for_take) = (Arc::clone(&found), options.clone());
    let Taken { state, lock, roots } = blocking(move || prepare::acquire(&taking.layout, &taking.wanted(&for_take)))
        .await
        .doing(|| "preparing the directory".to_owned())?;

    let roots = Arc::new(roots);
    let into = Target { state, roots: Arc::clone(&roots) };
    let data = move_data(repository, options, &found, into, crew, progress, cancel).await;
    let data = data.doing(|| format!("restoring the files of backup {}", found.backup.backup_id))?;

    progress.phase("making it durable", None);
    let (ending, for_end) = (Arc::clone(&found), options.clone());
    blocking(move || finish(&ending, &for_end, lock, &roots)).await.doing(|| "finishing the restore".to_owned())?;

    let (file_count, _, hole_bytes) = sizes(&found);
    let (notes, elsewhere) = (notes(options, &found, foreign), configured::other_data_directory(&options.pgdata));
    Ok(RestoreReport {
        cluster: options.cluster.clone(),
        backup: found.backup.backup_id,
        pgdata: options.pgdata.clone(),
        target_state: state,
        recovery: found.plan.clone(),
        tablespaces: found.layout.tablespaces().to_vec(),
        file_count,
        fetched_bytes: data.fetched_bytes,
        written_bytes: data.written_bytes,
        hole_bytes,
        reused_bytes: data.reused_bytes,
        removed_entries: data.removed_entries,
        duration: Duration::ZERO,
        signal_file: settings::signal_file(options.standby).to_owned(),
        next: next_words(options, &found.plan, elsewhere.as_deref()),
        notes: notes.into_iter().chain(elsewhere_note(options, elsewhere.as_deref())).collect(),
    })
}

/// Looks for things of others: at running servers, and at everything that would be removed.
async fn refuse_foreign(
    repository: &Repository,
    found: &Arc<Preflight>,
    options: &RestoreOptions,
    crew: &Crew,
) -> Result<(), Error> {
    layout::check_tablespaces(&found.manifest, &found.layout, found.version.major())?;
    let (replaying, target) = (Arc::clone(found), options.request.target.clone());
    blocking(move || {
        let (known, of) = (foreign::tablespaces(&replaying.layout), replaying.backup.system_identifier);
        foreign::refuse_replay(&known, of, &target, &RunningServer::all())
    })
    .await
    .doing(|| "looking at the servers of this host".to_owned())?;
    if !found.state.reuses() {
        return Ok(());
    }
    let here = || format!("looking at the directory {}", found.layout.pgdata().display());
    let (looking, places) = (Arc::clone(found), options.places.clone());
    let looked = blocking(move || {
        let Preflight { layout, manifest, index, .. } = looking.as_ref();
        foreign::refuse_contents(layout, manifest, index, &version_directory(&looking), &places)
    });
    looked.await.doing(here)?;
    // For a resumed restore this was decided before it began.
    if found.state != TargetState::Delta || options.discard_wal {
        return Ok(());
    }
    let (claim, oldest_start) = (&*found.claim, found.oldest_start);
    let archived = last_copies::Archived { repository, claim, oldest_start, crew };
    last_copies::refuse_last_copies(archived, found.layout.pgdata()).await.doing(here)
}

/// The name of PostgreSQL's directory in each tablespace, as `TABLESPACE_VERSION_DIRECTORY`.
fn version_directory(found: &Preflight) -> String {
    format!("PG_{}_{}", found.version.major(), found.backup.catalog_version)
}

/// The directory to fill.
struct Target {
    state: TargetState,
    roots: Arc<Roots>,
}

#[derive(Debug, Default)]
struct MovedData {
    fetched_bytes: u64,
    written_bytes: u64,
    reused_bytes: u64,
    removed_entries: u64,
}

/// Steps 3 and 4: fills the directory with all data of the backup.
async fn move_data(
    repository: &Repository,
    options: &RestoreOptions,
    found: &Arc<Preflight>,
    into: Target,
    crew: &Crew,
    progress: &Arc<dyn Progress>,
    cancel: &CancellationToken,
) -> Result<MovedData, Error> {
    let Target { state, roots } = into;
    // The allocator keeps some memory that many threads freed, and each thread of the crew has a buffer for a frame. So
    // the requests get seven eighths of the rest, and the process stays within the limit.
    let buffers = crew.threads() as u64 * u64::from(found.manifest.header().extent_bytes);
    let budget = ByteBudget::new(options.memory_bytes.saturating_sub(buffers) / 8 * 7);
    let mut data = MovedData::default();
    let mut wanted;
    if state.reuses() {
        progress.phase("removing what is not in the backup", None);
        let (sweeping, token) = (Arc::clone(found), cancel.clone());
        data.removed_entries = blocking(move || {
            reuse::sweep(&sweeping.layout, &sweeping.manifest, &sweeping.index, &version_directory(&sweeping), &token)
        })
        .await?;
        progress.phase("comparing what is there", Some(found.manifest.total_bytes()));
        let comparison = Arc::new(Comparison {
            manifest: Arc::clone(&found.manifest),
            layout: Arc::clone(&found.layout),
            budget: budget.clone(),
            crew: crew.clone(),
            progress: Arc::clone(progress),
            cancel: cancel.clone(),
        });
        let compared = reuse::compare(&comparison, found.data_files()).await?;
        data.reused_bytes = compared.reused_bytes;
        wanted = compared.wanted;
        wanted.sort_unstable();
    } else {
        let sorting = Arc::clone(found);
        wanted = crew.run(move || everything(&sorting)).await?;
    }
    let making = Arc::clone(found);
    blocking(move || durable::make_tree(&making.layout, &making.manifest, &making.index)).await?;

    let files = Files::new(Arc::clone(&found.manifest), Arc::clone(&found.layout));
    for extent in &wanted {
        files.expect(extent.file, 1);
    }
    let mover = Arc::new(Mover {
        manifest: Arc::clone(&found.manifest),
        packs: Packs::new(repository.clone(), Arc::clone(&found.manifest)),
        files,
        crew: crew.clone(),
        budget,
        surplus: Mover::surplus(),
        progress: Arc::clone(progress),
        roots,
        fetched_bytes: AtomicU64::new(0),
        written_bytes: AtomicU64::new(0),
        cancel: cancel.child_token(),
    });
    let total = wanted.iter().map(|extent| length(found, *extent)).sum();
    progress.phase("restoring files", Some(total));
    let (settling, settle) = (Arc::clone(found), Arc::clone(&mover));
    blocking(move || settle.files.settle_complete(settling.data_files(), &settle.cancel)).await?;
    fetch::fetch(&mover, wanted).await?;
    data.fetched_bytes = mover.fetched_bytes.load(Ordering::Relaxed);
    data.written_bytes = mover.written_bytes.load(Ordering::Relaxed);
    Ok(data)
}

/// Steps 5 and 6.
fn finish(found: &Preflight, options: &RestoreOptions, lock: ResumeLock, roots: &Roots) -> Result<(), Error> {
    let pgdata = found.layout.pgdata();
    let recovery = recovery(options, &found.plan, found.has_tablespace_in_place());
    let lines = settings::lines(&recovery, options.now);
    let auto_conf = settings::auto_conf(&found.auto_conf.content, &lines, &recovery);
    durable::write_file(&pgdata.join(AUTO_CONF), &auto_conf, found.auto_conf.mode)?;
    durable::write_file(&pgdata.join(BackupLabel::FILE_NAME), &found.backup_label.content, found.backup_label.mode)?;
    let mut rewritten = vec![Rewritten { path: AUTO_CONF.as_bytes(), content: &auto_conf }];
    let map = match &found.tablespace_map {
        Some(held) => {
            let backed_up = TablespaceMap::parse(&held.content).map_err(|e| Cause::Malformed {
                name: format!("tablespace_map of backup {}", found.backup.backup_id),
                reason: e.to_string(),
            })?;
            let map = settings::tablespace_map(&backed_up, &found.layout).to_bytes();
            durable::write_file(&pgdata.join(TablespaceMap::FILE_NAME), &map, held.mode)?;
            map
        }
        None => Vec::new(),
    };
    if found.tablespace_map.is_some() {
        rewritten.push(Rewritten { path: TablespaceMap::FILE_NAME.as_bytes(), content: &map });
    }
    for signal in settings::SIGNAL_FILES {
        durable::remove_if_there(&pgdata.join(signal))?;
    }
    // 0600, or 0640 in a cluster with group access.
    let mode = found.control.mode;
    durable::write_file(&pgdata.join(settings::signal_file(options.standby)), b"", mode)?;
    let manifest_path = pgdata.join(ManifestWriter::FILE_NAME);
    durable::write_backup_manifest(&manifest_path, &found.manifest, &found.backup, found.version, &rewritten)?;
    durable::set_mode(&manifest_path, durable::file_mode(mode))?;
    if let Some(root) = found.index.find(&found.manifest, b"").and_then(|position| found.manifest.file(position)) {
        durable::set_mode(pgdata, root.mode | 0o700)?;
    }
    roots.sync()?;
    durable::write_control_file(pgdata, &found.control.content, found.control.mode)?;
    lock.remove()
}

fn check_options(options: &RestoreOptions) -> Result<(), Error> {
    if !options.pgdata.is_absolute() {
        return Err(Cause::Refused(format!("the directory {} is not absolute", options.pgdata.display())).into());
    }
    if options.pgdata.parent().is_none() {
        return Err(Cause::Refused("a data directory cannot be the root directory".to_owned()).into());
    }
    Ok(())
}

/// The facts for the recovery settings.
fn recovery<'a>(options: &'a RestoreOptions, plan: &'a RecoveryPlan, in_place: bool) -> Recovery<'a> {
    Recovery {
        request: &options.request,
        plan,
        action: options.target_action,
        standby: options.standby,
        archiving: options.archiving,
        restore_command: restore_command(options, plan),
        in_place,
    }
}

/// `restore_command` for this plan: with the pieces that it needs, and with the last segment that recovery reads, so
/// that none after it is fetched ahead. A standby reads without an end, and so may a recovery to the end of the
/// archive.
fn restore_command(options: &RestoreOptions, plan: &RecoveryPlan) -> String {
    let command = match &options.tail_command {
        Some((before, after)) if !plan.tails.is_empty() => {
            let tails: Vec<String> = plan.tails.iter().map(ToString::to_string).collect();
            format!("{before}{}{after}", tails.join(" --tail "))
        }
        _ => options.restore_command.clone(),
    };
    match plan.segments.last() {
        Some(range) if !options.standby && options.request.target != RecoveryTarget::Latest => {
            format!("{command} --ahead-until {}", range.last)
        }
        _ => command,
    }
}

/// Every stored extent and patch, in the order of fetching.
fn everything(found: &Preflight) -> Vec<WantedExtent> {
    let mut wanted: Vec<WantedExtent> =
        found.data_files().flat_map(|file| reuse::all_extents(&found.manifest, file)).collect();
    wanted.sort_unstable();
    wanted
}

/// The same, for all files, with those that a restore keeps in memory.
pub(crate) fn every_chunk(manifest: &Manifest) -> Vec<WantedExtent> {
    let files = 0..manifest.len() as u32;
    let mut wanted: Vec<WantedExtent> = files.flat_map(|file| reuse::all_extents(manifest, file)).collect();
    wanted.sort_unstable();
    wanted
}

fn length(found: &Preflight, wanted: WantedExtent) -> u64 {
    let entry = found.manifest.file(wanted.file as usize);
    let source = entry.and_then(|entry| entry.source(wanted.source, found.manifest.header().extent_bytes));
    source.map_or(0, |source| source.seen_bytes())
}

/// The numbers of files, stored bytes and hole bytes.
fn sizes(found: &Preflight) -> (u64, u64, u64) {
    let mut sizes = (0, 0, 0);
    for entry in found.data_files().filter_map(|file| found.manifest.file(file as usize)) {
        sizes.0 += 1;
        let extent_bytes = found.manifest.header().extent_bytes;
        for source in (0..entry.source_count()).filter_map(|number| entry.source(number, extent_bytes)) {
            let bytes = if source.place.is_hole() { &mut sizes.2 } else { &mut sizes.1 };
            *bytes += source.seen_bytes();
        }
    }
    sizes
}

fn notes(options: &RestoreOptions, found: &Preflight, foreign: Vec<String>) -> Vec<String> {
    let mut notes = found.notes.clone();
    notes.extend(foreign);
    notes.extend(settings::notes(
        &found.auto_conf.content,
        &recovery(options, &found.plan, found.has_tablespace_in_place()),
    ));
    notes.extend(archiving_note(options));
    notes
}

fn archiving_note(options: &RestoreOptions) -> Option<String> {
    let archives = options.archiving == Archiving::AsBackedUp && !options.standby;
    archives.then(|| format!(
        "archive_command stays as it was backed up: once promoted, the server archives a new timeline into the same \
         archive unless you change it in {}, or restore with --no-archiving",
        options.pgdata.join("postgresql.conf").display()
    ))
}

/// A warning that the restored configuration names another data directory.
fn elsewhere_note(options: &RestoreOptions, elsewhere: Option<&Path>) -> Option<String> {
    let elsewhere = elsewhere?.display();
    Some(format!(
        "the restored postgresql.conf sets data_directory to {elsewhere}, so a server that is started in {} without \
         `-c data_directory` runs in {elsewhere}: change it before the first start, or always start it as shown",
        options.pgdata.display()
    ))
}

fn next_words(options: &RestoreOptions, plan: &RecoveryPlan, elsewhere: Option<&Path>) -> String {
    let here = options.pgdata.display();
    let start = match elsewhere {
        Some(_) => format!("pg_ctl -D {here} -o \"-c data_directory='{here}'\" start"),
        None => format!("pg_ctl -D {here} start"),
    };
    if options.standby {
        return format!("start it with `{start}`: it follows the archive as a standby until it is promoted");
    }
    let target = &options.request.target;
    let then = match (target, options.target_action.unwrap_or(TargetAction::Pause)) {
        (RecoveryTarget::Latest, _) | (_, TargetAction::Promote) => "and opens for writing on a new timeline",
        (_, TargetAction::Pause) => "and pauses there, open for reading, until `SELECT pg_wal_replay_resume()`",
        (_, TargetAction::Shutdown) => "and shuts down",
    };
    format!("start it with `{start}`: it recovers along timeline {} to {target} {then}", plan.timeline)
}

/// Runs blocking work to its end, even if the command is cancelled.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Cause::Internal(format!("a blocking task failed: {e}")).into()))
}

#[cfg(test)]
pub(crate) mod tests;
