//! What to do about volume snapshots that have begun. Pure.

use super::objects::ObservedSnapshot;
use super::volumes::{Standing, plan, standing};
use crate::backups::backup::attempt::{self, cluster_deleted};
use crate::backups::backup::{
    Action, Decision, LOOK_EVERY, Memory, Observed, Requeue, Task, after, silent, switch_wal,
};
use crate::backups::cluster_view::{ClusterView, InstanceAnswer, Volume};
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::{Failure, first_line, time};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupPhase, SnapshotElement, SnapshotStatus};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{SnapshotRequest, SnapshotRun, SnapshotState};
use std::time::Duration;

/// The limit when `volumeSnapshot.deadlineSeconds` is absent.
const DEADLINE: TimeDelta = TimeDelta::minutes(10);
/// How much later than the operator's deadline the instance ends it by itself. This is for the case that no operator
/// runs.
const INSTANCE_MARGIN: TimeDelta = TimeDelta::minutes(1);

/// The request to the instance.
pub(crate) fn request(task: &Task, cluster: &ClusterView, online: bool, now: DateTime<Utc>) -> SnapshotRequest {
    SnapshotRequest { name: task.name.clone(), online, deadline: Some(now + deadline(cluster) + INSTANCE_MARGIN) }
}

pub(crate) fn delete_all(snapshots: &[ObservedSnapshot]) -> impl Iterator<Item = Action> {
    snapshots
        .iter()
        .filter(|snapshot| !snapshot.deleting)
        .map(|snapshot| Action::DeleteSnapshot { snapshot: snapshot.name.clone() })
}

fn deadline(cluster: &ClusterView) -> TimeDelta {
    cluster.snapshots.deadline_seconds.map_or(DEADLINE, |seconds| TimeDelta::seconds(i64::from(seconds)))
}

/// The input that all steps share.
struct Facts<'a> {
    task: &'a Task,
    cluster: &'a ClusterView,
    memory: Memory,
    now: DateTime<Utc>,
    instance: &'a str,
    /// Each volume of the instance, and the state of its snapshot.
    volumes: Vec<(&'a Volume, Standing<'a>)>,
    all: &'a [ObservedSnapshot],
}

/// Decides about snapshots that have begun.
pub(crate) fn follow(task: &Task, observed: &Observed, memory: &Memory, now: DateTime<Utc>) -> Decision {
    let cluster = observed.cluster.as_ref().filter(|cluster| !cluster.deleting);
    if task.status.end_lsn.is_some() {
        // The instance has reported everything; neither it nor the cluster is needed any more.
        return finish(task, cluster, &observed.snapshots, memory, now);
    }
    let Some(cluster) = cluster else {
        let mut decision = cluster_deleted(task, memory, now);
        decision.actions.extend(delete_all(&observed.snapshots));
        return decision;
    };
    let instance = task.status.instance.as_deref().unwrap_or_default();
    let all = observed.snapshots.as_slice();
    let Some(view) = cluster.instance(instance) else {
        let error = Failure::new(format!("pod {instance} is gone"), task.doing(), "the next attempt begins by itself");
        return another_attempt(task, all, memory, now, &error.to_string());
    };
    let volumes = view.volumes.iter().map(|volume| (volume, standing(volume, task, all, now))).collect();
    let mut facts = Facts { task, cluster, memory: memory.clone(), now, instance, volumes, all };
    let started = task.status.started_at.unwrap_or(now);
    if now - started >= deadline(cluster) {
        return too_late(&facts, observed);
    }
    match &observed.snapshot {
        InstanceAnswer::NotAsked | InstanceAnswer::Silent(_) => {
            let why =
                if let InstanceAnswer::Silent(why) = &observed.snapshot { why } else { "no request was sent to it" };
            let decision = silent(task, memory, now, instance, why);
            if decision.status.phase == Some(BackupPhase::Pending) || decision.let_go {
                return with_deletions(decision, all);
            }
            decision
        }
        InstanceAnswer::Unknown => {
            let error = Failure::new(
                format!("the instance manager of {instance} was restarted before the snapshots were taken"),
                task.doing(),
                "the next attempt begins by itself; see the restart count and the last state of the pod",
            );
            another_attempt(task, all, memory, now, &error.to_string())
        }
        InstanceAnswer::Known(run) => {
            facts.memory = Memory { silent_since: None, waiting_since: None, refused: None, ..memory.clone() };
            match run.state {
                SnapshotState::Starting => starting(&facts, run),
                SnapshotState::Ready => ready(&facts, run),
                SnapshotState::Stopping => stopping(&facts, run),
                SnapshotState::Stopped => stopped(&facts, run),
                SnapshotState::Failed => {
                    let unknown = || {
                        Failure::new(
                            "the instance ended the snapshot and reported no reason",
                            task.doing(),
                            "see the log of the pod",
                        )
                        .to_string()
                    };
                    let error = run.error.clone().unwrap_or_else(unknown);
                    released(another_attempt(task, all, memory, now, &error), task)
                }
            }
        }
    }
}

