//! Which instance takes writes.
//!
//! The operator only names it, in `status.targetPrimary`. The instance becomes the primary only if it also holds the
//! Lease. So there is one writer, whatever is decided here. A failover waits, in this order:
//!
//! 1. until the primary is lost: its pod is gone, being deleted or has ended; or it has been silent or failed for long
//!    enough
//! 2. until the Lease is free: released by the primary after PostgreSQL stopped, or not renewed within its time, as
//!    seen by this operator. The Lease is taken away only from a container that has ended, as reported by the kubelet
//!    of a ready node.
//! 3. until the standbys answer and have nothing more to receive, but no longer than [`PATIENCE`]
//!
//! and then takes the standby with the most WAL of the highest timeline. A standby that has not yet reached the
//! cluster's timeline is not taken while the primary's volume still exists, since committed data could be lost. If a
//! primary answers but cannot serve, the same field names another one. The primary then steps down, and releases the
//! Lease itself.

use super::plan::Plan;
use crate::cluster::decision::{Action, Phase, Reason};
use holdfast_contract::problem::Problem;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstancePhase, InstanceStatus, Role};
use holdfast_pgtypes::Lsn;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use std::time::Duration;

/// After the Lease is free, how long a failover waits for standbys that do not answer or that still receive WAL.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a primary may answer without serving before it must step down: crash recovery and restarts take time.
const UNREADY_PATIENCE: Duration = Duration::from_secs(30);
/// How long a starting pod or a silent manager is waited for before the state of the Lease counts.
const SILENT_PATIENCE: Duration = Duration::from_secs(3);
/// The time limit of a promotion.
const PROMOTION_PATIENCE: Duration = Duration::from_secs(90);

/// A standby that has not received more than this takes over nothing on purpose: the primary sends the rest while it
/// stops, which takes a second at 16 MB/s.
const MOST_MISSING_BYTES: u64 = 16 << 20;
/// The same for what it has received and not replayed: it takes no writes before that.
const MOST_UNREPLAYED_BYTES: u64 = 256 << 20;

/// The state of the target primary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Health {
    /// It takes writes.
    Well,
    /// It answers, and is starting or being promoted.
    OnItsWay(String),
    /// It answers, and reports that it has failed.
    Failed(String),
    /// Its pod exists, but it does not answer.
    Silent(String),
    /// It has ended, or is ending.
    Gone {
        why: String,
        /// Whether the kubelet of a ready node reports that its container has ended.
        proven: bool,
    },
}

pub(super) fn decide(plan: &mut Plan<'_>) {
    let Some(target) = plan.status.target_primary.clone() else { return };
    if plan.status.system_id.is_none() {
        bootstrap(plan, &target);
        return;
    }
    match health(plan, &target) {
        Health::Well => settled(plan, &target),
        Health::OnItsWay(what) => on_its_way(plan, &target, &what),
        Health::Failed(error) => {
            plan.warn(Reason::InstanceFailed, format!("{target}: {error}"));
            step_down(plan, &target, &error, Duration::ZERO);
        }
        Health::Silent(why) => lost(plan, &target, &why, SILENT_PATIENCE, false),
        Health::Gone { why, proven } => lost(plan, &target, &why, Duration::ZERO, proven),
    }
}

/// Whether an instance answers as a primary that takes writes.
pub(super) fn is_writable_primary(plan: &Plan<'_>, instance: &str) -> bool {
    plan.observed.answer(instance).is_some_and(|answer| answer.role == Some(Role::Primary) && answer.ready)
}

