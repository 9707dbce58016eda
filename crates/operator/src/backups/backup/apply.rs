//! Carrying out what was decided about a `Backup`. Every action can be repeated.

use super::read::{Read, address};
use super::task::{Action, Task};
use crate::backups::context::BackupsContext;
use crate::backups::snapshot;
use crate::error::{Error, is_conflict, is_not_found};
use crate::status_client::{RequestError, StatusClient};
use holdfast_kube_api::status_port::{BackupRequest, BackupRun, SnapshotRun, WalSwitched};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Keeps a `Backup` from being deleted until its run has ended.
const FINALIZER: &str = "holdfast.dev/backup-run";

/// How long the driver may take to delete a snapshot before the operator stops waiting for it.
const DELETION_WAIT: Duration = Duration::from_secs(5);

/// Why an action was not carried out.
pub(super) enum Stop {
    /// The instance or the API server refused, in these words. The action is tried again later.
    Refused(String),
    /// The request failed.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What is needed to carry out actions.
pub(super) struct Actor<'a> {
    pub(super) shared: &'a BackupsContext,
    pub(super) namespace: &'a str,
    pub(super) task: &'a Task,
    pub(super) read: &'a Read,
}

impl Actor<'_> {
    /// Carries out one action. `object` follows the changes of its own metadata.
    pub(super) async fn act(
        &self,
        api: &Api<DynamicObject>,
        object: &mut DynamicObject,
        action: &Action,
    ) -> Result<(), Stop> {
        match action {
            Action::Hold => Ok(hold(api, object).await?),
            Action::Start { instance, run } => {
                let (client, address) = self.reach(instance)?;
                let request = BackupRequest { name: self.task.name.clone() };
                let answer = client.put::<_, BackupRun>(address, &format!("/backups/{run}"), &request).await;
                answer.map(drop).map_err(|error| asked(instance, error))
            }
            Action::Prepare { instance, run, request } => {
                let (client, address) = self.reach(instance)?;
                let answer = client.put::<_, SnapshotRun>(address, &format!("/snapshots/{run}"), request).await;
                answer.map(drop).map_err(|error| asked(instance, error))
            }
            Action::StopSnapshot { instance, run } => {
                let (client, address) = self.reach(instance)?;
                let answer = client.post::<SnapshotRun>(address, &format!("/snapshots/{run}/stop")).await;
                answer.map(drop).map_err(|error| asked(instance, error))
            }
            Action::GiveUp { instance, run } => self.end(instance, &format!("/backups/{run}")).await,
            Action::Release { instance, run } => self.end(instance, &format!("/snapshots/{run}")).await,
            Action::SwitchWal { instance } => {
                // Tried again later: a primary that just lost its role refuses.
                let switched = match self.reach(instance) {
                    Ok((client, address)) => client.post::<WalSwitched>(address, "/wal/switch").await,
                    Err(_) => return Ok(()),
                };
                if let Err(error) = switched {
                    tracing::debug!(instance, %error, "the primary did not switch WAL");
                }
                Ok(())
            }
            Action::CreateSnapshot(plan) => {
                match self.snapshots().create(&PostParams::default(), &snapshot::manifest(plan)).await {
                    Ok(_) => Ok(()),
                    Err(error) if is_conflict(&error) => Ok(()),
                    Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Err(Stop::Refused(format!(
                        "VolumeSnapshot {} of {} could not be created: {}",
                        plan.name, plan.claim, status.message
                    ))),
                    Err(error) => Err(Error::api(format!("create volume snapshot {}", plan.name), error).into()),
                }
            }
            Action::Annotate { snapshot, annotations } => {
                let annotations: serde_json::Map<_, _> =
                    annotations.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
                match self.snapshots().patch(snapshot, &PatchParams::default(), &patch).await {
                    Ok(_) => Ok(()),
                    // The next reconcile finds it gone.
                    Err(error) if is_not_found(&error) => Ok(()),
                    Err(error) => Err(Error::api(format!("annotate volume snapshot {snapshot}"), error).into()),
                }
            }
            Action::DeleteSnapshot { snapshot } => Ok(self.delete_snapshot(snapshot).await?),
        }
    }

    /// Deletes a snapshot, and waits a little for the driver to delete it. So nothing half-done is left when the status
    /// says that the backup failed.
    async fn delete_snapshot(&self, name: &str) -> Result<(), Error> {
        let api = self.snapshots();
        let failed = |error| Error::api(format!("delete volume snapshot {name}"), error);
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        let deadline = Instant::now() + DELETION_WAIT;
        while Instant::now() < deadline && api.get_metadata_opt(name).await.map_err(failed)?.is_some() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    fn snapshots(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.shared.operator.client.clone(), self.namespace, &snapshot::api_resource())
    }

    /// How an instance is reached.
    fn reach(&self, instance: &str) -> Result<(&StatusClient, IpAddr), Stop> {
        let refused = |why: &str| Stop::Refused(format!("{instance}: {why}"));
        let client = self.read.client.as_ref().ok_or_else(|| refused("the cluster has no certificates"))?;
        let view = self.read.observed.cluster.as_ref().and_then(|cluster| cluster.instance(instance));
        let view = view.ok_or_else(|| refused("its pod is gone"))?;
        Ok((client, address(view).map_err(|why| refused(&why))?))
    }

    /// Ends a run. Without a pod there is no run.
    async fn end(&self, instance: &str, path: &str) -> Result<(), Stop> {
        let Ok((client, address)) = self.reach(instance) else { return Ok(()) };
        match client.delete::<serde_json::Value>(address, path).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(Stop::Failed(Error::Instance { instance: instance.to_owned(), why: error.to_string() })),
        }
    }
}

/// The error of a request that the instance did not take.
fn asked(instance: &str, error: RequestError) -> Stop {
    match error {
        RequestError::Refused { refused, .. } => {
            let hint = refused.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            Stop::Refused(format!("{instance} refused the request: {}{hint}", refused.error))
        }
        RequestError::Unreachable(why) | RequestError::Malformed(why) => {
            Stop::Refused(format!("{instance} did not answer the request: {why}"))
        }
    }
}

/// Adds our finalizer.
async fn hold(api: &Api<DynamicObject>, object: &mut DynamicObject) -> Result<(), Error> {
    if object.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(api, object, &finalizers).await
}

/// Takes our finalizer away.
pub(super) async fn let_go(api: &Api<DynamicObject>, object: &mut DynamicObject) -> Result<(), Error> {
    if !object.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(());
    }
    let finalizers: Vec<String> = object.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    set_finalizers(api, object, &finalizers).await
}

async fn set_finalizers(api: &Api<DynamicObject>, object: &mut DynamicObject, names: &[String]) -> Result<(), Error> {
    let name = object.name_any();
    let version = object.resource_version();
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version, "finalizers": names}}));
    match api.patch(&name, &PatchParams::default(), &patch).await {
        Ok(patched) => {
            *object = patched;
            Ok(())
        }
        Err(error) if is_conflict(&error) || is_not_found(&error) => Err(Error::Changed { what: name }),
        Err(error) => Err(Error::api(format!("write the finalizers of {name}"), error)),
    }
}
