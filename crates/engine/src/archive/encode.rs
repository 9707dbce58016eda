//! Turns a piece of a WAL file into sealed frames, on the crew: compressed once for each codec, sealed once for each
//! object.

use std::cell::RefCell;

use holdfast_pgtypes::wal::reader::WalSegment;
use holdfast_pgtypes::wal::scan::SegmentFacts;
use holdfast_repo::wal_object::WalObjectFacts;
use holdfast_repo::{Codec, CompressedFrame, Compression, Compressor, FormatError, FrameKind, ObjectSealer};
use serde_json::{Value, json};

use crate::error::{Cause, Error};

/// A larger segment is archived without a look at its records, which would need all of it in memory. Ordinary segments
/// have 16 MiB, and the largest recommended ones 64 or 256 MiB.
pub(super) const MAX_SCANNED_BYTES: u64 = 256 << 20;

/// The form of one object: how its frames are compressed and sealed.
#[derive(Debug)]
pub(super) struct ObjectForm {
    pub(super) sealer: ObjectSealer,
    pub(super) compression: Compression,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
}

fn compress(kind: FrameKind, raw: &[u8], compression: Compression) -> Result<CompressedFrame, Error> {
    let compressed = COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) if compressor.compression() == compression => compressor,
            _ => kept.insert(Compressor::new(compression)?),
        };
        compressor.compress(kind, raw)
    });
    compressed.map_err(|fault| Cause::Format(FormatError::new("a new frame", fault)).into())
}

/// The sealed frame of one piece of the file for each object, in the order of the objects.
pub(super) fn seal_piece(raw: &[u8], number: u32, forms: &[ObjectForm]) -> Result<Vec<Vec<u8>>, Error> {
    let mut frames: Vec<(Compression, CompressedFrame)> = Vec::with_capacity(1);
    let mut sealed = Vec::with_capacity(forms.len());
    for (index, form) in forms.iter().enumerate() {
        let wanted = form.compression;
        let known = frames.iter().position(|(compression, _)| *compression == wanted);
        let needed_again = forms[index + 1..].iter().any(|later| later.compression == wanted);
        let frame = match known {
            Some(at) if needed_again => frames[at].1.clone(),
            Some(at) => frames.swap_remove(at).1,
            None => {
                let frame = compress(FrameKind::Data, raw, wanted)?;
                if needed_again {
                    frames.push((wanted, frame.clone()));
                }
                frame
            }
        };
        sealed.push(form.sealer.seal(number, false, frame)?);
    }
    Ok(sealed)
}

/// The end of one object: facts and tail. `number` is that of the facts frame, `offset` the place where it will be.
pub(super) fn seal_end(form: &ObjectForm, facts: &WalObjectFacts, number: u32, offset: u64) -> Result<Vec<u8>, Error> {
    let json = facts.encode().map_err(|fault| Cause::Format(FormatError::new(form.sealer.name(), fault)))?;
    // Facts are always zstd; the thread's own compressor is used where it is one.
    let own = Some(form.compression).filter(|own| own.codec() == Codec::Zstd);
    let facts = compress(FrameKind::Facts, &json, own.unwrap_or(Compression::of(Codec::Zstd)))?;
    let tail = CompressedFrame::stored(FrameKind::Tail, &offset.to_le_bytes())
        .map_err(|fault| Cause::Format(FormatError::new(form.sealer.name(), fault)))?;
    let mut end = form.sealer.seal(number, false, facts)?;
    end.extend_from_slice(&form.sealer.seal(number + 1, true, tail)?);
    Ok(end)
}

/// The facts from a segment's records, in their stored form; a note if the records were not read.
pub(super) fn scan(segment: Option<WalSegment<'_>>) -> Value {
    let Some(segment) = segment else {
        return json!({ "note": "the records were not looked at: the segment is too large" });
    };
    match serde_json::to_value(SegmentFacts::scan(segment)) {
        Ok(facts) => facts,
        Err(error) => json!({ "note": format!("the records could not be described: {error}") }),
    }
}
