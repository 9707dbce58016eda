//! Tables: one valid cluster, one change, the expected actions.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod failover;
mod lifecycle;
mod origin;
mod refusals;
mod removal;
mod rollout;
mod telling;

use super::*;
use crate::cluster::decision::{Action, Reason};
use crate::cluster::desired::{Complaint, Images};
use crate::cluster::observed::{Apis, BudgetApi, Foreign, Kind, PrimaryLease, RefusedAction, SecretFacts};
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All kinds of rarely changed objects that a cluster has by default.
fn all_kinds() -> BTreeSet<Kind> {
    BTreeSet::from([Kind::Service, Kind::ServiceAccount, Kind::Role, Kind::RoleBinding, Kind::PodDisruptionBudget])
}

/// The time in all tests.
fn now() -> DateTime<Utc> {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// A cluster of three in its desired state.
fn desired() -> Desired {
    let mut desired = Desired {
        name: "c".to_owned(),
        namespace: "ns".to_owned(),
        uid: "cluster-uid".to_owned(),
        generation: 1,
        images: Images { operator: "holdfast:1".to_owned(), postgres: "postgresql:18".to_owned() },
        ..Desired::default()
    };
    desired.spec.instances = 3;
    desired.spec.storage = Some(serde_json::from_value(json!({"size": "1Gi"})).unwrap());
    desired
}

/// A running pod, as the operator creates it.
fn pod(desired: &Desired, name: &str, role: Option<&str>) -> Pod {
    let observed = Observed::default();
    let plan = Plan::new(desired, &observed, now());
    let mut pod = pod_template::pod(&plan, name, false).unwrap();
    pod.metadata.uid = Some(format!("uid-of-{name}"));
    if let Some(role) = role {
        let labels = pod.metadata.labels.get_or_insert_default();
        for key in [names::ROLE_LABEL, names::CNPG_ROLE_LABEL, names::OLD_ROLE_LABEL] {
            labels.insert(key.to_owned(), role.to_owned());
        }
    }
    pod.spec.as_mut().unwrap().node_name = Some("node-1".to_owned());
    pod.status = serde_json::from_value(json!({
        "phase": "Running", "podIP": "10.0.0.1",
        "containerStatuses": [{
            "name": "postgres", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
            "state": {"running": {"startedAt": "2026-11-22T11:00:00Z"}},
        }],
    }))
    .unwrap();
    pod
}

fn claim(name: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": name, "uid": format!("uid-of-{name}")},
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound"},
    }))
    .unwrap()
}

fn answer(name: &str, role: Role) -> InstanceStatus {
    InstanceStatus {
        instance: name.to_owned(),
        pod_uid: format!("uid-of-{name}"),
        phase: InstancePhase::Running,
        system_id: Some("7000".to_owned()),
        postgres_major: Some(18),
        role: Some(role),
        ready: true,
        timeline_id: Some(1),
        lsn: Some("0/3000000".to_owned()),
        ..InstanceStatus::default()
    }
}

/// The cluster of [`desired`], healthy: c-1 is the primary, c-2 and c-3 follow, and there is nothing to do.
fn healthy(desired: &Desired) -> Observed {
    let mut observed = Observed {
        apis: Apis { disruption_budget: Some(BudgetApi::V1), pod_monitor: false },
        lease: Some(PrimaryLease {
            holder: Some("c-1".to_owned()),
            resource_version: "7".to_owned(),
            ..PrimaryLease::default()
        }),
        nodes: BTreeMap::from([("node-1".to_owned(), true)]),
        ..Observed::default()
    };
    for serial in 1..=3 {
        let name = names::instance("c", serial);
        let role = if serial == 1 { Role::Primary } else { Role::Replica };
        let label = if serial == 1 { names::PRIMARY } else { names::REPLICA };
        observed.pods.insert(name.clone(), pod(desired, &name, Some(label)));
        observed.claims.insert(name.clone(), claim(&name));
        observed.answers.insert(name.clone(), Ok(answer(&name, role)));
        observed.status.instance_names.push(name);
    }
    observed.status.latest_generated_node = 3;
    observed.status.system_id = Some("7000".to_owned());
    observed.status.target_primary = Some("c-1".to_owned());
    observed.status.current_primary = Some("c-1".to_owned());
    observed.status.timeline_id = Some(1);
    let ends = Some(now() + chrono::Duration::days(89));
    for name in ["c-server", "c-replication", "c-operator", "c-app", "c-ca"] {
        let ends = if name == "c-ca" { Some(now() + chrono::Duration::days(3000)) } else { ends };
        let names = (name == "c-server").then(|| hash_of_names(&server_names("c", "ns")));
        let facts = SecretFacts { owned: true, ends, names, authority: Some("a".to_owned()), ..SecretFacts::default() };
        observed.secrets.insert(name.to_owned(), facts);
    }
    // As a reconcile leaves it: the second one finds nothing to write.
    observed.status = decide(desired, &observed, now()).status;
    observed
}

/// The actions in a few words, for comparing.
fn words(decision: &Decision) -> Vec<String> {
    decision
        .actions
        .iter()
        .map(|action| match action {
            Action::Apply { kind, name, object } => {
                assert_eq!(object["metadata"]["name"], name.as_str());
                format!("apply {} {name}", kind.name())
            }
            Action::Remove { kind, name, .. } => format!("remove {} {name}", kind.name()),
            Action::Secret(kind) => format!("secret {}", kind.name("c")),
            Action::CreateLease => "create lease".to_owned(),
            Action::ReleaseLease { holder, .. } => format!("release lease of {holder}"),
            Action::CreateClaim(claim) => format!("create claim {}", claim.metadata.name.as_deref().unwrap()),
            Action::GrowClaim { name, size } => format!("grow {name} to {size}"),
            Action::RetireClaim { name, .. } => format!("retire claim {name}"),
            Action::DeleteClaim { name, .. } => format!("delete claim {name}"),
            Action::CreatePod(pod) => format!("create pod {}", pod.metadata.name.as_deref().unwrap()),
            Action::DeletePod { name, .. } => format!("delete pod {name}"),
            Action::LabelPod { name, labels } => format!("label {name} {}", labels[names::ROLE_LABEL]),
            Action::Restart { instance } => format!("restart {instance}"),
        })
        .collect()
}

#[test]
fn a_healthy_cluster_is_left_alone() {
    let desired = desired();
    let observed = healthy(&desired);
    let decision = decide(&desired, &observed, now() + chrono::Duration::minutes(5));
    assert_eq!(words(&decision), Vec::<String>::new());
    assert_eq!(decision.status, observed.status, "nothing is written either");
    assert_eq!(decision.events, Vec::new());
    assert_eq!(decision.next, LATER);
    assert_eq!(decision.status.phase.as_deref(), Some("Healthy"));
    let ready = decision.status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
}
