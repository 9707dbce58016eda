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

use chrono::{DateTime, Utc};
use holdfast_contract::report::wal::{ArchivedFile, PushOutcome, PushReport, Stored};
use holdfast_pgtypes::WalFileName;
use holdfast_repo::Compression;
use holdfast_repo::name::ClusterName;
use holdfast_repo::record::ClaimRecord;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::{self, ArchiveContext, Destination, Line, blocking};
use super::fork;
use super::local_file::{LocalFile, identity_around};
use super::mark::{self, HeldBy, Marked};
use super::ready::Ready;
use super::spool::{self, RepositorySetId, Spool};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::{ByteBudget, Permit};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::claim::{Claimant, Identity};
use crate::repository::{Repository, RepositoryTarget};

/// Time limit for the neighbours after the requested file is durable, because PostgreSQL waits for the answer.
const NEIGHBOURS_WITHIN: Duration = Duration::from_secs(20);

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

/// Archives the requested file and its neighbours.
///
/// # Errors
/// [`Cause::Divergence`] if other content is stored under the name and this server's history needs the file.
/// [`Cause::SegmentMismatch`], [`Cause::SegmentSize`] or [`Cause::Malformed`] if the file is not what its name says;
/// [`Cause::ControlFile`] or [`Cause::File`] if it, or the control file beside it, cannot be read. [`Cause::Refused`]
/// if no repository is given, if the name is not that of a WAL file, or if the file changes meanwhile. Those of
/// [`Repository::open`], and of [`Repository::take_claim`] or, for a history file outside of a data directory,
/// [`Repository::current_claim`]. [`Cause::NotReadable`] if what was stored does not read back, [`Cause::Cancelled`].
/// The errors of neighbours are in [`PushReport::failed_neighbours`].
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
                Err(error) if matches!(*error.what, Cause::Divergence { .. }) => error,
                outcome => return outcome,
            };
            let (WalFileName::Segment(segment) | WalFileName::Partial(segment), Some(first)) = (file, first) else {
                return Err(error);
            };
            let pg_wal = options.path.parent().unwrap_or(Path::new("")).to_owned();
            let size = first.claim.wal_segment_size;
            let Some(fork) = blocking(move || fork::left_behind(&pg_wal, segment, size)).await? else {
                return Err(error);
            };
            tracing::warn!(%file, %fork, "the archive holds other content under this name, and this server's history \
                                          needs neither of the two");
            let outcome = PushOutcome::BehindFork(fork);
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
            let marked = spool.map_or(Marked::No, |spool| mark::take(&spool, &set, &path));
            let requested = LocalFile::open(&path)?;
            let identity = match requested.stated_identity()? {
                Some(identity) => Some(identity),
                None => identity_around(&path)?,
            };
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

fn held_by(destinations: &[Destination]) -> HeldBy {
    HeldBy::new(destinations.iter().map(|destination| destination.repository.id()))
}

/// Opens all repositories at the same time and checks, or takes, the claim in each.
async fn open_all(
    targets: &[RepositoryTarget],
    options: &PushOptions,
    identity: Option<Identity>,
) -> Result<Vec<Destination>, Error> {
    let opening = targets.iter().map(|target| async {
        let repository = Repository::open_to_write(target).await?;
        let claim = claim_in(&repository, options, identity).await?;
        Ok::<_, Error>(Destination { repository, claim })
    });
    let opened = futures::future::join_all(opening).await;
    let destinations = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
    if let Some((first, others)) = destinations.split_first() {
        for other in others {
            if other.claim.system_identifier != first.claim.system_identifier {
                return Err(Cause::WrongCluster {
                    store: other.repository.describe(),
                    cluster: options.cluster.to_string(),
                    claimed: other.claim.system_identifier,
                    here: format!("the archive in {}", first.repository.describe()),
                    found: first.claim.system_identifier,
                }
                .into());
            }
        }
        let kept = first.claim.wal_codec;
        if kept != options.compression.codec() {
            tracing::warn!(
                configured = %options.compression,
                archive = %kept,
                "the archive keeps the compression that it began with; the configured one is used after the next claim"
            );
        }
    }
    Ok(destinations)
}

