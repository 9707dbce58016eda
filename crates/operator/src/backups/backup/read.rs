//! Reads the input of a decision about a `Backup`, always from the API server and the instances themselves.
//!
//! Only what the phase needs is read. While a run is followed, this is one request to its instance; the other instances
//! are asked only if the primary has to switch WAL.

use super::queue::ahead;
use super::task::{Observed, Task};
use crate::backups::clock::chrono_time;
use crate::backups::cluster_view::{ClusterView, InstanceAnswer, InstanceView, Volume};
use crate::backups::context::BackupsContext;
use crate::backups::snapshot::{self, BACKUP_UID};
use crate::error::{Error, is_not_found};
use crate::own_object;
use crate::status_client::{RequestError, StatusClient};
use futures::future::join_all;
use holdfast_kube_api::backup::{BackupMethod, BackupPhase};
use holdfast_kube_api::status_port::{BackupRun, BackupState, InstanceStatus, SnapshotRun, SnapshotState};
use holdfast_kube_api::{Backup, BackupSpec, BackupStatus, Cluster, ClusterSpec, ClusterStatus, names};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::net::IpAddr;

/// What was read: the input of the decision, and what the actions need besides.
pub(super) struct Read {
    /// The input of the decision.
    pub(super) observed: Observed,
    /// The client for requests to instances; `None` without certificates.
    pub(super) client: Option<StatusClient>,
}

/// The `Backup` as decisions see it. The error says why a spec cannot be read.
pub(super) fn task(object: &DynamicObject) -> Result<Task, String> {
    let spec: BackupSpec = own_object::spec(object).map_err(|error| format!("spec: {error}"))?;
    let status: BackupStatus = own_object::status(object).map_err(|error| format!("status: {error}"))?;
    let meta = object.meta();
    Ok(Task {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        created: meta.creation_timestamp.as_ref().map(chrono_time).unwrap_or_default(),
        deleted: meta.deletion_timestamp.as_ref().map(chrono_time),
        generation: meta.generation,
        spec,
        status,
    })
}

/// Reads the cluster, its instances, the queue and the snapshots, as far as the phase needs them.
pub(super) async fn read(shared: &BackupsContext, namespace: &str, task: &Task) -> Result<Read, Error> {
    let name = &task.spec.cluster.name;
    let mut observed = Observed::default();
    if task.phase() == BackupPhase::Pending {
        queue(shared, namespace, task, &mut observed).await?;
    }
    if task.method() == BackupMethod::VolumeSnapshot {
        read_snapshots(shared, namespace, task, &mut observed).await?;
    }
    let Some(mut cluster) = read_cluster(shared, namespace, name).await? else {
        return Ok(Read { observed, client: None });
    };
    let client = shared.client(namespace, name).await?;
    cluster.instances = read_instances(shared, namespace, name, task.method()).await?;
    if let Some(client) = &client {
        if task.phase() == BackupPhase::Pending {
            // A `Backup` that has to wait for its turn needs no instance.
            if observed.ahead.is_none() {
                ask_all(client, &mut cluster).await;
            }
        } else {
            follow(client, task, &mut cluster, &mut observed).await;
        }
    } else if task.phase() != BackupPhase::Pending {
        let why = "the cluster's certificates are gone".to_owned();
        (observed.run, observed.snapshot) = (InstanceAnswer::Silent(why.clone()), InstanceAnswer::Silent(why));
    }
    observed.cluster = Some(cluster);
    Ok(Read { observed, client })
}

/// The other `Backup`s of the cluster.
async fn queue(shared: &BackupsContext, namespace: &str, task: &Task, observed: &mut Observed) -> Result<(), Error> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.operator.client.clone(), namespace, &ApiResource::erase::<Backup>(&()));
    let all = api.list(&ListParams::default()).await.map_err(|error| Error::api("list backups", error))?;
    // One that cannot be read fails by itself, and nothing waits for it.
    let all: Vec<Task> = all.iter().filter_map(|object| self::task(object).ok()).collect();
    let mine = || all.iter().filter(|other| other.spec.cluster.name == task.spec.cluster.name);
    observed.ahead = ahead(task, mine()).map(str::to_owned);
    observed.known = mine().filter(|other| !other.phase().is_final()).map(|other| other.uid.clone()).collect();
    Ok(())
}

/// The snapshots of this `Backup`, if the API server has the API.
async fn read_snapshots(
    shared: &BackupsContext,
    namespace: &str,
    task: &Task,
    observed: &mut Observed,
) -> Result<(), Error> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.operator.client.clone(), namespace, &snapshot::api_resource());
    match api.list(&ListParams::default().labels(&format!("{BACKUP_UID}={}", task.uid))).await {
        Ok(list) => {
            observed.snapshots_known = true;
            observed.snapshots = list.iter().map(snapshot::seen).collect();
            Ok(())
        }
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(Error::api("list volume snapshots", error)),
    }
}

