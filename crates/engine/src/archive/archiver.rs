//! [`Archiver`]: archives the files of one server for a process that stays.
//!
//! It does for each file what [`push`](super::push()) does for the requested one, under the same rules. The
//! repositories, their keys and the claims stay open between files: they are opened again after [`OPEN_FOR`], after a
//! failure of one of them (then with stores, secrets and certificates as they are now), after `repo init` on this
//! machine, and for a file of another cluster. Each durable file also gets a mark in the spool, so that a `wal push`
//! that does not reach this process need not compare the file with its object.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_contract::agent::FileIdentity;
use holdfast_contract::report::wal::PushOutcome;
use holdfast_pgtypes::WalFileName;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::{Destination, Line, blocking};
use super::destinations::{held_by, open_all};
use super::fork;
use super::local_file::LocalFile;
use super::mark::{self, HeldBy};
use super::options::PushOptions;
use super::resident::{OPEN_FOR, Purpose, Reopen};
use super::spool::{self, Spool};
use super::transfers::Transfers;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::RepositoryTarget;
use crate::repository::claim::Identity;

/// Archives the files of one server. All methods may run at the same time.
pub struct Archiver {
    options: PushOptions,
    reopen: Reopen,
    /// One task opens, the others wait for it.
    opening: tokio::sync::Mutex<Opening>,
    opened: Mutex<Option<Opened>>,
}

struct Opening {
    targets: Vec<RepositoryTarget>,
    /// Whether a repository has failed since the targets were made.
    has_failed: bool,
    /// When the last attempt to open them failed.
    failed_at: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Opened {
    destinations: Arc<Vec<Destination>>,
    identity: Option<Identity>,
    generation: Option<FileIdentity>,
    at: Instant,
}

/// A file that is durable in every repository, or that no repository needs.
#[derive(Debug, Clone)]
pub struct Durable {
    /// How it became durable.
    pub outcome: PushOutcome,
    /// The file that was read.
    pub identity: FileIdentity,
    file: WalFileName,
    held_by: HeldBy,
    generation: Option<FileIdentity>,
    at: Instant,
}

impl Archiver {
    /// An archiver for these repositories. Of the options, `path`, `push_ahead` and `now` are not used. After a failure
    /// of a repository, `reopen` gives the targets for the next attempt.
    pub fn new(targets: Vec<RepositoryTarget>, reopen: Reopen, options: PushOptions) -> Self {
        let opening = tokio::sync::Mutex::new(Opening { targets, has_failed: false, failed_at: None });
        Self { options, reopen, opening, opened: Mutex::default() }
    }

