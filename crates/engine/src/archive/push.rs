//! `wal push`: the `archive_command`.
//!
//! Steps: answer from a mark; open and check the file; open every repository and check or take the claim on its
//! archive; store the file and the neighbours that wait with it in every repository; mark the neighbours. `Ok` means
//! that the requested file is durable everywhere. A neighbour that fails is logged, not marked and not reported:
//! PostgreSQL will ask for it. A failed or cancelled run acknowledges nothing. What it stored stays, and the next run
//! finds it equal.
//!
//! Neighbours never use the line at the same time as the requested file: they are compressed meanwhile, and their first
//! byte is sent after its last byte. A file whose last push failed is sent alone. On a line that is just fast enough
//! for one segment within the time limit of a request, sending all of them together would fail again and again.
//!
//! One divergence is resolved here: a promoted server can have segments of a timeline that its history left before
//! their end, whole or as `.partial` (see [`super::fork`]). If the archive has such a segment with other content, the
//! archived content stays, and PostgreSQL gets success for the local one; otherwise it would ask for ever. Every other
//! divergence is two lines of history under one name, and only a person can decide between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_contract::agent::FileIdentity;
use holdfast_contract::report::wal::{ArchivedFile, PushOutcome, PushReport};
use holdfast_pgtypes::WalFileName;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::{Destination, Line, blocking};
use super::destinations::{held_by, open_all};
use super::fork;
use super::local_file::LocalFile;
use super::mark::{self, HeldBy, Marked};
use super::options::PushOptions;
use super::ready::Ready;
use super::spool::{self, Spool};
use super::transfers::Transfers;
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::Permit;
use crate::progress::Progress;
use crate::repository::RepositoryTarget;

/// Time limit for the neighbours after the requested file is durable, because PostgreSQL waits for the answer.
const NEIGHBOURS_WITHIN: Duration = Duration::from_secs(20);

/// Archives the requested file and its neighbours.
///
/// # Errors
/// [`Cause::Divergence`] if other content is stored under the name and this server's history needs the file.
/// [`Cause::SegmentMismatch`], [`Cause::SegmentSize`] or [`Cause::Malformed`] if the file is not what its name says;
/// [`Cause::ControlFile`] or [`Cause::File`] if it, or the control file beside it, cannot be read. [`Cause::Refused`]
/// if no repository is given, if the name is not that of a WAL file, or if the file changes meanwhile. Those of
/// [`Repository::open`](crate::repository::Repository::open), and of `Repository::take_claim` or, for a history file
/// outside of a data directory, `Repository::current_claim`. [`Cause::NotReadable`] if what was stored does not read
/// back, [`Cause::Cancelled`]. The errors of neighbours are in [`PushReport::failed_neighbours`].
pub async fn push(
    targets: &[RepositoryTarget],
    options: &PushOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PushReport, Error> {
    push_inner(targets, options, progress, cancel).await.doing(|| format!("pushing {}", options.path.display()))
}

async fn push_inner(
    targets: &[RepositoryTarget],
    options: &PushOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PushReport, Error> {
    if targets.is_empty() {
        return Err(Cause::Refused("there is no repository to archive to".to_owned()).into());
    }
    let prepared = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Cause::Cancelled.into()),
        prepared = prepare(targets, options) => prepared?,
    };
    match prepared {
        Prepared::Marked(file) => {
            Ok(PushReport { file, outcome: PushOutcome::Marked, neighbours: Vec::new(), failed_neighbours: Vec::new() })
        }
        Prepared::ToDo { requested, neighbours, destinations } => {
            let (file, first) = (requested.name, destinations.first().cloned());
            let error = match transfer(requested, neighbours, destinations, options, progress, cancel).await {
                Err(error) => error,
                outcome => return outcome,
            };
            let Some(size) = first.map(|first| first.claim.wal_segment_size) else { return Err(error) };
            let fork = fork::excuses(error, file, &options.path, size).await?;
            let outcome = PushOutcome::AfterFork(fork);
            Ok(PushReport { file, outcome, neighbours: Vec::new(), failed_neighbours: Vec::new() })
        }
    }
}

enum Prepared {
    /// There is nothing to do.
    Marked(WalFileName),
    /// These files go to these repositories.
    ToDo { requested: Arc<LocalFile>, neighbours: Vec<(WalFileName, PathBuf)>, destinations: Arc<Vec<Destination>> },
}

/// All steps before the first byte is sent.
async fn prepare(targets: &[RepositoryTarget], options: &PushOptions) -> Result<Prepared, Error> {
    let looked = {
        let (path, spool, set) = (options.path.clone(), options.spool.clone(), options.repository_set);
        blocking(move || {
            let marked = spool.map_or(Marked::No, |spool| mark::read_and_remove(&spool, &set, &path));
            let (requested, identity) = LocalFile::open_with_identity(&path)?;
            Ok((marked, requested, identity))
        })
        .await?
    };
    let (marked, requested, identity) = looked;
    if marked == Marked::Durable {
        return Ok(Prepared::Marked(requested.name));
    }
    if let Some(identity) = &identity {
        // Before any repository is asked: a truncated file or another segment's content must not claim an archive.
        requested.check(identity)?;
    }
    let destinations = open_all(targets, options, identity).await?;
    let held_by = held_by(&destinations);
    if marked == Marked::IfHeldBy(held_by.clone()) {
        return Ok(Prepared::Marked(requested.name));
    }
    let neighbours = match &options.spool {
        None => Vec::new(),
        Some(spool) => {
            let (options, spool, name) = (options.clone(), spool.clone(), requested.name);
            blocking(move || Ok(find_neighbours(&options, name, &spool, &held_by))).await?
        }
    };
    Ok(Prepared::ToDo { requested: Arc::new(requested), neighbours, destinations: Arc::new(destinations) })
}

