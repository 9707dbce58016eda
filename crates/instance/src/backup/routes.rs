//! The HTTP requests about backups.

use super::run::begin;
use crate::context::Context;
use crate::refusal::{refused, stopping};
use holdfast_http::Answer;
use holdfast_http::answer::json;
use holdfast_kube_api::status_port::{BackupRequest, BackupRun};
use hyper::StatusCode;
use std::sync::Arc;

/// Begins a backup, or returns its state.
pub async fn put(context: &Arc<Context>, uid: &str, body: &[u8]) -> Answer {
    let request: BackupRequest = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &error.to_string(), None),
    };
    begin_or_tell(context, uid, &request, obstacle(context))
}

/// The reason why a new backup would fail, if there is one.
fn obstacle(context: &Context) -> Option<Answer> {
    if !context.paths.archive_config().exists() {
        let hint = "set spec.backup.barmanObjectStore of the Cluster".to_owned();
        return Some(refused(StatusCode::PRECONDITION_FAILED, "the cluster has no archive", Some(hint)));
    }
    (!context.state.ready())
        .then(|| refused(StatusCode::SERVICE_UNAVAILABLE, "PostgreSQL does not accept connections here", None))
}

/// Checks and begins in one step: of two simultaneous requests, one begins a backup and the other gets its state.
fn begin_or_tell(context: &Arc<Context>, uid: &str, request: &BackupRequest, obstacle: Option<Answer>) -> Answer {
    context.state.change_backup(|slot| {
        match slot {
            Some(run) if run.uid == uid => return json(StatusCode::OK, run),
            Some(run) if run.stopped_at.is_none() => return json(StatusCode::CONFLICT, run),
            _ => {}
        }
        if let Some(obstacle) = obstacle {
            return obstacle;
        }
        match begin(context, uid, &request.name) {
            Some(run) => json(StatusCode::ACCEPTED, slot.insert(run)),
            None => stopping(),
        }
    })
}

/// The state of a backup.
pub fn get(context: &Context, uid: &str) -> Answer {
    match of(context, uid) {
        Some(run) => json(StatusCode::OK, &run),
        None => refused(StatusCode::NOT_FOUND, "this instance manager does not know that backup", None),
    }
}

/// Ends a backup without a result.
pub async fn delete(context: &Context, uid: &str) -> Answer {
    context.backups.cancel(uid).await;
    get(context, uid)
}

fn of(context: &Context, uid: &str) -> Option<BackupRun> {
    context.state.change_backup(|run| run.clone()).filter(|run| run.uid == uid)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
    use super::*;
    use crate::identity::{Identity, Paths};
    use crate::state::State;
    use std::path::Path;
    use std::sync::Barrier;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_simultaneous_requests_one_begins_a_backup() {
        const REQUESTS: usize = 8;
        for round in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let program = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/verb/waits.sh"));
            let paths = Paths::below(folder.path(), program, 5432);
            let identity = Identity {
                instance: "main-1".to_owned(),
                pod_uid: "uid".to_owned(),
                namespace: "db".to_owned(),
                cluster: "main".to_owned(),
            };
            let state = Arc::new(State::new(&identity, 18));
            let latest = watch::channel(None).1;
            let context = Arc::new(Context::new(identity, paths, state, latest, CancellationToken::new()));
            let barrier = Barrier::new(REQUESTS);
            let runtime = tokio::runtime::Handle::current();
            let answers: Vec<StatusCode> = std::thread::scope(|scope| {
                let requests: Vec<_> = (0..REQUESTS)
                    .map(|number| {
                        let (context, barrier, runtime) = (&context, &barrier, &runtime);
                        scope.spawn(move || {
                            let _entered = runtime.enter();
                            let request = BackupRequest { name: format!("backup-{number}") };
                            barrier.wait();
                            begin_or_tell(context, &format!("uid-{number}"), &request, None).status()
                        })
                    })
                    .collect();
                requests.into_iter().map(|request| request.join().unwrap()).collect()
            });
            let begun = answers.iter().filter(|status| **status == StatusCode::ACCEPTED).count();
            assert_eq!(begun, 1, "round {round}: {answers:?}");
            context.backups.close().await;
            let late = BackupRequest { name: "late".to_owned() };
            assert_eq!(begin_or_tell(&context, "late", &late, None).status(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
