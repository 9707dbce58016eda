//! Moves the data: ranged requests, opening and checking on the crew, writing on blocking threads.
//!
//! Stages: the planner's requests ([`super::coalesce`]) are started while the byte budget has room. Each holds a permit
//! for its stored and raw bytes until all of it is written. Its frames are opened and their chunks checked against the
//! manifest's hashes in parallel on the crew; then a blocking thread writes each frame, and the number of these threads
//! is limited. Only checked bytes are written.
//!
//! The manifest says how far into its frame a wanted extent reaches, and the permit counts that. Only the frame says
//! how many bytes follow, up to 64 MiB. A delta restore wants a part of many frames, so more bytes are not damage. But
//! in a repository that others can write to, a thousand small frames can each give 64 MiB of zeros. So the bytes that
//! nobody wants have a budget of their own ([`SURPLUS_BYTES`]), and the frames wait for it.
//!
//! The first failure stops new requests. Running requests end before it is reported, so that no thread writes into the
//! directory after its lock is released. Written data stays: a later run compares it by hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_repo::Frame;
use holdfast_repo::codec::MAX_FRAME_RAW;
use holdfast_repo::frame::{FrameHeader, FrameKind, ObjectOpener};
use holdfast_repo::manifest::Manifest;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::coalesce::{Fetch, Fetches, FrameWork, Piece, WantedExtent};
use super::files::Files;
use super::packs::{Packs, piece};
use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::{ByteBudget, Permit};
use crate::pipeline::crew::Crew;
use crate::progress::Progress;

/// Requests in flight. The budget bounds their bytes; this bounds their number if they are small, as in a delta restore
/// of scattered changes.
const MAX_REQUESTS: usize = 64;

/// Threads that write at the same time: enough to keep a disk with many queues busy.
const MAX_WRITERS: usize = 8;

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
    pub writers: Semaphore,
    pub fetched_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    /// Cancelled with the command, or by the first failure.
    pub cancel: CancellationToken,
}

impl Mover {
    /// The permits of the writing threads.
    pub(super) fn writers() -> Semaphore {
        Semaphore::new(MAX_WRITERS)
    }

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
    for fetch in Fetches::new(&manifest, wanted.into_iter()) {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let permit = mover.budget.acquire(fetch.memory_bytes()).await;
        while let Some(done) = tasks.try_join_next() {
            settle(&mut outcome, done, mover);
        }
        if outcome.is_err() || mover.cancel.is_cancelled() {
            break;
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
        let manifest = Arc::clone(&self.manifest);
        let (frame, work) = self.crew.run(move || open(&opener, &body, work, &manifest)).await??;
        if stop.is_cancelled() {
            return Err(Cause::Cancelled.into());
        }
        let written = Arc::clone(&self).write(frame, work).await;
        drop(surplus);
        written
    }

    async fn write(self: Arc<Self>, frame: Frame, work: FrameWork) -> Result<u64, Error> {
        let writer = Arc::clone(&self);
        let _turn = self.writers.acquire().await.map_err(|_| Cause::Cancelled)?;
        let written = tokio::task::spawn_blocking(move || {
            writer.files.write(&work.pieces, &frame.raw)?;
            Ok(work.pieces.iter().map(Piece::written_bytes).sum())
        });
        written.await.unwrap_or_else(|e| Err(Cause::Internal(format!("a writing thread failed: {e}")).into()))
    }
}

/// The number of unwanted bytes by the header of the frame. A header that cannot be read is reported when the frame is
/// opened.
fn surplus_bytes(body: &[u8], work: &FrameWork) -> u64 {
    let stated = FrameHeader::parse(body, 0).map_or(0, |header| u64::from(header.raw_len));
    stated.saturating_sub(work.raw_bytes())
}

/// Opens a frame and checks every wanted chunk in it. Runs on the crew.
pub(crate) fn open(
    opener: &ObjectOpener,
    body: &Bytes,
    work: FrameWork,
    manifest: &Manifest,
) -> Result<(Frame, FrameWork), Error> {
    let restoring = |file: u32| {
        let path = manifest.file(file as usize).map_or(b"".as_slice(), |entry| entry.path);
        format!("restoring {}", String::from_utf8_lossy(path))
    };
    let first = work.pieces.first().map_or(0, |piece| piece.file);
    let frame = opener.open_frame(body).doing(|| restoring(first))?;
    if frame.header.kind != FrameKind::Data {
        let fault = holdfast_repo::Fault::UnexpectedKind {
            number: frame.header.number,
            expected: FrameKind::Data,
            found: frame.header.kind,
        };
        return Err(fault.of(opener.name())).doing(|| restoring(first));
    }
    for wanted in &work.pieces {
        piece(&frame.raw, wanted.offset, wanted.length, wanted.hash)
            .map_err(|fault| fault.of(opener.name()))
            .doing(|| restoring(wanted.file))?;
    }
    Ok((frame, work))
}

#[cfg(test)]
mod tests;
