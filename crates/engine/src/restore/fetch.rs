//! Moves the data: ranged requests, then opening, checking and writing on the crew.
//!
//! The planner's requests ([`super::coalesce`]) are started while the byte budget has room. Each holds a permit for its
//! stored bytes until all of it is written. A thread of the crew opens a frame, checks its chunks against the
//! manifest's hashes, and writes them: then the bytes are still in the processor's cache, and each thread needs one
//! buffer. Only checked bytes are written. Meanwhile the file system is synced again and again, so that the disk is
//! never idle and little is left for the end.
//!
//! The manifest says how far into its frame a wanted extent reaches. Only the frame says how many bytes follow, up to
//! 64 MiB. A delta restore wants a part of many frames, so more bytes are not damage. But in a repository that others
//! can write to, each thread can get a frame of 64 MiB. So the bytes that nobody wants have a budget of their own
//! ([`SURPLUS_BYTES`]), and the frames wait for it.
//!
//! The first failure stops new requests. Running requests end before it is reported, so that no thread writes into the
//! directory after its lock is released. Written data stays: a later run compares it by hash.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_repo::codec::MAX_FRAME_RAW;
use holdfast_repo::frame::{FrameBuffers, FrameHeader, FrameKind, ObjectOpener};
use holdfast_repo::manifest::Manifest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::coalesce::{Fetch, Fetches, FrameWork, Piece, WantedExtent};
use super::durable::Roots;
use super::files::Files;
use super::packs::{Packs, piece};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::{ByteBudget, Permit};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;

/// Requests in flight. The budget bounds their bytes; this bounds their number if they are small, as in a delta restore
/// of scattered changes.
const MAX_REQUESTS: usize = 64;

/// The bytes that are written before the file system is synced again. A sync also writes the file system's own log, so
/// it must not come too often.
const SYNC_AFTER_BYTES: u64 = 128 << 20;

/// A thread keeps a buffer up to this size for the next frame: extents have 1 MiB by default, and frames may have more.
const MAX_KEPT_BYTES: usize = 8 << 20;

thread_local! {
    static BUFFERS: RefCell<FrameBuffers> = RefCell::default();
}

/// The most bytes of opened frames that nobody wants. The largest frame of the format passes alone. Of usual frames,
/// with one extent each, more fit than can be written at the same time.
const SURPLUS_BYTES: u64 = MAX_FRAME_RAW as u64;

/// Everything that moves the data of one restore.
pub(super) struct Mover {
    pub manifest: Arc<Manifest>,
    pub packs: Packs,
    pub files: Files,
    pub crew: Crew,
    pub budget: ByteBudget,
    /// The budget for bytes of frames that nobody wants.
    pub surplus: ByteBudget,
    pub progress: Arc<dyn Progress>,
    /// The directories that are written to.
    pub roots: Arc<Roots>,
    pub fetched_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    /// Cancelled with the command, or by the first failure.
    pub cancel: CancellationToken,
}

impl Mover {
    /// The usual budget for bytes of frames that nobody wants.
    pub(super) fn surplus() -> ByteBudget {
        ByteBudget::new(SURPLUS_BYTES)
    }
}

/// Fetches the extents in `wanted`, which must be sorted, and writes them to their places.
pub(super) async fn fetch(mover: &Arc<Mover>, wanted: Vec<WantedExtent>) -> Result<(), Error> {
    let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
    let manifest = Arc::clone(&mover.manifest);
    let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
    let mut outcome = Ok(());
    let (syncing, mut synced) = (Arc::new(Semaphore::new(1)), 0);
    for fetch in Fetches::new(&manifest, wanted.into_iter()) {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let permit = mover.budget.acquire(fetch.memory_bytes()).await;
        while let Some(done) = tasks.try_join_next() {
            settle(&mut outcome, done, mover);
        }
        if outcome.is_err() || mover.cancel.is_cancelled() {
            break;
        }
        let written = mover.written_bytes.load(Ordering::Relaxed);
        if written - synced >= SYNC_AFTER_BYTES
            && let Ok(turn) = Arc::clone(&syncing).try_acquire_owned()
        {
            synced = written;
            tasks.spawn(sync(Arc::clone(&mover.roots), turn));
        }
        let mover = Arc::clone(mover);
        tasks.spawn(async move {
            let done = mover.run(fetch, permit).await;
            drop(slot);
            done
        });
    }
    while let Some(done) = tasks.join_next().await {
        settle(&mut outcome, done, mover);
    }
    outcome?;
    if mover.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
}

/// Syncs what has been written so far.
async fn sync(roots: Arc<Roots>, turn: OwnedSemaphorePermit) -> Result<(), Error> {
    let synced = tokio::task::spawn_blocking(move || {
        let synced = roots.sync();
        drop(turn);
        synced
    });
    synced.await.unwrap_or_else(|e| Err(Cause::Internal(format!("a syncing thread failed: {e}")).into()))
}

