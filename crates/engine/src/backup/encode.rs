//! Turns the bytes of a unit into a compressed frame: page checks, CRC-32C, BLAKE3, compression.
//!
//! An incremental backup compares what it reads with the parent. It does not store what the parent has, and it stores
//! only the changed pages of an extent with few changes.
//!
//! This runs on the crew, one unit per job, so that the extents of one large file keep all threads busy. Each thread
//! keeps the buffers that it needs (a compressor's window).

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_pgtypes::Lsn;
use holdfast_pgtypes::checksum::{PAGE_SIZE, page_checksum};
use holdfast_pgtypes::page::{PageCheck as PageVerdict, PageHeader, verify_page};
use holdfast_repo::chunk::is_all_zero;
use holdfast_repo::{ChunkHash, CompressedFrame, Compression, Compressor, FormatError, FrameKind};

use super::bad_pages::{BadPage, Patience};
use super::incremental::Base;
use super::incremental::overlay::{Overlay, overlay};
use super::listing::{PageCheck, SourceFile};
use super::read::{FileState, Piece, ReadUnit, path_of, read_page_again};
use super::resume::Everywhere;
use crate::error::{Cause, Error};

/// A unit ready to be put into packs.
#[derive(Debug)]
pub(super) struct EncodedUnit {
    /// What was found of each file, in order.
    pub chunks: Vec<EncodedChunk>,
    /// The frame with the chunks that are not holes; `None` when there are none.
    pub frame: Option<CompressedFrame>,
    /// Bytes read.
    pub raw_len: usize,
    /// Whether the chunks belong to files that are read only in parts.
    pub parts: bool,
    /// Pages with a wrong checksum.
    pub bad_pages: Vec<BadPage>,
    /// The read buffer, for the next unit.
    pub buffer: Vec<u8>,
}

/// The role of a chunk in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An extent, or the part of it that was found.
    Extent,
    /// A part of an extent: the rest is the parent's.
    Patch,
    /// An extent that the parent has. If it is not `exact`, the bytes differ in hint bits.
    Kept { exact: bool },
}

/// One chunk of a unit.
#[derive(Debug, Clone)]
pub(super) struct EncodedChunk {
    /// The piece of the file that was read.
    pub piece: Piece,
    pub form: Form,
    /// CRC-32C of the raw bytes.
    pub crc32c: u32,
    /// BLAKE3 of the raw bytes.
    pub hash: ChunkHash,
    /// Where the chunk begins in the frame; `None` for a hole, an empty chunk, or one that is stored elsewhere.
    pub offset_in_frame: Option<u32>,
    /// Whether a killed run has stored it.
    pub stored_earlier: bool,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
}

/// How units are encoded.
#[derive(Debug, Clone)]
pub(super) struct Encoding {
    pub compression: Compression,
    pub extent_size_bytes: u32,
    /// The data of the parent, in an incremental backup.
    pub base: Option<Arc<Base>>,
    /// Data that killed runs have stored.
    pub earlier: Option<Arc<Everywhere>>,
}

impl Encoding {
    /// Whether a killed run has stored these bytes.
    fn is_stored_earlier(&self, hash: ChunkHash, length: usize) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.have(hash, length))
    }
}

/// Checks, hashes and compresses a unit.
pub(super) fn encode_unit(
    pgdata: &Path,
    files: &[SourceFile],
    read: ReadUnit,
    encoding: &Encoding,
    patience: &Patience,
) -> Result<EncodedUnit, Error> {
    let ReadUnit { mut raw, pieces, parts } = read;
    let mut bad_pages = Vec::new();
    let mut chunks = Vec::with_capacity(pieces.len());
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.length;
        if let Some(file) = files.get(piece.file)
            && let PageCheck::FromBlock(first) = file.check
        {
            check_pages(pgdata, file, piece, first, &mut raw[start..end], patience, &mut bad_pages)?;
        }
        let bytes = &raw[start..end];
        let hash = ChunkHash::of(bytes);
        let form = match &encoding.base {
            Some(_) if parts => Compared::Is(form_of_part(files, piece, encoding.extent_size_bytes)),
            Some(base) if piece.found == FileState::Read => compare(base, files, piece, bytes, hash, encoding),
            _ => Compared::Is(Form::Extent),
        };
        match form {
            Compared::Is(form) => {
                let stored = !bytes.is_empty() && !matches!(form, Form::Kept { .. }) && !is_all_zero(bytes);
                let stored_earlier = stored && encoding.is_stored_earlier(hash, bytes.len());
                let offset_in_frame = (stored && !stored_earlier).then_some(start as u32);
                let crc32c = crc32c::crc32c(bytes);
                chunks.push(EncodedChunk { piece, form, crc32c, hash, offset_in_frame, stored_earlier });
            }
            Compared::Patches(patches) => chunks.extend(patches.into_iter().map(|range| {
                let (from, length) = (start + range.start as usize, (range.end - range.start) as usize);
                let bytes = &raw[from..from + length];
                let (hash, stored) = (ChunkHash::of(bytes), !is_all_zero(bytes));
                let stored_earlier = stored && encoding.is_stored_earlier(hash, length);
                EncodedChunk {
                    piece: Piece { offset: piece.offset + u64::from(range.start), length, ..piece },
                    form: Form::Patch,
                    crc32c: 0,
                    hash,
                    offset_in_frame: (stored && !stored_earlier).then_some(from as u32),
                    stored_earlier,
                }
            })),
        }
        start = end;
    }
    // Chunks that are not stored leave gaps in the buffer.
    let stored: usize =
        chunks.iter().filter(|chunk| chunk.offset_in_frame.is_some()).map(|chunk| chunk.piece.length).sum();
    let holes = stored < raw.len();
    let raw_len = raw.len();
    if holes {
        close_gaps(&mut raw, &mut chunks);
    }
    let frame = if raw.is_empty() { None } else { Some(compress(&raw, encoding.compression)?) };
    Ok(EncodedUnit { chunks, frame, raw_len, parts, bad_pages, buffer: raw })
}