/// Waits for the checkpoint, or for the server to stop.
fn starting(facts: &Facts<'_>, run: &SnapshotRun) -> Decision {
    let text = if run.online { "waiting for the checkpoint at the start of the backup" } else { "stopping the server" };
    running(facts, text.to_owned())
}

/// Creates the snapshots, and waits until they are taken.
fn ready(facts: &Facts<'_>, run: &SnapshotRun) -> Decision {
    if facts.volumes.is_empty() {
        let error = Failure::new(
            format!("{} has no volume that could be snapshotted", facts.instance),
            facts.task.doing(),
            "see the PersistentVolumeClaims of the instance",
        );
        return released(fail(facts, &error.to_string()), facts.task);
    }
    if let Some(failed) = facts.volumes.iter().find_map(|(_, standing)| match standing {
        Standing::Failed(snapshot) => Some(*snapshot),
        _ => None,
    }) {
        return driver_failed(facts, failed);
    }
    let mut decision = running(facts, taking(facts));
    keep_positions(&mut decision, run);
    for (volume, standing) in &facts.volumes {
        if let Standing::Missing(number) = standing {
            let plan = plan(facts.task, facts.cluster, facts.instance, volume, *number);
            let text = format!("VolumeSnapshot {} of {}", plan.name, plan.claim);
            decision.events.push(BackupEvent::new(Reason::SnapshotCreated, text));
            if let Some(error) = driver_error(facts.all, volume).filter(|_| *number > 1) {
                let text = format!("snapshot of {}, try {} of 3: {error}", volume.claim, number - 1);
                decision.events.push(BackupEvent::new(Reason::SnapshotFailed, text));
            }
            decision.actions.push(Action::CreateSnapshot(Box::new(plan)));
        }
    }
    if is_cut(&facts.volumes) {
        decision.actions.push(Action::StopSnapshot { instance: facts.instance.to_owned(), run: facts.task.run() });
        decision.status.phase = Some(BackupPhase::Finalizing);
        decision.status.progress = Some(ending(run).to_owned());
        decision.status.reason = None;
        if facts.task.phase() != BackupPhase::Finalizing {
            let text = format!("all snapshots are cut; {}", ending(run));
            decision.events.push(BackupEvent::new(Reason::BackupFinalizing, text));
        }
        elements(&mut decision, facts);
    }
    decision
}

/// Waits for the end of backup mode and its WAL, or for the server to start.
fn stopping(facts: &Facts<'_>, run: &SnapshotRun) -> Decision {
    let mut decision = running(facts, ending(run).to_owned());
    decision.status.phase = Some(BackupPhase::Finalizing);
    keep_positions(&mut decision, run);
    // A cold snapshot of a standby waits too: the segment in which it stopped is archived after the primary has left
    // it.
    decision.status.reason =
        if run.wal_confirmed { None } else { switch_wal(&mut decision, facts.cluster, facts.instance, facts.now) };
    decision
}

