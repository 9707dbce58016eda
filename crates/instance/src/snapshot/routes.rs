//! The HTTP requests about snapshots.

use super::run::begin;
use crate::context::Context;
use crate::refusal::{refused, stopping};
use holdfast_http::Answer;
use holdfast_http::answer::json;
use holdfast_kube_api::status_port::{SnapshotRequest, SnapshotRun, SnapshotState};
use hyper::StatusCode;
use std::sync::Arc;

/// Makes the volumes ready, or returns the state of the snapshot.
pub async fn put(context: &Arc<Context>, uid: &str, body: &[u8]) -> Answer {
    let request: SnapshotRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    let is_ready = context.state.ready();
    // Checks and begins in one step: of two simultaneous requests, one begins a snapshot and the other gets its state.
    context.state.change_snapshot(|slot| {
        let over = |run: &SnapshotRun| matches!(run.state, SnapshotState::Stopped | SnapshotState::Failed);
        match slot {
            Some(run) if run.uid == uid => return json(StatusCode::OK, run),
            Some(run) if !over(run) => return json(StatusCode::CONFLICT, run),
            _ => {}
        }
        if !is_ready {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None);
        }
        match begin(context, uid, &request) {
            Some(run) => json(StatusCode::ACCEPTED, slot.insert(run)),
            None => stopping(),
        }
    })
}

/// The state of a snapshot.
pub fn get(context: &Context, uid: &str) -> Answer {
    match of(context, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this instance manager does not know that snapshot", None),
    }
}

/// The operator has taken the snapshots.
pub fn stop(context: &Context, uid: &str) -> Answer {
    let ready = of(context, uid).is_some_and(|run| run.state == SnapshotState::Ready);
    if let Some(taken) = context.snapshots.signal(uid).filter(|_| ready) {
        taken.notify_one();
    }
    get(context, uid)
}

/// Ends it without a result.
pub async fn delete(context: &Context, uid: &str) -> Answer {
    context.snapshots.cancel(uid).await;
    get(context, uid)
}

fn of(context: &Context, uid: &str) -> Option<SnapshotRun> {
    context.state.change_snapshot(|run| run.clone()).filter(|run| run.uid == uid)
}
