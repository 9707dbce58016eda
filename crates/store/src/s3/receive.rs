//! Reads an answer: its body, and what its headers say about the object.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ChecksumType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::errors;
use crate::Buffer;

/// No memory is reserved for an announced length above this.
const MAX_RECEIVED_BYTES: usize = 1 << 30;

/// The CRC-32C of an object that was written in one piece.
///
/// Objects made of parts may have a checksum of the parts' checksums instead. Some stores mark that with "...-3", some
/// with the type, and some (moto 5) call it the checksum of the whole. A wrong guess would report an intact object as
/// corrupt, so an object made of parts, as its ETag shows, counts as having no checksum.
pub(super) fn whole_crc32c(header: Option<&str>, kind: Option<&ChecksumType>, etag: Option<&str>) -> Option<u32> {
    if kind == Some(&ChecksumType::Composite) || etag.is_none_or(|etag| etag.contains('-')) {
        return None;
    }
    let bytes = BASE64.decode(header?).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Why a body did not arrive.
#[derive(Debug)]
pub(super) enum Unreceived {
    /// The connection broke, or the body does not fit its header.
    Broken(String),
    /// Nothing more came for the longest time without a byte.
    Still,
}

impl From<String> for Unreceived {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

/// The next piece of a body, which may take `silence`.
async fn next(body: &mut ByteStream, silence: Duration) -> Result<Option<Bytes>, Unreceived> {
    match tokio::time::timeout(silence, body.try_next()).await {
        Ok(piece) => Ok(piece.map_err(|error| errors::chain(&error))?),
        Err(_) => Err(Unreceived::Still),
    }
}

/// Receives a body into one buffer of the announced length, without a second copy. Of a body of more than `most` bytes,
/// the rest is not received. The caller judges a body that is too short or too long.
pub(super) async fn receive(
    mut body: ByteStream,
    length: Option<usize>,
    most: u64,
    silence: Duration,
) -> Result<Bytes, Unreceived> {
    let Some(length) = length.filter(|length| *length <= MAX_RECEIVED_BYTES) else {
        let mut received = Vec::new();
        while received.len() as u64 <= most
            && let Some(piece) = next(&mut body, silence).await?
        {
            received.extend_from_slice(&piece);
        }
        return Ok(received.into());
    };
    let mut buffer = Buffer::zeroed(length).map_err(|error| error.to_string())?;
    let mut filled = 0;
    while let Some(piece) = next(&mut body, silence).await? {
        let place = buffer.get_mut(filled..filled + piece.len());
        place
            .ok_or_else(|| format!("the body is longer than the {length} bytes of its header"))?
            .copy_from_slice(&piece);
        filled += piece.len();
    }
    Ok(buffer.freeze(filled))
}

/// The size of the whole object in `bytes 0-9/1234`.
pub(super) fn whole_size(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// Converts a time of the store's clock.
pub(super) fn system_time(time: Option<&DateTime>) -> Option<SystemTime> {
    SystemTime::try_from(*time?).ok()
}

/// The last `bytes` bytes of a buffer, without a copy.
pub(super) fn last(whole: &Bytes, bytes: u64) -> Bytes {
    let keep = usize::try_from(bytes).unwrap_or(usize::MAX).min(whole.len());
    whole.slice(whole.len() - keep..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_nonsense_is_not() {
        assert_eq!(whole_size("bytes 0-9/1234"), Some(1234));
        assert_eq!(whole_size("bytes 0-9/*"), None);
        assert_eq!(whole_size("nonsense"), None);
        let full = Some(&ChecksumType::FullObject);
        let composite = Some(&ChecksumType::Composite);
        let (plain, of_parts) = (Some("\"abc\""), Some("\"abc-3\""));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), full, plain), Some(1));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), full, of_parts), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, plain), Some(1));
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, of_parts), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), None, None), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ=="), composite, plain), None);
        assert_eq!(whole_crc32c(Some("AAAAAQ==-3"), full, plain), None);
        assert_eq!(whole_crc32c(Some("AAAA"), full, plain), None);
        assert_eq!(whole_crc32c(None, full, plain), None);
        assert_eq!(last(&Bytes::from_static(b"abc"), 2), "bc");
        assert_eq!(last(&Bytes::from_static(b"abc"), u64::MAX), "abc");
    }
}