/// The first instance has its data when it reports so as a running primary.
fn bootstrap(plan: &mut Plan<'_>, target: &str) {
    let answer = plan.observed.answer(target).cloned();
    if let Some(answer) = &answer {
        plan.status.bootstrap.clone_from(&answer.bootstrap);
    }
    if let Some(answer) = answer.as_ref().filter(|_| is_writable_primary(plan, target))
        && answer.system_id.is_some()
    {
        plan.status.system_id.clone_from(&answer.system_id);
        plan.status.bootstrap = None;
        plan.note(Reason::Bootstrapped, format!("the first data directory is complete on {target}"));
        settled(plan, target);
        plan.busy = true;
        return;
    }
    match health(plan, target) {
        Health::Failed(error) => {
            plan.warn(Reason::InstanceFailed, format!("{target}: {error}"));
            let (what, hint) = parts(&error);
            plan.say(Phase::Bootstrapping, format!("{target}: {what}"));
            plan.wait_for(format!("{target}: {what}"), hint, None);
        }
        Health::OnItsWay(what) | Health::Silent(what) | Health::Gone { why: what, .. } => {
            plan.say(Phase::Bootstrapping, format!("{target}: {what}"));
        }
        Health::Well => plan
            .say(Phase::Bootstrapping, format!("{target} is running, but has not reported its system identifier yet")),
    }
}

/// The target primary takes writes.
fn settled(plan: &mut Plan<'_>, target: &str) {
    if plan.status.current_primary.as_deref() != Some(target) {
        if let Some(before) = plan.status.current_primary.clone() {
            plan.note(Reason::NewPrimary, format!("{target} takes writes now, instead of {before}"));
        } else {
            plan.note(Reason::NewPrimary, format!("{target} takes writes"));
        }
        plan.status.current_primary = Some(target.to_owned());
        plan.status.current_primary_timestamp = Some(plan.now);
        plan.busy = true;
    }
    if let Some(answer) = plan.observed.answer(target) {
        plan.status.timeline_id = answer.timeline_id.or(plan.status.timeline_id);
        plan.status.postgres_major = answer.postgres_major.or(plan.status.postgres_major);
    }
}

fn on_its_way(plan: &mut Plan<'_>, target: &str, what: &str) {
    if plan.status.current_primary.as_deref() == Some(target) {
        plan.say(Phase::PrimaryDown, format!("{target} does not take writes: {what}"));
        let delay = delay(plan).max(UNREADY_PATIENCE);
        step_down(plan, target, what, delay);
        return;
    }
    plan.say(switching_phase(plan), format!("{target} is becoming the primary: {what}"));
    match plan.observed.lease.as_ref().and_then(|lease| lease.holder.clone()) {
        Some(holder) if holder != target => {
            let limit = lease_limit(plan);
            plan.wait_for(
                format!("Lease {}: held by {holder}", names::primary_lease(&plan.desired.name)),
                format!(
                    "{holder} releases the Lease when its PostgreSQL has stopped, or loses it when it does not renew it"
                ),
                limit,
            );
        }
        _ => {}
    }
    if plan.observed.ill_for > PROMOTION_PATIENCE {
        step_down(plan, target, what, PROMOTION_PATIENCE);
    }
}

/// A primary that answers but cannot serve: another one is named, and this one steps down by itself.
fn step_down(plan: &mut Plan<'_>, target: &str, why: &str, patience: Duration) {
    let (what, hint) = parts(why);
    let ready = candidates(plan, target);
    let Some(best) = ready.first().cloned() else {
        plan.say(Phase::PrimaryDown, format!("{target}: {what}; no other instance can take over"));
        plan.wait_for(format!("{target}: {what}"), hint, None);
        return;
    };
    if plan.observed.ill_for < patience {
        plan.wait_for(
            format!("{target}: {what}"),
            format!("{best} takes over if this lasts"),
            Some(patience.saturating_sub(plan.observed.ill_for)),
        );
        return;
    }
    choose(plan, target, &best, &what);
}

