//! Which instances must exist, by name.
//!
//! `status.instanceNames` decides: a name is added before its volume is made and removed before its volume is deleted.
//! A number is never used twice. The instance that takes writes, or will take them, is never removed.

use super::plan::Plan;
use crate::cluster::decision::{Phase, Reason};
use holdfast_kube_api::names;

pub(super) fn decide(plan: &mut Plan<'_>) {
    adopt(plan);
    let cluster = plan.desired.name.clone();
    if plan.status.instance_names.is_empty() {
        add(plan, &cluster);
    }
    if plan.status.target_primary.is_none() {
        plan.status.target_primary = plan.status.instance_names.first().cloned();
        plan.status.target_primary_timestamp = Some(plan.now);
    }
    if !plan.desired.errors.is_empty() || plan.status.system_id.is_none() {
        return;
    }
    let wanted = usize::try_from(plan.desired.spec.instances).unwrap_or(1).max(1);
    while plan.status.instance_names.len() < wanted && primary_is_well(plan) {
        add(plan, &cluster);
    }
    // One at a time, and only while the primary is healthy: a standby that may be needed soon is not removed.
    if plan.status.instance_names.len() > wanted && primary_is_well(plan) && !leftovers(plan) {
        remove(plan, &cluster);
    }
}

/// The status was lost but the volumes exist, as after a restore of the API objects: the volumes name the instances.
fn adopt(plan: &mut Plan<'_>) {
    if !plan.status.instance_names.is_empty() || plan.status.system_id.is_some() {
        return;
    }
    let cluster = plan.desired.name.clone();
    let mut serials: Vec<i32> =
        plan.observed.claims.keys().filter_map(|claim| names::serial(&cluster, claim)).collect();
    serials.sort_unstable();
    if let Some(last) = serials.last() {
        plan.status.latest_generated_node = plan.status.latest_generated_node.max(*last);
        plan.status.instance_names = serials.into_iter().map(|serial| names::instance(&cluster, serial)).collect();
    }
}

fn add(plan: &mut Plan<'_>, cluster: &str) {
    plan.status.latest_generated_node += 1;
    let name = names::instance(cluster, plan.status.latest_generated_node);
    plan.note(Reason::CreatingInstance, format!("creating instance {name}"));
    plan.status.instance_names.push(name);
}

fn remove(plan: &mut Plan<'_>, cluster: &str) {
    let status = &plan.status;
    let spared =
        |name: &String| status.target_primary.as_ref() == Some(name) || status.current_primary.as_ref() == Some(name);
    let last = status
        .instance_names
        .iter()
        .filter(|name| !spared(name))
        .max_by_key(|name| names::serial(cluster, name))
        .cloned();
    if let Some(name) = last {
        plan.status.instance_names.retain(|other| *other != name);
        plan.note(Reason::RemovingInstance, format!("removing instance {name} and its volumes"));
        plan.say(Phase::RemovingInstances, format!("{name} is being removed"));
    }
}

/// Whether an instance that was removed from the list still has a pod or a claim.
fn leftovers(plan: &Plan<'_>) -> bool {
    let known = |name: &str| {
        let instance = name.strip_suffix("-wal").unwrap_or(name);
        plan.status.instance_names.iter().any(|other| other == instance)
    };
    plan.observed.pods.keys().chain(plan.observed.claims.keys()).any(|name| !known(name))
}

/// Whether the target primary takes writes.
pub(super) fn primary_is_well(plan: &Plan<'_>) -> bool {
    let Some(target) = &plan.status.target_primary else { return false };
    plan.status.current_primary.as_ref() == Some(target) && super::roles::is_writable_primary(plan, target)
}