    /// Archives one file; `Ok` means durable.
    ///
    /// # Errors
    /// Those of [`push`](super::push()).
    pub async fn archive(
        &self,
        path: &Path,
        why: Purpose,
        now: DateTime<Utc>,
        cancel: &CancellationToken,
    ) -> Result<Durable, Error> {
        let archived = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cause::Cancelled.into()),
            archived = self.archive_inner(path, why, now, cancel) => archived,
        };
        if let Err(error) = &archived
            && error.is_of_repository()
            && !matches!(*error.what, Cause::Divergence { .. })
        {
            // The next file is not sent on the strength of what was known before.
            self.has_failed().await;
        }
        archived.doing(|| format!("pushing {}", path.display()))
    }

    async fn archive_inner(
        &self,
        path: &Path,
        why: Purpose,
        now: DateTime<Utc>,
        cancel: &CancellationToken,
    ) -> Result<Durable, Error> {
        let wanted = path.to_owned();
        let (file, identity) = blocking(move || {
            let (file, identity) = LocalFile::open_with_identity(&wanted)?;
            if let Some(identity) = &identity {
                // Before any repository is asked: another segment's content must not claim an archive.
                file.check(identity)?;
            }
            Ok((file, identity))
        })
        .await?;
        let (file, name) = (Arc::new(file), file_name(path)?);
        let options = PushOptions { path: path.to_owned(), now, ..self.options.clone() };
        let opened = self.open(identity, &options, why).await?;
        let Opened { destinations, .. } = &opened;
        let durable = |outcome| Durable {
            outcome,
            identity: file.identity,
            file: name,
            held_by: held_by(destinations),
            generation: opened.generation,
            at: opened.at,
        };
        let transfers = Transfers::new(Arc::clone(destinations), &options);
        let permit = transfers.memory_for(&file, cancel).await?;
        let tried = transfers.take_tried(name).await?;
        match transfers.deliver(Arc::clone(&file), permit, tried, &Line::default(), cancel).await {
            Ok(archived) => {
                transfers.mark(Arc::clone(&file)).await;
                Ok(durable(PushOutcome::Archived(archived)))
            }
            Err(error) => {
                let Some(first) = destinations.first() else { return Err(error) };
                let fork = fork::excuses(error, name, path, first.claim.wal_segment_size).await?;
                Ok(durable(PushOutcome::AfterFork(fork)))
            }
        }
    }

    /// Whether a durable file may be acknowledged: the repositories and their claims are still those that hold it. They
    /// are looked at if the last look before it was stored is more than [`OPEN_FOR`] ago, or if a repository has been
    /// made on this machine since.
    ///
    /// # Errors
    /// Those of [`push`](super::push()) before the first byte.
    pub async fn still_holds(&self, durable: &Durable, path: &Path, now: DateTime<Utc>) -> Result<bool, Error> {
        let wanted = path.to_owned();
        let (file, identity) = blocking(move || LocalFile::open_with_identity(&wanted)).await?;
        if file.identity != durable.identity {
            return Ok(false);
        }
        if durable.at.elapsed() < OPEN_FOR && durable.generation == self.generation() {
            return Ok(true);
        }
        let options = PushOptions { path: path.to_owned(), now, ..self.options.clone() };
        let opened = self.open(identity, &options, Purpose::Asked).await?;
        Ok(held_by(&opened.destinations) == durable.held_by)
    }

    /// The repositories for a file of this cluster that this process sends in its own way, opened as for
    /// [`archive`](Self::archive).
    ///
    /// # Errors
    /// Those of [`push`](super::push()) before the first byte.
    pub(crate) async fn opened(&self, identity: Identity, now: DateTime<Utc>) -> Result<Arc<Vec<Destination>>, Error> {
        let options = PushOptions { now, ..self.options.clone() };
        Ok(self.open(Some(identity), &options, Purpose::Asked).await?.destinations)
    }

    /// A repository of [`opened`](Self::opened) has failed: they are opened again before the next file.
    pub(crate) async fn has_failed(&self) {
        *self.opened.lock() = None;
        self.opening.lock().await.has_failed = true;
    }

    /// The repositories that are open now: none before the first file and after a failure.
    pub fn destinations(&self) -> Vec<Destination> {
        self.opened.lock().as_ref().map(|opened| opened.destinations.to_vec()).unwrap_or_default()
    }

    /// PostgreSQL has its answer for a file: its mark is not needed any more. Blocks.
    pub fn forget_mark(&self, durable: &Durable) {
        if let Some(spool) = &self.options.spool {
            mark::remove(spool, &durable.file);
        }
    }

    /// Removes the marks and notes of files that no longer wait, and the remains of killed runs. Blocks.
    pub fn sweep(&self, still_waiting: impl Fn(&WalFileName) -> bool) {
        if let Some(spool) = &self.options.spool {
            mark::sweep(spool, still_waiting);
            spool::remove_stale(&spool.push_folder(), std::time::SystemTime::now());
        }
    }

    /// The destinations of a file of this cluster.
    async fn open(&self, identity: Option<Identity>, options: &PushOptions, why: Purpose) -> Result<Opened, Error> {
        let since = Instant::now();
        let mut opening = self.opening.lock().await;
        let (opened, generation) = (self.opened.lock().clone(), self.generation());
        if let Some(opened) = opened
            && opened.identity == identity
            && opened.generation == generation
            && opened.at.elapsed() < OPEN_FOR
        {
            return Ok(opened);
        }
        if why == Purpose::Ahead && opening.failed_at.is_some_and(|failed_at| failed_at > since) {
            // Each attempt may take all of the time limit, and PostgreSQL's own file waits after this one.
            return Err(Cause::Refused("the repositories could not be opened for another file".to_owned()).into());
        }
        if std::mem::take(&mut opening.has_failed)
            && let Some(targets) = (self.reopen)().await
        {
            opening.targets = targets;
        }
        if opening.targets.is_empty() {
            return Err(Cause::Refused("there is no repository to archive to".to_owned()).into());
        }
        let at = Instant::now();
        let destinations = match open_all(&opening.targets, options, identity).await {
            Ok(destinations) => Arc::new(destinations),
            Err(error) => {
                opening.failed_at = Some(Instant::now());
                return Err(error);
            }
        };
        let opened = Opened { destinations, identity, generation, at };
        *self.opened.lock() = Some(opened.clone());
        Ok(opened)
    }

    fn generation(&self) -> Option<FileIdentity> {
        self.options.spool.as_ref().and_then(Spool::generation)
    }
}

fn file_name(path: &Path) -> Result<WalFileName, Error> {
    mark::wal_file_name(path)
        .ok_or_else(|| Cause::Refused(format!("{} is not the name of a WAL file", path.display())).into())
}
