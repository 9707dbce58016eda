//! The verb `backup`: an online backup of a data directory into every repository, full or incremental.
//!
//! Steps, one file each:
//! 1. [`begin`] checks who owns the archive and reserves the backup's id. [`lock`] allows one backup at a time of this
//!    data directory. [`lease`] shows other hosts that the backup runs. [`killed_runs`] takes over what dead runs
//!    stored, and removes the rest.
//! 2. [`run`]: [`session`] calls `pg_backup_start` on a connection that stays open.
//! 3. [`scan`] lists the files, [`incremental`] finds what the parent has of them, [`plan`] cuts them into units
//!    (pure).
//! 4. [`copy`]: [`read`] -> [`encode`] -> [`sink`], many units at once, under one byte budget.
//! 5. `global/pg_control` is read ([`crate::server::read_control_file`]), and `pg_backup_stop` is called. Then
//!    `backup_label`, `tablespace_map` and the control file are stored.
//! 6. [`complete`] finishes the packs and the manifest. [`wal_wait`] waits for the WAL, on all [`timelines`] that a
//!    standby may have followed meanwhile.
//! 7. The stored manifest is checked as a restore would check it, and `publish.rs` creates `backup.json`. Only then
//!    does the backup exist.
//!
//! If one of several repositories fails, it is left out ([`sinks`]), and the backup is completed in the others.
//! [`BackupOutcome::failed`] names the one that failed.
//!
//! After an error or a cancel, nothing is left, as far as the store can be reached. After a kill, the objects of an
//! unfinished backup are left, and the next run continues from them ([`resume`]). The server leaves backup mode by
//! itself when the connection closes. Nothing is ever written into the data directory.

mod archiving;
mod bad_pages;
mod begin;
mod complete;
mod copy;
mod encode;
mod incremental;
mod killed_pack;
mod killed_runs;
mod lease;
mod links;
mod listing;
mod lock;
mod options;
mod pack_list;
mod plan;
mod present;
mod publish;
mod read;
mod remains;
mod resume;
mod run;
mod runner;
mod scan;
mod session;
mod sink;
mod sinks;
#[cfg(test)]
mod tests;
pub(crate) mod timelines;
pub(crate) mod wal_wait;

use std::sync::atomic::AtomicBool;

pub use holdfast_contract::report::backup::{Resumed, StoredBackup};
use holdfast_repo::record::ClaimRecord;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::incremental::choose::{confirm_parent, find_parent};
use self::incremental::parent::{Lane, Parent};
use self::killed_runs::TakingOver;
use self::run::{Outcome, Run};
use self::runner::Runner;
use crate::error::{Cause, Error};
use crate::progress::Progress;
use crate::repository::leases::Clock;
use crate::repository::{Repository, RepositoryTarget};
use crate::server::{Connection, ConnectionSettings, ServerFacts, prove_same, read_control_file};

pub use self::options::{BackupOptions, BackupOutcome, FailedBackup, Kind};
use self::options::{CANCEL_WITHIN, CLEAN_WITHIN};
pub(crate) use self::publish::{OwnRecords, Published, publish};
pub(crate) use self::remains::remove_own;

