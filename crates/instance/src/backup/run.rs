//! One run of `holdfast backup`.

use super::result::of_report;
use crate::context::Context;
use crate::verb::Verb;
use chrono::Utc;
use holdfast_contract::progress::WAITING_FOR_WAL;
use holdfast_kube_api::status_port::{BackupRun, BackupState};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Begins the run of this uid, unless the instance is stopping. The caller holds the state, and writes the run into it.
pub(super) fn begin(context: &Arc<Context>, uid: &str, name: &str) -> Option<BackupRun> {
    let run =
        BackupRun { uid: uid.to_owned(), name: name.to_owned(), started_at: Some(Utc::now()), ..BackupRun::default() };
    let cancel = context.stop.child_token();
    let (worker, token) = (Arc::clone(context), cancel.clone());
    let (worker_uid, name) = (uid.to_owned(), name.to_owned());
    let work = async move { take(&worker, &worker_uid, &name, &token).await };
    context.backups.begin(uid, cancel, (), work).then_some(run)
}

async fn take(context: &Context, uid: &str, name: &str, cancel: &CancellationToken) {
    let change = |change: &dyn Fn(&mut BackupRun)| {
        context.state.change_backup(|slot| {
            if let Some(run) = slot.as_mut().filter(|run| run.uid == uid) {
                change(run);
            }
        });
    };
    let config = context.paths.archive_config();
    let mut verb = Verb::new(&context.paths.program, &config, ["backup", "--progress", "json", "--label", name]);
    verb.nice = true;
    let ended = verb
        .run(cancel, |now| {
            change(&|run| {
                if now.step == WAITING_FOR_WAL {
                    run.state = BackupState::WaitingForWal;
                } else if now.total_bytes.is_some() {
                    run.done_bytes = now.done_bytes;
                    run.total_bytes = now.total_bytes;
                }
                if now.backup_id.is_some() {
                    run.backup_id.clone_from(&now.backup_id);
                }
            });
        })
        .await;
    let ended = ended.and_then(|output| {
        of_report(output.report()?)
            .ok_or_else(|| crate::error::Error::retry("the backup ended, but its report has no backup id"))
    });
    change(&|run| {
        run.stopped_at = Some(Utc::now());
        match &ended {
            Ok(result) => {
                run.state = BackupState::Completed;
                run.done_bytes = run.total_bytes.unwrap_or(run.done_bytes);
                run.backup_id = Some(result.backup_id.clone());
                run.result = Some(result.clone());
            }
            Err(error) => {
                run.state = BackupState::Failed;
                run.error = Some(error.to_string());
            }
        }
    });
    match ended {
        Ok(result) => tracing::info!(name, id = result.backup_id, "the backup is complete"),
        Err(error) => tracing::error!(name, "the backup failed\n{error}"),
    }
}
