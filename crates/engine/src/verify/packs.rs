//! Reads packs to their last byte.
//!
//! A pack is read as a stream of ranged requests, only once in a run, even if many manifests name it. Each frame is
//! opened on the crew: checksum, authentication, decompression; each chunk that the manifest names is hashed, by the
//! restore's own check. The CRC-32C of all bytes is compared with the list of packs. For a later manifest only chunks
//! that no earlier one named are checked.
//!
//! Memory: the stored bytes of each pack being read hold a permit of one budget, the opened frames a permit of another.
//! A holder of the second never waits for anything, so nothing waits for ever.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use holdfast_repo::Fault;
use holdfast_repo::frame::{FrameHeader, FrameKind, HEADER_BYTES, ObjectOpener, ObjectType};
use holdfast_repo::manifest::{Manifest, PackEntry};
use tokio_util::sync::CancellationToken;

use crate::error::{Cause, Error, ResultExt};
use crate::pipeline::budget::ByteBudget;
use crate::pipeline::crew::Crew;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::{FrameWork, Packs, open_checked, with_buffers};

/// Bytes of one request: large enough to hide the latency, small enough for several packs within the smallest budget.
const PIECE_BYTES: u64 = 8 << 20;

/// Reads packs and WAL.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) repository: Repository,
    pub(super) crew: Crew,
    /// The budget for fetched bytes.
    pub(super) stored: ByteBudget,
    /// The budget for opened frames.
    pub(super) opened: ByteBudget,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) read_bytes: Arc<AtomicU64>,
    pub(super) cancel: CancellationToken,
}

/// A pack, and the frames that a manifest wants from it.
#[derive(Debug, Clone)]
pub(super) struct PackWork {
    pub(super) number: u32,
    pub(super) entry: PackEntry,
    pub(super) frames: Vec<FrameWork>,
}

/// A chunk in a pack, in 16 bytes: a digest of its place and hash.
type Chunk = [u8; 16];

/// The checked chunks of a sound pack.
#[derive(Debug, Default)]
pub(super) struct KnownChunks(HashSet<Chunk>);

impl KnownChunks {
    /// The chunks of all these frames.
    pub(super) fn of(frames: &[FrameWork]) -> Self {
        Self(frames.iter().flat_map(chunks).collect())
    }

    /// The frames with chunks that were not checked.
    pub(super) fn unknown(&self, frames: Vec<FrameWork>) -> Vec<FrameWork> {
        frames.into_iter().filter(|frame| chunks(frame).any(|chunk| !self.0.contains(&chunk))).collect()
    }

    /// Adds the chunks of further frames.
    pub(super) fn add(&mut self, frames: &[FrameWork]) {
        self.0.extend(frames.iter().flat_map(chunks));
    }
}

fn chunks(frame: &FrameWork) -> impl Iterator<Item = Chunk> {
    frame.pieces.iter().map(|piece| {
        let mut hasher = blake3::Hasher::new();
        for place in [frame.location.offset, frame.location.length, piece.offset, piece.length] {
            hasher.update(&place.to_le_bytes());
        }
        hasher.update(piece.hash.as_bytes());
        let mut chunk = Chunk::default();
        hasher.finalize_xof().fill(&mut chunk);
        chunk
    })
}

