//! Listening: the status port, the probes' socket, the metrics.

use super::routes::{self, Caller};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::tls;
use holdfast_http::{accept_each, bind, serve_connection};
use holdfast_kube_api::names;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// The time limit of a client's handshake, and of receiving a request's head.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two checks of the certificates' files.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Answers the operator and the other instances until the task is cancelled.
///
/// # Errors
/// When the port is in use.
pub async fn serve_status(context: Arc<Context>) -> Result<()> {
    let listener = listen(names::STATUS_PORT).await?;
    let current: Arc<Mutex<Option<Arc<ServerConfig>>>> = Arc::default();
    let reading = Arc::clone(&current);
    let reader = Arc::clone(&context);
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            match tls::server(&reader.paths) {
                Ok(config) => {
                    failing = false;
                    *reading.lock() = Some(Arc::new(config));
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
    accept_each(&listener, "status", |socket| {
        let (config, context) = (current.lock().clone(), Arc::clone(&context));
        async move {
            let Some(config) = config else { return };
            let handshake = tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await;
            let Ok(Ok(stream)) = handshake else { return };
            let certificates = stream.get_ref().1.peer_certificates();
            let client = certificates.and_then(|chain| chain.first()).and_then(tls::common_name);
            serve(stream, context, Caller::Status(client)).await;
        }
    })
    .await;
    Ok(())
}

/// Answers the kubelet's probes.
///
/// # Errors
/// When the socket cannot be created.
pub async fn serve_probes(context: Arc<Context>) -> Result<()> {
    let path = context.paths.control_socket();
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path).map_err(|error| Error::file("listen on", &path, &error))?;
    accept_each(&listener, "probes", |socket| serve(socket, Arc::clone(&context), Caller::Probes)).await;
    Ok(())
}

/// Answers Prometheus.
///
/// # Errors
/// When the port is in use.
pub async fn serve_metrics(context: Arc<Context>) -> Result<()> {
    let listener = listen(names::METRICS_PORT).await?;
    accept_each(&listener, "metrics", |socket| serve(socket, Arc::clone(&context), Caller::Metrics)).await;
    Ok(())
}

async fn listen(port: u16) -> Result<TcpListener> {
    bind((Ipv6Addr::UNSPECIFIED, port).into())
        .await
        .map_err(|error| Error::retry(format!("cannot listen on port {port}: {error}")))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, context: Arc<Context>, caller: Caller) {
    serve_connection(stream, Some(PATIENCE), |request| {
        let (context, caller) = (Arc::clone(&context), caller.clone());
        async move { routes::answer(&context, &caller, request).await }
    })
    .await;
}
