//! One request over TLS, and its whole answer: the client of the status port, for the operator and for instances that
//! ask each other.
//!
//! Each request has a connection of its own, and nothing is retried. The connection runs as a part of the exchange and
//! is dropped with it: a caller that gives up after a timeout leaves neither a task nor a socket.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::fmt::Display;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// A connection below TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A request to send.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The method, such as `GET`.
    pub method: Method,
    /// The path, such as `/status`.
    pub path: &'a str,
    /// The value of the `Host` header.
    pub host: &'a str,
    /// The body: JSON, or empty.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// The connection broke, or the certificate is the wrong one. It is not known whether the request was carried out.
    #[error("{0}")]
    Connection(String),
    /// The request cannot be written as HTTP.
    #[error("{0}")]
    Request(String),
}

fn broken(error: &dyn Display) -> ExchangeError {
    ExchangeError::Connection(error.to_string())
}

/// Sends one request to the server of this name, and reads its answer of at most `largest_bytes`.
///
/// # Errors
/// If no whole answer arrives.
pub async fn exchange(
    stream: impl Stream,
    tls: &TlsConnector,
    name: ServerName<'static>,
    request: Outgoing<'_>,
    largest_bytes: usize,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let stream = tls.connect(name, stream).await.map_err(|error| broken(&error))?;
    ask(stream, request, largest_bytes).await
}

/// The same, over an open connection.
async fn ask(
    stream: impl Stream,
    request: Outgoing<'_>,
    largest_bytes: usize,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let request = Request::builder()
        .method(request.method)
        .uri(request.path)
        .header("host", request.host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(request.body)))
        .map_err(|error| ExchangeError::Request(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), largest_bytes);
        Ok((status, body.collect().await.map_err(|error| broken(&error))?.to_bytes()))
    };
    tokio::pin!(answered);
    tokio::pin!(connection);
    // A whole answer counts even if the connection broke after it: the request was carried out.
    let ended = tokio::select! {
        biased;
        answer = &mut answered => return answer,
        ended = &mut connection => ended,
    };
    let answer = answered.await;
    match (answer, ended) {
        (Err(ExchangeError::Connection(_)), Err(error)) => Err(broken(&error)),
        (answer, _) => answer,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use std::io::{self, ErrorKind};
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::ReadBuf;

    /// A server that answers when it has a request. Its connection then ends with the error `then`, or properly if
    /// `None`.
    struct Played {
        answer: &'static [u8],
        asked: bool,
        then: Option<ErrorKind>,
    }

    impl AsyncRead for Played {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if !self.asked {
                // The only task of the test is polled again after it has sent its request.
                return Poll::Pending;
            }
            if self.answer.is_empty() {
                return Poll::Ready(self.then.map_or(Ok(()), |kind| Err(kind.into())));
            }
            // In pieces, as from a network.
            let (now, later) = self.answer.split_at(self.answer.len().min(7));
            buffer.put_slice(now);
            self.answer = later;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Played {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.asked = true;
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        /// After a reset the connection cannot be closed properly.
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(self.then.map_or(Ok(()), |kind| Err(kind.into())))
        }
    }

    async fn asked(answer: &'static str, then: Option<ErrorKind>) -> Result<(u16, Bytes), ExchangeError> {
        let server = Played { answer: answer.as_bytes(), asked: false, then };
        let request =
            Outgoing { method: Method::POST, path: "/backup", host: "an-instance", body: b"{\"name\":1}".to_vec() };
        let answered = tokio::time::timeout(std::time::Duration::from_secs(30), ask(server, request, 64));
        answered.await.unwrap().map(|(status, body)| (status.as_u16(), body))
    }

    const WHOLE: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\n\r\ntrue";
    const WITHOUT_LENGTH: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ntrue";

    /// The request was carried out: a caller that treats this as a failure would repeat it.
    #[tokio::test]
    async fn a_whole_answer_counts_however_the_connection_ends() {
        for then in
            [None, Some(ErrorKind::ConnectionReset), Some(ErrorKind::BrokenPipe), Some(ErrorKind::UnexpectedEof)]
        {
            let (status, body) = asked(WHOLE, then).await.unwrap();
            assert_eq!((status, &body[..]), (202, &b"true"[..]), "{then:?}");
        }
        let (status, body) = asked(WITHOUT_LENGTH, None).await.unwrap();
        assert_eq!((status, &body[..]), (200, &b"true"[..]));
    }

    #[tokio::test]
    async fn a_part_of_an_answer_does_not_count() {
        let reset = Some(ErrorKind::ConnectionReset);
        for (answer, then) in [
            ("", None),
            ("", reset),
            ("HTTP/1.1 202 Acc", None),
            ("HTTP/1.1 202 Acc", reset),
            (&WHOLE[..WHOLE.len() - 1], None),
            (&WHOLE[..WHOLE.len() - 1], reset),
            // Without a length only a proper end shows that the answer is complete.
            (WITHOUT_LENGTH, reset),
        ] {
            let error = asked(answer, then).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Connection(_)), "{answer:?}, {then:?}: {error}");
        }
    }
}
