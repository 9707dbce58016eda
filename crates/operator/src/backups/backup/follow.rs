//! A backup into the object store that has begun: decides from what its instance reports.
//!
//! Every path but one ends the attempt: `completed` needs the engine's own answer with the id of a backup. A standby
//! cannot end its segment. So while its run waits for WAL, the primary is asked again and again to switch WAL. So the
//! backup of an idle database completes too.

use super::task::{
    Action, Decision, Memory, Observed, PROGRESS_EVERY, Requeue, SILENCE_LIMIT, STALL_LIMIT, SWITCH_EVERY, Task,
    WAL_LIMIT,
};
use super::{after, attempt};
use crate::backups::cluster_view::{ClusterView, InstanceAnswer};
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::{Failure, duration, progress, time};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_contract::amount;
use holdfast_kube_api::backup::BackupPhase;
use holdfast_kube_api::status_port::{BackupRun, BackupState};

/// Decides about a backup in phase `running` or `finalizing`.
pub(super) fn decide(task: &Task, observed: &Observed, memory: &Memory, now: DateTime<Utc>) -> Decision {
    let Some(cluster) = observed.cluster.as_ref().filter(|cluster| !cluster.deleting) else {
        return attempt::cluster_deleted(task, memory, now);
    };
    let instance = task.status.instance.as_deref().unwrap_or_default();
    match &observed.run {
        InstanceAnswer::NotAsked | InstanceAnswer::Silent(_) if cluster.instance(instance).is_none() => {
            let error =
                Failure::new(format!("pod {instance} is gone"), task.doing(), "the next attempt begins by itself");
            attempt::over(task, memory, now, &error.to_string())
        }
        InstanceAnswer::NotAsked => silent(task, memory, now, instance, "no request was sent to it"),
        InstanceAnswer::Silent(why) => silent(task, memory, now, instance, why),
        InstanceAnswer::Unknown => {
            let error = Failure::new(
                format!("the instance manager of {instance} was restarted during the backup"),
                task.doing(),
                "the next attempt begins by itself; see the restart count and the last state of the pod",
            );
            attempt::over(task, memory, now, &error.to_string())
        }
        InstanceAnswer::Known(run) => {
            let memory = Memory { silent_since: None, waiting_since: None, refused: None, ..memory.clone() };
            match run.state {
                BackupState::Running => copying(task, &memory, now, run),
                BackupState::WaitingForWal => waiting_for_wal(task, cluster, &memory, now, run),
                BackupState::Completed => completed(task, &memory, now, run),
                BackupState::Failed => failed(task, &memory, now, run),
            }
        }
    }
}

/// The instance does not answer, but its pod exists. Its run may be active, so the operator waits, up to a limit.
pub(crate) fn silent(task: &Task, memory: &Memory, now: DateTime<Utc>, instance: &str, why: &str) -> Decision {
    let since = memory.silent_since.unwrap_or(now);
    let until = since + SILENCE_LIMIT;
    if now >= until {
        let error = Failure::new(
            format!("{instance} has not answered since {}: {why}", time(since)),
            task.doing(),
            "the next attempt begins by itself; check its node and its network",
        );
        return attempt::over(task, memory, now, &error.to_string());
    }
    let mut decision = Decision::keep(task, memory, after(TimeDelta::seconds(2)));
    decision.memory.silent_since = Some(since);
    decision.status.reason =
        Some(format!("{instance} has not answered since {}; waiting until {}: {why}", time(since), time(until)));
    decision
}

/// Data is read and stored.
fn copying(task: &Task, memory: &Memory, now: DateTime<Utc>, run: &BackupRun) -> Decision {
    let (mut decision, since) = progressed(task, memory, now, run);
    if now - since >= STALL_LIMIT {
        let error = Failure::new(
            format!("the backup has read no data for {}", duration(STALL_LIMIT)),
            task.doing(),
            "see the log of the pod; possible causes: a volume or an object store hangs, or a checkpoint does not end",
        );
        return attempt::fail_running(task, memory, now, &error);
    }
    decision.status.phase = Some(BackupPhase::Running);
    decision.status.reason = None;
    let text = progress(run.done_bytes, run.total_bytes);
    // A change of progress alone is written at most every two seconds: people read it.
    let fresh = memory.progress_written.is_none_or(|written| now - written >= PROGRESS_EVERY);
    let shown = task.status.progress.is_some() && task.phase() == BackupPhase::Running;
    if !shown || (fresh && task.status.progress.as_deref() != Some(text.as_str())) {
        decision.memory.progress_written = Some(now);
        show(&mut decision, run, text);
    }
    decision
}

