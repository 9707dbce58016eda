//! The upload of one object, piece by piece: cut into parts of equal size, with many parts in flight.
//!
//! An object smaller than one part is stored in one request. Each part keeps the permits of its bytes until the store
//! has it. After a failure or a stop the upload is aborted. A process that dies leaves an unfinished multipart upload,
//! which is not an object. The next backup of the same machine aborts those of its dead runs. For all others the bucket
//! needs a lifecycle rule (docs/operations.md).

use std::sync::Arc;

use holdfast_store::{ObjectName, PutMode, Store, Upload};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::budget::Permit;
use super::part_buffer::PartBuffer;
use crate::error::{Cause, Error, ResultExt};

/// How many parts of one object without permits are in flight: enough to hide latency, and few enough to need no
/// budget.
const UNBUDGETED_PARTS_IN_FLIGHT: usize = 2;

/// An object that is being written.
pub(crate) struct ObjectUpload {
    store: Arc<dyn Store>,
    name: ObjectName,
    mode: PutMode,
    part_size: usize,
    buffer: PartBuffer,
    permits: Vec<Permit>,
    upload: Option<Arc<Box<dyn Upload>>>,
    parts: JoinSet<Result<(), Error>>,
    next_part: u32,
    size_bytes: u64,
    unbudgeted: Arc<Semaphore>,
    stop: CancellationToken,
}

impl ObjectUpload {
    /// Begins an upload; nothing is sent before the first part is full.
    pub(crate) fn new(store: Arc<dyn Store>, name: ObjectName, part_size: usize) -> Self {
        Self {
            store,
            name,
            mode: PutMode::Create,
            part_size,
            buffer: PartBuffer::default(),
            permits: Vec::new(),
            upload: None,
            parts: JoinSet::new(),
            next_part: 1,
            size_bytes: 0,
            unbudgeted: Arc::new(Semaphore::new(UNBUDGETED_PARTS_IN_FLIGHT)),
            stop: CancellationToken::new(),
        }
    }

    /// As [`Self::new`], but an object of that name is replaced, if that is the mode.
    pub(crate) fn with_mode(self, mode: PutMode) -> Self {
        Self { mode, ..self }
    }

    /// As [`Self::new`], but if this token is cancelled before all parts are stored, [`Self::finish`] aborts the upload
    /// and fails.
    pub(crate) fn with_stop(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// Bytes pushed so far.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Adds bytes; `permit` is held until the store has them.
    pub(crate) async fn push(&mut self, mut bytes: &[u8], mut permit: Option<Permit>) -> Result<(), Error> {
        self.size_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            bytes = self.buffer.fill(bytes, self.part_size)?;
            if bytes.is_empty() {
                self.permits.extend(permit.take());
            }
            if self.buffer.len() == self.part_size {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends the rest and completes the object; `Ok` means that it is durable.
    pub(crate) async fn finish(mut self) -> Result<u64, Error> {
        let size_bytes = self.size_bytes;
        let name = self.name.clone();
        self.finish_inner().await.doing(|| format!("storing {name}"))?;
        Ok(size_bytes)
    }

    async fn finish_inner(&mut self) -> Result<(), Error> {
        if self.upload.is_none() {
            let body = self.buffer.take();
            self.store.put(&self.name, body, self.mode).await?;
            self.permits.clear();
            return Ok(());
        }
        let mut outcome = Ok(());
        if self.buffer.len() > 0 {
            outcome = self.send_part().await;
        }
        loop {
            let part = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.parts.shutdown().await;
                    outcome = Err(Cause::Cancelled.into());
                    break;
                }
                part = self.parts.join_next() => part,
            };
            let Some(part) = part else { break };
            let part = part.unwrap_or_else(|e| Err(Cause::Internal(format!("an upload task failed: {e}")).into()));
            outcome = outcome.and(part);
        }
        // Every task has been joined, so no other reference to the upload exists.
        let Some(upload) = self.upload.take().and_then(Arc::into_inner) else {
            return outcome.and(Err(Cause::Internal("the upload is gone".to_owned()).into()));
        };
        match outcome {
            Ok(()) => Ok(upload.complete().await?),
            Err(error) => {
                if let Err(abort) = upload.abort().await {
                    tracing::debug!(name = %self.name, error = %abort, "an unfinished upload could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Aborts the upload; sent parts are removed if the store can be reached.
    pub(crate) async fn abort(mut self) {
        self.parts.shutdown().await;
        if let Some(upload) = self.upload.take().and_then(Arc::into_inner)
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(name = %self.name, %error, "an unfinished upload could not be removed");
        }
    }

    async fn send_part(&mut self) -> Result<(), Error> {
        // A part that failed meanwhile ends the upload now, not at its end.
        while let Some(done) = self.parts.try_join_next() {
            done.unwrap_or_else(|e| Err(Cause::Internal(format!("an upload task failed: {e}")).into()))?;
        }
        let upload = if let Some(upload) = &self.upload {
            Arc::clone(upload)
        } else {
            let upload = Arc::new(self.store.begin_upload(&self.name, self.mode).await?);
            self.upload = Some(Arc::clone(&upload));
            upload
        };
        let body = self.buffer.take();
        let permits = std::mem::take(&mut self.permits);
        let slot = if permits.is_empty() {
            match Arc::clone(&self.unbudgeted).acquire_owned().await {
                Ok(slot) => Some(slot),
                Err(_) => return Err(Cause::Cancelled.into()),
            }
        } else {
            None
        };
        let number = self.next_part;
        self.next_part += 1;
        let name = self.name.clone();
        self.parts.spawn(async move {
            let sent = upload.part(number, body).await.doing(|| format!("storing part {number} of {name}"));
            drop((permits, slot));
            sent
        });
        Ok(())
    }
}
