//! One run.

use super::result::of_report;
use crate::manager::Manager;
use crate::verb::{Verb, VerbProgress};
use chrono::Utc;
use holdfast_kube_api::status_port::{BackupRun, BackupState};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The run that is under way.
#[derive(Debug, Default)]
pub struct Runs {
    current: Mutex<Option<(String, CancellationToken, JoinHandle<()>)>>,
}

impl Runs {
    /// Begins the run of this uid.
    pub(super) fn begin(manager: &Arc<Manager>, uid: &str, name: &str) -> BackupRun {
        let run = BackupRun {
            uid: uid.to_owned(),
            name: name.to_owned(),
            started_at: Some(Utc::now()),
            ..BackupRun::default()
        };
        manager.state.change_backup(|slot| *slot = Some(run.clone()));
        let cancel = manager.stop.child_token();
        let (worker, token) = (Arc::clone(manager), cancel.clone());
        let (uid, name) = (uid.to_owned(), name.to_owned());
        let key = uid.clone();
        let task = tokio::spawn(async move { take(&worker, &uid, &name, &token).await });
        *manager.backups.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, cancel, task));
        run
    }

    /// Ends the run of this uid, or whichever it is, and waits until it has cleaned up.
    pub(super) async fn end(&self, uid: Option<&str>) {
        let current = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            match current.as_ref() {
                Some((running, ..)) if uid.is_none_or(|uid| uid == running) => current.take(),
                _ => None,
            }
        };
        if let Some((_, cancel, task)) = current {
            cancel.cancel();
            drop(task.await);
        }
    }
}

/// Ends whatever runs: the instance is stopping.
pub async fn end(manager: &Manager) {
    manager.backups.end(None).await;
}

async fn take(manager: &Manager, uid: &str, name: &str, cancel: &CancellationToken) {
    let change = |change: &dyn Fn(&mut BackupRun)| {
        manager.state.change_backup(|slot| {
            if let Some(run) = slot.as_mut().filter(|run| run.uid == uid) {
                change(run);
            }
        });
    };
    let config = manager.places.archive_config();
    let mut verb = Verb::new(&manager.places.program, &config, ["backup", "--progress", "json", "--label", name]);
    verb.nice = true;
    let ended = verb
        .run(cancel, |now: VerbProgress| {
            change(&|run| {
                if now.step.contains("wal") || now.step.contains("WAL") {
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
    let ended = ended.and_then(|report| {
        of_report(&report).ok_or_else(|| crate::error::Error::retry("the backup ended without saying what it is"))
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
