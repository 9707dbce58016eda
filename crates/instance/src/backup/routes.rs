//! The requests about backups.

use super::run::begin;
use crate::context::Context;
use crate::refusal::refused;
use holdfast_http::Answer;
use holdfast_http::answer::json;
use holdfast_kube_api::status_port::{BackupRequest, BackupRun};
use hyper::StatusCode;
use std::sync::Arc;

/// Begins a backup, or says how it is.
pub async fn put(context: &Arc<Context>, uid: &str, body: &[u8]) -> Answer {
    let request: BackupRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    if let Some(run) = of(context, uid) {
        return json(StatusCode::OK, &run);
    }
    let running = context.state.change_backup(|run| run.clone()).filter(|run| run.stopped_at.is_none());
    if let Some(run) = running {
        return json(StatusCode::CONFLICT, &run);
    }
    if !context.places.archive_config().exists() {
        let hint = "set spec.backup.barmanObjectStore of the Cluster".to_owned();
        return refused(StatusCode::PRECONDITION_FAILED, "the cluster has no archive", Some(hint));
    }
    if !context.state.ready() {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None);
    }
    json(StatusCode::ACCEPTED, &begin(context, uid, &request.name))
}

/// How a backup is.
pub fn get(context: &Context, uid: &str) -> Answer {
    match of(context, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this instance manager does not know that backup", None),
    }
}

/// Gives a backup up.
pub async fn delete(context: &Context, uid: &str) -> Answer {
    context.backups.cancel(Some(uid)).await;
    get(context, uid)
}

fn of(context: &Context, uid: &str) -> Option<BackupRun> {
    context.state.change_backup(|run| run.clone()).filter(|run| run.uid == uid)
}