/// The neighbours for this run, in the archiver's order. Also sweeps the spool. Blocks.
fn find_neighbours(
    options: &PushOptions,
    requested: WalFileName,
    spool: &Spool,
    held_by: &HeldBy,
) -> Vec<(WalFileName, PathBuf)> {
    let ready = Ready::beside(&options.path);
    mark::sweep(spool, |file| *file == requested || ready.contains(file));
    spool::remove_stale(&spool.push_folder(), options.now.into());
    let folder = options.path.parent().unwrap_or(Path::new(""));
    ready
        .after(requested)
        .map(|file| (file, folder.join(file.to_string())))
        .filter(|(file, path)| {
            let identity = std::fs::metadata(path).ok().map(|metadata| FileIdentity::of(&metadata));
            identity.is_some_and(|identity| !mark::is_marked(spool, &options.repository_set, held_by, file, &identity))
        })
        .take(options.push_ahead)
        .collect()
}

/// The result of one transfer.
struct Transferred {
    is_requested: bool,
    file: WalFileName,
    outcome: Result<ArchivedFile, Error>,
}

async fn transfer(
    requested: Arc<LocalFile>,
    neighbours: Vec<(WalFileName, PathBuf)>,
    destinations: Arc<Vec<Destination>>,
    options: &PushOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<PushReport, Error> {
    let name = requested.name;
    progress.phase("archiving WAL", None);
    let turn = Transfers::new(destinations, options);
    let tried = turn.take_tried(name).await?;
    let neighbours = if tried { Vec::new() } else { neighbours };
    let line = Line::default();

    let mut tasks = JoinSet::new();
    // The requested file gets memory first.
    let permit = turn.memory_for(&requested, &CancellationToken::new()).await?;
    let stop_requested = cancel.child_token();
    let stop_neighbours = cancel.child_token();
    tasks.spawn(send_requested(turn.clone(), requested, permit, tried, line.first(), stop_requested));
    for (file, path) in neighbours {
        tasks.spawn(send_neighbour(turn.clone(), file, path, line.after_first(), stop_neighbours.clone()));
    }

    let mut outcome: Option<Result<ArchivedFile, Error>> = None;
    let mut report =
        PushReport { file: name, outcome: PushOutcome::Marked, neighbours: Vec::new(), failed_neighbours: Vec::new() };
    let mut deadline = None;
    loop {
        let next = tokio::select! {
            next = tasks.join_next() => next,
            () = sleep_until(deadline) => {
                stop_neighbours.cancel();
                deadline = None;
                continue;
            }
        };
        let Some(joined) = next else { break };
        let Ok(Transferred { is_requested, file, outcome: done }) = joined else {
            // The other tasks are joined all the same. If the requested file has no outcome, that is an error below.
            tracing::error!("a transfer failed unexpectedly");
            continue;
        };
        if let Ok(archived) = &done {
            progress.advance(archived.raw_bytes);
        }
        match (is_requested, done) {
            (true, done) => {
                if done.is_ok() {
                    deadline = Some(Instant::now() + NEIGHBOURS_WITHIN);
                } else {
                    stop_neighbours.cancel();
                }
                outcome = Some(done);
            }
            (false, Ok(archived)) => report.neighbours.push(archived),
            (false, Err(error)) => {
                if !matches!(*error.what, Cause::Cancelled) {
                    tracing::warn!(%file, %error, "a further waiting WAL file could not be archived yet; PostgreSQL \
                                                   will call archive_command for it");
                }
                report.failed_neighbours.push((file, error.to_string()));
            }
        }
    }
    if cancel.is_cancelled() {
        return Err(Cause::Cancelled.into());
    }
    let archived = outcome.ok_or_else(|| Cause::Internal("a transfer ended without an answer".to_owned()))??;
    report.outcome = PushOutcome::Archived(archived);
    Ok(report)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn send_requested(
    transfers: Transfers,
    file: Arc<LocalFile>,
    permit: Permit,
    tried: bool,
    line: Line,
    cancel: CancellationToken,
) -> Transferred {
    let name = file.name;
    let outcome = transfers.deliver(file, permit, tried, &line, &cancel).await;
    Transferred { is_requested: true, file: name, outcome }
}

async fn send_neighbour(
    transfers: Transfers,
    file: WalFileName,
    path: PathBuf,
    line: Line,
    cancel: CancellationToken,
) -> Transferred {
    let sending = async {
        let file = Arc::new(blocking(move || LocalFile::open(&path)).await?);
        let permit = transfers.memory_for(&file, &cancel).await?;
        let tried = transfers.take_tried(file.name).await?;
        let archived = transfers.deliver(Arc::clone(&file), permit, tried, &line, &cancel).await?;
        transfers.mark(file).await;
        Ok(archived)
    };
    Transferred { is_requested: false, file, outcome: sending.await }
}