/// What the instance does after the snapshots are taken.
fn ending(run: &SnapshotRun) -> &'static str {
    if run.online { "waiting for WAL" } else { "starting the server, waiting for WAL" }
}

/// The instance has ended the snapshot. What it reported is kept first, since the instance may forget it.
fn stopped(facts: &Facts<'_>, run: &SnapshotRun) -> Decision {
    let missing = if !is_cut(&facts.volumes) {
        Some("the instance ended the snapshot before all volumes were snapshotted")
    } else if run.online && (run.backup_label.as_deref().unwrap_or_default().is_empty() || run.end_lsn.is_none()) {
        Some("the instance ended backup mode but reported no backup label")
    } else if run.online && !run.wal_confirmed {
        Some("the instance ended the snapshot before its WAL was in the archive")
    } else if facts.cluster.archive.is_some() && run.snapshot_id.is_none() {
        Some("the instance ended the snapshot, but the archive has no record of it")
    } else {
        None
    };
    if let Some(missing) = missing {
        let error =
            Failure::new(missing, facts.task.doing(), "the next attempt begins by itself; see the log of the pod");
        return released(
            another_attempt(facts.task, facts.all, &facts.memory, facts.now, &error.to_string()),
            facts.task,
        );
    }
    let mut decision = running(facts, "waiting for the snapshots to be ready to use".to_owned());
    keep_positions(&mut decision, run);
    elements(&mut decision, facts);
    let status = &mut decision.status;
    status.phase = Some(BackupPhase::Finalizing);
    status.reason = None;
    status.backup_id.clone_from(&run.snapshot_id);
    // A cold snapshot is consistent at the position where the server stopped.
    status.end_lsn = run.end_lsn.clone().or_else(|| run.begin_lsn.clone()).or_else(|| Some("0/0".to_owned()));
    status.end_wal.clone_from(&run.end_wal);
    let encoded =
        |text: &Option<String>| text.as_ref().filter(|text| !text.is_empty()).map(|text| STANDARD.encode(text));
    status.backup_label_file = encoded(&run.backup_label);
    status.tablespace_map_file = encoded(&run.tablespace_map);
    decision.next = Requeue::After(Duration::from_millis(100));
    decision
}

