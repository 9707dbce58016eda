//! Making WAL objects.

use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::bounds::Bounds;
use super::facts::WalObjectFacts;
use crate::codec::{Codec, Compression, Compressor};
use crate::format_error::{Fault, FormatError};
use crate::frame::{CompressedFrame, FrameKind, ObjectSealer, ObjectType, seal_tail, tail_frame_bytes};
use crate::identity::{RepositoryId, RepositoryKey};

/// Raw bytes of every data frame but the last. A 16 MiB segment has four frames, which keep four cores busy, and zstd
/// gains almost nothing from more context.
pub const PIECE_BYTES: usize = 4 << 20;

/// How a file is cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalObjectPlan {
    raw_len: usize,
}

impl WalObjectPlan {
    /// The plan for a file with this many bytes.
    pub fn new(raw_len: usize) -> Self {
        Self { raw_len }
    }

    /// The pieces in order. Compress each with `compressor.compress(FrameKind::Data, &raw[piece])`, on any thread, and
    /// give the results to [`assemble`] in this order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let raw_len = self.raw_len;
        (0..raw_len.div_ceil(PIECE_BYTES)).map(move |piece| {
            let start = piece * PIECE_BYTES;
            start..raw_len.min(start + PIECE_BYTES)
        })
    }
}

/// Assembles an object from the compressed pieces of a file and its facts. `name` is the object's full name, whose last
/// part must consist of the file's name and the codec's extension.
///
/// # Errors
/// [`Fault::RawLength`] if the pieces have another length than the facts say, [`Fault::TooLong`] for a file that no
/// reader accepts, [`Fault::WrongFileName`] if `name` is not that of the file. Those of [`WalObjectFacts::encode`],
/// [`Compressor::compress`], [`ObjectSealer::new`] and [`ObjectSealer::seal`].
pub fn assemble(
    name: &str,
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
    pieces: Vec<CompressedFrame>,
    facts: &WalObjectFacts,
) -> Result<Bytes, FormatError> {
    let named = |fault: Fault| fault.of(name);
    let total: u64 = pieces.iter().map(|piece| u64::from(piece.raw_len())).sum();
    if total != facts.raw_len {
        return Err(named(Fault::RawLength { expected: facts.raw_len, found: total }));
    }
    Bounds::LARGEST.check_file(total).map_err(named)?;
    let facts_raw = facts.encode().map_err(named)?;
    // An object that its own reader would refuse must not be stored.
    WalObjectFacts::decode(&facts_raw, name).map_err(named)?;
    let facts_frame = Compressor::new(Compression::of(Codec::Zstd))
        .and_then(|mut compressor| compressor.compress(FrameKind::Facts, &facts_raw))
        .map_err(named)?;

    let (sealer, mut object) = ObjectSealer::new(ObjectType::Wal, name, repository, key)?;
    let encrypted = sealer.is_encrypted();
    let frames = pieces.iter().chain([&facts_frame]).map(|frame| frame.sealed_bytes(encrypted));
    object.reserve_exact(frames.sum::<usize>() + tail_frame_bytes(encrypted));
    let mut number = 1;
    for piece in pieces {
        object.extend_from_slice(&sealer.seal(number, false, piece)?);
        number += 1;
    }
    let facts_offset = object.len() as u64;
    object.extend_from_slice(&sealer.seal(number, false, facts_frame)?);
    object.extend_from_slice(&seal_tail(&sealer, number + 1, facts_offset)?);
    Ok(object.into())
}

/// Makes a whole object in this thread: hash, compression, assembly.
///
/// # Errors
/// Those of [`Compressor::new`], [`Compressor::compress`] and [`assemble`].
pub fn encode(
    name: &str,
    file_name: &str,
    raw: &[u8],
    compression: Compression,
    repository: RepositoryId,
    key: Option<&RepositoryKey>,
    facts: Value,
) -> Result<Bytes, FormatError> {
    let compress = || {
        let mut compressor = Compressor::new(compression)?;
        WalObjectPlan::new(raw.len()).pieces().map(|piece| compressor.compress(FrameKind::Data, &raw[piece])).collect()
    };
    let pieces: Result<Vec<_>, Fault> = compress();
    let pieces = pieces.map_err(|fault| fault.of(name))?;
    assemble(name, repository, key, pieces, &WalObjectFacts::of(file_name, raw, facts))
}
