//! What happens around each transfer of an archiver: memory before it, the note about failed attempts, the mark after
//! it.

use std::sync::Arc;

use holdfast_contract::report::wal::{ArchivedFile, Stored};
use holdfast_pgtypes::WalFileName;
use tokio_util::sync::CancellationToken;

use super::deliver::{self, ArchiveContext, Destination, Line, blocking};
use super::destinations::held_by;
use super::local_file::LocalFile;
use super::mark;
use super::options::PushOptions;
use crate::error::{Cause, Error};
use crate::pipeline::budget::Permit;

/// What all transfers of a run share.
#[derive(Clone)]
pub(super) struct Transfers {
    pub(super) destinations: Arc<Vec<Destination>>,
    context: ArchiveContext,
    options: PushOptions,
}

impl Transfers {
    /// Transfers to these repositories.
    pub(super) fn new(destinations: Arc<Vec<Destination>>, options: &PushOptions) -> Self {
        let context = ArchiveContext {
            cluster: options.cluster.clone(),
            compression: options.compression,
            crew: options.crew.clone(),
            budget: options.budget.clone(),
            ledger: Some((options.host.clone(), options.now)),
        };
        Self { destinations, context, options: options.clone() }
    }

    /// Waits for the memory that a file needs.
    pub(super) async fn memory_for(&self, file: &LocalFile, cancel: &CancellationToken) -> Result<Permit, Error> {
        let bytes = deliver::memory_needed(file, self.destinations.len());
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Cause::Cancelled.into()),
            permit = self.context.budget.acquire(bytes) => Ok(permit),
        }
    }

    /// Marks a durable file in the spool. A mark that cannot be written only costs a comparison later.
    pub(super) async fn mark(&self, file: Arc<LocalFile>) {
        let Some(spool) = self.options.spool.clone() else { return };
        let (set, held_by) = (self.options.repository_set, held_by(&self.destinations));
        let marked = blocking(move || {
            mark::write(&spool, &set, &held_by, &file.name, &file.identity)
                .map_err(|e| Error::file("write", &spool.push_folder(), e))
        });
        if let Err(error) = marked.await {
            tracing::warn!(%error, "a WAL file is archived but could not be marked in the spool, so it will be \
                                    compared again");
        }
    }

    /// Whether the last push of a file failed. The answer removes the note.
    pub(super) async fn take_tried(&self, name: WalFileName) -> Result<bool, Error> {
        let Some(spool) = self.options.spool.clone() else { return Ok(false) };
        blocking(move || Ok(mark::take_tried(&spool, &name))).await
    }

    /// Delivers a file and keeps the note about failed attempts.
    pub(super) async fn deliver(
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