/// The driver still has to copy what was cut. The instance is not needed any more.
fn finish(
    task: &Task,
    cluster: Option<&ClusterView>,
    all: &[ObservedSnapshot],
    memory: &Memory,
    now: DateTime<Utc>,
) -> Decision {
    let named =
        task.status.snapshot_backup_status.as_ref().map(|status| status.elements.as_slice()).unwrap_or_default();
    let snapshots: Vec<Option<&ObservedSnapshot>> = named
        .iter()
        .map(|element| all.iter().find(|snapshot| snapshot.name == element.name && !snapshot.deleting))
        .collect();
    let lost = named.iter().zip(&snapshots).find(|(_, seen)| seen.is_none());
    if let Some((element, _)) = lost {
        let error = Failure::new(
            format!("VolumeSnapshot {} was deleted before it was ready to use", element.name),
            task.doing(),
            "find out who deletes VolumeSnapshots in this namespace; the next attempt begins by itself",
        );
        return another_attempt(task, all, memory, now, &error.to_string());
    }
    let snapshots: Vec<&ObservedSnapshot> = snapshots.into_iter().flatten().collect();
    let mut decision = Decision::keep(task, memory, Requeue::After(Duration::from_secs(1)));
    let annotations = annotations(task);
    for snapshot in &snapshots {
        let missing = |(name, value): &&(String, String)| snapshot.annotations.get(name) != Some(value);
        if annotations.iter().any(|pair| missing(&pair)) {
            decision
                .actions
                .push(Action::Annotate { snapshot: snapshot.name.clone(), annotations: annotations.clone() });
        }
    }
    if !snapshots.iter().all(|snapshot| snapshot.ready) {
        // A snapshot for which the driver reports an error, if there is one.
        let waiting =
            snapshots.iter().filter(|snapshot| !snapshot.ready).min_by_key(|snapshot| snapshot.error.is_none());
        let until = task.status.started_at.unwrap_or(now) + cluster.map_or(DEADLINE, deadline);
        let error = waiting.and_then(|snapshot| snapshot.error.clone());
        let name = waiting.map(|snapshot| snapshot.name.clone()).unwrap_or_default();
        if now >= until {
            let error = Failure::new(
                error.unwrap_or_else(|| format!("VolumeSnapshot {name} was not ready to use at {}", time(until))),
                format!("{}, waiting for VolumeSnapshot {name}", task.doing()),
                "see the log of the storage driver; the limit is `volumeSnapshot.deadlineSeconds` of the Cluster",
            );
            return with_deletions(attempt::fail(task, memory, now, error.to_string()), all);
        }
        decision.status.reason =
            error.map(|error| format!("VolumeSnapshot {name}: {error}; waiting until {}", time(until)));
        decision.next = after((until - now).min(TimeDelta::from_std(LOOK_EVERY).unwrap_or(TimeDelta::seconds(5))));
        return decision;
    }
    // Earlier tries that no longer count.
    let named: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
    let rest = all.iter().filter(|snapshot| !named.contains(&snapshot.name.as_str()) && !snapshot.deleting);
    decision.actions.extend(rest.map(|snapshot| Action::DeleteSnapshot { snapshot: snapshot.name.clone() }));
    decision.status.phase = Some(BackupPhase::Completed);
    decision.status.reason = None;
    decision.status.error = None;
    decision.status.progress = Some("100%".to_owned());
    decision.status.stopped_at = Some(now);
    let text = format!("{} volume snapshots are ready to use: {}", snapshots.len(), named.join(", "));
    decision.events.push(BackupEvent::new(Reason::BackupCompleted, text));
    decision.next = Requeue::OnChange;
    decision.let_go = true;
    decision
}

/// What a restore needs, kept on each snapshot too: the snapshots may be all that is left.
fn annotations(task: &Task) -> Vec<(String, String)> {
    [
        (names::SNAPSHOT_BACKUP_LABEL, &task.status.backup_label_file),
        (names::SNAPSHOT_TABLESPACE_MAP, &task.status.tablespace_map_file),
        (names::SNAPSHOT_ID, &task.status.backup_id),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)))
    .collect()
}

/// The deadline has passed before the instance could end it.
fn too_late(facts: &Facts<'_>, observed: &Observed) -> Decision {
    let driver = facts.volumes.iter().find_map(|(volume, standing)| match standing {
        Standing::Cut(_) | Standing::Ready(_) => None,
        _ => driver_error(facts.all, volume),
    });
    let step = match &observed.snapshot {
        InstanceAnswer::Known(run) => match run.state {
            SnapshotState::Starting if run.online => "waiting for the checkpoint at the start of the backup",
            SnapshotState::Starting => "waiting for the server to stop",
            SnapshotState::Ready => "waiting for the storage driver to take the snapshots",
            _ => "waiting for the WAL up to the stop",
        },
        _ => "waiting for the instance to answer",
    };
    let error = Failure::new(
        driver
            .or_else(|| facts.memory.refused.clone())
            .unwrap_or_else(|| "the snapshots were not taken within their deadline".to_owned()),
        format!("{}, {step}", facts.task.doing()),
        "see the logs of the storage driver and of the archiver; the limit is `volumeSnapshot.deadlineSeconds` of \
         the Cluster",
    );
    let decision = fail(facts, &error.to_string());
    // An instance that does not answer ends it by its own deadline.
    if matches!(observed.snapshot, InstanceAnswer::Silent(_)) { decision } else { released(decision, facts.task) }
}

