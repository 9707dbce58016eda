//! Compression of frame after frame, with one context for each thread.

use std::fmt;
use std::io::{Cursor, Write};

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use super::compressed::CompressedFrame;
use super::header::{FrameKind, HEADER_BYTES};
use crate::cipher::TAG_BYTES;
use crate::codec::{Codec, Compression, checked_raw_len};
use crate::format_error::Fault;

/// A compressor for use by one thread: the codec's working memory is allocated once and used for every frame.
pub struct Compressor {
    compression: Compression,
    engine: Engine,
}

enum Engine {
    None,
    Zstd(zstd::bulk::Compressor<'static>),
    Lz4(CompressTable),
    Gzip(flate2::Compression),
}

impl Compressor {
    /// A compressor for frames of the given codec and level.
    ///
    /// # Errors
    /// [`Fault::Compression`] if zstd cannot make its context. The other codecs do not fail.
    pub fn new(compression: Compression) -> Result<Self, Fault> {
        let engine = match compression.codec() {
            Codec::None => Engine::None,
            Codec::Zstd => Engine::Zstd(
                zstd::bulk::Compressor::new(compression.level())
                    .map_err(|error| Fault::Compression { codec: Codec::Zstd, reason: error.to_string() })?,
            ),
            Codec::Lz4 => Engine::Lz4(CompressTable::large()),
            Codec::Gzip => Engine::Gzip(flate2::Compression::new(compression.level().unsigned_abs())),
        };
        Ok(Self { compression, engine })
    }

    /// The codec and level.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Compresses the raw bytes of one frame, at most [`MAX_FRAME_RAW`](crate::codec::MAX_FRAME_RAW). The buffer has
    /// free space for the header before the body, and for the authentication tag after it, so that sealing copies
    /// nothing.
    ///
    /// # Errors
    /// [`Fault::TooLong`] for more than [`MAX_FRAME_RAW`](crate::codec::MAX_FRAME_RAW) bytes, [`Fault::Compression`]
    /// with the message of a codec that fails.
    pub fn compress(&mut self, kind: FrameKind, raw: &[u8]) -> Result<CompressedFrame, Fault> {
        let raw_len = checked_raw_len(raw)?;
        let codec = self.compression.codec();
        let failed = |reason: String| Fault::Compression { codec, reason };
        let mut buffer = match &mut self.engine {
            Engine::None => return CompressedFrame::stored(kind, raw),
            Engine::Zstd(context) => {
                let bound = zstd::zstd_safe::compress_bound(raw.len());
                let mut cursor = Cursor::new(Vec::with_capacity(HEADER_BYTES + bound + TAG_BYTES));
                cursor.get_mut().resize(HEADER_BYTES, 0);
                cursor.set_position(HEADER_BYTES as u64);
                context.compress_to_buffer(raw, &mut cursor).map_err(|error| failed(error.to_string()))?;
                cursor.into_inner()
            }
            Engine::Lz4(table) => {
                let mut buffer = vec![0; HEADER_BYTES + get_maximum_output_size(raw.len()) + TAG_BYTES];
                let body_len = compress_into_with_table(raw, &mut buffer[HEADER_BYTES..], table)
                    .map_err(|error| failed(error.to_string()))?;
                buffer.truncate(HEADER_BYTES + body_len);
                buffer
            }
            Engine::Gzip(level) => {
                let mut buffer = Vec::with_capacity(HEADER_BYTES + raw.len() / 2 + TAG_BYTES);
                buffer.resize(HEADER_BYTES, 0);
                let mut encoder = flate2::write::GzEncoder::new(buffer, *level);
                encoder.write_all(raw).map_err(|error| failed(error.to_string()))?;
                encoder.finish().map_err(|error| failed(error.to_string()))?
            }
        };
        // Frames wait in queues under a byte budget, so the unused space of the worst case is returned.
        buffer.shrink_to(buffer.len() + TAG_BYTES);
        Ok(CompressedFrame::from_parts(kind, codec, raw_len, buffer))
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compressor({})", self.compression)
    }
}
