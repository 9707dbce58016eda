//! Answers the requests of one connection.

use crate::answer::Answer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers the requests of a connection until the client ends it. With a limit, a client is disconnected if the head of
/// its next request does not arrive in time. A client that keeps idle connections, such as an API server with its
/// webhooks, is served without a limit.
pub async fn serve_connection<A>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    head_within: Option<Duration>,
    answer: impl Fn(Request<Incoming>) -> A,
) where
    A: Future<Output = Answer>,
{
    let mut builder = http1::Builder::new();
    if let Some(limit) = head_within {
        builder.timer(TokioTimer::new()).header_read_timeout(limit);
    }
    let service = service_fn(|request| {
        let answering = answer(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    // A disconnected client is not an error.
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}
