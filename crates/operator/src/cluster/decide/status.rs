//! What people read: counts, a few words for each instance, what the cluster waits for, conditions.

use super::condition::condition;
use super::plan::Plan;
use super::recoverability;
use super::refused;
use super::roles::parts;
use super::volumes;
use crate::cluster::decision::{Phase, Reason};
use crate::cluster::observed::Answer;
use holdfast_kube_api::cluster::InstanceSummary;
use holdfast_kube_api::names;
use holdfast_kube_api::status_port::{InstancePhase, Role};
use k8s_openapi::api::core::v1::Pod;

pub(super) fn decide(plan: &mut Plan<'_>) {
    counts(plan);
    let refused = refused(plan);
    if refused {
        let texts: Vec<String> =
            plan.desired.errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
        plan.say(Phase::SpecRefused, texts.join("; "));
        // Nothing changes until the manifest changes.
        plan.busy = plan.status.system_id.is_some() && plan.status.ready_instances < plan.status.instances;
    }
    for name in plan.status.instance_names.clone() {
        look_at(plan, &name);
    }
    if plan.status.system_id.is_some() {
        let (ready, all) = (plan.status.ready_instances, plan.status.instances);
        let wanted = plan.desired.spec.instances;
        if ready < all || all < wanted {
            plan.say(Phase::WaitingForInstances, format!("{ready} of {wanted} instances are ready"));
        }
    }
    archive(plan);
    if plan.phase.is_none() {
        // Not `say`: looking again sooner changes nothing.
        plan.phase = refused::in_one_line(plan).map(|text| (Phase::RequestRefused, text));
    }
    ready_condition(plan);
}

fn counts(plan: &mut Plan<'_>) {
    plan.status.selector = Some(format!("{}={}", names::CLUSTER_LABEL, plan.desired.name));
    plan.status.instances = i32::try_from(plan.status.instance_names.len()).unwrap_or(i32::MAX);
    let mut summaries = std::collections::BTreeMap::new();
    for name in &plan.status.instance_names {
        summaries.insert(name.clone(), summary(plan, name));
    }
    plan.status.ready_instances = i32::try_from(summaries.values().filter(|one| one.ready).count()).unwrap_or(i32::MAX);
    plan.status.instances_status = summaries;
    plan.status.volumes = volumes::summaries(plan);
    if plan.desired.operator.is_some() {
        plan.status.operator.clone_from(&plan.desired.operator);
    }
    let primary = plan.status.current_primary.clone();
    let answer = primary.and_then(|primary| plan.observed.answer(&primary));
    if let Some(found) = answer.and_then(|answer| recoverability::of(answer, &plan.observed.snapshots)) {
        plan.status.recoverability = Some(found);
    }
}

fn summary(plan: &Plan<'_>, name: &str) -> InstanceSummary {
    match plan.observed.answers.get(name) {
        Some(Ok(answer)) => InstanceSummary {
            role: answer.role.map(|role| match role {
                Role::Primary => names::PRIMARY.to_owned(),
                Role::Replica => names::REPLICA.to_owned(),
            }),
            ready: answer.ready,
            timeline_id: answer.timeline_id,
            // The position changes all the time, and a status with it would be written all the time.
            lsn: None,
            message: message(answer.error.as_deref(), &answer.message),
            manager_version: Some(answer.version.clone()).filter(|version| !version.is_empty()),
        },
        other => InstanceSummary { message: Some(silence(plan, name, other)), ..InstanceSummary::default() },
    }
}

fn message(error: Option<&str>, message: &str) -> Option<String> {
    match error {
        Some(error) => Some(parts(error).0),
        None => Some(message.to_owned()).filter(|message| !message.is_empty()),
    }
}

fn silence(plan: &Plan<'_>, name: &str, answer: Option<&Answer>) -> String {
    match plan.observed.pods.get(name) {
        None => "no pod".to_owned(),
        Some(pod) if pod.metadata.deletion_timestamp.is_some() => "its pod is being deleted".to_owned(),
        Some(pod) => match (waiting_reason(pod), answer) {
            (Some((reason, _)), _) => reason,
            (None, Some(Err(error))) if pod_started(pod) => format!("does not answer: {error}"),
            (None, _) => "its pod is being started".to_owned(),
        },
    }
}

/// What keeps an instance from being ready, if somebody can do something about it.
fn look_at(plan: &mut Plan<'_>, name: &str) {
    if let Some(answer) = plan.observed.answer(name) {
        if answer.phase == InstancePhase::Failed {
            let (what, hint) = parts(answer.error.as_deref().unwrap_or(&answer.message));
            plan.say(Phase::InstanceFailed, format!("{name}: {what}"));
            if answer.ready {
                plan.warn(Reason::HousekeepingFails, format!("{name} serves, but: {what}"));
            }
            plan.wait_for(format!("{name}: {what}"), hint, None);
        } else if answer.phase == InstancePhase::Waiting {
            plan.wait_for(
                format!("{name}: {}", answer.message),
                "the instance continues by itself when it has what it waits for",
                None,
            );
        }
        return;
    }
    for claim in [name.to_owned(), names::wal_claim(name)] {
        let pending =
            plan.observed.claims.get(&claim).is_some_and(|claim| {
                claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
            });
        let trouble = plan.observed.troubles.get(&claim).cloned();
        if pending && let Some(trouble) = trouble {
            plan.wait_for(
                format!("PersistentVolumeClaim {claim}: {trouble}"),
                "check the storage class and its provisioner",
                None,
            );
            return;
        }
    }
    let Some(pod) = plan.observed.pods.get(name).cloned() else { return };
    if let Some(why) = unschedulable(&pod) {
        plan.wait_for(
            format!("pod {name}: {why}"),
            "free resources on the nodes, or change resources, affinity or tolerations of the cluster",
            None,
        );
    } else if let Some((reason, why)) = waiting_reason(&pod) {
        let hint = match reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
                "check spec.imageName and spec.imagePullSecrets"
            }
            "CrashLoopBackOff" => "see the log of the pod: kubectl logs --previous",
            _ => "see the events of the pod: kubectl describe pod",
        };
        match out_of_memory(&pod) {
            Some(limit) => plan.wait_for(
                format!("pod {name}: {reason}: it needed more memory than {limit} (OOMKilled)"),
                "raise spec.resources.limits.memory, or lower shared_buffers and work_mem",
                None,
            ),
            None => plan.wait_for(format!("pod {name}: {reason}: {why}"), hint, None),
        }
    } else if let Some(trouble) = plan.observed.troubles.get(name).cloned()
        && !pod_started(&pod)
    {
        plan.wait_for(format!("pod {name}: {trouble}"), "see the events of the pod: kubectl describe pod", None);
    }
}

