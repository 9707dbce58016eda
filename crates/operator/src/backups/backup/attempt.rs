//! The end of an attempt: the next attempt, or the end of the `Backup`.

use super::task::{ATTEMPTS, Action, Decision, Memory, Requeue, Task};
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::{Failure, first_line, time};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase, BackupStatus};

/// The wait after an attempt: 10 s, doubled each time.
fn backoff(attempts: i32) -> TimeDelta {
    TimeDelta::seconds(10 << attempts.clamp(1, 6).saturating_sub(1))
}

/// Ends the run of this `Backup` on the instance where it began.
pub(crate) fn release(task: &Task) -> Option<Action> {
    let (instance, run) = (task.status.instance.clone()?, task.run());
    Some(match task.method() {
        BackupMethod::BarmanObjectStore => Action::GiveUp { instance, run },
        BackupMethod::VolumeSnapshot => Action::Release { instance, run },
    })
}

/// The attempt ended without a backup: the next one is scheduled, or the `Backup` fails with this attempt's error.
pub(crate) fn over(task: &Task, memory: &Memory, now: DateTime<Utc>, error: &str) -> Decision {
    if task.status.attempts >= ATTEMPTS {
        let error = format!("{error}\n(attempt {} of {ATTEMPTS})", task.status.attempts);
        return fail(task, memory, now, error);
    }
    let at = now + backoff(task.status.attempts);
    let mut decision = Decision::keep(task, memory, super::after(at - now));
    decision.memory = Memory { retry_at: Some(at), ..Memory::default() };
    let reason = format!(
        "attempt {} of {ATTEMPTS} begins at {}; attempt {} on {} ended: {}",
        task.status.attempts + 1,
        time(at),
        task.status.attempts,
        task.status.instance.as_deref().unwrap_or("an instance"),
        first_line(error)
    );
    decision.events.push(BackupEvent::new(Reason::BackupRetried, reason.clone()));
    decision.status = BackupStatus {
        phase: Some(BackupPhase::Pending),
        reason: Some(reason),
        method: task.status.method,
        instance: task.status.instance.clone(),
        attempts: task.status.attempts,
        observed_generation: task.generation,
        ..BackupStatus::default()
    };
    decision
}

/// The `Backup` ends without a backup.
pub(crate) fn fail(task: &Task, memory: &Memory, now: DateTime<Utc>, error: String) -> Decision {
    let mut decision = Decision::keep(task, memory, Requeue::OnChange);
    decision.events.push(BackupEvent::new(Reason::BackupFailed, error.clone()));
    decision.status.phase = Some(BackupPhase::Failed);
    decision.status.method = Some(task.method());
    // One line, for a column of a table: the error has three lines.
    decision.status.reason = Some(first_line(&error).to_owned());
    // The stored data is deleted or unusable: clear the references, so that no caller follows them.
    decision.status.backup_id = None;
    decision.status.snapshot_backup_status = None;
    decision.status.backup_label_file = None;
    decision.status.tablespace_map_file = None;
    decision.status.stopped_at = Some(now);
    decision.status.error = Some(error);
    decision.let_go = true;
    decision
}

/// The same while its run is active: the run is ended too.
pub(crate) fn fail_running(task: &Task, memory: &Memory, now: DateTime<Utc>, error: &Failure) -> Decision {
    let mut decision = fail(task, memory, now, error.to_string());
    decision.actions.extend(release(task));
    decision
}

/// The cluster was deleted during a run.
pub(crate) fn cluster_deleted(task: &Task, memory: &Memory, now: DateTime<Utc>) -> Decision {
    let trouble = Failure::new(
        format!("cluster {} was deleted", task.spec.cluster.name),
        task.doing(),
        "a Backup can run only while its cluster exists; what was stored before is still in the archive",
    );
    fail(task, memory, now, trouble.to_string())
}
