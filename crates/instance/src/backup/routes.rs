//! The requests about backups.

use super::run::Runs;
use crate::manager::Manager;
use crate::status_port::{Answer, json, refused};
use holdfast_kube_api::status_port::{BackupRequest, BackupRun};
use hyper::StatusCode;
use std::sync::Arc;

/// Begins a backup, or says how it is.
pub async fn put(manager: &Arc<Manager>, uid: &str, body: &[u8]) -> Answer {
    let request: BackupRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    if let Some(run) = of(manager, uid) {
        return json(StatusCode::OK, &run);
    }
    let running = manager.state.change_backup(|run| run.clone()).filter(|run| run.stopped_at.is_none());
    if let Some(run) = running {
        return json(StatusCode::CONFLICT, &run);
    }
    if !manager.places.archive_config().exists() {
        let hint = "set spec.backup.barmanObjectStore of the Cluster".to_owned();
        return refused(StatusCode::PRECONDITION_FAILED, "the cluster has no archive", Some(hint));
    }
    if !manager.state.ready() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None);
    }
    json(StatusCode::ACCEPTED, &Runs::begin(manager, uid, &request.name))
}

/// How a backup is.
pub fn get(manager: &Manager, uid: &str) -> Answer {
    match of(manager, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this manager knows nothing of that backup", None),
    }
}

/// Gives a backup up.
pub async fn delete(manager: &Manager, uid: &str) -> Answer {
    manager.backups.end(Some(uid)).await;
    get(manager, uid)
}

fn of(manager: &Manager, uid: &str) -> Option<BackupRun> {
    manager.state.change_backup(|run| run.clone()).filter(|run| run.uid == uid)
}
