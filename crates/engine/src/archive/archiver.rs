//! [`Archiver`]: archives the files of one server for a process that stays.
//!
//! It does for each file what [`push`](super::push()) does for the requested one, under the same rules. The repositories,
//! their keys and the claims stay open between files: they are opened again after [`OPEN_FOR`], after a failure, after
//! `repo init` on this machine, and for a file of another cluster. Each durable file also gets a mark in the spool, so that a `wal push` that does not reach
//! this process need not compare the file with its object.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
use super::push::PushOptions;
use super::spool::Spool;
use super::transfers::Transfers;
use crate::error::{Cause, Error, ResultExt};
use crate::repository::RepositoryTarget;
use crate::repository::claim::Identity;

/// How long opened repositories are believed to be what they were: a wiped repository, a rotated key and a new claim are
/// noticed after this time. A mark is believed as long without a look (`mark::BELIEVED_FOR`).
const OPEN_FOR: Duration = Duration::from_mins(1);

/// Archives the files of one server. All methods may run at the same time.
#[derive(Debug)]
pub struct Archiver {
    targets: Vec<RepositoryTarget>,
    options: PushOptions,
    /// One task opens, the others wait for it.
    opening: tokio::sync::Mutex<()>,
    opened: Mutex<Option<Opened>>,
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
    /// An archiver for these repositories. Of the options, `path`, `push_ahead` and `now` are not used.
    pub fn new(targets: Vec<RepositoryTarget>, options: PushOptions) -> Self {
        Self { targets, options, opening: tokio::sync::Mutex::default(), opened: Mutex::default() }
    }

    /// Archives one file; `Ok` means durable.
    ///
    /// # Errors
    /// Those of [`push`](super::push()).
    pub async fn archive(&self, path: &Path, cancel: &CancellationToken) -> Result<Durable, Error> {
        let archived = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cause::Cancelled.into()),
            archived = self.archive_inner(path, cancel) => archived,
        };
        if archived.is_err() {
            // Whatever it was, the next file is not sent on the strength of what was known before.
            *self.opened.lock() = None;
        }
        archived.doing(|| format!("pushing {}", path.display()))
    }

    async fn archive_inner(&self, path: &Path, cancel: &CancellationToken) -> Result<Durable, Error> {
        if self.targets.is_empty() {
            return Err(Cause::Refused("there is no repository to archive to".to_owned()).into());
        }
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
        let options = PushOptions { path: path.to_owned(), now: chrono::Utc::now(), ..self.options.clone() };
        let (generation, at) = (self.generation(), Instant::now());
        let destinations = self.open(identity, &options).await?;
        let durable = |outcome| Durable {
            outcome,
            identity: file.identity,
            file: name,
            held_by: held_by(&destinations),
            generation,
            at,
        };
        let transfers = Transfers::new(Arc::clone(&destinations), &options);
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
                Ok(durable(PushOutcome::BehindFork(fork)))
            }
        }
    }

    /// Whether a durable file may be acknowledged: the repositories are still those that hold it. They are looked at if
    /// it was stored more than [`OPEN_FOR`] ago, or if a repository has been made on this machine since.
    ///
    /// # Errors
    /// Those of [`push`](super::push()) before the first byte.
    pub async fn still_holds(&self, durable: &Durable, path: &Path) -> Result<bool, Error> {
        let wanted = path.to_owned();
        let (file, identity) = blocking(move || LocalFile::open_with_identity(&wanted)).await?;
        if file.identity != durable.identity {
            return Ok(false);
        }
        if durable.at.elapsed() < OPEN_FOR && durable.generation == self.generation() {
            return Ok(true);
        }
        let options = PushOptions { path: path.to_owned(), now: chrono::Utc::now(), ..self.options.clone() };
        let destinations = self.open(identity, &options).await?;
        Ok(held_by(&destinations) == durable.held_by)
    }

    /// PostgreSQL has its answer for a file: its mark is not needed any more. Blocks.
    pub fn forget_mark(&self, durable: &Durable) {
        if let Some(spool) = &self.options.spool {
            mark::remove(spool, &durable.file);
        }
    }

    /// The destinations of a file of this cluster.
    async fn open(&self, identity: Option<Identity>, options: &PushOptions) -> Result<Arc<Vec<Destination>>, Error> {
        let _turn = self.opening.lock().await;
        let (opened, generation) = (self.opened.lock().clone(), self.generation());
        if let Some(opened) = opened
            && opened.identity == identity
            && opened.generation == generation
            && opened.at.elapsed() < OPEN_FOR
        {
            return Ok(opened.destinations);
        }
        let at = Instant::now();
        let destinations = Arc::new(open_all(&self.targets, options, identity).await?);
        *self.opened.lock() = Some(Opened { destinations: Arc::clone(&destinations), identity, generation, at });
        Ok(destinations)
    }

    fn generation(&self) -> Option<FileIdentity> {
        self.options.spool.as_ref().and_then(Spool::generation)
    }
}

fn file_name(path: &Path) -> Result<WalFileName, Error> {
    mark::wal_file_name(path)
        .ok_or_else(|| Cause::Refused(format!("{} is not the name of a WAL file", path.display())).into())
}