async fn read_cluster(shared: &BackupsContext, namespace: &str, name: &str) -> Result<Option<ClusterView>, Error> {
    let api: Api<DynamicObject> =
        Api::namespaced_with(shared.operator.client.clone(), namespace, &ApiResource::erase::<Cluster>(&()));
    let found = api.get_opt(name).await.map_err(|error| Error::api(format!("read cluster {name}"), error))?;
    let Some(object) = found else { return Ok(None) };
    let raw =
        serde_json::to_value(&object).map_err(|source| Error::Malformed { what: format!("cluster {name}"), source })?;
    let parse = |source| Error::Malformed { what: format!("cluster {name}"), source };
    // After validation; a spec with errors elsewhere still says where its archive is.
    let spec: ClusterSpec = match holdfast_kube_api::validate::cluster(&raw).value {
        Some(valid) => valid.spec,
        None => own_object::spec(&object).map_err(parse)?,
    };
    let status: ClusterStatus = own_object::status(&object).map_err(parse)?;
    let backup = spec.backup.unwrap_or_default();
    Ok(Some(ClusterView {
        name: name.to_owned(),
        uid: object.uid().unwrap_or_default(),
        deleting: object.meta().deletion_timestamp.is_some(),
        bootstrapped: status.system_id.is_some(),
        desired_instances: spec.instances,
        archive: backup.barman_object_store,
        snapshots: backup.volume_snapshot.unwrap_or_default(),
        target: backup.target.unwrap_or_default(),
        instances: Vec::new(),
    }))
}

/// The pods of the cluster, and for snapshots their volumes.
async fn read_instances(
    shared: &BackupsContext,
    namespace: &str,
    cluster: &str,
    method: BackupMethod,
) -> Result<Vec<InstanceView>, Error> {
    let client = &shared.operator.client;
    let of_cluster = ListParams::default().labels(&format!("{}={cluster}", names::CLUSTER_LABEL));
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&of_cluster).await.map_err(|error| Error::api("list pods", error))?;
    let claims = if method == BackupMethod::VolumeSnapshot {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        claims.list(&of_cluster).await.map_err(|error| Error::api("list claims", error))?.items
    } else {
        Vec::new()
    };
    let mut instances: Vec<InstanceView> = pods
        .iter()
        .filter_map(|pod| {
            let name = pod.name_any();
            let serial = names::serial(cluster, &name)?;
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let terminating = pod.meta().deletion_timestamp.is_some();
            let volumes = volumes(&claims, &name);
            Some(InstanceView { name, serial, address, terminating, status: None, volumes })
        })
        .collect();
    instances.sort_by_key(|instance| instance.serial);
    Ok(instances)
}

/// The claims of an instance, the data directory's claim first.
fn volumes(claims: &[PersistentVolumeClaim], instance: &str) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = claims
        .iter()
        .filter(|claim| claim.labels().get(names::INSTANCE_LABEL).is_some_and(|name| name == instance))
        .filter_map(|claim| {
            let kind = claim.labels().get(names::VOLUME_LABEL)?.clone();
            Some(Volume { claim: claim.name_any(), kind })
        })
        .collect();
    volumes.sort_by(|a, b| (&a.kind, &a.claim).cmp(&(&b.kind, &b.claim)));
    volumes
}

/// What the instance reports about the run, and the status of all instances if the primary may have to switch WAL.
async fn follow(client: &StatusClient, task: &Task, cluster: &mut ClusterView, observed: &mut Observed) {
    let instance = task.status.instance.as_deref().and_then(|name| cluster.instance(name));
    let Some(instance) = instance else { return };
    let waits = match task.method() {
        BackupMethod::BarmanObjectStore => {
            observed.run = get(client, instance, &format!("/backups/{}", task.run())).await;
            matches!(&observed.run, InstanceAnswer::Known(BackupRun { state: BackupState::WaitingForWal, .. }))
        }
        BackupMethod::VolumeSnapshot => {
            observed.snapshot = get(client, instance, &format!("/snapshots/{}", task.run())).await;
            matches!(&observed.snapshot, InstanceAnswer::Known(SnapshotRun { state: SnapshotState::Stopping, .. }))
        }
    };
    if waits {
        ask_all(client, cluster).await;
    }
}

async fn get<T: DeserializeOwned>(client: &StatusClient, instance: &InstanceView, path: &str) -> InstanceAnswer<T> {
    let address = match address(instance) {
        Ok(address) => address,
        Err(why) => return InstanceAnswer::Silent(why),
    };
    match client.get(address, path).await {
        Ok(answer) => InstanceAnswer::Known(answer),
        Err(error) if error.is_not_found() => InstanceAnswer::Unknown,
        Err(error) => InstanceAnswer::Silent(error.to_string()),
    }
}

/// Asks every instance for its status.
async fn ask_all(client: &StatusClient, cluster: &mut ClusterView) {
    let asked = cluster.instances.iter().map(|instance| async move {
        let answer: Result<InstanceStatus, RequestError> = match address(instance) {
            Ok(address) => client.status(address).await,
            Err(why) => Err(RequestError::Unreachable(why)),
        };
        // Another pod may have the address by now.
        answer.ok().filter(|status| status.instance == instance.name)
    });
    let answers = join_all(asked).await;
    for (instance, answer) in cluster.instances.iter_mut().zip(answers) {
        instance.status = answer;
    }
}

/// The address of an instance's status port.
pub(super) fn address(instance: &InstanceView) -> Result<IpAddr, String> {
    let address = instance.address.as_deref().ok_or_else(|| "its pod has no address yet".to_owned())?;
    address.parse().map_err(|_| format!("its pod's address {address} is not an IP address"))
}
