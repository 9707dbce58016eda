//! Which instances must exist, by name.
//!
//! `status.instanceNames` decides: a name is added before its volume is made and removed before its volume is deleted.
//! A number is never used twice. The instance that takes writes, or will take them, is never removed. Of the others the
//! worst is removed first: one that has failed before one that does not stream, and that before the one with the
//! least WAL. No instance is removed if fewer standbys would stream than the manifest asks for.

use super::plan::Plan;
use super::roles;
use crate::cluster::decision::{Phase, Reason};
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::InstancePhase;
use holdfast_pgtypes::Lsn;
use std::cmp::Reverse;

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
        remove(plan, &cluster, wanted);
    }
}

/// The status was lost but the volumes exist, as after a restore of the API objects: the volumes name the instances.
fn adopt(plan: &mut Plan<'_>) {
    if !plan.status.instance_names.is_empty() || plan.status.system_id.is_some() {
        return;
    }
    let cluster = plan.desired.name.clone();
    let kept = plan.observed.claims.iter().filter(|(_, claim)| !super::volumes::is_retired(claim));
    let mut serials: Vec<i32> = kept.filter_map(|(name, _)| names::serial(&cluster, name)).collect();
    serials.sort_unstable();
    if let Some(last) = serials.last() {
        plan.status.latest_generated_node = plan.status.latest_generated_node.max(*last);
        plan.status.instance_names = serials.into_iter().map(|serial| names::instance(&cluster, serial)).collect();
        // Who held the Lease last took writes last.
        let holder = plan.observed.lease.as_ref().and_then(|lease| lease.holder.clone());
        plan.status.target_primary = holder.filter(|holder| plan.status.instance_names.contains(holder));
    }
}

fn add(plan: &mut Plan<'_>, cluster: &str) {
    plan.status.latest_generated_node += 1;
    let name = names::instance(cluster, plan.status.latest_generated_node);
    plan.note(Reason::CreatingInstance, format!("creating instance {name}"));
    plan.status.instance_names.push(name);
}

fn remove(plan: &mut Plan<'_>, cluster: &str, wanted: usize) {
    let status = &plan.status;
    let spared =
        |name: &String| status.target_primary.as_ref() == Some(name) || status.current_primary.as_ref() == Some(name);
    let others: Vec<&String> = status.instance_names.iter().filter(|name| !spared(name)).collect();
    let Some(worst) = others.iter().min_by_key(|name| worth(plan, cluster, name)).map(|name| (*name).clone()) else {
        return;
    };
    let streaming = others.iter().filter(|name| ***name != worst && roles::streams(plan, name)).count();
    let needed = wanted.saturating_sub(1);
    if streaming < needed {
        plan.wait_for(
            format!("standbys that stream: {needed} are needed, and without {worst} there would be {streaming}"),
            "an instance is removed when enough of the others follow the primary; see status.instancesStatus for what \
             keeps them from it",
            None,
        );
        return;
    }
    plan.status.instance_names.retain(|other| *other != worst);
    let volumes = match super::volumes::removal_delay(plan).num_seconds() {
        0 => " and its volumes".to_owned(),
        seconds => format!("; its volumes are kept for {seconds} s"),
    };
    plan.note(Reason::RemovingInstance, format!("removing instance {worst}{volumes}"));
    plan.say(Phase::RemovingInstances, format!("{worst} is being removed"));
}

/// How much an instance is worth keeping. Of two equal ones the lower number is kept.
fn worth(plan: &Plan<'_>, cluster: &str, name: &str) -> impl Ord + use<> {
    let answer = plan.observed.answer(name);
    let works = |phase| phase != InstancePhase::Failed;
    let sound = answer.is_some_and(|answer| answer.ready && !answer.diverged && works(answer.phase));
    let stays = !roles::is_on_cordoned_node(plan, name);
    let lsn: Lsn = answer.and_then(|answer| answer.lsn.as_deref()?.parse().ok()).unwrap_or_default();
    let timeline = answer.and_then(|answer| answer.timeline_id);
    (sound, roles::streams(plan, name), stays, timeline, lsn, Reverse(names::serial(cluster, name)))
}

/// Whether an instance that was removed from the list still has a pod, or a claim that is not kept for a while.
fn leftovers(plan: &Plan<'_>) -> bool {
    let known = |name: &str| {
        let instance = name.strip_suffix("-wal").unwrap_or(name);
        plan.status.instance_names.iter().any(|other| other == instance)
    };
    let claims = plan.observed.claims.iter().filter(|(_, claim)| !super::volumes::is_retired(claim));
    let claims = claims.map(|(name, _)| name);
    plan.observed.pods.keys().chain(claims).any(|name| !known(name))
}

/// Whether the target primary takes writes.
pub(super) fn primary_is_well(plan: &Plan<'_>) -> bool {
    let Some(target) = &plan.status.target_primary else { return false };
    plan.status.current_primary.as_ref() == Some(target) && super::roles::is_writable_primary(plan, target)
}
