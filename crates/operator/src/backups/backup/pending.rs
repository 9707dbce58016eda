//! A `Backup` that has not begun, or that waits for its next attempt.
//!
//! What can never succeed fails at once, so that it does not block the next one. For anything else, `status.reason`
//! says what the `Backup` waits for, since when and until when.

use super::task::{
    ATTEMPTS, Action, CLUSTER_LIMIT, Decision, INSTANCE_LIMIT, LOOK_EVERY, Memory, Observed, Requeue, Task, run_of,
    uid_of,
};
use super::{after, attempt};
use crate::backups::cluster_view::{ClusterView, InstanceView};
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::{Failure, time};
use crate::backups::snapshot;
use crate::backups::target::{Choice, TargetRequest, choose};
use chrono::{DateTime, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase, BackupStatus};
use std::time::Duration;

/// Decides about a `Backup` that is pending.
pub(super) fn decide(task: &Task, observed: &Observed, memory: &Memory, now: DateTime<Utc>) -> Decision {
    let name = &task.spec.cluster.name;
    let Some(cluster) = &observed.cluster else {
        let until = task.created + CLUSTER_LIMIT;
        if now < until {
            let reason = format!("cluster {name} does not exist; waiting for it until {}", time(until));
            return wait(task, memory, reason, after(until - now));
        }
        let trouble = Failure::new(
            format!("cluster {name} does not exist"),
            task.doing(),
            "`spec.cluster.name` must name a Cluster in the same namespace; create a new Backup when the Cluster \
             exists",
        );
        return attempt::fail(task, memory, now, trouble.to_string());
    };
    if cluster.deleting {
        return attempt::cluster_deleted(task, memory, now);
    }
    if let Some(trouble) = impossible(task, cluster, observed) {
        return attempt::fail(task, memory, now, trouble.to_string());
    }
    if let Some(ahead) = &observed.ahead {
        // Its end wakes this reconcile; looking again covers a lost event.
        return wait(task, memory, format!("waiting for Backup {ahead}, which comes first"), after_look());
    }
    if let Some(at) = memory.retry_at.filter(|at| *at > now) {
        return Decision::keep(task, memory, after(at - now));
    }
    if let Some((instance, attempt)) = running(task, cluster) {
        return resume(task, cluster, memory, now, instance, attempt);
    }
    if !cluster.bootstrapped {
        return wait(task, memory, format!("cluster {name} is being bootstrapped"), after_look());
    }
    let request = TargetRequest {
        target: task.spec.target.unwrap_or(cluster.target),
        cold: is_cold(task, cluster),
        failed: task.status.instance.as_deref().filter(|_| task.status.attempts > 0),
    };
    let (instance, warning) = match choose(cluster, request) {
        Choice::Instance { name, warning } => (name, warning),
        Choice::Wait(why) => return wait_for_instance(task, memory, now, &why),
    };
    if let Some(busy) = cluster.instance(&instance).and_then(InstanceView::busy_with) {
        return in_the_way(task, observed, memory, now, &instance, busy);
    }
    if let Some(why) = &memory.refused {
        // Requested before and refused: requested again below, within the same limit.
        let since = memory.waiting_since.unwrap_or(now);
        if now - since >= INSTANCE_LIMIT {
            return wait_for_instance(task, memory, now, why);
        }
    }
    begin(task, cluster, memory, now, instance, warning)
}

/// Obstacles that do not go away by waiting.
fn impossible(task: &Task, cluster: &ClusterView, observed: &Observed) -> Option<Failure> {
    let archived = cluster.archive.is_some();
    match task.method() {
        BackupMethod::BarmanObjectStore if !archived => Some(Failure::new(
            format!("cluster {} has no object store to back up into", cluster.name),
            task.doing(),
            "set `spec.backup.barmanObjectStore` of the Cluster, or ask for `method: volumeSnapshot`",
        )),
        BackupMethod::VolumeSnapshot if !observed.snapshots_known => Some(Failure::new(
            "this Kubernetes does not have the API snapshot.storage.k8s.io/v1",
            task.doing(),
            "install the VolumeSnapshot CRDs and the storage driver's snapshot controller, or ask for \
             `method: barmanObjectStore`",
        )),
        BackupMethod::VolumeSnapshot if !archived && !is_cold(task, cluster) => Some(Failure::new(
            format!("cluster {} has no WAL archive, and a hot snapshot cannot be restored without one", cluster.name),
            task.doing(),
            "set `spec.backup.barmanObjectStore` of the Cluster, or ask for a cold snapshot with `online: false`",
        )),
        BackupMethod::BarmanObjectStore | BackupMethod::VolumeSnapshot => None,
    }
}

/// Whether the snapshot needs a stopped server.
fn is_cold(task: &Task, cluster: &ClusterView) -> bool {
    task.method() == BackupMethod::VolumeSnapshot && !task.spec.online.or(cluster.snapshots.online).unwrap_or(true)
}

/// The instance that already runs this `Backup`, and the number of the attempt. This happens if the operator ended
/// between its request and the status, or if the instance was silent until its run counted as lost.
fn running<'a>(task: &Task, cluster: &'a ClusterView) -> Option<(&'a InstanceView, i32)> {
    let of = |instance: &'a InstanceView| Some((instance, task.attempt_of(instance.busy_with()?)?));
    cluster.instances.iter().find_map(of)
}

