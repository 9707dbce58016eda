//! From an HTTP request to its answer.

use crate::context::Context;
use crate::refusal::refused;
use crate::{backup, metrics, server_facts, snapshot};
use holdfast_http::Answer;
use holdfast_http::answer::{json, text};
use holdfast_http::metrics::TEXT_FORMAT;
use holdfast_kube_api::names::{OPERATOR_USER, REPLICATION_USER};
use holdfast_kube_api::status_port::{Role, WalSwitched};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use std::sync::Arc;

/// The maximum size of a request's body in bytes: it has a few lines.
const LARGEST: usize = 64 << 10;

/// Which port a request came to, and from whom.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// The status port, with the common name of the client's certificate.
    Status(Option<String>),
    /// The socket for probes, used by the kubelet.
    Probes,
    /// The port for metrics, used by Prometheus.
    Metrics,
}

pub(super) async fn answer(context: &Arc<Context>, caller: &Caller, request: Request<Incoming>) -> Answer {
    match caller {
        Caller::Probes => probe(context, request.uri().path()),
        Caller::Metrics if request.uri().path() == "/metrics" => {
            text(StatusCode::OK, TEXT_FORMAT, metrics::text(context).await)
        }
        Caller::Metrics => text(StatusCode::NOT_FOUND, "text/plain", "metrics are at /metrics\n".to_owned()),
        Caller::Status(client) => {
            let reads = request.method() == Method::GET && request.uri().path() == "/status";
            match client.as_deref() {
                Some(OPERATOR_USER) => {}
                Some(REPLICATION_USER) if reads => {}
                Some(name) => {
                    return refused(
                        StatusCode::FORBIDDEN,
                        &format!("the certificate of {name} does not allow this"),
                        None,
                    );
                }
                None => return refused(StatusCode::FORBIDDEN, "the certificate has no common name", None),
            }
            status_port(context, request).await
        }
    }
}

async fn status_port(context: &Arc<Context>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let path: Vec<&str> = head.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let body = match Limited::new(body, LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    match (&head.method, path.as_slice()) {
        (&Method::GET, ["status"]) => {
            server_facts::refresh(context).await;
            json(StatusCode::OK, &context.status())
        }
        (&Method::PUT, ["backups", uid]) => backup::put(context, uid, &body).await,
        (&Method::GET, ["backups", uid]) => backup::get(context, uid),
        (&Method::DELETE, ["backups", uid]) => backup::delete(context, uid).await,
        (&Method::PUT, ["snapshots", uid]) => snapshot::put(context, uid, &body).await,
        (&Method::GET, ["snapshots", uid]) => snapshot::get(context, uid),
        (&Method::POST, ["snapshots", uid, "stop"]) => snapshot::stop(context, uid),
        (&Method::DELETE, ["snapshots", uid]) => snapshot::delete(context, uid).await,
        (&Method::POST, ["wal", "switch"]) => switch_wal(context).await,
        (&Method::POST, ["restart"]) => {
            context.request_restart();
            text(StatusCode::ACCEPTED, "text/plain", String::new())
        }
        _ => refused(StatusCode::NOT_FOUND, "there is nothing at this path", None),
    }
}

fn probe(context: &Context, path: &str) -> Answer {
    let no = |why: String| text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why);
    match path {
        "/startup" | "/liveness" => text(StatusCode::OK, "text/plain", "the instance manager answers\n".to_owned()),
        "/readiness" if context.state.ready() => text(StatusCode::OK, "text/plain", "ready\n".to_owned()),
        "/readiness" => no(format!("not ready: {}\n", context.state.status().message)),
        _ => text(StatusCode::NOT_FOUND, "text/plain", "no such probe\n".to_owned()),
    }
}

/// Leaves the current segment even if nothing was written since the last switch: a restore point writes a record.
async fn switch_wal(context: &Context) -> Answer {
    if context.state.facts().is_none_or(|facts| facts.role != Role::Primary) {
        return refused(StatusCode::CONFLICT, "this instance is not the primary", None);
    }
    let statement = "SELECT pg_create_restore_point('holdfast switch') IS NOT NULL, pg_switch_wal()::text";
    match context.sql.query(statement, &[]).await {
        Ok(rows) => {
            let lsn = rows.first().map(|row| row.get(1)).unwrap_or_default();
            json(StatusCode::OK, &WalSwitched { lsn })
        }
        Err(error) => refused(StatusCode::SERVICE_UNAVAILABLE, &error.what, error.hint),
    }
}
