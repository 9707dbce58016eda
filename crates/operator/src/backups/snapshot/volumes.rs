//! The snapshots of one attempt, volume by volume: missing, failed at the driver, or taken.

use super::objects::{ATTEMPT, BACKUP_UID, ObservedSnapshot, Owner, SnapshotPlan, TRY};
use crate::backups::backup::Task;
use crate::backups::cluster_view::{ClusterView, Volume};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::cluster::SnapshotOwner;
use holdfast_kube_api::names;

/// How many times a snapshot of a volume is created within an attempt.
pub(super) const TRIES: i32 = 3;
/// How long a driver's error may last before the snapshot is created again: drivers retry by themselves first.
pub(super) const DRIVER_GRACE: TimeDelta = TimeDelta::seconds(10);

/// The state of the snapshot of a volume.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Standing<'a> {
    /// To be created, as the try with this number.
    Missing(i32),
    /// Created; the driver works on it and may have reported an error.
    Waiting(&'a ObservedSnapshot),
    /// Its point in time is taken.
    Cut(&'a ObservedSnapshot),
    /// A restore can use it.
    Ready(&'a ObservedSnapshot),
    /// The driver failed each time; the last try.
    Failed(&'a ObservedSnapshot),
}

/// The state of the snapshot of a volume.
pub(super) fn standing<'a>(
    volume: &Volume,
    task: &Task,
    all: &'a [ObservedSnapshot],
    now: DateTime<Utc>,
) -> Standing<'a> {
    let newest = all
        .iter()
        .filter(|snapshot| snapshot.attempt == task.status.attempts && snapshot.claim == volume.claim)
        .max_by_key(|snapshot| snapshot.number);
    let Some(newest) = newest else { return Standing::Missing(1) };
    if newest.deleting {
        // Somebody else deletes it, so it cannot be used.
        return if newest.number < TRIES { Standing::Missing(newest.number + 1) } else { Standing::Failed(newest) };
    }
    if newest.ready {
        return Standing::Ready(newest);
    }
    let lasting = newest.error.is_some() && newest.error_at.is_none_or(|at| now - at >= DRIVER_GRACE);
    match (lasting, newest.number) {
        // A snapshot with a later error is waited for if its point in time is taken: a new one would have another point
        // in time.
        _ if newest.cut => Standing::Cut(newest),
        (true, TRIES..) => Standing::Failed(newest),
        (true, number) => Standing::Missing(number + 1),
        (false, _) => Standing::Waiting(newest),
    }
}

/// The snapshot of a volume, to be created.
pub(super) fn plan(task: &Task, cluster: &ClusterView, instance: &str, volume: &Volume, number: i32) -> SnapshotPlan {
    let options = &cluster.snapshots;
    let wal = volume.kind == names::PG_WAL;
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut labels = options.labels.clone();
    labels.extend([
        own(names::CLUSTER_LABEL, &cluster.name),
        own(names::INSTANCE_LABEL, instance),
        own(names::VOLUME_LABEL, &volume.kind),
        own(BACKUP_UID, &task.uid),
        own(ATTEMPT, &task.status.attempts.to_string()),
        own(TRY, &number.to_string()),
    ]);
    let mut annotations = options.annotations.clone();
    annotations.extend([own(names::SNAPSHOT_BACKUP, &task.name)]);
    SnapshotPlan {
        name: name(task, wal, number),
        claim: volume.claim.clone(),
        kind: volume.kind.clone(),
        class: if wal {
            options.wal_class_name.clone().or_else(|| options.class_name.clone())
        } else {
            options.class_name.clone()
        },
        labels,
        annotations,
        owner: match options.snapshot_owner_reference.unwrap_or_default() {
            SnapshotOwner::None => None,
            SnapshotOwner::Backup => Some(Owner { kind: "Backup", name: task.name.clone(), uid: task.uid.clone() }),
            SnapshotOwner::Cluster => {
                Some(Owner { kind: "Cluster", name: cluster.name.clone(), uid: cluster.uid.clone() })
            }
        },
    }
}

/// The name of a snapshot: that of the `Backup` with the beginning of its uid, since a snapshot may outlive a `Backup`
/// whose name is then used again. One try has one name, so a restart in the middle creates no second snapshot.
fn name(task: &Task, wal: bool, number: i32) -> String {
    let uid: String = task.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let attempt = task.status.attempts;
    let mut name = format!("{}-{uid}", task.name);
    if attempt > 1 || number > 1 {
        name = format!("{name}-{attempt}-{number}");
    }
    if wal { format!("{name}-wal") } else { name }
}