/// A primary that is gone, or does not answer.
fn lost(plan: &mut Plan<'_>, target: &str, why: &str, patience: Duration, proven: bool) {
    plan.primary_may_return = true;
    let lease_name = names::primary_lease(&plan.desired.name);
    let others = plan.status.instance_names.len() > 1;
    if !others {
        plan.say(Phase::PrimaryDown, format!("{target}: {why}; it is the only instance"));
        return;
    }
    plan.say(Phase::FailingOver, format!("{target} is lost: {why}"));
    let patience = patience.max(delay(plan));
    if plan.observed.ill_for < patience {
        plan.primary_may_return = false;
        plan.wait_for(
            format!("{target}: {why}"),
            "another instance takes over if this lasts",
            Some(patience.saturating_sub(plan.observed.ill_for)),
        );
        return;
    }
    let Some(lease) = plan.observed.lease.clone() else {
        plan.wait_for(format!("Lease {lease_name}"), "the operator is creating it", None);
        return;
    };
    let Some(free_for) = lease.free_for else {
        plan.primary_may_return = false;
        let holder = lease.holder.clone().unwrap_or_default();
        if proven && holder == target {
            plan.actions.push(Action::ReleaseLease { holder, resource_version: lease.resource_version.clone() });
            return;
        }
        let limit = lease_limit(plan);
        plan.wait_for(
            format!("Lease {lease_name}: held by {holder}"),
            format!(
                "{holder} may still take writes: it releases the Lease when it has stopped, or loses it when it \
                     does not renew it"
            ),
            limit,
        );
        return;
    };
    let ready = candidates(plan, target);
    if free_for < PATIENCE
        && let Some(waiting) = hesitation(plan, target, lease.holder.is_none())
    {
        plan.primary_may_return = false;
        plan.wait_for(waiting, "the instance with the most WAL is chosen", Some(PATIENCE.saturating_sub(free_for)));
        return;
    }
    if let Some(best) = ready.first().cloned() {
        choose(plan, target, &best, why);
        return;
    }
    plan.warn(Reason::NoCandidate, format!("{target} is lost ({why}) and no other instance can take over"));
    plan.wait_for(
        format!("{target}, or another instance with its data"),
        "no standby on the primary's timeline answers; the operator starts the primary's pod again on its volume. If \
         that volume is lost, delete its PersistentVolumeClaim: then the most advanced standby takes over, and what it has \
         not received is lost",
        None,
    );
}

/// The first standby that may still report a position or receive WAL. Receiving counts only if the primary released its
/// Lease. A primary that did not renew it has sent nothing for seconds, and an open connection may lead to a frozen
/// primary.
fn hesitation(plan: &Plan<'_>, target: &str, given_back: bool) -> Option<String> {
    for name in plan.status.instance_names.iter().filter(|name| *name != target) {
        let Some(pod) = plan.observed.pods.get(name) else { continue };
        if is_ending(pod) || !is_running(pod) || !node_is_ready(plan, pod) {
            continue;
        }
        match plan.observed.answer(name) {
            None => return Some(format!("{name}: it does not answer yet")),
            Some(answer) if answer.receiving && given_back => {
                return Some(format!("{name}: it is still receiving WAL"));
            }
            Some(_) => {}
        }
    }
    None
}

/// Names the new primary.
fn choose(plan: &mut Plan<'_>, before: &str, best: &str, why: &str) {
    plan.status.target_primary = Some(best.to_owned());
    plan.status.target_primary_timestamp = Some(plan.now);
    let answer = plan.observed.answer(best);
    let at = answer.and_then(|answer| answer.lsn.clone()).unwrap_or_default();
    let timeline = answer.and_then(|answer| answer.timeline_id).unwrap_or_default();
    plan.warn(
        Reason::FailingOver,
        format!("{before} is lost ({why}): {best} takes over at {at} on timeline {timeline}"),
    );
    plan.say(Phase::FailingOver, format!("{best} takes over from {before}"));
    plan.busy = true;
}