/// Keeps the first failure, and stops the other tasks. A task that stopped because of that does not count as a failure.
fn settle(outcome: &mut Result<(), Error>, done: Result<Result<(), Error>, tokio::task::JoinError>, mover: &Mover) {
    let done = done.unwrap_or_else(|e| Err(Cause::Internal(format!("a restore task failed: {e}")).into()));
    if let Err(error) = done {
        if outcome.is_ok() {
            *outcome = Err(error);
        }
        mover.cancel.cancel();
    }
}

impl Mover {
    /// One request from its bytes to its files.
    async fn run(self: &Arc<Self>, fetch: Fetch, permit: Permit) -> Result<(), Error> {
        let read = async {
            tokio::try_join!(self.packs.opener(fetch.pack), self.packs.bytes(fetch.pack, fetch.range.clone()))
        };
        let (opener, bytes) = tokio::select! {
            read = read => read?,
            () = self.cancel.cancelled() => return Err(Cause::Cancelled.into()),
        };
        self.fetched_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // This stops only this request: the code that reports the failure cancels the others.
        let stop = self.cancel.child_token();
        let mut moving: JoinSet<Result<u64, Error>> = JoinSet::new();
        for frame in fetch.frames {
            let start = (frame.location.range().start - fetch.range.start) as usize;
            let body = bytes.slice(start..start + frame.location.length as usize);
            moving.spawn(Arc::clone(self).frame(Arc::clone(&opener), body, frame, stop.clone()));
        }
        drop(bytes);
        let mut outcome = Ok(());
        // After a failure it still waits for the rest, because the crew and the writers work on it.
        while let Some(moved) = moving.join_next().await {
            let moved = moved.unwrap_or_else(|e| Err(Cause::Internal(format!("a writing task failed: {e}")).into()));
            match moved {
                Ok(bytes) => {
                    self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.progress.advance(bytes);
                }
                // The first real failure is reported, not the cancelled tasks that follow from it.
                Err(error) if outcome.is_ok() => {
                    stop.cancel();
                    outcome = Err(error);
                }
                Err(_) => {}
            }
        }
        drop(permit);
        outcome
    }

    /// One frame: opened when the budget has room for its unwanted bytes, then written.
    async fn frame(
        self: Arc<Self>,
        opener: Arc<ObjectOpener>,
        body: Bytes,
        work: FrameWork,
        stop: CancellationToken,
    ) -> Result<u64, Error> {
        let surplus = match surplus_bytes(&body, &work) {
            0 => None,
            bytes => Some(self.surplus.acquire(bytes).await),
        };
        if stop.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let mover = Arc::clone(&self);
        let written = self.crew.run(move || mover.restore_frame(&opener, &body, &work, &stop)).await?;
        drop(surplus);
        written
    }

    /// Opens a frame and writes its wanted chunks. Gives the number of written bytes. Runs on the crew.
    fn restore_frame(
        &self,
        opener: &ObjectOpener,
        body: &Bytes,
        work: &FrameWork,
        stop: &CancellationToken,
    ) -> Result<u64, Error> {
        if stop.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        with_buffers(|buffers| {
            let raw = open(opener, body, work, &self.manifest, buffers)?;
            self.files.write(&work.pieces, raw)?;
            Ok(work.pieces.iter().map(Piece::written_bytes).sum())
        })
    }
}

/// Calls `job` with the buffers of this thread.
pub(crate) fn with_buffers<T>(job: impl FnOnce(&mut FrameBuffers) -> T) -> T {
    BUFFERS.with_borrow_mut(|buffers| {
        let done = job(buffers);
        buffers.shrink_to(MAX_KEPT_BYTES);
        done
    })
}

/// The number of unwanted bytes by the header of the frame. A header that cannot be read is reported when the frame is
/// opened.
fn surplus_bytes(body: &[u8], work: &FrameWork) -> u64 {
    let stated = FrameHeader::parse(body, 0).map_or(0, |header| u64::from(header.raw_len));
    stated.saturating_sub(work.raw_bytes())
}

/// Opens a frame and checks every wanted chunk in it. Gives the raw bytes of the frame. Runs on the crew.
pub(crate) fn open<'b>(
    opener: &ObjectOpener,
    body: &Bytes,
    work: &FrameWork,
    manifest: &Manifest,
    buffers: &'b mut FrameBuffers,
) -> Result<&'b [u8], Error> {
    let restoring = |file: u32| {
        let path = manifest.file(file as usize).map_or(b"".as_slice(), |entry| entry.path);
        format!("restoring {}", String::from_utf8_lossy(path))
    };
    let first = work.pieces.first().map_or(0, |piece| piece.file);
    let (header, raw) = opener.open_frame_into(body, buffers).doing(|| restoring(first))?;
    if header.kind != FrameKind::Data {
        let fault = holdfast_repo::Fault::UnexpectedKind {
            number: header.number,
            expected: FrameKind::Data,
            found: header.kind,
        };
        return Err(fault.of(opener.name())).doing(|| restoring(first));
    }
    for wanted in &work.pieces {
        piece(raw, wanted.offset, wanted.length, wanted.hash)
            .map_err(|fault| fault.of(opener.name()))
            .doing(|| restoring(wanted.file))?;
    }
    Ok(raw)
}

#[cfg(test)]
mod tests;
