//! Pods: one for each instance in the list, with the instance's name, and their labels. Pods of other instances are
//! deleted.
//!
//! Until the first instance has its data, only that one has a pod. The pod of a lost primary is created again only if
//! no other instance can take over, or has taken over. It then starts with the role that `status.targetPrimary` gives
//! it.

use super::plan::Origin;
use super::plan::Plan;
use super::pod_template;
use crate::cluster::decision::{Action, Phase};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;

pub(super) fn decide(plan: &mut Plan<'_>) {
    for instance in plan.status.instance_names.clone() {
        match plan.observed.pods.get(&instance).cloned() {
            None => create(plan, &instance),
            Some(pod) => keep(plan, &instance, &pod),
        }
    }
    for (name, pod) in &plan.observed.pods {
        let ending = pod.metadata.deletion_timestamp.is_some();
        if plan.status.instance_names.contains(name) {
            continue;
        }
        if let Some(uid) = pod.metadata.uid.clone().filter(|_| !ending) {
            plan.actions.push(Action::DeletePod { name: name.clone(), uid });
        }
        plan.say(Phase::RemovingInstances, format!("{name} is being removed"));
    }
}

fn create(plan: &mut Plan<'_>, instance: &str) {
    let is_target = plan.status.target_primary.as_deref() == Some(instance);
    let bootstrapped = plan.status.system_id.is_some();
    let claim = plan.observed.claims.get(instance);
    // Without its volume a pod waits as well, but here the reason is known.
    let no_volume = claim.is_none() && plan.origin == Origin::Unknown;
    if (!bootstrapped && (!is_target || no_volume))
        || (bootstrapped && is_target && (!plan.primary_may_return || claim.is_none()))
        || claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
    {
        return;
    }
    let account = names::service_account(&plan.desired.name);
    if plan.observed.is_foreign("Pod", instance)
        || plan.observed.is_foreign("PersistentVolumeClaim", instance)
        || plan.observed.is_foreign("PersistentVolumeClaim", &names::wal_claim(instance))
        || plan.observed.is_foreign("ServiceAccount", &account)
        || super::volumes::wal_is_lost(plan, instance)
    {
        // The step that found it says what is in the way.
        return;
    }
    if plan.desired.unreadable {
        plan.wait_for(format!("pod {instance}"), "correct the manifest: its fields for pods cannot be read", None);
        return;
    }
    if let Some(refused) = other_major(plan) {
        plan.wait_for(
            format!("pod {instance}: {refused}"),
            "set spec.imageName to an image of the cluster's own major version",
            None,
        );
        return;
    }
    let wal_volume = has_wal_volume(plan, instance);
    match pod_template::pod(plan, instance, wal_volume) {
        Ok(pod) => plan.actions.push(Action::CreatePod(Box::new(pod))),
        Err(error) => plan.wait_for(format!("pod {instance}: {error}"), "correct the manifest", None),
    }
    let phase = if bootstrapped { Phase::CreatingInstances } else { Phase::Bootstrapping };
    plan.say(phase, format!("creating the pod of {instance}"));
}

/// PostgreSQL of another major version cannot read the data directory.
pub(super) fn other_major(plan: &Plan<'_>) -> Option<String> {
    let (data, image) = (plan.status.postgres_major?, plan.desired.image_major()?);
    (data != image).then(|| {
        format!(
            "the image {} has PostgreSQL {image}, but the data is of PostgreSQL {data}; major upgrades are not \
                 supported yet",
            plan.desired.image()
        )
    })
}

/// Whether an instance has `pg_wal` on its own volume: an instance that was created without one stays without.
pub(super) fn has_wal_volume(plan: &Plan<'_>, instance: &str) -> bool {
    let made = plan.observed.claims.contains_key(&names::wal_claim(instance));
    let without = plan.observed.claims.contains_key(instance) && !made;
    made || (plan.desired.spec.wal_storage.is_some() && !(without && plan.observed.pods.contains_key(instance)))
}

/// Whether an instance's pod was created from another template than the current one.
pub(super) fn is_outdated(plan: &Plan<'_>, instance: &str) -> bool {
    let Some(pod) = plan.observed.pods.get(instance) else { return false };
    let wal_volume = has_wal_volume(plan, instance);
    let made_from = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(names::TEMPLATE_HASH));
    made_from.is_some_and(|made_from| *made_from != pod_template::template_hash(plan, instance, wal_volume))
}

fn keep(plan: &mut Plan<'_>, instance: &str, pod: &Pod) {
    if pod.metadata.deletion_timestamp.is_some() {
        plan.busy = true;
        return;
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let claim_going = super::volumes::is_going(plan, instance);
    let is_target = plan.status.target_primary.as_deref() == Some(instance);
    // A pod that has ended, as by eviction, never runs again, and its name must become free. A pod that cannot run is
    // created again when the manifest was corrected.
    let corrected = plan.desired.errors.is_empty()
        && other_major(plan).is_none()
        && cannot_run(pod, phase, plan.observed.answer(instance))
        && is_outdated(plan, instance);
    if matches!(phase, "Failed" | "Succeeded") || (claim_going && !is_target) || corrected {
        if let Some(uid) = pod.metadata.uid.clone() {
            plan.actions.push(Action::DeletePod { name: instance.to_owned(), uid });
        }
        plan.busy = true;
        return;
    }
    label(plan, instance, pod);
}

/// Whether a pod does not run and will not by itself: no node takes it, its image does not exist, its container ends
/// again and again, or its manager has given up. A pod that copies or replays data does run: that work would be lost.
fn cannot_run(pod: &Pod, phase: &str, answer: Option<&InstanceStatus>) -> bool {
    if let Some(answer) = answer {
        return answer.phase == InstancePhase::Failed && !answer.ready;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let container = statuses.into_iter().flatten().find(|status| status.name == names::CONTAINER);
    let crashes = container.is_some_and(|status| {
        let runs = status.state.as_ref().is_some_and(|state| state.running.is_some());
        !runs && status.restart_count > 0
    });
    phase == "Pending" || crashes
}

/// Sets the role label that services select by.
fn label(plan: &mut Plan<'_>, instance: &str, pod: &Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let before = labels.get(names::ROLE_LABEL).map(String::as_str);
    let is_primary = plan.status.target_primary.as_deref() == Some(instance)
        && plan.status.current_primary.as_deref() == Some(instance);
    let said = plan.observed.answer(instance).and_then(|answer| answer.role);
    let role = match (is_primary, said) {
        (true, Some(Role::Primary)) => Some(names::PRIMARY),
        (true, None) => before,
        (true, Some(Role::Replica)) | (false, _) => plan.status.system_id.as_ref().map(|_| names::REPLICA),
    };
    let mut wanted: BTreeMap<String, String> = plan.desired.spec.inherited_metadata.clone().unwrap_or_default().labels;
    if let Some(role) = role {
        for key in [names::ROLE_LABEL, names::CNPG_ROLE_LABEL, names::OLD_ROLE_LABEL] {
            wanted.insert(key.to_owned(), role.to_owned());
        }
    }
    if wanted.iter().any(|(key, value)| labels.get(key) != Some(value)) {
        plan.actions.push(Action::LabelPod { name: instance.to_owned(), labels: wanted });
    }
}
