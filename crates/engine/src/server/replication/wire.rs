//! Messages of PostgreSQL's protocol over a stream of bytes, encrypted or not.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::{ErrorResponseBody, Header, Message};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{Cause, Error};

/// The tag of CopyBothResponse, which `postgres-protocol` does not have.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// The longest message that is accepted. WAL comes in pieces of 128 KiB (`MAX_SEND_SIZE` in `walsender.c`), history
/// files whole.
const MOST_BYTES: usize = 16 << 20;

/// How long a message may take to be sent. A server that reads nothing for this time is taken for lost.
const SENT_WITHIN: Duration = Duration::from_secs(30);

/// A stream of bytes in both directions.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A message from the server.
pub(super) enum Received {
    /// One of the ordinary protocol.
    Message(Message),
    /// CopyBothResponse: from now on both sides send CopyData.
    CopyBoth,
}

/// A stream, with what is read of the next message.
pub(super) struct Wire {
    stream: Box<dyn ByteStream>,
    unread: BytesMut,
}

pub(super) fn lost(reason: impl std::fmt::Display) -> Error {
    Cause::StreamLost { reason: reason.to_string() }.into()
}

impl Wire {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self { stream, unread: BytesMut::with_capacity(256 << 10) }
    }

    /// Sends whole messages.
    pub(super) async fn send(&mut self, messages: &[u8]) -> Result<(), Error> {
        let sending = async {
            self.stream.write_all(messages).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(SENT_WITHIN, sending).await {
            Ok(sent) => sent.map_err(lost),
            Err(_) => Err(lost(format!("the server has read nothing for {} s", SENT_WITHIN.as_secs()))),
        }
    }

    /// The next message. Cancel-safe: what was read of it is kept. Notices and changed parameters are passed on too.
    pub(super) async fn receive(&mut self) -> Result<Received, Error> {
        loop {
            if let Some(message) = parse(&mut self.unread).map_err(lost)? {
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.unread).await.map_err(lost)? == 0 {
                return Err(lost("the server closed it"));
            }
        }
    }
}

/// Takes the first message; `None` if it is not there in whole.
fn parse(unread: &mut BytesMut) -> io::Result<Option<Received>> {
    let Some(header) = Header::parse(unread)? else { return Ok(None) };
    let length = usize::try_from(header.len()).unwrap_or(usize::MAX).saturating_add(1);
    if length > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it announced a message of {length} bytes")));
    }
    if header.tag() != COPY_BOTH_RESPONSE {
        return Ok(Message::parse(unread)?.map(Received::Message));
    }
    if unread.len() < length {
        unread.reserve(length - unread.len());
        return Ok(None);
    }
    unread.advance(length);
    Ok(Some(Received::CopyBoth))
}

/// The server's error.
pub(super) fn answer(body: &ErrorResponseBody) -> Error {
    let mut found = [String::new(), String::new(), String::new()];
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let place = match field.type_() {
            b'S' => 0,
            b'M' => 1,
            b'C' => 2,
            _ => continue,
        };
        if let Some(place) = found.get_mut(place) {
            *place = String::from_utf8_lossy(field.value_bytes()).into_owned();
        }
    }
    let [severity, message, sqlstate] = found;
    Cause::ServerAnswer { severity, message, sqlstate }.into()
}

/// The values of a row, as text or bytes; `None` for a null.
pub(super) fn values(row: &postgres_protocol::message::backend::DataRowBody) -> Result<Vec<Option<Bytes>>, Error> {
    let ranges: Vec<_> = row.ranges().collect().map_err(lost)?;
    let whole = row.buffer_bytes();
    Ok(ranges.into_iter().map(|range| range.map(|range| whole.slice(range))).collect())
}

/// A text value of an answer.
pub(super) fn text(value: &Bytes) -> Result<String, Error> {
    String::from_utf8(value.to_vec()).map_err(lost)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed set-up fails the test")]

    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_and_only_whole() {
        // CopyBothResponse without columns, then CopyData "ab", then a part of a message.
        let stream = [&b"W\0\0\0\x07\0\0\0"[..], b"d\0\0\0\x06ab", b"Z\0\0"].concat();
        for available in 0..8 {
            let mut unread = BytesMut::from(&stream[..available]);
            assert!(parse(&mut unread).unwrap().is_none(), "{available} bytes");
            assert_eq!(unread.len(), available, "nothing is taken");
        }
        let mut unread = BytesMut::from(&stream[..]);
        assert!(matches!(parse(&mut unread).unwrap(), Some(Received::CopyBoth)));
        let Some(Received::Message(Message::CopyData(data))) = parse(&mut unread).unwrap() else {
            unreachable!("CopyData comes next")
        };
        assert_eq!(data.data(), b"ab");
        assert!(parse(&mut unread).unwrap().is_none());
    }

    #[test]
    fn an_absurd_length_is_refused_before_memory_is_taken() {
        let error = parse(&mut BytesMut::from(&b"d\x7f\xff\xff\xff"[..])).err().unwrap();
        assert_eq!(error.to_string(), "it announced a message of 2147483648 bytes");
        assert!(parse(&mut BytesMut::from(&b"W\0\0\0\x03"[..])).is_err());
    }
}
