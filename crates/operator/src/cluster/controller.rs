//! The controller of `Cluster`: what wakes it, and one reconcile from start to end.
//!
//! It is woken by the cluster, its pods, claims and Secrets, and by its Lease when the holder changes. Renewals of the
//! Lease only record a time. The `Cluster` itself is read again at each reconcile.

use super::apply::{Actor, write_status};
use super::context::ClusterContext;
use super::decide::{LATER, decide};
use super::decision::{Action, ClusterEvent, Decision, Reason};
use super::desired::{Complaint, Desired, Images};
use super::in_charge::other_in_charge;
use super::memory::Memory;
use super::read::{Subject, read};
use crate::context::Context;
use crate::deadline::{API_TIMEOUT, within};
use crate::error::Error;
use crate::events::NewEvent;
use crate::own_object;
use crate::retry::Retries;
use chrono::SubsecRound;
use futures::StreamExt;
use holdfast_kube_api::validate::{self, Finding};
use holdfast_kube_api::{Cluster, ClusterStatus, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::controller::{Action as Requeue, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Clusters that are reconciled at the same time. Most of the time a reconcile waits for answers; when a node is lost,
/// those of all clusters with an instance on it wait for silent ones.
const CONCURRENCY: u16 = 64;
/// Whether another operator is still in charge is looked up this often.
const OTHER_OPERATOR: Duration = Duration::from_secs(10);

/// Runs until it is cancelled.
pub async fn run(operator: Arc<Context>, images: Images, cancellation: CancellationToken) {
    let context = Arc::new(ClusterContext::new(Arc::clone(&operator), images));
    let client = operator.client.clone();
    let kind = ApiResource::erase::<Cluster>(&());
    let clusters: Api<DynamicObject> = match &operator.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let ours = watcher::Config::default().labels(names::CLUSTER_LABEL);
    let retries = Arc::new(Retries::new("Cluster", &operator.metrics));
    let holders: Arc<Mutex<HashMap<String, Option<String>>>> = Arc::default();
    let mapped = |kind: &ApiResource| {
        let kind = kind.clone();
        move |labels: Option<&String>, namespace: Option<String>| {
            let name = labels?.clone();
            let mut reference = ObjectRef::new_with(&name, kind.clone());
            reference.namespace = namespace;
            Some(reference)
        }
    };
    let (of_pod, of_claim, of_secret, of_lease) = (mapped(&kind), mapped(&kind), mapped(&kind), mapped(&kind));
    let on_error = Arc::clone(&retries);
    let hears = Arc::clone(&context);
    Controller::new_with(clusters, watcher::Config::default(), kind.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches(scoped::<Pod>(&operator), ours.clone(), move |pod| {
            of_pod(pod.labels().get(names::CLUSTER_LABEL), pod.namespace())
        })
        .watches(scoped::<PersistentVolumeClaim>(&operator), ours.clone(), move |claim| {
            of_claim(claim.labels().get(names::CLUSTER_LABEL), claim.namespace())
        })
        .watches(scoped::<Secret>(&operator), ours.clone(), move |secret| {
            of_secret(secret.labels().get(names::CLUSTER_LABEL), secret.namespace())
        })
        .watches(scoped::<Lease>(&operator), ours, move |lease| {
            let version = lease.resource_version().unwrap_or_default();
            hears.hear_of_lease(&lease.namespace().unwrap_or_default(), &lease.name_any(), &version);
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
            let key = format!("{}/{}", lease.namespace().unwrap_or_default(), lease.name_any());
            let mut holders = holders.lock();
            let changed = holders.insert(key, holder.clone()) != Some(holder);
            drop(holders);
            changed.then(|| of_lease(lease.labels().get(names::CLUSTER_LABEL), lease.namespace())).flatten()
        })
        .graceful_shutdown_on(async move { cancellation.cancelled().await })
        .run(
            move |cluster, context| {
                let retries = Arc::clone(&retries);
                async move { retries.observe(&cluster, Box::pin(reconcile(&cluster, &context))).await }
            },
            move |cluster, error, _| on_error.after(&cluster, error),
            context,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

fn scoped<K>(context: &Context) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match &context.namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    }
}

async fn reconcile(cached: &DynamicObject, context: &ClusterContext) -> Result<Requeue, Error> {
    let name = cached.name_any();
    let namespace = cached.namespace().unwrap_or_default();
    let kind = ApiResource::erase::<Cluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.operator.client.clone(), &namespace, &kind);
    let found = within(API_TIMEOUT, "reading the cluster", async {
        api.get_opt(&name).await.map_err(|error| Error::api(format!("read cluster {name}"), error))
    })
    .await?;
    let labels = [("namespace", namespace.as_str()), ("cluster", name.as_str())];
    let Some(cluster) = found else {
        context.operator.metrics.forget(&labels);
        context.forget(&cached.uid().unwrap_or_default(), &namespace, &names::primary_lease(&name));
        return Ok(Requeue::await_change());
    };
    if cluster.meta().deletion_timestamp.is_some() {
        // Kubernetes deletes the objects with their owner.
        return Ok(Requeue::await_change());
    }
    let uid = cluster.uid().unwrap_or_default();
    let memory = context.memory(&uid);
    let mut memory = memory.lock().await;
    if let Some(other) = other_in_charge(&cluster, context).await? {
        let text = format!(
            "the operator in namespace {} (version {}) is in charge of this cluster, so the one in {} does nothing; if \
             that operator does not exist any more, remove status.operator",
            other.namespace, other.version, context.operator.me.namespace
        );
        let event = ClusterEvent { warning: true, reason: Reason::AnotherOperator, text };
        publish(&cluster, context, &mut memory, &event).await;
        return Ok(Requeue::requeue(OTHER_OPERATOR));
    }
    let passed = Box::pin(one_pass(&cluster, &api, context, &mut memory)).await;
    if let Err(error) = &passed
        && error.is_definite()
    {
        // The status cannot say it: without what was refused, nothing is decided.
        let text = format!("nothing is done about this cluster: {}", error.in_full());
        let event = ClusterEvent { warning: true, reason: Reason::RequestRefused, text };
        publish(&cluster, context, &mut memory, &event).await;
    }
    let decision = passed?;

    let status = &decision.status;
    context.operator.metrics.set("holdfast_cluster_instances", &labels, f64::from(status.instances));
    context.operator.metrics.set("holdfast_cluster_ready_instances", &labels, f64::from(status.ready_instances));
    let ready = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    context.operator.metrics.set("holdfast_cluster_ready", &labels, if ready { 1.0 } else { 0.0 });
    Ok(Requeue::requeue(decision.next))
}

/// Read, validate, decide, write the status, act, publish Events.
async fn one_pass(
    cluster: &DynamicObject,
    api: &Api<DynamicObject>,
    context: &ClusterContext,
    memory: &mut Memory,
) -> Result<Decision, Error> {
    let desired = desired(cluster, context);
    // A status that cannot be parsed is never treated as empty: that would bootstrap the cluster again.
    let status: ClusterStatus = own_object::status(cluster)
        .map_err(|source| Error::Malformed { what: format!("the status of cluster {}", desired.name), source })?;
    let subject = Subject {
        name: &desired.name,
        namespace: &desired.namespace,
        uid: &desired.uid,
        generation: desired.generation,
        wal_storage: desired.spec.wal_storage.is_some(),
        recovery_backup: desired
            .spec
            .bootstrap
            .as_ref()
            .and_then(|bootstrap| bootstrap.recovery.as_ref()?.backup.as_ref())
            .map(|backup| backup.name.as_str()),
    };
    let read = Box::pin(read(context, subject, status.clone(), memory)).await?;
    let now = context.operator.clock.now().trunc_subsecs(3);
    let decision = decide(&desired, &read.observed, now);
    let version = cluster.resource_version().unwrap_or_default();
    within(API_TIMEOUT, "writing the status", write_status(api, &desired.name, &version, &status, &decision.status))
        .await?;
    for action in &decision.actions {
        tracing::debug!(cluster = desired.name, namespace = desired.namespace, ?action, "does");
    }
    let actor = Actor { context, desired: &desired, read: &read, now };
    // Rarely changed objects are read again until there is nothing to do about them.
    let settled = !decision.actions.iter().any(|action| matches!(action, Action::Apply { .. } | Action::Remove { .. }));
    if read.full {
        memory.full_look = (settled && !read.incomplete).then(|| (Instant::now(), desired.generation));
    }
    let done = actor.act(&decision.actions, &mut memory.refusals).await;
    let wanted = decision.actions.iter().map(|action| action.title(&desired.name));
    memory.refusals.retain(&wanted.chain(read.unread).collect());
    for event in &decision.events {
        publish(cluster, context, memory, event).await;
    }
    let next = if decision.busy || done { decision.next } else { LATER };
    let retry = memory.refusals.next_try(Instant::now()).unwrap_or(next);
    Ok(Decision { next: next.min(retry), ..decision })
}

/// The manifest after validation. A refused manifest is still read as far as possible: it keeps an existing cluster
/// alive.
fn desired(cluster: &DynamicObject, context: &ClusterContext) -> Desired {
    let complain = |finding: Finding| Complaint {
        path: finding.path,
        reason: finding.reason.name().to_owned(),
        message: if finding.hint.is_empty() {
            finding.message
        } else {
            format!("{} ({})", finding.message, finding.hint)
        },
    };
    let raw = serde_json::to_value(cluster).unwrap_or_default();
    let outcome = validate::cluster(&raw);
    let spec = match outcome.value {
        Some(valid) => Some(valid.spec),
        None => own_object::spec(cluster).ok(),
    };
    Desired {
        name: cluster.name_any(),
        namespace: cluster.namespace().unwrap_or_default(),
        uid: cluster.uid().unwrap_or_default(),
        generation: cluster.metadata.generation.unwrap_or_default(),
        unreadable: spec.is_none(),
        spec: spec.unwrap_or_default(),
        errors: outcome.errors.into_iter().map(complain).collect(),
        warnings: outcome.warnings.into_iter().map(complain).collect(),
        images: context.images.clone(),
        operator: Some(context.operator.me.clone()),
        restarted_at: cluster.annotations().get(names::RESTARTED_AT).cloned(),
    }
}

/// Publishes an Event, unless it was published a short time ago.
async fn publish(cluster: &DynamicObject, context: &ClusterContext, memory: &mut Memory, event: &ClusterEvent) {
    if !memory.is_news(event, Instant::now()) {
        return;
    }
    if event.reason == Reason::FailingOver {
        let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
        let labels = [("namespace", namespace.as_str()), ("cluster", name.as_str())];
        context.operator.metrics.add("holdfast_operator_failovers_total", &labels, 1.0);
    }
    let reason = event.reason.name();
    let new = NewEvent { warning: event.warning, reason: &reason, text: &event.text };
    context.operator.recorder.publish(&ApiResource::erase::<Cluster>(&()), cluster, new).await;
}
