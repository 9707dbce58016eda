//! The controller of `ScheduledBackup`: woken at the times of its schedule, and when one of its `Backup`s ends.

use super::decide::{BackupPlan, Made, Observed, Scheduled, decide};
use crate::backups::clock::chrono_time;
use crate::backups::condition::{self, NewCondition};
use crate::backups::context::{BackupsContext, RECONCILE_LIMIT};
use crate::backups::event::{BackupEvent, Reason};
use crate::deadline::within;
use crate::error::{Error, is_conflict, is_not_found};
use crate::own_object;
use crate::retry::Retries;
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use holdfast_kube_api::backup::BackupMethod;
use holdfast_kube_api::scheduled_backup::ScheduledBackupStatus;
use holdfast_kube_api::validate::{self, Finding};
use holdfast_kube_api::{Backup, BackupSpec, BackupStatus, Cluster, ScheduledBackup, names};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Schedules that are reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// Wakes this much after a time of the schedule, so that rounding never wakes it before.
const AFTER: Duration = Duration::from_millis(5);

/// Runs until it is cancelled.
pub(crate) async fn run(shared: Arc<BackupsContext>, cancellation: CancellationToken) {
    let kind = ApiResource::erase::<ScheduledBackup>(&());
    let backups = ApiResource::erase::<Backup>(&());
    let api = |kind: &ApiResource| -> Api<DynamicObject> {
        let client = shared.operator.client.clone();
        match &shared.operator.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, kind),
            None => Api::all_with(client, kind),
        }
    };
    let ours = watcher::Config::default().labels(names::SCHEDULE_LABEL);
    let retries = Arc::new(Retries::new("ScheduledBackup", &shared.operator.metrics));
    let on_error = Arc::clone(&retries);
    Controller::new_with(api(&kind), watcher::Config::default(), kind.clone())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .watches_with(api(&backups), backups.clone(), ours, {
            let kind = kind.clone();
            move |backup: DynamicObject| {
                let schedule = backup.labels().get(names::SCHEDULE_LABEL)?;
                let mut reference = ObjectRef::new_with(schedule, kind.clone());
                reference.namespace = backup.namespace();
                // A change of progress needs no reconcile here.
                is_final(&backup).then_some(reference)
            }
        })
        .graceful_shutdown_on(async move { cancellation.cancelled().await })
        .run(
            move |scheduled, shared| {
                let retries = Arc::clone(&retries);
                async move {
                    let work = within(RECONCILE_LIMIT, "reconciling a ScheduledBackup", reconcile(&scheduled, &shared));
                    Box::pin(retries.observe(&scheduled, work)).await
                }
            },
            move |scheduled, error, _| on_error.after(&scheduled, error),
            Arc::clone(&shared),
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(cached: &DynamicObject, shared: &BackupsContext) -> Result<Action, Error> {
    let name = cached.name_any();
    let namespace = cached.namespace().unwrap_or_default();
    let kind = ApiResource::erase::<ScheduledBackup>(&());
    let client = &shared.operator.client;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind);
    let found = api.get_opt(&name).await.map_err(|error| Error::api(format!("read schedule {name}"), error))?;
    let Some(mut object) = found.filter(|object| object.meta().deletion_timestamp.is_none()) else {
        return Ok(Action::await_change());
    };
    let malformed = |source| Error::Malformed { what: format!("scheduled backup {name}"), source };
    let raw = serde_json::to_value(&object).map_err(malformed)?;
    let status: ScheduledBackupStatus = own_object::status(&object).map_err(malformed)?;
    let now = shared.operator.clock.now();
    let (valid, warnings) = match validate::scheduled_backup(&raw).into_result() {
        Ok(valid) => valid,
        Err(findings) => return invalid(shared, &api, &mut object, status, &findings, now).await,
    };
    let scheduled = Scheduled {
        name: name.clone(),
        uid: object.uid().unwrap_or_default(),
        created: object.meta().creation_timestamp.as_ref().map(chrono_time).unwrap_or_default(),
        generation: object.metadata.generation,
        spec: valid.spec,
        status,
    };
    let backups: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &ApiResource::erase::<Backup>(&()));
    let observed = read(shared, &backups, &namespace, &scheduled).await?;
    let mut decision = decide(&scheduled, &valid.schedule, &observed, now);
    accept(&mut decision.status, scheduled.generation, &warnings, now);
    if scheduled.status.observed_generation != scheduled.generation {
        let text = |finding: &Finding| BackupEvent::new(Reason::BackupWarning, finding.to_string());
        decision.events.extend(warnings.iter().map(text));
    }
    for backup in &decision.delete {
        match backups.delete(backup, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(Error::api(format!("delete backup {backup}"), error)),
        }
    }
    for plan in &decision.create {
        match backups.create(&PostParams::default(), &manifest(plan)).await {
            Ok(_) => {}
            // Created in the meantime: read again to see who owns it.
            Err(error) if is_conflict(&error) => return Err(Error::Changed { what: plan.name.clone() }),
            Err(error) => return Err(Error::api(format!("create backup {}", plan.name), error)),
        }
    }
    shared.write_status(&api, &mut object, &decision.status).await?;
    shared.publish(&kind, &object, &decision.events).await;
    // What was decided at `now` is due relative to `now`, however long the requests took.
    let passed = (shared.operator.clock.now() - now).max(TimeDelta::zero());
    Ok(Action::requeue((decision.next - passed).to_std().unwrap_or_default() + AFTER))
}