/// How a chunk compares with the parent's extent in its place.
enum Compared {
    Is(Form),
    /// These ranges of it changed.
    Patches(Vec<Range<u32>>),
}

/// A part that is a whole extent replaces the parent's.
fn form_of_part(files: &[SourceFile], piece: Piece, extent_size_bytes: u32) -> Form {
    let extent_size = u64::from(extent_size_bytes);
    let size = files.get(piece.file).map_or(0, |file| file.size_bytes);
    let is_whole = piece.offset.is_multiple_of(extent_size)
        && piece.length as u64 == extent_size.min(size.saturating_sub(piece.offset));
    if is_whole { Form::Extent } else { Form::Patch }
}

fn compare(
    base: &Base,
    files: &[SourceFile],
    piece: Piece,
    bytes: &[u8],
    hash: ChunkHash,
    encoding: &Encoding,
) -> Compared {
    let stored = Compared::Is(Form::Extent);
    let Some(file) = files.get(piece.file).filter(|_| !bytes.is_empty()) else { return stored };
    let Some(parent) = base.find(&file.path).and_then(|position| base.file(position)) else { return stored };
    let number = (piece.offset / u64::from(encoding.extent_size_bytes)) as u32;
    let Some(extent) = parent.extents().get(number as usize) else { return stored };
    if extent.length as usize != piece.length {
        return stored;
    }
    if extent.hash == hash && parent.patch_sources(number).is_empty() {
        return Compared::Is(Form::Kept { exact: true });
    }
    let Some(by_lsn) = base.by_lsn().filter(|_| file.check.is_relation()) else { return stored };
    let Some(changed) = by_lsn.changed(file, parent.size_bytes, piece.offset, bytes) else { return stored };
    match overlay(&parent, number, extent.length, &changed, base.most_patches()) {
        Overlay::Keep => Compared::Is(Form::Kept { exact: false }),
        Overlay::Patch => Compared::Patches(changed),
        Overlay::Whole => stored,
    }
}

/// Moves the stored chunks together, over the gaps between them.
fn close_gaps(raw: &mut Vec<u8>, chunks: &mut [EncodedChunk]) {
    let mut filled = 0;
    for chunk in chunks {
        if let Some(offset) = &mut chunk.offset_in_frame {
            let from = *offset as usize;
            raw.copy_within(from..from + chunk.piece.length, filled);
            *offset = filled as u32;
            filled += chunk.piece.length;
        }
    }
    raw.truncate(filled);
}

fn compress(raw: &[u8], compression: Compression) -> Result<CompressedFrame, Error> {
    let compressed = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) if compressor.compression() == compression => compressor,
            _ => kept.insert(Compressor::new(compression)?),
        };
        compressor.compress(FrameKind::Data, raw)
    });
    compressed.map_err(|fault| Cause::Format(FormatError::new("a new frame", fault)).into())
}

fn check_pages(
    pgdata: &Path,
    file: &SourceFile,
    piece: Piece,
    first_block: u32,
    bytes: &mut [u8],
    patience: &Patience,
    bad_pages: &mut Vec<BadPage>,
) -> Result<(), Error> {
    let first = first_block + (piece.offset / PAGE_SIZE as u64) as u32;
    // While PostgreSQL extends the file, its last page can be incomplete. That is not a page yet.
    let (pages, _) = bytes.as_chunks_mut::<PAGE_SIZE>();
    for (block, page) in (first..).zip(pages) {
        if verify_page(page, block).is_good() {
            continue;
        }
        let offset = u64::from(block - first_block) * PAGE_SIZE as u64;
        let waits = patience.waits(piece.file);
        if let Some(bad) = read_until_it_holds(&path_of(pgdata, file), offset, block, page, waits)? {
            patience.note_bad(piece.file);
            bad_pages.push(BadPage { file: piece.file, ..bad });
        }
    }
    Ok(())
}

/// Reads a page again into `page` until its checksum is correct; `None` if it is correct, or if the page is gone.
fn read_until_it_holds(
    path: &Path,
    offset: u64,
    block: u32,
    page: &mut [u8; PAGE_SIZE],
    waits: &[Duration],
) -> Result<Option<BadPage>, Error> {
    let mut verdict = PageVerdict::New;
    for wait in waits {
        // Waiting on a crew thread is acceptable: this is rare, and the page is more important than the thread.
        std::thread::sleep(*wait);
        if read_page_again(path, offset, page)?.is_none() {
            return Ok(None);
        }
        verdict = verify_page(page, block);
        if verdict.is_good() {
            return Ok(None);
        }
    }
    let header = PageHeader::parse(page);
    let (expected, found) = match verdict {
        PageVerdict::BadChecksum { expected, found } => (expected, found),
        _ => (page_checksum(page, block), header.as_ref().map_or(0, |header| header.checksum)),
    };
    let lsn = header.map_or(Lsn::new(0), |header| header.lsn);
    Ok(Some(BadPage { file: 0, block, expected, found, lsn }))
}
