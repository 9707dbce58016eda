//! What killed runs of this runner left, in every repository: this run takes over their packs and removes the rest.
//!
//! [`super::remains`] finds and removes, [`super::resume`] takes over; here is their order. A repository in which that
//! fails is left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use holdfast_repo::name::BackupId;
use holdfast_repo::record::RunIdentity;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::begin::Early;
use super::options::BackupOptions;
use super::remains;
use super::resume::{Everywhere, TakenOver, take_over};
use super::runner::Runner;
use crate::error::Error;
use crate::progress::Progress;
use crate::repository::Repository;

/// The killed runs in each repository; none where the repository is left out.
pub(super) async fn find(
    repositories: &[Repository],
    early: &mut Early<'_>,
    options: &BackupOptions,
    runner: &Runner,
    now: DateTime<Utc>,
    progress: &dyn Progress,
) -> Result<Vec<BTreeSet<BackupId>>, Error> {
    let mut dead = Vec::new();
    for (index, repository) in repositories.iter().enumerate() {
        let found = remains::of_runner(repository, &options.cluster, runner, now, progress).await;
        dead.push(early.settle(index, found)?.unwrap_or_default());
    }
    Ok(dead)
}

/// What this run has of killed ones.
pub(super) struct Taken {
    /// The data that is not stored again.
    pub(super) earlier: Option<Arc<Everywhere>>,
    /// The runs that were taken over, in each repository.
    pub(super) adopted: Vec<BTreeSet<BackupId>>,
}

/// How killed runs are taken over.
pub(super) struct TakingOver<'a> {
    pub(super) options: &'a BackupOptions,
    pub(super) runner: &'a Runner,
    /// Whether this run has a lease, in each repository.
    pub(super) leased: &'a [bool],
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a CancellationToken,
}

impl TakingOver<'_> {
    /// Takes over the killed runs of each repository, and removes those that have nothing to take.
    pub(super) async fn all(
        &self,
        repositories: &[Repository],
        early: &mut Early<'_>,
        dead: Vec<BTreeSet<BackupId>>,
    ) -> Result<Taken, Error> {
        let (mut earlier, mut adopted) = (Vec::new(), Vec::new());
        // All repositories together get an eighth of the memory.
        let memory_bytes = self.options.memory_bytes / 8 / repositories.len() as u64;
        if dead.iter().any(|dead| !dead.is_empty()) {
            self.progress.phase("looking at what killed backups stored", None);
        }
        for (index, (repository, dead)) in repositories.iter().zip(dead).enumerate() {
            let mut taken = TakenOver::default();
            // If it is left out, its start record may be missing, and with it the list of what this run removes.
            if !early.is_out(index) {
                taken = self.in_repository(index, repository, early, &dead, memory_bytes).await?;
            }
            earlier.push(Some(Arc::new(taken.earlier)).filter(|_| !early.is_out(index)));
            adopted.push(taken.adopted);
        }
        let earlier = Everywhere::new(earlier);
        if let Some(earlier) = &earlier {
            earlier.announce(self.progress);
        }
        Ok(Taken { earlier, adopted })
    }

    async fn in_repository(
        &self,
        index: usize,
        repository: &Repository,
        early: &mut Early<'_>,
        dead: &BTreeSet<BackupId>,
        memory_bytes: u64,
    ) -> Result<TakenOver, Error> {
        let (cluster, progress) = (&self.options.cluster, self.progress);
        let by = RunIdentity { leased: self.leased.get(index) == Some(&true), ..self.runner.identity(Vec::new()) };
        let taken = take_over(repository, cluster, &by, dead, memory_bytes, self.cancel).await;
        // One limit for all removals: a slow store must not delay the start of the backup.
        let until = Instant::now() + remains::ABORT_WITHIN;
        for dead in dead.difference(&taken.adopted).filter(|dead| !taken.left.contains(dead)).copied() {
            let removed = remains::remove_by(repository, cluster, dead, until).await;
            match early.settle(index, removed)? {
                Some(true) => progress.note(&format!("removed the remains of backup {dead}, which was not finished")),
                Some(false) => progress.note(&format!(
                    "the remains of backup {dead} are kept: it is complete, or another manifest may need them"
                )),
                None => break,
            }
        }
        Ok(taken)
    }
}
