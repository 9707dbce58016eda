//! `/metrics`, `/healthz` and `/readyz`, plain HTTP. Ready is who serves what it was told to serve, in charge or not.

use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Serves until it is cancelled. The error is that of the port.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
    cancellation: CancellationToken,
) -> Result<(), std::io::Error> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancellation.cancelled() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else { continue };
        let metrics = Arc::clone(&metrics);
        let ready = ready.clone();
        let cancellation = cancellation.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics, *ready.borrow())))
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A client that goes away in the middle is its own affair.
                _ = connection => {}
                () = cancellation.cancelled() => {}
            }
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, ready: bool) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", metrics.text()),
        "/readyz" if !ready => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the webhook has no certificate yet\n".to_owned())
        }
        "/healthz" | "/readyz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert("content-type", kind);
    }
    response
}
