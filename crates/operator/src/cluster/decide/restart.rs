//! Instances with old settings: restarted, or their pods replaced, one at a time, standbys first.
//!
//! Nothing begins unless every instance is ready and nothing else changes. A setting that needs a restart of PostgreSQL
//! leads to a restart within the pod, on the primary too: some seconds without writes, and no change of roles. A
//! changed pod template replaces the pod. The primary hands over first, if an instance can take over.
//!
//! Some settings must never be lower on a standby than on its primary (PostgreSQL's manual, "Hot Standby:
//! Administrator's Overview"). A raised one follows the usual order. A lowered one must reach the primary first: a
//! standby does not report that it waits until it has replayed the primary's lower value. What is left to do here: the
//! primary must not get a raised value before its standbys.

use super::plan::Plan;
use super::{pods, roles};
use crate::cluster::decision::{Action, Phase, Reason};

pub(super) fn decide(plan: &mut Plan<'_>) {
    if plan.phase.is_some() || plan.status.system_id.is_none() || !plan.desired.errors.is_empty() {
        return;
    }
    let Some(primary) = plan.status.target_primary.clone() else { return };
    let mut order: Vec<String> = plan.status.instance_names.iter().filter(|name| **name != primary).cloned().collect();
    order.push(primary.clone());
    if pods::other_major(plan).is_none()
        && let Some(outdated) = order.iter().find(|name| pods::is_outdated(plan, name)).cloned()
    {
        if all_ready(plan, Some(&outdated)) {
            replace(plan, &outdated, &primary);
        } else {
            plan.say(
                Phase::Restarting,
                format!("the pod of {outdated} is out of date; waiting until all other instances are ready"),
            );
        }
        return;
    }
    let waits = |name: &String| plan.observed.answer(name).is_some_and(|answer| answer.pending_restart);
    if let Some(name) = order.iter().find(|name| waits(name)).cloned() {
        if name == primary && !all_have_read(plan, &primary) {
            plan.say(
                Phase::Restarting,
                format!("{name} restarts for changed settings once its standbys have read them"),
            );
            plan.busy = true;
            return;
        }
        if all_ready(plan, Some(&name)) {
            plan.note(Reason::Restarting, format!("restarting PostgreSQL of {name} for changed settings"));
            plan.actions.push(Action::Restart { instance: name.clone() });
        }
        plan.say(Phase::Restarting, format!("{name} restarts for changed settings"));
    }
}

fn replace(plan: &mut Plan<'_>, name: &str, primary: &str) {
    if name == primary && plan.status.instance_names.len() > 1 {
        if !roles::switch_over(plan, "its pod template has changed") {
            plan.say(
                Phase::Restarting,
                format!("the pod of {name} is out of date; waiting for a standby that streams and can take over"),
            );
        }
        return;
    }
    plan.say(Phase::Restarting, format!("the pod of {name} is being replaced"));
    let pod = plan.observed.pods.get(name).filter(|pod| pod.metadata.deletion_timestamp.is_none());
    if let Some(uid) = pod.and_then(|pod| pod.metadata.uid.clone()) {
        plan.note(Reason::ReplacingPod, format!("replacing the pod of {name}: its template has changed"));
        plan.actions.push(Action::DeletePod { name: name.to_owned(), uid });
    }
}

/// Whether every standby has read the settings that the primary waits to restart for: only then has it reported whether
/// it must restart too.
fn all_have_read(plan: &Plan<'_>, primary: &str) -> bool {
    let read = |name: &str| plan.observed.answer(name).and_then(|answer| answer.applied_generation);
    plan.status.instance_names.iter().all(|name| read(name) >= read(primary))
}

/// Whether all instances are ready. One may be left out, since replacing it may make it ready.
fn all_ready(plan: &Plan<'_>, but: Option<&str>) -> bool {
    plan.status
        .instance_names
        .iter()
        .filter(|name| Some(name.as_str()) != but)
        .all(|name| plan.observed.answer(name).is_some_and(|answer| answer.ready))
}
