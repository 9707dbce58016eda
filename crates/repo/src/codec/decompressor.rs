//! Decompression into a buffer of exactly the announced length.

use std::cell::RefCell;
use std::io::Read;

use super::{Codec, MAX_FRAME_RAW};
use crate::format_error::Fault;

thread_local! {
    /// zstd's decompression context takes about 100 KiB. One for each thread serves every frame.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses a frame's body into a new buffer of exactly `raw_len` bytes.
///
/// # Errors
/// [`Fault::TooLong`] if `raw_len` is more than [`MAX_FRAME_RAW`]; otherwise as [`decompress_into`].
pub fn decompress(codec: Codec, body: &[u8], raw_len: u32) -> Result<Vec<u8>, Fault> {
    check_raw_len(raw_len)?;
    let mut raw = vec![0; raw_len as usize];
    decompress_into(codec, body, &mut raw)?;
    Ok(raw)
}

/// Refuses more bytes than a frame may contain.
pub(crate) fn check_raw_len(raw_len: u32) -> Result<(), Fault> {
    if raw_len > MAX_FRAME_RAW {
        let limit = u64::from(MAX_FRAME_RAW);
        return Err(Fault::TooLong { what: "frame", bytes: u64::from(raw_len), limit });
    }
    Ok(())
}

/// Decompresses a frame's body into `raw`, whose length must be exactly the frame's `raw_len`. The body must fill `raw`
/// and cannot write beyond it. After a failure the content of `raw` is unspecified.
///
/// # Errors
/// [`Fault::Decompression`] with the message of the codec that refuses the body, [`Fault::RawLength`] if the body has
/// another length than `raw`. For a wrong length it depends on the codec which of the two is returned.
pub fn decompress_into(codec: Codec, body: &[u8], raw: &mut [u8]) -> Result<(), Fault> {
    let failed = |reason: String| Fault::Decompression { codec, reason };
    let expected = raw.len();
    let found = match codec {
        Codec::None => {
            if body.len() == expected {
                raw.copy_from_slice(body);
            }
            body.len()
        }
        Codec::Zstd => ZSTD.with_borrow_mut(|context| {
            let context = match context {
                Some(context) => context,
                None => context.insert(zstd::bulk::Decompressor::new().map_err(|error| failed(error.to_string()))?),
            };
            context.decompress_to_buffer(body, raw).map_err(|error| failed(error.to_string()))
        })?,
        Codec::Lz4 => lz4_flex::block::decompress_into(body, raw).map_err(|error| failed(error.to_string()))?,
        Codec::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(body);
            decoder.read_exact(raw).map_err(|error| failed(error.to_string()))?;
            // The decoder reads and checks the trailer, with CRC-32 and length, only when it is read to its end.
            let beyond = decoder.read(&mut [0]).map_err(|error| failed(error.to_string()))?;
            if !decoder.into_inner().is_empty() {
                return Err(failed("bytes after the gzip member".to_owned()));
            }
            expected + beyond
        }
    };
    if found == expected { Ok(()) } else { Err(Fault::RawLength { expected: expected as u64, found: found as u64 }) }
}
