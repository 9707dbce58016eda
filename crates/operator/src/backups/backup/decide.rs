//! What to do about a `Backup`: pure, no client, no clock.
//!
//! Order of the steps of an attempt: wait for the turn ([`pending`]), choose an instance, hold the object by a
//! finalizer, send the request to the instance, then follow what it reports ([`follow`], or
//! [`snapshot`](crate::backups::snapshot) for volume snapshots) until the run ends. An attempt that ends without a
//! backup is followed by another ([`attempt`](super::attempt)), up to a limit.
//!
//! The state is in `Backup.status` and in what instances and the API server report, not in this process. So what was
//! done before a crash is found again and continued. `completed` is set only when the engine reports it.

use super::task::{Decision, GIVE_UP_LIMIT, Memory, Observed, Requeue, Task};
use super::{follow, pending};
use crate::backups::cluster_view::InstanceAnswer;
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::snapshot;
use chrono::{DateTime, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase};
use std::time::Duration;

/// The decision about one `Backup`, without side effects.
pub fn decide(task: &Task, observed: &Observed, memory: &Memory, now: DateTime<Utc>) -> Decision {
    let phase = task.phase();
    if phase.is_final() {
        return Decision { let_go: true, ..Decision::keep(task, memory, Requeue::OnChange) };
    }
    if let Some(deleted) = task.deleted {
        return give_up(task, observed, memory, now, deleted);
    }
    match (phase, task.method()) {
        (BackupPhase::Pending, _) => pending::decide(task, observed, memory, now),
        (_, BackupMethod::BarmanObjectStore) => follow::decide(task, observed, memory, now),
        (_, BackupMethod::VolumeSnapshot) => snapshot::follow(task, observed, memory, now),
    }
}

/// The `Backup` is being deleted: its run is ended first. If the instance does not answer, this is tried for a while
/// and then given up. If that run is still alive, it is ended as an orphan before the next run.
fn give_up(task: &Task, observed: &Observed, memory: &Memory, now: DateTime<Utc>, deleted: DateTime<Utc>) -> Decision {
    let mut decision = Decision::keep(task, memory, Requeue::After(Duration::from_secs(1)));
    decision.actions.extend(snapshot::delete_all(&observed.snapshots));
    let silent =
        matches!(observed.run, InstanceAnswer::Silent(_)) || matches!(observed.snapshot, InstanceAnswer::Silent(_));
    let gone = match (&observed.cluster, &task.status.instance) {
        (Some(cluster), Some(instance)) => cluster.instance(instance).is_none(),
        _ => true,
    };
    let has_given_up = silent && now - deleted > GIVE_UP_LIMIT;
    if !(gone || has_given_up) {
        decision.actions.extend(super::attempt::release(task));
    }
    if task.phase() != BackupPhase::Pending {
        decision.events.push(BackupEvent::new(Reason::BackupGivenUp, "the Backup was deleted: its run is cancelled"));
    }
    decision.let_go = true;
    decision
}

#[cfg(test)]
mod tests;