/// Hands over on purpose, for an ordered restart: only to a standby that streams, lacks little WAL, and may stay where
/// it is. Returns whether there is one.
pub(super) fn switch_over(plan: &mut Plan<'_>, why: &str) -> bool {
    let Some(target) = plan.status.target_primary.clone() else { return false };
    let Some(best) = candidates(plan, &target).into_iter().find(|name| may_take_over(plan, &target, name)) else {
        return false;
    };
    plan.status.target_primary = Some(best.clone());
    plan.status.target_primary_timestamp = Some(plan.now);
    plan.note(Reason::SwitchingOver, format!("{target} hands over to {best}: {why}"));
    plan.say(Phase::SwitchingOver, format!("{target} hands over to {best}"));
    true
}

/// Whether a standby can take over from a primary that runs, without a loss and within seconds.
fn may_take_over(plan: &Plan<'_>, primary: &str, name: &str) -> bool {
    let lsn = |text: Option<&String>| text.and_then(|text| text.parse::<Lsn>().ok()).map(u64::from);
    let (Some(standby), Some(primary)) = (plan.observed.answer(name), plan.observed.answer(primary)) else {
        return false;
    };
    let (Some(written), Some(received)) = (lsn(primary.lsn.as_ref()), lsn(standby.lsn.as_ref())) else { return false };
    let replayed = lsn(standby.replayed_lsn.as_ref()).unwrap_or(received);
    streams(plan, name)
        && written.saturating_sub(received) <= MOST_MISSING_BYTES
        && received.saturating_sub(replayed) <= MOST_UNREPLAYED_BYTES
        && !is_on_cordoned_node(plan, name)
}

/// Whether a standby answers, is sound, and receives WAL from the primary.
pub(super) fn streams(plan: &Plan<'_>, name: &str) -> bool {
    plan.observed.answer(name).is_some_and(|answer| {
        answer.ready && answer.receiving && !answer.diverged && answer.role == Some(Role::Replica)
    })
}

/// Whether the pod is on a node that takes no new pods, as while it is drained.
pub(super) fn is_on_cordoned_node(plan: &Plan<'_>, name: &str) -> bool {
    let node = plan.observed.pods.get(name).and_then(|pod| pod.spec.as_ref()?.node_name.as_ref());
    node.is_some_and(|node| plan.observed.cordoned.contains(node))
}

/// Instances that could take over, the best first: highest timeline, then most WAL, then lowest number.
fn candidates(plan: &Plan<'_>, target: &str) -> Vec<String> {
    let primary_volume_exists =
        plan.observed.claims.get(target).is_some_and(|claim| claim.metadata.deletion_timestamp.is_none());
    let fits = |answer: &InstanceStatus| {
        answer.system_id == plan.status.system_id
            && !answer.diverged
            && matches!(answer.phase, InstancePhase::Running | InstancePhase::StartingPostgres)
            && answer.role != Some(Role::Primary)
            && answer.lsn.is_some()
            && (answer.timeline_id >= plan.status.timeline_id || !primary_volume_exists)
    };
    let mut all: Vec<_> = plan
        .status
        .instance_names
        .iter()
        .filter(|name| *name != target)
        .filter(|name| plan.observed.pods.get(*name).is_some_and(|pod| !is_ending(pod)))
        .filter_map(|name| Some((name, plan.observed.answer(name).filter(|answer| fits(answer))?)))
        .map(|(name, answer)| {
            let serial = names::serial(&plan.desired.name, name).unwrap_or(i32::MAX);
            let lsn: Lsn = answer.lsn.as_deref().and_then(|lsn| lsn.parse().ok()).unwrap_or_default();
            ((answer.timeline_id, lsn, std::cmp::Reverse(serial)), name.clone())
        })
        .collect();
    all.sort();
    all.into_iter().rev().map(|(_, name)| name).collect()
}