/// The driver failed at each try.
fn driver_failed(facts: &Facts<'_>, snapshot: &ObservedSnapshot) -> Decision {
    let error = Failure::new(
        snapshot.error.clone().unwrap_or_else(|| format!("VolumeSnapshot {} was deleted", snapshot.name)),
        format!("{}, try {} of VolumeSnapshot {}", facts.task.doing(), snapshot.number, snapshot.name),
        "this is the storage driver's own error: see its controller's log, its quota and the VolumeSnapshotClass",
    );
    let mut decision = fail(facts, &error.to_string());
    decision.events.push(BackupEvent::new(Reason::SnapshotFailed, first_line(&error.to_string())));
    released(decision, facts.task)
}

/// The driver's newest error about a volume.
fn driver_error(all: &[ObservedSnapshot], volume: &Volume) -> Option<String> {
    let of_it = all.iter().filter(|snapshot| snapshot.claim == volume.claim);
    of_it.max_by_key(|snapshot| (snapshot.attempt, snapshot.number)).and_then(|snapshot| snapshot.error.clone())
}

/// Whether the point in time of each volume's snapshot is taken.
fn is_cut(volumes: &[(&Volume, Standing<'_>)]) -> bool {
    !volumes.is_empty() && volumes.iter().all(|(_, standing)| matches!(standing, Standing::Cut(_) | Standing::Ready(_)))
}

/// What the snapshots wait for.
fn taking(facts: &Facts<'_>) -> String {
    let taken = facts.volumes.iter().filter(|(_, standing)| matches!(standing, Standing::Cut(_) | Standing::Ready(_)));
    format!("{} of {} snapshots taken", taken.count(), facts.volumes.len())
}

/// Continues, and looks again soon: the instance is in backup mode or stopped.
fn running(facts: &Facts<'_>, progress: String) -> Decision {
    let mut decision = Decision::keep(facts.task, &facts.memory, Requeue::After(Duration::from_millis(500)));
    decision.status.phase = Some(BackupPhase::Running);
    let errors: Vec<String> = facts
        .volumes
        .iter()
        .filter_map(|(_, standing)| match standing {
            Standing::Waiting(snapshot) => {
                Some(format!("VolumeSnapshot {}: {}", snapshot.name, snapshot.error.as_deref()?))
            }
            _ => None,
        })
        .collect();
    decision.status.reason = (!errors.is_empty()).then(|| errors.join("; "));
    decision.status.progress = Some(progress);
    decision
}

/// Keeps the positions that the instance reported.
fn keep_positions(decision: &mut Decision, run: &SnapshotRun) {
    let status = &mut decision.status;
    status.online = Some(run.online);
    status.begin_lsn.clone_from(&run.begin_lsn);
    status.begin_wal.clone_from(&run.begin_wal);
    status.timeline_id = run.timeline_id;
}

/// Names the snapshots of this attempt in the status.
fn elements(decision: &mut Decision, facts: &Facts<'_>) {
    let elements = facts
        .volumes
        .iter()
        .filter_map(|(volume, standing)| match standing {
            Standing::Cut(snapshot) | Standing::Ready(snapshot) => {
                Some(SnapshotElement { name: snapshot.name.clone(), kind: volume.kind.clone() })
            }
            _ => None,
        })
        .collect();
    decision.status.snapshot_backup_status = Some(SnapshotStatus { elements });
}

/// Begins another attempt and deletes the snapshots of this one.
fn another_attempt(
    task: &Task,
    all: &[ObservedSnapshot],
    memory: &Memory,
    now: DateTime<Utc>,
    error: &str,
) -> Decision {
    with_deletions(attempt::over(task, memory, now, error), all)
}

/// Fails the `Backup` and deletes its snapshots.
fn fail(facts: &Facts<'_>, error: &str) -> Decision {
    with_deletions(attempt::fail(facts.task, &facts.memory, facts.now, error.to_owned()), facts.all)
}

fn with_deletions(mut decision: Decision, all: &[ObservedSnapshot]) -> Decision {
    decision.actions.extend(delete_all(all));
    decision
}

/// The instance is released first: its server may be stopped.
fn released(mut decision: Decision, task: &Task) -> Decision {
    decision.actions.splice(0..0, attempt::release(task));
    decision
}

#[cfg(test)]
mod tests;
