//! `/metrics`, `/healthz` and `/readyz`, plain HTTP. A replica is ready if it serves everything that it is configured
//! to serve, whether it is the leader or not.

use crate::metrics::Metrics;
use holdfast_http::metrics::TEXT_FORMAT;
use holdfast_http::{Answer, accept_each, answer::text, bind, serve_connection};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Serves until it is cancelled. The error is about the port.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: watch::Receiver<bool>,
    cancellation: CancellationToken,
) -> Result<(), std::io::Error> {
    let listener = bind(address).await?;
    let serving = accept_each(&listener, "metrics", |stream| {
        let (metrics, ready) = (Arc::clone(&metrics), ready.clone());
        async move {
            let answer = |request| std::future::ready(answer(&request, &metrics, *ready.borrow()));
            serve_connection(stream, None, answer).await;
        }
    });
    tokio::select! {
        () = serving => {}
        () = cancellation.cancelled() => {}
    }
    Ok(())
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, ready: bool) -> Answer {
    let (status, kind, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, TEXT_FORMAT, metrics.text()),
        "/readyz" if !ready => {
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", "the webhook has no certificate yet\n".to_owned())
        }
        "/healthz" | "/readyz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "the paths are /metrics, /healthz and /readyz\n".to_owned()),
    };
    text(status, kind, body)
}