/// All data is stored; the WAL that it needs is not archived yet.
fn waiting_for_wal(
    task: &Task,
    cluster: &ClusterView,
    memory: &Memory,
    now: DateTime<Utc>,
    run: &BackupRun,
) -> Decision {
    let (mut decision, since) = progressed(task, memory, now, run);
    if now - since >= WAL_LIMIT {
        let error = Failure::new(
            format!("the WAL that the backup needs was not archived within {}", duration(WAL_LIMIT)),
            task.doing(),
            "the condition ContinuousArchiving of the Cluster says why archiving makes no progress",
        );
        return attempt::fail_running(task, memory, now, &error);
    }
    decision.status.phase = Some(BackupPhase::Finalizing);
    let done = run.total_bytes.unwrap_or(run.done_bytes);
    show(&mut decision, run, format!("100% ({}), waiting for WAL", amount::size(done)));
    if task.phase() != BackupPhase::Finalizing {
        let text = "all data is stored; waiting until the archive has the WAL up to the backup's stop LSN";
        decision.events.push(BackupEvent::new(Reason::BackupFinalizing, text));
    }
    let instance = task.status.instance.as_deref().unwrap_or_default();
    decision.status.reason = switch_wal(&mut decision, cluster, instance, now);
    decision
}

/// Asks the primary to switch WAL when the run is on another instance. Returns a text for the status.
pub(crate) fn switch_wal(
    decision: &mut Decision,
    cluster: &ClusterView,
    instance: &str,
    now: DateTime<Utc>,
) -> Option<String> {
    let Some(primary) = cluster.primary() else {
        return Some(format!(
            "cluster {} has no primary that could archive the last WAL; waiting for one",
            cluster.name
        ));
    };
    if primary.name != instance && decision.memory.switched_at.is_none_or(|at| now - at >= SWITCH_EVERY) {
        decision.actions.push(Action::SwitchWal { instance: primary.name.clone() });
        decision.memory.switched_at = Some(now);
    }
    None
}

/// The engine reports that the backup is complete.
fn completed(task: &Task, memory: &Memory, now: DateTime<Utc>, run: &BackupRun) -> Decision {
    let Some(result) = run.result.as_ref().filter(|result| !result.backup_id.is_empty()) else {
        let error = Failure::new(
            "the backup ended, but its report has no backup id",
            task.doing(),
            "the operator and the instance manager may be of different versions; the next attempt begins by itself",
        );
        return attempt::over(task, memory, now, &error.to_string());
    };
    let mut decision = Decision::keep(task, memory, Requeue::OnChange);
    let status = &mut decision.status;
    status.phase = Some(BackupPhase::Completed);
    status.reason = (!result.warnings.is_empty()).then(|| result.warnings.join("; "));
    status.error = None;
    status.started_at = run.started_at.or(status.started_at);
    status.stopped_at = run.stopped_at.or(Some(now));
    status.backup_id = Some(result.backup_id.clone());
    status.begin_wal.clone_from(&result.begin_wal);
    status.end_wal.clone_from(&result.end_wal);
    status.begin_lsn.clone_from(&result.begin_lsn);
    status.end_lsn.clone_from(&result.end_lsn);
    status.timeline_id = result.timeline_id;
    status.data_bytes = result.data_bytes.map(signed);
    status.stored_bytes = result.stored_bytes.map(signed);
    status.done_bytes = Some(signed(run.done_bytes));
    status.total_bytes = run.total_bytes.map(signed);
    status.progress = Some(progress(run.done_bytes, run.total_bytes.or(Some(run.done_bytes))));
    decision.events.extend(result.warnings.iter().map(|text| BackupEvent::new(Reason::BackupWarning, text.clone())));
    decision.events.push(BackupEvent::new(Reason::BackupCompleted, format!("backup {} is complete", result.backup_id)));
    decision.let_go = true;
    decision
}

/// The engine reports a failure.
fn failed(task: &Task, memory: &Memory, now: DateTime<Utc>, run: &BackupRun) -> Decision {
    let unknown =
        || Failure::new("the backup failed and reported no reason", task.doing(), "see the log of the pod").to_string();
    attempt::over(task, memory, now, &run.error.clone().unwrap_or_else(unknown))
}

/// Keeps the time of the last progress, and sets when to look again: often at first, since a small backup is over in
/// seconds, and seldom once it is known to be long.
fn progressed(task: &Task, memory: &Memory, now: DateTime<Utc>, run: &BackupRun) -> (Decision, DateTime<Utc>) {
    let age = task.status.started_at.map_or(TimeDelta::zero(), |started| now - started);
    let next = match age.num_seconds() {
        ..20 => TimeDelta::milliseconds(300),
        20..120 => TimeDelta::seconds(1),
        _ => TimeDelta::seconds(2),
    };
    let mut decision = Decision::keep(task, memory, after(next));
    let since = match memory.progress {
        Some((state, done, since)) if (state, done) == (run.state, run.done_bytes) => since,
        _ => now,
    };
    decision.memory.progress = Some((run.state, run.done_bytes, since));
    (decision, since)
}

/// Writes the progress into the status.
fn show(decision: &mut Decision, run: &BackupRun, text: String) {
    let status = &mut decision.status;
    status.progress = Some(text);
    status.done_bytes = Some(signed(run.done_bytes));
    status.total_bytes = run.total_bytes.map(signed);
    if run.backup_id.is_some() {
        status.backup_id.clone_from(&run.backup_id);
    }
}

/// The API's integers are signed.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
