//! Services, the disruption budget and the `PodMonitor`.
//!
//! The services select by the role label, which is set only after an instance reports its role; readiness does the
//! rest. The headless service publishes addresses of pods that are not ready: standbys join before they are ready.

use super::plan::Plan;
use crate::cluster::decision::{Action, Reason};
use crate::cluster::observed::{BudgetApi, Kind};
use holdfast_kube_api::names;
use serde_json::{Value, json};

pub(super) fn decide(plan: &mut Plan<'_>) {
    let cluster = plan.desired.name.clone();
    let all = json!({names::CLUSTER_LABEL: cluster});
    let of_role = |role: &str| json!({names::CLUSTER_LABEL: cluster, names::ROLE_LABEL: role});
    service(plan, &names::read_write_service(&cluster), &of_role(names::PRIMARY), false);
    service(plan, &names::read_only_service(&cluster), &of_role(names::REPLICA), false);
    service(plan, &names::read_service(&cluster), &all, false);
    service(plan, &names::headless_service(&cluster), &all, true);
    budget(plan, &cluster);
    pod_monitor(plan, &cluster);
    if plan.observed.lease.is_none() && !plan.observed.is_foreign("Lease", &names::primary_lease(&cluster)) {
        plan.actions.push(Action::CreateLease);
    }
}

fn service(plan: &mut Plan<'_>, name: &str, selector: &Value, headless: bool) {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    let mut spec = json!({
        "type": "ClusterIP",
        "selector": selector,
        "ports": [port("postgres", names::POSTGRES_PORT)],
    });
    if headless {
        spec["clusterIP"] = json!("None");
        spec["publishNotReadyAddresses"] = json!(true);
    }
    let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": plan.metadata(name, &[]), "spec": spec});
    plan.apply(Kind::Service, name, object);
}

/// Drains wait until a standby is ready; the primary may be evicted if a standby can replace it.
fn budget(plan: &mut Plan<'_>, cluster: &str) {
    if plan.desired.spec.instances < 2 {
        plan.remove(Kind::PodDisruptionBudget, cluster);
        return;
    }
    let version = match plan.observed.apis.disruption_budget {
        Some(BudgetApi::V1) => "policy/v1",
        Some(BudgetApi::V1Beta1) => "policy/v1beta1",
        None => {
            plan.warn(
                Reason::ApiMissing,
                "this API server has no PodDisruptionBudget API: node drains do not wait for standbys",
            );
            return;
        }
    };
    let object = json!({
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": plan.metadata(cluster, &[]),
        // The number of pods that must run: for pods without a workload controller, only this form works.
        "spec": {
            "minAvailable": plan.desired.spec.instances - 1,
            "selector": {"matchLabels": {names::CLUSTER_LABEL: cluster}},
        },
    });
    plan.apply(Kind::PodDisruptionBudget, cluster, object);
}

fn pod_monitor(plan: &mut Plan<'_>, cluster: &str) {
    let wanted = plan.desired.spec.monitoring.as_ref().is_some_and(|monitoring| monitoring.enable_pod_monitor);
    if !wanted {
        plan.remove(Kind::PodMonitor, cluster);
        return;
    }
    if !plan.observed.apis.pod_monitor {
        plan.warn(
            Reason::ApiMissing,
            "spec.monitoring.enablePodMonitor: this API server has no PodMonitor API (monitoring.coreos.com/v1), so \
             no PodMonitor is created",
        );
        return;
    }
    let object = json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": plan.metadata(cluster, &[]),
        "spec": {
            "selector": {"matchLabels": {names::CLUSTER_LABEL: cluster}},
            "podMetricsEndpoints": [{"port": "metrics"}],
        },
    });
    plan.apply(Kind::PodMonitor, cluster, object);
}
