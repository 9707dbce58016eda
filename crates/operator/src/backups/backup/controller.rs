//! The controller of `Backup`: what wakes it, and one reconcile from reading to the status.
//!
//! It is woken by the `Backup` itself, by another one of its cluster that ended, by its `Cluster`, and at the time that
//! a decision asks for. Different clusters run in parallel. Within one cluster, a lock is held while the turn is
//! checked and taken.

use super::apply::{Actor, Stop, let_go};
use super::decide::decide;
use super::queue::is_overtaken;
use super::read::{read, task};
use super::task::{Decision, Requeue, Task};
use super::{attempt, task as limits};
use crate::backups::condition;
use crate::backups::context::{BackupsContext, RECONCILE_LIMIT};
use crate::backups::event::{BackupEvent, Reason};
use crate::backups::failure::Failure;
use crate::deadline::within;
use crate::error::Error;
use crate::retry::Retries;
use chrono::SubsecRound;
use futures::StreamExt;
use holdfast_kube_api::backup::{BackupPhase, BackupStatus};
use holdfast_kube_api::validate::{self, Finding};
use holdfast_kube_api::{Backup, Cluster};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// `Backup`s that are reconciled at the same time.
const CONCURRENCY: u16 = 32;
/// The wait after an object changed during its reconcile.
const SOON: Duration = Duration::from_millis(50);
/// How often writing to a `Cluster` that changes at the same time is tried at once.
const TELL_TRIES: u32 = 5;
/// The wait after a request that was not taken.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

/// Runs until it is cancelled.
pub(crate) async fn run(shared: Arc<BackupsContext>, cancellation: CancellationToken) {
    let kind = ApiResource::erase::<Backup>(&());
    let retries = Arc::new(Retries::new("Backup", &shared.operator.metrics));
    let on_error = Arc::clone(&retries);
    let controller = Controller::new_with(scoped(&shared, &kind), watcher::Config::default(), kind.clone())
        .with_config(Config::default().concurrency(CONCURRENCY));
    let (of_backup, of_cluster) = (controller.store(), controller.store());
    let clusters = ApiResource::erase::<Cluster>(&());
    controller
        .watches_with(scoped(&shared, &kind), kind.clone(), watcher::Config::default(), {
            let kind = kind.clone();
            move |backup: DynamicObject| match task(&backup) {
                Ok(ended) if ended.phase().is_final() => {
                    waiting(&of_backup, &kind, backup.namespace().as_deref(), &ended.spec.cluster.name)
                }
                _ => Vec::new(),
            }
        })
        .watches_with(scoped(&shared, &clusters), clusters.clone(), watcher::Config::default(), {
            let kind = kind.clone();
            move |cluster: DynamicObject| {
                waiting(&of_cluster, &kind, cluster.namespace().as_deref(), &cluster.name_any())
            }
        })
        .graceful_shutdown_on(async move { cancellation.cancelled().await })
        .run(
            move |backup, shared| {
                let retries = Arc::clone(&retries);
                async move {
                    let work = within(RECONCILE_LIMIT, "reconciling a Backup", reconcile(&backup, &shared));
                    Box::pin(retries.observe(&backup, work)).await
                }
            },
            move |backup, error, _| on_error.after(&backup, error),
            shared,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

fn scoped(shared: &BackupsContext, kind: &ApiResource) -> Api<DynamicObject> {
    let client = shared.operator.client.clone();
    match &shared.operator.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, kind),
        None => Api::all_with(client, kind),
    }
}

/// The `Backup`s of a cluster that are pending.
fn waiting(
    store: &Store<DynamicObject>,
    kind: &ApiResource,
    namespace: Option<&str>,
    cluster: &str,
) -> Vec<ObjectRef<DynamicObject>> {
    let all = store.state();
    all.iter()
        .filter(|backup| backup.namespace().as_deref() == namespace)
        .filter(|backup| {
            task(backup).is_ok_and(|task| task.phase() == BackupPhase::Pending && task.spec.cluster.name == cluster)
        })
        .map(|backup| ObjectRef::from_obj_with(backup.as_ref(), kind.clone()))
        .collect()
}

async fn reconcile(cached: &DynamicObject, shared: &BackupsContext) -> Result<Action, Error> {
    let name = cached.name_any();
    let namespace = cached.namespace().unwrap_or_default();
    let kind = ApiResource::erase::<Backup>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(shared.operator.client.clone(), &namespace, &kind);
    // A finished `Backup` without a finalizer is not read again when the operator starts.
    if over(cached) {
        shared.forget(&cached.uid().unwrap_or_default());
        return Ok(Action::await_change());
    }
    let key = (namespace.clone(), task(cached).map(|task| task.spec.cluster.name).unwrap_or_default());
    let turn = shared.turn(&key);
    let pending = task(cached).is_ok_and(|task| task.phase() == BackupPhase::Pending);
    let _alone = if pending { Some(turn.lock().await) } else { None };

    let found = api.get_opt(&name).await.map_err(|error| Error::api(format!("read backup {name}"), error))?;
    let Some(mut object) = found else {
        shared.forget(&cached.uid().unwrap_or_default());
        return Ok(Action::await_change());
    };
    let task = match task(&object) {
        Ok(task) => task,
        Err(why) => return not_understood(shared, &api, &mut object, &kind, &why).await,
    };
    if !pending && task.phase() == BackupPhase::Pending {
        // It may be its turn now, but another reconcile holds the lock.
        return Ok(Action::requeue(SOON));
    }
    if task.status.phase.is_none() && task.deleted.is_none() {
        let raw = serde_json::to_value(&object)
            .map_err(|source| Error::Malformed { what: format!("backup {name}"), source })?;
        match validate::backup(&raw).into_result() {
            Ok((_, warnings)) => {
                let notice = |finding: &Finding| BackupEvent::new(Reason::BackupWarning, finding.to_string());
                let events: Vec<BackupEvent> = warnings.iter().map(notice).collect();
                shared.publish(&kind, &object, &events).await;
            }
            Err(findings) => {
                let why = findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ");
                return not_understood(shared, &api, &mut object, &kind, &why).await;
            }
        }
    }
    one_pass(shared, &api, &mut object, &namespace, &task).await
}