async fn read(
    shared: &BackupsContext,
    backups: &Api<DynamicObject>,
    namespace: &str,
    scheduled: &Scheduled,
) -> Result<Observed, Error> {
    let cluster = &scheduled.spec.cluster.name;
    let clusters: Api<DynamicObject> =
        Api::namespaced_with(shared.operator.client.clone(), namespace, &ApiResource::erase::<Cluster>(&()));
    let list = ListParams::default();
    let (all, cluster) = tokio::join!(backups.list(&list), clusters.get_metadata_opt(cluster));
    let all = all.map_err(|error| Error::api("list backups", error))?;
    let cluster = cluster.map_err(|error| Error::api("read the cluster", error))?;
    let made = |object: &DynamicObject| Made {
        name: object.name_any(),
        ours: object.labels().get(names::SCHEDULE_LABEL).is_some_and(|name| *name == scheduled.name),
        created: object.meta().creation_timestamp.as_ref().map(chrono_time).unwrap_or_default(),
        phase: phase(object),
        deleting: object.meta().deletion_timestamp.is_some(),
        // One whose method cannot be read is not deleted by a default.
        of_snapshots: own_object::spec::<BackupSpec>(object)
            .map_or(true, |spec| spec.method.unwrap_or_default() != BackupMethod::BarmanObjectStore),
    };
    Ok(Observed {
        backups: all.iter().map(made).collect(),
        cluster_uid: cluster.filter(|cluster| cluster.meta().deletion_timestamp.is_none()).and_then(|it| it.uid()),
    })
}

fn phase(backup: &DynamicObject) -> holdfast_kube_api::backup::BackupPhase {
    own_object::status::<BackupStatus>(backup).ok().and_then(|status| status.phase).unwrap_or_default()
}

fn is_final(backup: &DynamicObject) -> bool {
    phase(backup).is_final()
}

fn manifest(plan: &BackupPlan) -> DynamicObject {
    let mut object =
        DynamicObject::new(&plan.name, &ApiResource::erase::<Backup>(&())).data(json!({ "spec": plan.spec }));
    object.metadata.labels = Some(plan.labels.clone());
    object.metadata.owner_references = plan.owner.as_ref().map(|owner| vec![owner.reference()]);
    object
}

/// A schedule that cannot be parsed waits for a change of the spec, and its condition says why.
async fn invalid(
    shared: &BackupsContext,
    api: &Api<DynamicObject>,
    object: &mut DynamicObject,
    before: ScheduledBackupStatus,
    findings: &[Finding],
    now: DateTime<Utc>,
) -> Result<Action, Error> {
    let text = findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ");
    let known = before.observed_generation == object.metadata.generation;
    let mut status = before;
    status.message = Some(text.clone());
    status.next_schedule_times = Vec::new();
    status.observed_generation = object.metadata.generation;
    let reason = findings.first().map_or("Invalid", |finding| finding.reason.name());
    set_condition(&mut status, false, reason, &text, object.metadata.generation, now);
    shared.write_status(api, object, &status).await?;
    if !known {
        let kind = ApiResource::erase::<ScheduledBackup>(&());
        shared.publish(&kind, object, &[BackupEvent::new(Reason::ScheduleInvalid, text)]).await;
    }
    Ok(Action::await_change())
}

/// Records that the spec is valid.
fn accept(status: &mut ScheduledBackupStatus, generation: Option<i64>, warnings: &[Finding], now: DateTime<Utc>) {
    let mut text = warnings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        // Conditions without a message are refused.
        "the schedule is valid".clone_into(&mut text);
    }
    let reason = warnings.first().map_or("Accepted", |finding| finding.reason.name());
    set_condition(status, true, reason, &text, generation, now);
}

/// Sets the condition that says whether the spec is valid.
fn set_condition(
    status: &mut ScheduledBackupStatus,
    holds: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: DateTime<Utc>,
) {
    let wanted = NewCondition { kind: "SpecAccepted", holds, reason, message, generation };
    condition::set(&mut status.conditions, wanted, now);
}
