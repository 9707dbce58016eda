//! The requests about snapshots.

use super::run::Runs;
use crate::manager::Manager;
use crate::status_port::{Answer, json, refused};
use holdfast_kube_api::status_port::{SnapshotRequest, SnapshotRun, SnapshotState};
use hyper::StatusCode;
use std::sync::Arc;

/// Makes the volumes ready, or says how they are.
pub async fn put(manager: &Arc<Manager>, uid: &str, body: &[u8]) -> Answer {
    let request: SnapshotRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    if let Some(run) = of(manager, uid) {
        return json(StatusCode::OK, &run);
    }
    let over = |run: &SnapshotRun| matches!(run.state, SnapshotState::Stopped | SnapshotState::Failed);
    if let Some(run) = manager.state.change_snapshot(|run| run.clone()).filter(|run| !over(run)) {
        return json(StatusCode::CONFLICT, &run);
    }
    if !manager.state.ready() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None);
    }
    json(StatusCode::ACCEPTED, &Runs::begin(manager, uid, &request))
}

/// How it is.
pub fn get(manager: &Manager, uid: &str) -> Answer {
    match of(manager, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this manager knows nothing of that snapshot", None),
    }
}

/// The snapshots are taken.
pub fn stop(manager: &Manager, uid: &str) -> Answer {
    if of(manager, uid).is_some_and(|run| run.state == SnapshotState::Ready) {
        manager.snapshots.go_on(uid);
    }
    get(manager, uid)
}

/// Ends it without a result.
pub async fn delete(manager: &Manager, uid: &str) -> Answer {
    manager.snapshots.end(Some(uid)).await;
    get(manager, uid)
}

fn of(manager: &Manager, uid: &str) -> Option<SnapshotRun> {
    manager.state.change_snapshot(|run| run.clone()).filter(|run| run.uid == uid)
}