/// Continues a run that the status does not name.
fn resume(
    task: &Task,
    cluster: &ClusterView,
    memory: &Memory,
    now: DateTime<Utc>,
    instance: &InstanceView,
    attempt: i32,
) -> Decision {
    let mut decision = Decision::keep(task, memory, after_asking()).act(Action::Hold);
    decision.status.phase = Some(BackupPhase::Running);
    decision.status.method = Some(task.method());
    decision.status.instance = Some(instance.name.clone());
    decision.status.attempts = attempt;
    decision.status.started_at.get_or_insert(now);
    // A recovery that names this `Backup` finds the archive here.
    decision.status.barman_object_store.clone_from(&cluster.archive);
    decision.status.observed_generation = task.generation;
    decision.status.reason = None;
    if task.method() == BackupMethod::VolumeSnapshot {
        let run = instance.status.as_ref().and_then(|status| status.snapshot.as_ref());
        decision.status.online = run.map(|run| run.online);
    }
    decision.memory = Memory::default();
    decision
}

/// The instance is busy with another `Backup`: waits for it, or ends it if its `Backup` no longer exists.
fn in_the_way(
    task: &Task,
    observed: &Observed,
    memory: &Memory,
    now: DateTime<Utc>,
    instance: &str,
    busy: &str,
) -> Decision {
    if observed.known.contains(uid_of(busy)) {
        return wait_for_instance(task, memory, now, &format!("{instance} is busy with another Backup"));
    }
    let text =
        format!("{instance} was running a backup whose Backup does not exist any more ({busy}): the run is cancelled");
    let (instance, run) = (instance.to_owned(), busy.to_owned());
    let mut decision = Decision::keep(task, memory, after_asking())
        .act(Action::GiveUp { instance: instance.clone(), run: run.clone() })
        .act(Action::Release { instance, run });
    decision.events.push(BackupEvent::new(Reason::OrphanEnded, text));
    decision
}

/// Begins an attempt.
fn begin(
    task: &Task,
    cluster: &ClusterView,
    memory: &Memory,
    now: DateTime<Utc>,
    instance: String,
    warning: Option<String>,
) -> Decision {
    let attempts = task.status.attempts + 1;
    let run = run_of(&task.uid, attempts);
    let mut decision = Decision::keep(task, memory, after_asking()).act(Action::Hold);
    let mut status = BackupStatus {
        phase: Some(BackupPhase::Running),
        reason: warning.clone(),
        method: Some(task.method()),
        instance: Some(instance.clone()),
        attempts,
        started_at: Some(now),
        barman_object_store: cluster.archive.clone(),
        observed_generation: task.generation,
        ..BackupStatus::default()
    };
    let on = format!(
        "{}on {instance}",
        if attempts > 1 { format!("attempt {attempts} of {ATTEMPTS}, ") } else { String::new() }
    );
    let text = match task.method() {
        BackupMethod::BarmanObjectStore => {
            decision.actions.push(Action::Start { instance, run });
            format!("backup into the object store, {on}")
        }
        BackupMethod::VolumeSnapshot => {
            let online = !is_cold(task, cluster);
            status.online = Some(online);
            let request = snapshot::request(task, cluster, online, now);
            decision.actions.push(Action::Prepare { instance, run, request });
            format!("{} volume snapshots, {on}", if online { "hot" } else { "cold" })
        }
    };
    decision.events.push(BackupEvent::new(Reason::BackupStarted, text));
    decision.events.extend(warning.map(|text| BackupEvent::new(Reason::BackupWarning, text)));
    decision.status = status;
    // Kept until the instance takes the request: the whole wait has one limit.
    decision.memory = Memory { waiting_since: memory.waiting_since.or(Some(now)), ..Memory::default() };
    decision
}

/// Waits for an instance, within the limit.
fn wait_for_instance(task: &Task, memory: &Memory, now: DateTime<Utc>, why: &str) -> Decision {
    let since = memory.waiting_since.unwrap_or(now);
    let until = since + INSTANCE_LIMIT;
    if now >= until {
        let trouble = Failure::new(
            why.to_owned(),
            format!("{}, waiting for an instance since {}", task.doing(), time(since)),
            "`kubectl describe` of the Cluster shows what it waits for; create a new Backup when the Cluster is ready",
        );
        return attempt::fail(task, memory, now, trouble.to_string());
    }
    let mut decision =
        wait(task, memory, format!("{why}; waiting until {}", time(until)), Requeue::After(Duration::from_secs(2)));
    decision.memory.waiting_since = Some(since);
    decision
}

/// Stays pending, with the reason.
fn wait(task: &Task, memory: &Memory, reason: String, next: Requeue) -> Decision {
    let mut decision = Decision::keep(task, memory, next);
    decision.status.phase = Some(BackupPhase::Pending);
    decision.status.reason = Some(reason);
    decision
}

/// Soon after a request: a small backup may end within a second.
fn after_asking() -> Requeue {
    Requeue::After(Duration::from_millis(300))
}

fn after_look() -> Requeue {
    Requeue::After(LOOK_EVERY)
}
