//! The requests about snapshots.

use super::run::begin;
use crate::context::Context;
use crate::refusal::refused;
use holdfast_http::Answer;
use holdfast_http::answer::json;
use holdfast_kube_api::status_port::{SnapshotRequest, SnapshotRun, SnapshotState};
use hyper::StatusCode;
use std::sync::Arc;

/// Makes the volumes ready, or says how they are.
pub async fn put(context: &Arc<Context>, uid: &str, body: &[u8]) -> Answer {
    let request: SnapshotRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    if let Some(run) = of(context, uid) {
        return json(StatusCode::OK, &run);
    }
    let over = |run: &SnapshotRun| matches!(run.state, SnapshotState::Stopped | SnapshotState::Failed);
    if let Some(run) = context.state.change_snapshot(|run| run.clone()).filter(|run| !over(run)) {
        return json(StatusCode::CONFLICT, &run);
    }
    if !context.state.ready() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None);
    }
    json(StatusCode::ACCEPTED, &begin(context, uid, &request))
}

/// How it is.
pub fn get(context: &Context, uid: &str) -> Answer {
    match of(context, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this instance manager does not know that snapshot", None),
    }
}

/// The snapshots are taken.
pub fn stop(context: &Context, uid: &str) -> Answer {
    let ready = of(context, uid).is_some_and(|run| run.state == SnapshotState::Ready);
    if let Some(taken) = context.snapshots.signal(uid).filter(|_| ready) {
        taken.notify_one();
    }
    get(context, uid)
}

/// Ends it without a result.
pub async fn delete(context: &Context, uid: &str) -> Answer {
    context.snapshots.cancel(Some(uid)).await;
    get(context, uid)
}

fn of(context: &Context, uid: &str) -> Option<SnapshotRun> {
    context.state.change_snapshot(|run| run.clone()).filter(|run| run.uid == uid)
}
