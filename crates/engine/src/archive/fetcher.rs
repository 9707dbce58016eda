//! [`Fetcher`]: fetches the WAL of clusters in recovery for a process that stays.
//!
//! It answers as [`get`](super::get()) does, with the same three results. The repositories, their keys and the claims
//! stay open between files, for [`OPEN_FOR`]. A repository that answers "not there" is opened again and asked once more
//! before it is believed, because recovery ends on that answer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_pgtypes::{SegmentName, SystemIdentifier, WalFileName, WalSegmentSize};
use holdfast_repo::ChunkHash;
use holdfast_repo::name::ClusterName;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deliver::blocking;
use super::get::{ChosenClaims, choose_claims, memory_needed};
use super::prefetched::Prefetched;
use super::resident::{OPEN_FOR, Purpose, Reopen};
use super::spool::{RepositorySetId, Spool};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::repository::{Repository, RepositoryTarget};

/// The options of a [`Fetcher`].
#[derive(Debug, Clone)]
pub struct FetcherOptions {
    /// The cluster of the archive.
    pub cluster: ClusterName,
    /// Where segments are kept until they are handed over.
    pub spool: Spool,
    /// The repositories, as the spool identifies them.
    pub repository_set: RepositorySetId,
    /// The threads that decompress.
    pub crew: Crew,
    /// The limit on memory.
    pub budget: ByteBudget,
}

/// Fetches WAL. All methods may run at the same time.
pub struct Fetcher {
    targets: Mutex<Vec<RepositoryTarget>>,
    reopen: Reopen,
    /// Whether a repository has failed since the targets were made.
    has_failed: AtomicBool,
    options: FetcherOptions,
    opened: Mutex<Vec<Option<Opened>>>,
}

#[derive(Debug, Clone)]
struct Opened {
    system_identifier: SystemIdentifier,
    repository: Repository,
    claims: ChosenClaims,
    at: Instant,
}

/// A file of the archive, whole and verified.
#[derive(Debug)]
pub enum Fetched {
    /// A segment, in the spool.
    Segment {
        /// Its absolute path.
        path: PathBuf,
        /// The hash of its content.
        hash: ChunkHash,
        /// Its length in bytes, which is the size of all segments of the cluster.
        size: WalSegmentSize,
    },
    /// A segment that cannot be kept in the spool, with the reason.
    NotKept(Error),
    /// The content of a history or backup history file.
    Text(Vec<u8>),
}

impl Fetcher {
    /// A fetcher from these repositories, in their order. After a failure of a repository, `reopen` gives the targets
    /// for the next attempt.
    pub fn new(targets: Vec<RepositoryTarget>, reopen: Reopen, options: FetcherOptions) -> Self {
        let opened = Mutex::new(vec![None; targets.len()]);
        Self { targets: Mutex::new(targets), reopen, has_failed: AtomicBool::new(false), options, opened }
    }