fn health(plan: &Plan<'_>, name: &str) -> Health {
    let gone = |why: &str, proven| Health::Gone { why: why.to_owned(), proven };
    let Some(pod) = plan.observed.pods.get(name) else { return gone("its pod does not exist", false) };
    let node_ready = node_is_ready(plan, pod);
    let ended = container_state(pod).and_then(|state| state.terminated.as_ref()).map(|ended| ended.exit_code);
    if pod.metadata.deletion_timestamp.is_some() {
        return gone("its pod is being deleted", ended.is_some() && node_ready);
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if matches!(phase, "Failed" | "Succeeded") {
        return gone("its pod has ended", ended.is_some() && node_ready);
    }
    if super::volumes::is_going(plan, name) {
        return Health::Failed("its volume is being deleted".to_owned());
    }
    match plan.observed.answers.get(name) {
        Some(Ok(answer)) => match answer.phase {
            // A primary that takes writes is well, whatever else it could not do.
            _ if answer.role == Some(Role::Primary) && answer.ready => Health::Well,
            InstancePhase::Failed => Health::Failed(answer.error.clone().unwrap_or_else(|| answer.message.clone())),
            _ => Health::OnItsWay(if answer.message.is_empty() {
                format!("{:?}", answer.phase).to_lowercase()
            } else {
                answer.message.clone()
            }),
        },
        Some(Err(why)) if is_running(pod) && node_ready => Health::Silent(format!("it does not answer ({why})")),
        _ if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) => {
            Health::Silent("its pod has no node yet".to_owned())
        }
        _ if !node_ready => Health::Silent("its node is not ready".to_owned()),
        _ if ended.is_some() => Health::Silent("its container has ended and is being restarted".to_owned()),
        _ => Health::Silent("its pod is being started".to_owned()),
    }
}

fn switching_phase(plan: &Plan<'_>) -> Phase {
    let before = plan.status.current_primary.as_ref();
    if before.is_some_and(|before| plan.observed.answer(before).is_some()) {
        Phase::SwitchingOver
    } else {
        Phase::FailingOver
    }
}

fn delay(plan: &Plan<'_>) -> Duration {
    Duration::from_secs(plan.desired.spec.failover_delay.and_then(|delay| u64::try_from(delay).ok()).unwrap_or(0))
}

/// When a Lease that is no longer renewed becomes free. `None` once it is free: a limit that moves with the clock would
/// change the status at every look.
fn lease_limit(plan: &Plan<'_>) -> Option<Duration> {
    let lease = plan.observed.lease.as_ref()?;
    let all = Duration::from_secs(u64::from(names::LEASE_SECONDS.unsigned_abs()));
    Some(all.saturating_sub(lease.unchanged_for)).filter(|left| !left.is_zero())
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running(pod: &Pod) -> bool {
    container_state(pod).is_some_and(|state| state.running.is_some())
}

fn container_state(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == names::CONTAINER)?.state.as_ref()
}

fn node_is_ready(plan: &Plan<'_>, pod: &Pod) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
    node.and_then(|node| plan.observed.nodes.get(node)).copied().unwrap_or(false)
}

/// The `error` and `while` parts of an error in one line, and its hint.
pub(super) fn parts(error: &str) -> (String, String) {
    let joined = |text: &str, by: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(by);
    let Problem { message, doing, hint } = Problem::read(error);
    let what = match doing {
        Some(doing) => format!("{}, while {}", joined(&message, ", "), joined(&doing, ", ")),
        None => joined(&message, ", "),
    };
    (what, hint.map_or_else(|| "see the log of the pod".to_owned(), |hint| joined(&hint, "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_an_error_stays_in_its_part() {
        for (error, what, hint) in [
            ("error: no space\nwhile: writing\nhint:  grow it", "no space, while writing", "grow it"),
            ("error: no space", "no space", "see the log of the pod"),
            ("killed", "killed", "see the log of the pod"),
            (
                "error: one\n       two: three\nwhile: planning\nhint:  name the line: 2, or another one\n       \
                 targetTLI 1: it has backup x\n",
                "one, two: three, while planning",
                "name the line: 2, or another one; targetTLI 1: it has backup x",
            ),
        ] {
            assert_eq!(parts(error), (what.to_owned(), hint.to_owned()), "{error}");
        }
    }
}