async fn claim_in(
    repository: &Repository,
    options: &PushOptions,
    identity: Option<Identity>,
) -> Result<ClaimRecord, Error> {
    let Some(identity) = identity else {
        // A history file outside of a data directory does not name its cluster.
        return repository.current_claim(&options.cluster).await;
    };
    let claimant = Claimant {
        identity,
        here: options.path.display().to_string(),
        owner: options.owner.clone(),
        wal_codec: options.compression.codec(),
        host: options.host.clone(),
        now: options.now,
    };
    repository.take_claim(&options.cluster, &claimant).await
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
            let identity = std::fs::metadata(path).ok().map(|metadata| mark::FileIdentity::of(&metadata));
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
    let context = ArchiveContext {
        cluster: options.cluster.clone(),
        compression: options.compression,
        crew: options.crew.clone(),
        budget: options.budget.clone(),
        ledger: Some((options.host.clone(), options.now)),
    };
    let turn = Transfers { destinations, context, options: options.clone() };
    let tried = turn.take_tried(name).await?;
    let neighbours = if tried { Vec::new() } else { neighbours };
    let line = Line::default();

    let mut tasks = JoinSet::new();
    // The requested file gets memory first.
    let permit = turn.context.budget.acquire(deliver::memory_needed(&requested, turn.destinations.len())).await;
    let stop_requested = cancel.child_token();
    let stop_neighbours = cancel.child_token();
    tasks.spawn(turn.clone().requested(requested, permit, tried, line.first(), stop_requested));
    for (file, path) in neighbours {
        tasks.spawn(turn.clone().neighbour(file, path, line.behind(), stop_neighbours.clone()));
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

/// What all transfers of a run share.
#[derive(Clone)]
struct Transfers {
    destinations: Arc<Vec<Destination>>,
    context: ArchiveContext,
    options: PushOptions,
}

impl Transfers {
    async fn requested(
        self,
        file: Arc<LocalFile>,
        permit: Permit,
        tried: bool,
        line: Line,
        cancel: CancellationToken,
    ) -> Transferred {
        let name = file.name;
        let outcome = self.deliver(file, permit, tried, &line, &cancel).await;
        Transferred { is_requested: true, file: name, outcome }
    }

    async fn neighbour(self, file: WalFileName, path: PathBuf, line: Line, cancel: CancellationToken) -> Transferred {
        let outcome = self.neighbour_inner(path, &line, &cancel).await;
        Transferred { is_requested: false, file, outcome }
    }

    async fn neighbour_inner(
        &self,
        path: PathBuf,
        line: &Line,
        cancel: &CancellationToken,
    ) -> Result<ArchivedFile, Error> {
        let file = Arc::new(blocking(move || LocalFile::open(&path)).await?);
        let bytes = deliver::memory_needed(&file, self.destinations.len());
        let permit = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Cause::Cancelled.into()),
            permit = self.context.budget.acquire(bytes) => permit,
        };
        let tried = self.take_tried(file.name).await?;
        let archived = self.deliver(Arc::clone(&file), permit, tried, line, cancel).await?;
        let Some(spool) = self.options.spool.clone() else { return Ok(archived) };
        let (set, held_by) = (self.options.repository_set, held_by(&self.destinations));
        let marked = blocking(move || {
            mark::write(&spool, &set, &held_by, &file.name, &file.identity)
                .map_err(|e| Error::file("write", &spool.push_folder(), e))
        });
        if let Err(error) = marked.await {
            tracing::warn!(%error, "a WAL file is archived but could not be marked in the spool, so it will be \
                                    compared again");
        }
        Ok(archived)
    }

    /// Whether the last push of a file failed. The answer removes the note.
    async fn take_tried(&self, name: WalFileName) -> Result<bool, Error> {
        let Some(spool) = self.options.spool.clone() else { return Ok(false) };
        blocking(move || Ok(mark::take_tried(&spool, &name))).await
    }

    /// Delivers a file and keeps the note about failed attempts.
    async fn deliver(
        &self,
        file: Arc<LocalFile>,
        permit: Permit,
        tried: bool,
        line: &Line,
        cancel: &CancellationToken,
    ) -> Result<ArchivedFile, Error> {
        let name = file.name;
        let mut context = self.context.clone();
        if tried {
            // PostgreSQL asks again and again, but one ledger record is enough.
            context.ledger = None;
        }
        let outcome = deliver::deliver(file, &self.destinations, &context, permit, line, cancel).await;
        match &outcome {
            Ok(archived) => {
                for found in archived.repositories.iter().filter(|found| found.stored == Stored::AlreadyThere) {
                    if tried {
                        tracing::info!(file = %name, store = found.store, "already stored by an earlier attempt");
                    } else {
                        tracing::warn!(file = %name, store = found.store, "already stored, with the same content");
                    }
                }
            }
            // A file that never had its turn was not tried, and is sent with others the next time.
            Err(_) if tried || line.is_free() => {
                if let Some(spool) = self.options.spool.clone() {
                    blocking(move || {
                        mark::write_tried(&spool, &name);
                        Ok(())
                    })
                    .await?;
                }
            }
            Err(_) => {}
        }
        outcome
    }
}
