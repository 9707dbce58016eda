//! Valid objects for tables of tests; each test changes one thing.

use super::backup::{Action, Decision, Observed, Task};
use super::cluster_view::{ClusterView, InstanceView, Volume};
use chrono::{DateTime, TimeDelta, Utc};
use holdfast_kube_api::backup::{BackupMethod, BackupPhase, BackupSpec, BackupStatus, ClusterReference};
use holdfast_kube_api::cluster::BarmanObjectStore;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};

/// 2026-11-22T12:00:00Z, plus seconds.
pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_348_800, 0).unwrap_or_default() + TimeDelta::seconds(seconds)
}

/// An instance that is ready, with two volumes.
pub(crate) fn instance(serial: i32, role: Role, lsn: &str) -> InstanceView {
    let name = names::instance("main", serial);
    InstanceView {
        address: Some(format!("10.244.0.{serial}")),
        serial,
        terminating: false,
        status: Some(InstanceStatus {
            instance: name.clone(),
            pod_uid: format!("pod-{serial}"),
            phase: InstancePhase::Running,
            role: Some(role),
            ready: true,
            holds_lease: role == Role::Primary,
            timeline_id: Some(1),
            lsn: Some(lsn.to_owned()),
            receiving: role == Role::Replica,
            ..InstanceStatus::default()
        }),
        volumes: vec![
            Volume { claim: name.clone(), kind: names::PG_DATA.to_owned() },
            Volume { claim: names::wal_claim(&name), kind: names::PG_WAL.to_owned() },
        ],
        name,
    }
}

/// A healthy cluster of three: `main-1` is the primary, `main-2` the standby with more WAL.
pub(crate) fn cluster() -> ClusterView {
    ClusterView {
        name: "main".to_owned(),
        uid: "cluster-uid".to_owned(),
        bootstrapped: true,
        desired_instances: 3,
        archive: Some(BarmanObjectStore {
            destination_path: "s3://backups/all".to_owned(),
            ..BarmanObjectStore::default()
        }),
        instances: vec![
            instance(1, Role::Primary, "0/5000060"),
            instance(2, Role::Replica, "0/5000060"),
            instance(3, Role::Replica, "0/4000000"),
        ],
        ..ClusterView::default()
    }
}

pub(crate) fn status(cluster: &mut ClusterView, serial: i32) -> &mut InstanceStatus {
    let instance = &mut cluster.instances[usize::try_from(serial).unwrap_or_default() - 1];
    instance.status.get_or_insert_default()
}

/// A `Backup` of [`cluster`] that was created at 0 and has not begun.
pub(crate) fn task(method: BackupMethod) -> Task {
    Task {
        name: "nightly".to_owned(),
        uid: "0a1b2c3d-4e5f".to_owned(),
        created: at(0),
        generation: Some(1),
        spec: BackupSpec {
            cluster: ClusterReference { name: "main".to_owned() },
            method: Some(method),
            ..BackupSpec::default()
        },
        ..Task::default()
    }
}

/// The same, begun on `main-2` at 0.
pub(crate) fn begun(method: BackupMethod) -> Task {
    let mut task = task(method);
    task.status = BackupStatus {
        phase: Some(BackupPhase::Running),
        method: Some(method),
        instance: Some("main-2".to_owned()),
        attempts: 1,
        started_at: Some(at(0)),
        ..BackupStatus::default()
    };
    task
}

/// What is observed while nothing else runs.
pub(crate) fn observed() -> Observed {
    Observed { cluster: Some(cluster()), snapshots_known: true, ..Observed::default() }
}

/// A decision in one line: the phase, the actions, the reason or the first line of the error.
pub(crate) fn line(decision: &Decision) -> String {
    let actions: Vec<String> = decision
        .actions
        .iter()
        .map(|action| match action {
            Action::Hold => "hold".to_owned(),
            Action::Start { instance, .. } => format!("start {instance}"),
            Action::GiveUp { instance, run } => format!("give up {run} on {instance}"),
            Action::SwitchWal { instance } => format!("switch {instance}"),
            Action::Prepare { instance, request, .. } => format!("prepare {instance} online={}", request.online),
            Action::StopSnapshot { instance, .. } => format!("stop {instance}"),
            Action::Release { instance, run } => format!("release {run} on {instance}"),
            Action::CreateSnapshot(plan) => format!("create {}", plan.name),
            Action::Annotate { snapshot, .. } => format!("annotate {snapshot}"),
            Action::DeleteSnapshot { snapshot } => format!("delete {snapshot}"),
        })
        .collect();
    let status = &decision.status;
    let said = status.error.as_deref().or(status.reason.as_deref()).unwrap_or_default();
    let said = super::failure::first_line(said);
    format!("{:?} [{}] {said}", status.phase.unwrap_or_default(), actions.join(", "))
}
