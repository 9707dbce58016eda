//! [`Tunnel`]: a connection through a proxy, made with `CONNECT` (RFC 9110, 9.3.6).
//!
//! The status of the proxy's answer is kept ([`Refused`]). After an answer that will not change by itself, such as 403
//! or 407, the request must not be repeated. An answer such as 502 may be temporary.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_service::Service;

use crate::StoreErrorKind;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The longest answer to `CONNECT` that is read.
const LONGEST_HEAD_BYTES: usize = 16 << 10;

/// Opens tunnels through one proxy, to which `inner` connects.
#[derive(Clone)]
pub(super) struct Tunnel<C> {
    inner: C,
    proxy: Uri,
    authorization: Option<HeaderValue>,
}

impl<C> Tunnel<C> {
    pub(super) fn new(inner: C, proxy: Uri, authorization: Option<HeaderValue>) -> Self {
        Self { inner, proxy, authorization }
    }
}

impl<C> Service<Uri> for Tunnel<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: Read + Write + Unpin + Send + 'static,
    C::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.inner.call(self.proxy.clone());
        let authorization = self.authorization.clone();
        Box::pin(async move {
            let mut wire = TokioIo::new(connecting.await.map_err(Into::into)?);
            open(&mut wire, &to, authorization.as_ref()).await?;
            Ok(wire.into_inner())
        })
    }
}

async fn open<S>(wire: &mut TokioIo<S>, to: &Uri, authorization: Option<&HeaderValue>) -> Result<(), BoxError>
where
    S: Read + Write + Unpin,
{
    let place = format!("{}:{}", to.host().unwrap_or_default(), to.port_u16().unwrap_or(443));
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n").into_bytes();
    if let Some(value) = authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    wire.write_all(&request).await?;
    wire.flush().await?;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    // The other end of a tunnel sends nothing before we do, so nothing follows the head.
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = wire.read(&mut piece).await?;
        if read == 0 {
            let reason = "the proxy ended the connection before it answered";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason).into());
        }
        head.extend_from_slice(piece.get(..read).unwrap_or_default());
        if head.len() > LONGEST_HEAD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer has no end").into());
        }
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(Refused { status, to: place }.into()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer is not HTTP").into()),
    }
}

/// The status in a line like `HTTP/1.1 200 Connection established`.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line.get(..12)?).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

/// The proxy answered and did not open the tunnel.
#[derive(Debug)]
pub(super) struct Refused {
    status: u16,
    /// Host and port of the other end of the tunnel.
    to: String,
}

impl Refused {
    /// Whether the same request gets the same answer until a person changes something.
    pub(super) fn is_permanent(&self) -> bool {
        self.kind() == StoreErrorKind::ProxyRefused
    }

    pub(super) fn kind(&self) -> StoreErrorKind {
        match self.status {
            408 => StoreErrorKind::Timeout,
            429 | 503 => StoreErrorKind::Throttled,
            500..=599 => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::ProxyRefused,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} to CONNECT {}", self.status, self.to)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// The result of a proxy that sends this answer in pieces of `piece` bytes.
    async fn asked(answer: &str, piece: usize) -> Result<String, BoxError> {
        let (ours, mut theirs) = tokio::io::duplex(piece);
        let answer = answer.to_owned();
        let proxy = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(theirs.read_u8().await.unwrap());
            }
            // The client may close the connection before the whole answer is sent.
            drop(theirs.write_all(answer.as_bytes()).await);
            String::from_utf8(request).unwrap()
        });
        let mut wire = TokioIo::new(TokioIo::new(ours));
        let value = HeaderValue::from_static("Basic bWU6aHVzaA==");
        open(&mut wire, &"https://store:9000/b".parse().unwrap(), Some(&value)).await?;
        Ok(proxy.await.unwrap())
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_the_answer_is_understood() {
        use StoreErrorKind as Kind;
        let request = asked("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", 3).await.unwrap();
        assert_eq!(
            request,
            "CONNECT store:9000 HTTP/1.1\r\nHost: store:9000\r\nProxy-Authorization: Basic bWU6aHVzaA==\r\n\r\n"
        );
        for (status, kind) in [
            (403, Kind::ProxyRefused),
            (407, Kind::ProxyRefused),
            (404, Kind::ProxyRefused),
            (302, Kind::ProxyRefused),
            (408, Kind::Timeout),
            (429, Kind::Throttled),
            (502, Kind::Unreachable),
            (503, Kind::Throttled),
        ] {
            let error = asked(&format!("HTTP/1.1 {status} No\r\n\r\n"), 1024).await.unwrap_err();
            let refused = error.downcast_ref::<Refused>().unwrap();
            assert_eq!((refused.kind(), refused.to_string()), (kind, format!("HTTP {status} to CONNECT store:9000")));
        }
        for answer in ["HTTP/1.1 200", "hello\r\n\r\n", "SSH-2.0-x 200 fine\r\n\r\n", ""] {
            let error = asked(answer, 1024).await.unwrap_err();
            assert!(error.downcast_ref::<io::Error>().is_some(), "{answer}: {error}");
        }
        assert!(asked(&"x".repeat(LONGEST_HEAD_BYTES + 1024), 1024).await.is_err());
    }
}