    /// Fetches one file for the recovery of a cluster. What is fetched ahead may be reported as absent too early:
    /// nobody ends recovery on that.
    ///
    /// # Errors
    /// Those of [`get`](super::get()); [`Cause::Absent`] only if every repository answered that it does not have the
    /// file.
    pub async fn fetch(
        &self,
        file: WalFileName,
        system_identifier: SystemIdentifier,
        why: Purpose,
        cancel: &CancellationToken,
    ) -> Result<Fetched, Error> {
        let fetched = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cause::Cancelled.into()),
            fetched = self.fetch_inner(file, system_identifier, why) => fetched,
        };
        fetched.doing(|| format!("fetching {file} from the archive"))
    }

    async fn fetch_inner(
        &self,
        file: WalFileName,
        system_identifier: SystemIdentifier,
        why: Purpose,
    ) -> Result<Fetched, Error> {
        if self.has_failed.swap(false, Ordering::Relaxed)
            && let Some(targets) = (self.reopen)().await
        {
            *self.targets.lock() = targets;
        }
        let targets = self.targets.lock().clone();
        if targets.is_empty() {
            return Err(Cause::Refused("there is no repository to fetch from".to_owned()).into());
        }
        let mut doubt: Option<Error> = None;
        for (number, target) in targets.iter().enumerate() {
            match self.ask(number, target, file, system_identifier, why).await {
                Ok(Some(found)) => {
                    if let Some(error) = doubt {
                        tracing::warn!(%file, %error, "this repository could not answer, another one did");
                    }
                    return self.keep(file, system_identifier, found).await;
                }
                Ok(None) => {}
                Err(error) if doubt.is_none() => doubt = Some(error),
                Err(error) => tracing::warn!(%file, %error, "a further repository could not answer"),
            }
        }
        Err(doubt.unwrap_or_else(|| Cause::Absent { file: file.to_string() }.into()))
    }

    /// Asks one repository; `None` means that it answered that the file is not there.
    async fn ask(
        &self,
        number: usize,
        target: &RepositoryTarget,
        file: WalFileName,
        system_identifier: SystemIdentifier,
        why: Purpose,
    ) -> Result<Option<FetchedFile>, Error> {
        let mut kept = self.kept_open(number, system_identifier);
        loop {
            let was_kept = kept.is_some();
            let opened = match kept.take() {
                Some(opened) => opened,
                None => match self.open(number, target, system_identifier).await {
                    Ok(opened) => opened,
                    Err(error) => {
                        self.forget(number);
                        return Err(error);
                    }
                },
            };
            let Opened { repository, claims, .. } = opened;
            let _permit = self.options.budget.acquire(memory_needed(&claims.newest, file)).await;
            let FetcherOptions { cluster, crew, .. } = &self.options;
            match claims.fetch(&repository, cluster, &file, crew).await {
                Ok(Some((claim, raw, hash))) => {
                    return Ok(Some(FetchedFile { raw, hash, size: claim.wal_segment_size }));
                }
                Ok(None) if was_kept && why == Purpose::Asked => {}
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.forget(number);
                    return Err(error);
                }
            }
        }
    }

    fn kept_open(&self, number: usize, system_identifier: SystemIdentifier) -> Option<Opened> {
        let opened = self.opened.lock().get(number)?.clone()?;
        (opened.system_identifier == system_identifier && opened.at.elapsed() < OPEN_FOR).then_some(opened)
    }

    async fn open(
        &self,
        number: usize,
        target: &RepositoryTarget,
        system_identifier: SystemIdentifier,
    ) -> Result<Opened, Error> {
        let at = Instant::now();
        let repository = Repository::open(target).await?;
        let claims = choose_claims(&repository, &self.options.cluster, Some(system_identifier)).await?;
        let opened = Opened { system_identifier, repository, claims, at };
        if let Some(place) = self.opened.lock().get_mut(number) {
            *place = Some(opened.clone());
        }
        Ok(opened)
    }

    fn forget(&self, number: usize) {
        self.has_failed.store(true, Ordering::Relaxed);
        if let Some(place) = self.opened.lock().get_mut(number) {
            *place = None;
        }
    }

    async fn keep(
        &self,
        file: WalFileName,
        system_identifier: SystemIdentifier,
        found: FetchedFile,
    ) -> Result<Fetched, Error> {
        let FetchedFile { raw, hash, size } = found;
        let WalFileName::Segment(segment) = file else { return Ok(Fetched::Text(raw)) };
        let spooled = self.spooled(system_identifier);
        Ok(match blocking(move || spooled.keep(segment, &hash, &raw)).await {
            Ok(path) => Fetched::Segment { path, hash, size },
            Err(error) => Fetched::NotKept(error),
        })
    }

    /// Removes all segments from the spool that were fetched ahead for a cluster. Blocks.
    pub fn empty(&self, system_identifier: SystemIdentifier) {
        self.spooled(system_identifier).empty();
    }

    /// Removes the segments from the spool, of every cluster and every set of repositories, that were fetched ahead
    /// longer than this ago. Blocks.
    pub fn remove_older(&self, age: Duration) {
        self.options.spool.remove_fetched(std::time::SystemTime::now(), age);
    }

    /// Removes the segments from the spool that recovery has passed, all beyond `limit`, and the remains of killed
    /// runs. Blocks.
    pub fn sweep(&self, system_identifier: SystemIdentifier, reached: SegmentName, limit: usize) {
        let spooled = self.spooled(system_identifier);
        spooled.remove_stale(std::time::SystemTime::now());
        spooled.sweep(reached, limit);
    }

    fn spooled(&self, system_identifier: SystemIdentifier) -> Prefetched {
        Prefetched::new(&self.options.spool, &self.options.repository_set, system_identifier)
    }
}

/// A file from one repository.
struct FetchedFile {
    raw: Vec<u8>,
    hash: ChunkHash,
    size: WalSegmentSize,
}
