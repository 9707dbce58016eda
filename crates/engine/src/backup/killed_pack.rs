//! Reads a pack of a killed run to its end, on a store that does not compare checksums.
//!
//! A run confirms each pack after it was sent ([`super::sink`]), but a killed run may have died before that, and
//! nothing says which packs it had confirmed. So before a pack is reused, every chunk in it is hashed and compared with
//! the index. Where the store compares checksums, it has refused what was changed on its way, and nothing is read.
//!
//! Memory: one piece of [`PIECE_BYTES`] and the raw bytes of one frame, for each pack that is being read.

use std::sync::Arc;

use holdfast_repo::frame::HEAD_FRAME_BYTES;
use holdfast_repo::pack::{PackChunk, PackFrame, PackIndex};
use holdfast_repo::{ChunkHash, FrameBuffers, ObjectOpener, ObjectType};

use crate::error::{Cause, Error, ResultExt};
use crate::repository::{Repository, object_name};

/// The bytes of one request, unless a frame is larger.
const PIECE_BYTES: u64 = 8 << 20;

/// Fails if the pack does not have what its index says.
///
/// # Errors
/// [`Cause::NotReadable`] for a chunk with other content; [`Cause::Format`] for a frame that cannot be opened; those of
/// the store.
pub(super) async fn check(repository: &Repository, name: &str, index: &PackIndex) -> Result<(), Error> {
    check_inner(repository, name, index).await.doing(|| format!("reading {name} of a killed backup"))
}

async fn check_inner(repository: &Repository, name: &str, index: &PackIndex) -> Result<(), Error> {
    let object = object_name(name)?;
    let head = repository.store().get_range(&object, 0..HEAD_FRAME_BYTES as u64).await?;
    let opener = Arc::new(repository.opener(ObjectType::Pack, name, &head)?);
    let mut frames = index.frames();
    while let Some(first) = frames.first() {
        let start = first.location.range().start;
        let more = frames.iter().skip(1).take_while(|frame| frame.location.range().end - start <= PIECE_BYTES);
        let (piece, rest) = frames.split_at(1 + more.count());
        frames = rest;
        let end = piece.last().map_or(start, |last| last.location.range().end);
        let bytes = repository.store().get_range(&object, start..end).await?;
        let (opener, piece) = (Arc::clone(&opener), piece.to_vec());
        let compared = tokio::task::spawn_blocking(move || compare(&opener, &piece, start, &bytes));
        let wrong = compared.await.map_err(|error| Cause::Internal(format!("reading a pack: {error}")))??;
        if let Some(offset) = wrong {
            let reason = format!("a chunk of its frame at {offset} is not what its index says");
            let (store, name) = (repository.describe(), name.to_owned());
            return Err(Cause::NotReadable { store, name, reason }.into());
        }
    }
    Ok(())
}

/// Opens the frames in these bytes, which begin at `start` of the pack. Gives the offset of the first frame with a
/// chunk that has another hash.
fn compare(opener: &ObjectOpener, frames: &[PackFrame], start: u64, bytes: &[u8]) -> Result<Option<u64>, Error> {
    let mut buffers = FrameBuffers::default();
    for frame in frames {
        let range = frame.location.range();
        let (from, to) = ((range.start - start) as usize, (range.end - start) as usize);
        let stored = bytes.get(from..to).unwrap_or_default();
        let (_, raw) = opener.open_frame_into(stored, &mut buffers)?;
        let is_equal = |chunk: &PackChunk| {
            let (offset, length) = (chunk.offset as usize, chunk.length as usize);
            raw.get(offset..offset + length).is_some_and(|chunk_bytes| ChunkHash::of(chunk_bytes) == chunk.hash)
        };
        if !frame.chunks.iter().all(is_equal) {
            return Ok(Some(range.start));
        }
    }
    Ok(None)
}