/// Whether a `Backup` has ended and nothing is left to do.
fn over(object: &DynamicObject) -> bool {
    task(object).is_ok_and(|task| task.phase().is_final()) && object.finalizers().is_empty()
}

/// Read, decide, act, write the status, publish Events.
async fn one_pass(
    shared: &BackupsContext,
    api: &Api<DynamicObject>,
    object: &mut DynamicObject,
    namespace: &str,
    task: &Task,
) -> Result<Action, Error> {
    let kind = ApiResource::erase::<Backup>(&());
    let read = read(shared, namespace, task).await?;
    let now = shared.operator.clock.now().trunc_subsecs(3);
    let memory = shared.memory(&task.uid);
    let decision = decide(task, &read.observed, &memory, now);
    let actor = Actor { shared, namespace, task, read: &read };
    for action in &decision.actions {
        tracing::debug!(name = task.name, namespace, ?action, "does");
        match actor.act(api, object, action).await {
            Ok(()) => {}
            Err(Stop::Failed(error)) => {
                shared.remember(&task.uid, limits::Memory { silent_since: memory.silent_since, ..decision.memory });
                return Err(error);
            }
            Err(Stop::Refused(why)) => {
                tracing::debug!(name = task.name, namespace, why, "refused");
                let mut status = task.status.clone();
                status.reason = Some(why.clone());
                status.phase.get_or_insert_default();
                status.observed_generation = task.generation;
                shared.remember(&task.uid, limits::Memory { refused: Some(why), ..decision.memory });
                shared.write_status(api, object, &status).await?;
                return Ok(Action::requeue(REFUSED_WAIT));
            }
        }
    }
    let Decision { status, memory, events, next, let_go: released, .. } = decision;
    // A deleted `Backup` keeps its last status: nobody reads it any more, and the object will be gone soon.
    if task.deleted.is_none() {
        shared.write_status(api, object, &status).await?;
    }
    shared.remember(&task.uid, memory);
    shared.publish(&kind, object, &events).await;
    if released {
        // Before the finalizer is removed: after a crash in between, the Event is published again.
        if task.deleted.is_none() {
            tell_cluster(shared, namespace, task, &status).await?;
        }
        let_go(api, object).await?;
        shared.forget(&task.uid);
        return Ok(Action::await_change());
    }
    Ok(match next {
        Requeue::OnChange => Action::await_change(),
        Requeue::After(wait) => Action::requeue(wait),
    })
}

/// Writes the result of the last backup into the `Cluster`. Its own reconcile writes the same status, so a conflict is
/// tried again at once.
async fn tell_cluster(
    shared: &BackupsContext,
    namespace: &str,
    task: &Task,
    status: &BackupStatus,
) -> Result<(), Error> {
    let name = &task.spec.cluster.name;
    let kind = ApiResource::erase::<Cluster>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(shared.operator.client.clone(), namespace, &kind);
    let backups: Api<DynamicObject> =
        Api::namespaced_with(shared.operator.client.clone(), namespace, &ApiResource::erase::<Backup>(&()));
    let all = backups.list(&ListParams::default()).await.map_err(|error| Error::api("list backups", error))?;
    let all: Vec<Task> = all.iter().filter_map(|object| self::task(object).ok()).collect();
    if is_overtaken(task, status.stopped_at, &all) {
        return Ok(());
    }
    let mut tries = 0;
    loop {
        let found = api.get_opt(name).await.map_err(|error| Error::api(format!("read cluster {name}"), error))?;
        let Some(mut cluster) = found else { return Ok(()) };
        let mut new = cluster.data["status"].clone();
        if !new.is_object() {
            return Ok(());
        }
        let malformed = |source| Error::Malformed { what: format!("the conditions of cluster {name}"), source };
        let mut conditions: Vec<Condition> = match new.get("conditions") {
            Some(conditions) => serde_json::from_value(conditions.clone()).map_err(malformed)?,
            None => Vec::new(),
        };
        condition::set_last_backup(&mut conditions, &task.name, status, shared.operator.clock.now());
        new["conditions"] = serde_json::to_value(conditions).map_err(malformed)?;
        match shared.write_status(&api, &mut cluster, &new).await {
            Err(Error::Changed { .. }) if tries < TELL_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// A spec that cannot be read: the `Backup` fails, and the error says what is wrong.
async fn not_understood(
    shared: &BackupsContext,
    api: &Api<DynamicObject>,
    object: &mut DynamicObject,
    kind: &ApiResource,
    why: &str,
) -> Result<Action, Error> {
    let task = Task { name: object.name_any(), generation: object.metadata.generation, ..Task::default() };
    let trouble = Failure::new(
        format!("Backup {} is not valid: {why}", task.name),
        "reading its spec",
        "check the manifest with `holdfast manifest check`, and create a new Backup",
    );
    let decision = attempt::fail(&task, &limits::Memory::default(), shared.operator.clock.now(), trouble.to_string());
    shared.write_status(api, object, &decision.status).await?;
    shared.publish(kind, object, &decision.events).await;
    let_go(api, object).await?;
    Ok(Action::await_change())
}