/// The scheduler's message.
fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled =
        conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(scheduled.message.clone().unwrap_or_else(|| scheduled.reason.clone().unwrap_or_default()))
}

/// Why a container does not start, if it is not just starting.
fn waiting_reason(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .filter_map(|waiting| Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default())))
        .find(|(reason, _)| !matches!(reason.as_str(), "PodInitializing" | "ContainerCreating"))
}

/// The memory limit of a container that was ended because it needed more.
fn out_of_memory(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == names::CONTAINER)?;
    let ended = status.last_state.as_ref()?.terminated.as_ref()?;
    (ended.reason.as_deref() == Some("OOMKilled"))
        .then(|| {
            let container = pod.spec.as_ref()?.containers.iter().find(|one| one.name == names::CONTAINER)?;
            let limits = container.resources.as_ref()?.limits.as_ref()?;
            Some(format!("its limit of {}", limits.get("memory")?.0))
        })?
        .or_else(|| Some("its node has".to_owned()))
}

fn pod_started(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Whether the manifest is refused.
fn refused(plan: &mut Plan<'_>) -> bool {
    let (errors, warnings) = (&plan.desired.errors, &plan.desired.warnings);
    let list = |all: &[crate::cluster::desired::Complaint]| {
        all.iter().map(|one| format!("{}: {}", one.path, one.message)).collect::<Vec<_>>().join("; ")
    };
    let (status, reason, text) = match (errors.first(), warnings.first()) {
        (Some(first), _) => ("False", first.reason.clone(), list(errors)),
        (None, Some(_)) => ("True", "AcceptedWithWarnings".to_owned(), list(warnings)),
        (None, None) => ("True", "Accepted".to_owned(), "every field takes effect".to_owned()),
    };
    let refused = !errors.is_empty();
    let notes: Vec<(Reason, String)> = errors
        .iter()
        .map(|one| (Reason::SpecRefused, format!("{}: {}", one.path, one.message)))
        .chain(warnings.iter().map(|one| (Reason::SpecWarning, format!("{}: {}", one.path, one.message))))
        .collect();
    for (reason, text) in notes {
        plan.warn(reason, text);
    }
    condition(plan, "SpecAccepted", status, &reason, &text);
    refused
}

fn archive(plan: &mut Plan<'_>) {
    let configured = plan.desired.spec.backup.as_ref().is_some_and(|backup| backup.barman_object_store.is_some());
    if !configured {
        plan.status.conditions.retain(|condition| condition.type_ != "ContinuousArchiving");
        return;
    }
    let before = plan
        .observed
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "ContinuousArchiving")
        .map(|condition| condition.status.clone());
    let primary = plan.status.current_primary.clone();
    let Some(state) =
        primary.and_then(|primary| plan.observed.answer(&primary)).and_then(|answer| answer.archive.clone())
    else {
        if before.is_none() {
            condition(
                plan,
                "ContinuousArchiving",
                "Unknown",
                "NoPrimary",
                "no primary has reported the state of archiving yet",
            );
        }
        return;
    };
    if state.working {
        if before.as_deref() == Some("False") {
            plan.note(Reason::ArchivingWorks, "WAL is archived again");
        }
        condition(plan, "ContinuousArchiving", "True", "Working", "each finished WAL segment is archived");
    } else {
        let (what, hint) = parts(state.error.as_deref().unwrap_or("the last segment was not archived"));
        if before.as_deref() != Some("False") {
            plan.warn(Reason::ArchivingFails, format!("WAL is not archived: {what}"));
        }
        condition(plan, "ContinuousArchiving", "False", "Failing", &format!("{what}. {hint}"));
        plan.wait_for(format!("WAL archiving: {what}"), hint, None);
    }
}

fn ready_condition(plan: &mut Plan<'_>) {
    let phase = plan.phase.as_ref().map_or(Phase::Healthy, |(phase, _)| *phase);
    let well = super::instances::primary_is_well(plan);
    let text =
        plan.phase.as_ref().map_or_else(|| "all instances match the manifest".to_owned(), |(_, text)| text.clone());
    let enough = plan.status.ready_instances >= plan.desired.spec.instances;
    if well && enough {
        condition(plan, "Ready", "True", "ClusterIsReady", "the primary takes writes and all instances are ready");
    } else {
        let reason = format!("{phase:?}");
        condition(plan, "Ready", "False", &reason, &text);
    }
}