/// Takes a backup.
///
/// # Errors
/// An error of one repository is in [`BackupOutcome::failed`] while another repository is left, and is returned
/// otherwise.
///
/// [`Cause::WrongCluster`], [`Cause::WrongVersion`] or [`Cause::WrongOwner`] if one of the archives belongs to another
/// cluster or owner. [`Cause::ServerSetting`] if the server cannot be backed up or does not run this data directory. As
/// [`Connection::open`]; [`Cause::SessionLost`] or [`Cause::Postgres`] if the server fails during the backup.
/// [`Cause::NotArchived`] if WAL of the backup does not reach the archive in time. [`Cause::Refused`] for files that
/// cannot be backed up, [`Cause::File`] or [`Cause::ControlFile`] if one cannot be read. [`Cause::AnotherRun`] or
/// [`Cause::Cancelled`].
///
/// After an error this run removes what it stored, as far as it can, and the next backup on this host removes the rest.
/// If only the answer to the last write was lost, the backup may still be complete.
pub async fn backup(
    targets: &[RepositoryTarget],
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<BackupOutcome, Error> {
    let (began, clock) = (Instant::now(), Clock::starting(options.now));
    let control = read_control_file(&options.pgdata)?;
    let mut warnings = Vec::new();
    progress.phase("opening", None);
    let begin::Opened { repositories, claims, failed: not_opened } =
        begin::open_and_claim(targets, options, &control, progress).await?;
    let _lock = lock::BackupLock::acquire(&options.pgdata)?;
    let settings = ConnectionSettings {
        connection: options.connection.as_ref().map(|text| text.expose().as_str()),
        subject: "cluster.connection",
        environment: &options.environment,
        pgdata: Some(options.pgdata.clone()),
    };
    let connection = Connection::open(&settings).await?;
    let facts = ServerFacts::ask(&connection).await?;
    begin::check_server(&facts, options, &control, &mut warnings)?;
    prove_same(&connection, &options.pgdata).await?;
    let runner =
        Runner::here(&options.host, &options.pgdata.display().to_string(), options.machine.as_deref(), options.now)?;
    let mut early = begin::Early::new(&repositories, progress);
    let dead = killed_runs::find(&repositories, &mut early, options, &runner, clock.now(), progress).await?;
    let extent_bytes = repositories.first().map_or(0, |first| first.record().extent_size_bytes);
    let lanes = taking_part(&repositories, &claims, &early);
    let mut parent = find_parent(&lanes, options, &control, facts.in_recovery, extent_bytes, progress).await?;
    let parent_id = parent.as_ref().map(Parent::id);
    // The leases come before the start record, which says whether there is a lease.
    let leases = lease::acquire(&repositories, &early, options, &runner, parent_id, clock, progress).await?;
    let with_lease: Vec<bool> = leases.iter().map(Option::is_some).collect();
    let reserved = begin::Reserved { control: &control, runner: &runner, parent: parent_id, leased: &with_lease };
    let backup = begin::reserve(&mut early, &claims, options, &reserved, &dead).await?;
    if let Some(chosen) = &parent {
        let lanes = taking_part(&repositories, &claims, &early);
        parent = confirm_parent(chosen, &lanes, options, progress).await?;
    }
    // If that fails, the start record of this run stays: it names what must still be removed.
    let taking = TakingOver { options, runner: &runner, leased: &with_lease, progress, cancel };
    let killed_runs::Taken { earlier, adopted } = taking.all(&repositories, &mut early, dead).await?;
    let early = early.into_errors();
    let kept = early.iter().map(Option::is_some).collect();
    progress.backup(&backup.to_string());
    let publishing = repositories.iter().map(|_| AtomicBool::new(false)).collect();
    // The run also stops its own work if it loses the session that keeps the server in backup mode.
    let halt = cancel.child_token();
    let run = Run {
        options,
        control,
        facts,
        connection,
        repositories,
        claims,
        backup,
        earlier,
        adopted,
        identity: runner.run,
        progress,
        cancel: &halt,
        began,
        clock,
        leases,
        publishing,
        kept,
    };
    let outcome = until_cancelled(&run, parent, early, &mut warnings, cancel).await;
    match outcome {
        Ok(Outcome { complete, failed, resumed }) => {
            let places: Vec<usize> = failed.iter().map(|(index, _)| *index).collect();
            run.remove_adopted(&places).await;
            let of_run = failed.into_iter().filter_map(|(index, error)| {
                let repository = run.repositories.get(index)?.describe();
                let (error, may_exist) = (error.doing(format!("taking backup {backup}")), run.may_exist(index));
                Some(FailedBackup { repository, error, may_exist })
            });
            let failed = not_opened.into_iter().chain(of_run).collect();
            run.end(places).await;
            Ok(BackupOutcome { repositories: complete, failed, resumed, warnings })
        }
        Err(error) => {
            let error = run.failed_with(error);
            run.give_up().await;
            Err(error)
        }
    }
}

/// Executes the run. After a cancel it gets some seconds to end by itself.
async fn until_cancelled(
    run: &Run<'_>,
    parent: Option<Parent>,
    early: Vec<Option<Error>>,
    warnings: &mut Vec<String>,
    cancel: &CancellationToken,
) -> Result<Outcome, Error> {
    let mut execute = std::pin::pin!(run.execute(parent, early, warnings));
    tokio::select! {
        biased;
        outcome = &mut execute => outcome,
        () = cancel.cancelled() => {
            // The run ends by itself and aborts its uploads. Only the server's statement must be cancelled.
            run.connection.cancel_statement().await;
            match tokio::time::timeout(CANCEL_WITHIN, execute).await {
                Ok(Ok(outcome)) => Ok(outcome),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the cancelled backup ended");
                    Err(Cause::Cancelled.into())
                }
                Err(_) => Err(Cause::Cancelled.into()),
            }
        }
    }
}

/// The repositories at their indexes, with `None` for each one that is left out.
fn taking_part<'a>(
    repositories: &'a [Repository],
    claims: &'a [ClaimRecord],
    early: &begin::Early<'_>,
) -> Vec<Lane<'a>> {
    let everywhere = repositories.iter().zip(claims).enumerate();
    everywhere.map(|(index, lane)| Some(lane).filter(|_| !early.is_out(index))).collect()
}
