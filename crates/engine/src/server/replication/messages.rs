//! What is inside of CopyData while WAL is streamed. Pure: bytes in, values out.
//!
//! Integers are in network byte order, and times are microseconds since 2000-01-01 00:00 UTC.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::Lsn;

/// 2000-01-01 00:00 UTC in seconds since 1970, where PostgreSQL's time begins.
const POSTGRES_EPOCH_SECONDS: i64 = 946_684_800;

/// A message from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromServer {
    /// `XLogData`
    Wal {
        /// The LSN of the first byte of `data`.
        start: Lsn,
        /// The WAL itself.
        data: Bytes,
        /// The end of the WAL that the server has.
        server_end: Lsn,
    },
    /// `Primary keepalive message`
    Keepalive {
        /// The end of the WAL that the server has sent.
        end: Lsn,
        /// Whether the server wants a status as soon as possible.
        reply_requested: bool,
    },
}

/// `Standby status update`: what this side has, reported to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StandbyStatus {
    /// The end of the received WAL.
    pub(crate) written: Lsn,
    /// The end of the durable WAL. Zero means "not said": the server then leaves the slot as it is.
    pub(crate) flushed: Lsn,
    /// Whether the server should answer at once.
    pub(crate) wants_reply: bool,
}

impl FromServer {
    /// Reads the content of a CopyData; the error is what is wrong with it.
    pub(super) fn parse(mut content: Bytes) -> Result<Self, String> {
        let length = content.len();
        let short = || format!("a message of {length} bytes in the stream is too short");
        match content.try_get_u8().map_err(|_| short())? {
            b'w' => {
                let start = Lsn::new(content.try_get_u64().map_err(|_| short())?);
                let server_end = Lsn::new(content.try_get_u64().map_err(|_| short())?);
                // Its clock.
                content.try_get_i64().map_err(|_| short())?;
                Ok(Self::Wal { start, data: content, server_end })
            }
            b'k' => {
                let end = Lsn::new(content.try_get_u64().map_err(|_| short())?);
                content.try_get_i64().map_err(|_| short())?;
                let reply_requested = content.try_get_u8().map_err(|_| short())? != 0;
                Ok(Self::Keepalive { end, reply_requested })
            }
            tag => Err(format!("the stream has an unknown message {:?}", char::from(tag))),
        }
    }
}

impl StandbyStatus {
    /// The content of the CopyData.
    pub(super) fn encode(&self, now: DateTime<Utc>) -> Bytes {
        let mut content = BytesMut::with_capacity(34);
        content.put_u8(b'r');
        content.put_u64(self.written.as_u64());
        content.put_u64(self.flushed.as_u64());
        // Nothing is applied here.
        content.put_u64(0);
        content.put_i64(now.timestamp_micros() - POSTGRES_EPOCH_SECONDS * 1_000_000);
        content.put_u8(u8::from(self.wants_reply));
        content.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(parts: &[&[u8]]) -> Bytes {
        parts.concat().into()
    }

    #[test]
    fn the_messages_of_the_server_are_read() {
        let (start, server_end) = (Lsn::new(0x16_0000_0028), Lsn::new(0x16_0000_0100));
        let places = [start.as_u64().to_be_bytes(), server_end.as_u64().to_be_bytes()];
        let wal = bytes(&[b"w", &places[0], &places[1], &[0; 8], b"wal"]);
        assert_eq!(FromServer::parse(wal), Ok(FromServer::Wal { start, data: Bytes::from_static(b"wal"), server_end }));
        for (asks, reply_requested) in [(0_u8, false), (1, true)] {
            let keepalive = bytes(&[b"k", &7_u64.to_be_bytes(), &[0; 8], &[asks]]);
            assert_eq!(FromServer::parse(keepalive), Ok(FromServer::Keepalive { end: Lsn::new(7), reply_requested }));
        }
    }

    #[test]
    fn anything_else_is_refused_and_never_panics() {
        let wal = bytes(&[b"w", &[0; 24], b"x"]);
        for length in 0..25 {
            let cut = FromServer::parse(wal.slice(..length));
            assert!(cut.is_err(), "{length} bytes: {cut:?}");
        }
        let error = FromServer::parse(Bytes::from_static(b"s")).expect_err("unknown");
        assert_eq!(error, "the stream has an unknown message 's'");
    }

    #[test]
    fn a_status_has_the_form_of_the_manual() {
        let now = DateTime::from_timestamp(POSTGRES_EPOCH_SECONDS + 2, 0).expect("a time");
        let status = StandbyStatus { written: Lsn::new(3), flushed: Lsn::new(2), wants_reply: true };
        let expected = bytes(&[
            b"r",
            &3_u64.to_be_bytes(),
            &2_u64.to_be_bytes(),
            &0_u64.to_be_bytes(),
            &2_000_000_i64.to_be_bytes(),
            &[1],
        ]);
        assert_eq!(status.encode(now), expected);
    }
}
