//! Listening: the status port, the probes' socket, the metrics.

use super::routes::{self, Caller};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::tls;
use holdfast_kube_api::names;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// A client has this long for its handshake, and for its request's head.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between looks at the certificates' files.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Answers the operator and the other instances until the task is ended.
///
/// # Errors
/// When the port cannot be listened at.
pub async fn serve_status(context: Arc<Context>) -> Result<()> {
    let listener = listen(names::STATUS_PORT).await?;
    let current: Arc<Mutex<Option<Arc<ServerConfig>>>> = Arc::default();
    let reading = Arc::clone(&current);
    let reader = Arc::clone(&context);
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            match tls::server(&reader.places) {
                Ok(config) => {
                    failing = false;
                    *reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(config));
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("{error}");
                    }
                }
            }
            tokio::time::sleep(if failing { Duration::from_secs(1) } else { READ_AGAIN }).await;
        }
    });
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Some(config) = current.lock().unwrap_or_else(PoisonError::into_inner).clone() else { continue };
        let context = Arc::clone(&context);
        tokio::spawn(async move {
            drop(socket.set_nodelay(true));
            let handshake = tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await;
            let Ok(Ok(stream)) = handshake else { return };
            let certificates = stream.get_ref().1.peer_certificates();
            let client = certificates.and_then(|chain| chain.first()).and_then(tls::common_name);
            serve(stream, context, Caller::Status(client)).await;
        });
    }
}

/// Answers the kubelet's probes.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve_probes(context: Arc<Context>) -> Result<()> {
    let path = context.places.control_socket();
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).map_err(|error| Error::file("listen at", &path, &error))?;
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(socket, Arc::clone(&context), Caller::Probes));
    }
}

/// Answers Prometheus.
///
/// # Errors
/// When the port cannot be listened at.
pub async fn serve_metrics(context: Arc<Context>) -> Result<()> {
    let listener = listen(names::METRICS_PORT).await?;
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(socket, Arc::clone(&context), Caller::Metrics));
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", port))
        .await
        .map_err(|error| Error::retry(format!("port {port} cannot be listened at: {error}")))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, context: Arc<Context>, caller: Caller) {
    let service = service_fn(move |request| {
        let (context, caller) = (Arc::clone(&context), caller.clone());
        async move { Ok::<_, Infallible>(routes::answer(&context, &caller, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A disconnected client is not an error.
    drop(builder.serve_connection(TokioIo::new(stream), service).await);
}
