//! One request over TLS, and its whole answer: the client of the status port, for the operator and for the instances among
//! each other.
//!
//! Each request has a connection of its own, and nothing is retried. The connection is driven beside the exchange and dropped
//! with it: a caller that gives up by a timeout leaves neither a task nor a socket.

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

/// A request.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: Method,
    /// Its path, such as `/status`.
    pub path: &'a str,
    /// The `Host` header.
    pub host: &'a str,
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExchangeError {
    /// The connection broke, or the certificate is another one. Whether the request was carried out is not known.
    #[error("{0}")]
    Connection(String),
    /// The request cannot be written as HTTP.
    #[error("{0}")]
    Request(String),
}

fn broken(error: &dyn Display) -> ExchangeError {
    ExchangeError::Connection(error.to_string())
}

/// Sends one request to the server of this name, and reads its answer, of up to `largest_bytes`.
///
/// # Errors
/// When there is no whole answer.
pub async fn exchange(
    stream: impl Stream,
    tls: &TlsConnector,
    name: ServerName<'static>,
    request: Outgoing<'_>,
    largest_bytes: usize,
) -> Result<(StatusCode, Bytes), ExchangeError> {
    let stream = tls.connect(name, stream).await.map_err(|error| broken(&error))?;
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
    // An answer that came whole counts, even if the connection broke right after it: the request was carried out.
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