impl Reader {
    /// Counts bytes that were read.
    pub(super) fn count(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Cause::Cancelled.into()) } else { Ok(()) }
    }

    /// Reads a whole pack.
    ///
    /// # Errors
    /// The fault of the pack, or the store's error if it could not be asked.
    pub(super) async fn read_pack(
        &self,
        manifest: &Arc<Manifest>,
        packs: &Packs,
        work: &PackWork,
    ) -> Result<(), Error> {
        let entry = &work.entry;
        let opener = packs.opener(work.number).await?;
        let mut wanted: HashMap<u32, FrameWork> =
            work.frames.iter().map(|frame| (frame.location.offset, frame.clone())).collect();
        let (mut fetched, mut at, mut crc32c) = (0, 0, 0);
        let mut buffer = BytesMut::new();
        while fetched < entry.size_bytes {
            self.check_cancelled()?;
            let end = entry.size_bytes.min(fetched + PIECE_BYTES);
            let _permit = self.stored.acquire(end - fetched + buffer.len() as u64).await;
            let piece = packs.bytes(work.number, fetched..end).await?;
            self.count(end - fetched);
            crc32c = crc32c::crc32c_append(crc32c, &piece);
            buffer.extend_from_slice(&piece);
            fetched = end;
            let mut opening = Vec::new();
            while let Some(header) = next_header(&buffer, at).map_err(|fault| fault.of(&entry.name))? {
                let length = header.frame_bytes() as usize;
                if buffer.len() < length {
                    break;
                }
                let body = buffer.split_to(length).freeze();
                // No frame of a pack begins at an offset above 32 bits.
                let work = u32::try_from(at).ok().and_then(|at| wanted.remove(&at));
                at += length as u64;
                let open = self.open(Arc::clone(&opener), header, body, work, manifest);
                if header.kind == FrameKind::Head {
                    // Its error describes best what is in the place of the pack.
                    open.await?;
                } else {
                    opening.push(open);
                }
            }
            try_join_all(opening).await?;
        }
        if !buffer.is_empty() {
            let needed = FrameHeader::parse(&buffer, at).map_or(HEADER_BYTES as u64, |header| header.frame_bytes());
            return Err(Fault::Truncated { needed, available: buffer.len() as u64 }.of(&entry.name).into());
        }
        if let Some(expected) = entry.identity.map(|identity| identity.crc32c).filter(|expected| *expected != crc32c) {
            let reason = format!("its CRC-32C is {crc32c:08x}, the manifest says {expected:08x}");
            return Err(
                Cause::NotReadable { store: self.repository.describe(), name: entry.name.clone(), reason }.into()
            );
        }
        // If no frame begins where the manifest wants one, the restore's check reports what is wrong.
        let mut rest: Vec<FrameWork> = wanted.into_values().collect();
        rest.sort_unstable_by_key(|frame| frame.location.offset);
        self.read_frames(manifest, packs, &PackWork { frames: rest, ..work.clone() }).await
    }

    /// Reads single frames of a pack, as a restore does.
    pub(super) async fn read_frames(
        &self,
        manifest: &Arc<Manifest>,
        packs: &Packs,
        work: &PackWork,
    ) -> Result<(), Error> {
        if work.frames.is_empty() {
            return Ok(());
        }
        let opener = packs.opener(work.number).await?;
        for frame in &work.frames {
            self.check_cancelled()?;
            let range = frame.location.range();
            let bytes = range.end - range.start;
            let _permit = self.stored.acquire(bytes).await;
            let body = packs.bytes(work.number, range).await?;
            self.count(bytes);
            let header = FrameHeader::parse(&body, 0).map_err(|fault| fault.of(&work.entry.name))?;
            self.open(Arc::clone(&opener), header, body, Some(frame.clone()), manifest).await?;
        }
        Ok(())
    }

    async fn open(
        &self,
        opener: Arc<ObjectOpener>,
        header: FrameHeader,
        body: Bytes,
        work: Option<FrameWork>,
        manifest: &Arc<Manifest>,
    ) -> Result<(), Error> {
        let (repository, manifest) = (self.repository.clone(), Arc::clone(manifest));
        let _permit = self.opened.acquire(u64::from(header.raw_len)).await;
        let job = self.crew.run(move || match work {
            Some(work) => with_buffers(|buffers| open_checked(&opener, &body, &work, &manifest, buffers).map(drop)),
            None if header.kind == FrameKind::Head => {
                // A restore takes the salt from the manifest and does not read it here.
                let head = repository.opener(ObjectType::Pack, opener.name(), &body)?;
                if head.head().encryption == opener.head().encryption {
                    return Ok(());
                }
                let problem = "its salt is not the one in the manifest".to_owned();
                Err(Fault::Malformed { what: "head frame", problem }.of(opener.name()).into())
            }
            None => {
                with_buffers(|buffers| opener.open_frame_into(&body, buffers).map(drop))?;
                Ok::<_, Error>(())
            }
        });
        job.await?.doing(|| "reading a pack".to_owned())
    }
}

fn next_header(buffer: &[u8], at: u64) -> Result<Option<FrameHeader>, Fault> {
    if buffer.len() < HEADER_BYTES { Ok(None) } else { FrameHeader::parse(buffer, at).map(Some) }
}
