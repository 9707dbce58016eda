//! Reading: the cluster's objects, its Lease, and the status of its instances.
//!
//! Pods, claims, Secrets and the Lease are read from the API server each time, never from a cache: a failover must not
//! rest on an old state. Rarely changed objects are read when the generation has changed, after an action on them, and
//! once in a while. The Lease is read **before** the instances are asked. So a standby's answer is never older than the
//! moment when the Lease was seen free.

use super::context::ClusterContext;
use super::memory::Memory;
use super::observed::{Answer, Apis, BudgetApi, Kind, Observed, SecretFacts};
use super::snapshots::{kept, recovery_source};
use crate::deadline::within;
use crate::error::{Error, is_not_found};
use crate::status_client::StatusClient;
use futures::future::{join_all, try_join_all};
use holdfast_kube_api::names;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, Secret};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// An API server that takes longer counts as not reachable.
pub(super) const API_TIMEOUT: Duration = Duration::from_secs(8);
/// Rarely changed objects are read this often.
const FULL_LOOK: Duration = Duration::from_mins(1);
/// Whether optional APIs exist is read this often: a CRD may be installed at any time.
const APIS: Duration = Duration::from_mins(5);
/// Annotations of the operator's Secrets.
pub(crate) mod annotation {
    /// When the certificate ends, as RFC 3339.
    pub(crate) const ENDS: &str = "holdfast.dev/certificateEnds";
    /// Fingerprint of the authority's key.
    pub(crate) const AUTHORITY: &str = "holdfast.dev/authority";
    /// Hash of the certificate's names.
    pub(crate) const NAMES: &str = "holdfast.dev/certificateNames";
}

/// What was read: the input of the decision, and what the actions need besides.
#[derive(Debug)]
pub(crate) struct Read {
    /// The input of the decision.
    pub observed: Observed,
    /// The Secrets, by name.
    pub secrets: BTreeMap<String, Secret>,
    /// A client for the instances, once there are certificates.
    pub instances: Option<StatusClient>,
    /// Whether the rarely changed objects were read.
    pub full: bool,
}

/// The cluster to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.namespace`.
    pub namespace: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.generation`.
    pub generation: i64,
    /// The name of the `Backup` that it is recovered from.
    pub recovery_backup: Option<&'a str>,
}

/// Reads everything but the status, which the caller already has.
pub(crate) async fn read(
    context: &ClusterContext,
    subject: Subject<'_>,
    status: holdfast_kube_api::ClusterStatus,
    memory: &mut Memory,
) -> Result<Read, Error> {
    let client = &context.operator.client;
    let namespace = subject.namespace;
    let of_cluster = ListParams::default().labels(&format!("{}={}", names::CLUSTER_LABEL, subject.name));
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease_name = names::primary_lease(subject.name);

    let (pods, claims, lease, apis) = within(
        API_TIMEOUT,
        "reading the cluster's pods",
        Box::pin(async {
            tokio::try_join!(
                async { pods.list(&of_cluster).await.map_err(|error| Error::api("list pods", error)) },
                async { claims.list(&of_cluster).await.map_err(|error| Error::api("list claims", error)) },
                async {
                    leases
                        .get_opt(&lease_name)
                        .await
                        .map_err(|error| Error::api("read the lease of the primary", error))
                },
                apis(context),
            )
        }),
    )
    .await?;
    let secrets =
        within(API_TIMEOUT, "reading the cluster's secrets", read_secrets(&secrets, subject.name, &of_cluster)).await?;

    let now = Instant::now();
    let mut observed = Observed { status, apis, ..Observed::default() };
    let heard = context.heard_of_lease(namespace, &lease_name);
    observed.lease = lease.map(|lease| memory.look_at_lease(&lease, heard.as_ref(), now));
    observed.pods = pods.into_iter().map(|pod| (pod.name_any(), pod)).collect();
    observed.claims = claims.into_iter().map(|claim| (claim.name_any(), claim)).collect();
    observed.secrets = secrets.iter().map(|(name, secret)| (name.clone(), facts(secret, subject.uid))).collect();

    let instances = status_client(context, subject, &secrets);
    let full = memory.full_look.is_none_or(|(at, generation)| {
        generation != subject.generation || now.saturating_duration_since(at) > FULL_LOOK
    });
    let bootstrapped = observed.status.system_id.is_some();
    let ask = ask_all(instances.as_ref(), &observed.pods);
    let objects =
        async { if full { read_objects(context, namespace, &of_cluster, apis).await.map(Some) } else { Ok(None) } };
    let (answers, objects, nodes, troubles, recovery) = within(API_TIMEOUT, "reading the cluster's objects", async {
        let (answers, objects, nodes, troubles, recovery) = tokio::join!(
            ask,
            objects,
            nodes(context, &observed.pods),
            troubles(context, namespace, &observed),
            recovery_source(context, namespace, subject.recovery_backup, bootstrapped),
        );
        Ok((answers, objects?, nodes?, troubles?, recovery?))
    })
    .await?;
    observed.answers = answers;
    observed.nodes = nodes;
    observed.troubles = troubles;
    observed.recovery = recovery;
    if full && observed.answers.values().flatten().any(|answer| !answer.snapshot_starts.is_empty()) {
        memory.snapshots =
            within(API_TIMEOUT, "reading the cluster's volume snapshots", kept(context, namespace, &of_cluster))
                .await?;
    }
    observed.snapshots.clone_from(&memory.snapshots);
    if let Some(objects) = objects {
        observed.objects = objects;
        observed.objects_read = true;
    }
    memory.look_at_answers(&mut observed, now);
    Ok(Read { observed, secrets, instances, full })
}

/// The Secrets with the cluster's names, no matter who created them: users bring their own under these names, without
/// our label. Usually this takes one list request.
async fn read_secrets(
    api: &Api<Secret>,
    cluster: &str,
    of_cluster: &ListParams,
) -> Result<BTreeMap<String, Secret>, Error> {
    let listed = api.list(of_cluster).await.map_err(|error| Error::api("list secrets", error))?;
    let mut all: BTreeMap<String, Secret> = listed.into_iter().map(|secret| (secret.name_any(), secret)).collect();
    let wanted = [
        names::ca_secret(cluster),
        names::server_secret(cluster),
        names::replication_secret(cluster),
        names::operator_secret(cluster),
        names::application_secret(cluster),
        names::superuser_secret(cluster),
    ];
    let missing: Vec<String> = wanted.into_iter().filter(|name| !all.contains_key(name)).collect();
    let found = try_join_all(missing.into_iter().map(|name| async move {
        let secret = api.get_opt(&name).await.map_err(|error| Error::api(format!("read secret {name}"), error))?;
        Ok::<_, Error>(secret.map(|secret| (name, secret)))
    }))
    .await?;
    all.extend(found.into_iter().flatten());
    Ok(all)
}

fn facts(secret: &Secret, cluster_uid: &str) -> SecretFacts {
    let annotations = secret.annotations();
    SecretFacts {
        owned: secret.owner_references().iter().any(|owner| owner.uid == cluster_uid),
        ends: annotations.get(annotation::ENDS).and_then(|text| text.parse().ok()),
        authority: annotations.get(annotation::AUTHORITY).cloned(),
        names: annotations.get(annotation::NAMES).cloned(),
        keys: secret.data.iter().flatten().map(|(key, _)| key.clone()).collect(),
    }
}

fn status_client(
    context: &ClusterContext,
    subject: Subject<'_>,
    secrets: &BTreeMap<String, Secret>,
) -> Option<StatusClient> {
    let authority = secrets.get(&names::ca_secret(subject.name))?;
    let own = secrets.get(&names::operator_secret(subject.name))?;
    let dial = context.operator.dial.clone();
    match StatusClient::from_secrets(dial, subject.name, subject.namespace, authority, own)? {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::warn!(
                cluster = subject.name,
                namespace = subject.namespace,
                error,
                "cannot use the operator's certificate"
            );
            None
        }
    }
}

async fn ask_all(client: Option<&StatusClient>, pods: &BTreeMap<String, Pod>) -> BTreeMap<String, Answer> {
    let asked = pods.iter().map(|(name, pod)| async move { (name.clone(), ask(client, pod).await) });
    join_all(asked).await.into_iter().collect()
}

async fn ask(client: Option<&StatusClient>, pod: &Pod) -> Answer {
    let client = client.ok_or_else(|| "the cluster has no certificates yet".to_owned())?;
    let status = pod.status.as_ref();
    let address =
        status.and_then(|status| status.pod_ip.as_ref()).ok_or_else(|| "its pod has no address yet".to_owned())?;
    let address = address.parse().map_err(|_| format!("its pod's address {address} is not an IP address"))?;
    if !container_runs(pod) {
        return Err("its container is not running".to_owned());
    }
    let answer = client.status(address).await.map_err(|error| error.to_string())?;
    if pod.uid().is_some_and(|uid| uid != answer.pod_uid) {
        return Err(format!("another pod answers at its address: {}", answer.pod_uid));
    }
    Ok(answer)
}

/// A request to a container that does not run would only cost the connection timeout.
fn container_runs(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().any(|status| {
        status.name == names::CONTAINER && status.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

async fn nodes(context: &ClusterContext, pods: &BTreeMap<String, Pod>) -> Result<BTreeMap<String, bool>, Error> {
    let api: Api<Node> = Api::all(context.operator.client.clone());
    let mut wanted: Vec<String> = pods.values().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = try_join_all(wanted.into_iter().map(|name| {
        let api = api.clone();
        async move {
            let node = api.get_opt(&name).await.map_err(|error| Error::api(format!("read node {name}"), error))?;
            let ready =
                node.and_then(|node| node.status).and_then(|status| status.conditions).is_some_and(|conditions| {
                    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
                });
            Ok::<_, Error>((name, ready))
        }
    }))
    .await?;
    Ok(found.into_iter().collect())
}

/// The newest warning about each pod or claim that is waiting.
async fn troubles(
    context: &ClusterContext,
    namespace: &str,
    observed: &Observed,
) -> Result<BTreeMap<String, String>, Error> {
    let pending = |phase: Option<&String>| phase.is_some_and(|phase| phase == "Pending");
    let pods =
        observed.pods.iter().filter(|(_, pod)| pending(pod.status.as_ref().and_then(|status| status.phase.as_ref())));
    let claims = observed
        .claims
        .iter()
        .filter(|(_, claim)| pending(claim.status.as_ref().and_then(|status| status.phase.as_ref())));
    let waiting: Vec<(&str, &String)> =
        pods.map(|(name, _)| ("Pod", name)).chain(claims.map(|(name, _)| ("PersistentVolumeClaim", name))).collect();
    if waiting.is_empty() {
        return Ok(BTreeMap::new());
    }
    let api: Api<Event> = Api::namespaced(context.operator.client.clone(), namespace);
    let mut all = BTreeMap::new();
    for (kind, name) in waiting {
        let about = format!("involvedObject.kind={kind},involvedObject.name={name},type=Warning");
        let events = api
            .list(&ListParams::default().fields(&about))
            .await
            .map_err(|error| Error::api(format!("list events of {name}"), error))?;
        let newest = events.into_iter().max_by_key(|event| {
            let time = event.last_timestamp.as_ref().map(|time| time.0);
            time.or(event.event_time.as_ref().map(|time| time.0)).or(event.creation_timestamp().map(|time| time.0))
        });
        if let Some(message) = newest.and_then(|event| event.message) {
            all.insert(name.clone(), message);
        }
    }
    Ok(all)
}

async fn read_objects(
    context: &ClusterContext,
    namespace: &str,
    of_cluster: &ListParams,
    apis: Apis,
) -> Result<BTreeMap<(Kind, String), Value>, Error> {
    let mut kinds = vec![Kind::Service, Kind::ServiceAccount, Kind::Role, Kind::RoleBinding];
    if apis.disruption_budget.is_some() {
        kinds.push(Kind::PodDisruptionBudget);
    }
    if apis.pod_monitor {
        kinds.push(Kind::PodMonitor);
    }
    let lists = try_join_all(kinds.into_iter().map(|kind| async move {
        let api: Api<DynamicObject> =
            Api::namespaced_with(context.operator.client.clone(), namespace, &resource(kind, apis));
        let list = api.list(of_cluster).await.map_err(|error| Error::api(format!("list {}s", kind.name()), error))?;
        Ok::<_, Error>((kind, list))
    }))
    .await?;
    let mut all = BTreeMap::new();
    for (kind, list) in lists {
        for object in list {
            let name = object.name_any();
            let value = serde_json::to_value(&object)
                .map_err(|source| Error::Malformed { what: format!("{} {name}", kind.name()), source })?;
            all.insert((kind, name), without_type(value));
        }
    }
    Ok(all)
}

/// Items of a list have no `apiVersion` and `kind`, but the objects compared with them do.
fn without_type(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        map.remove("types");
    }
    value
}

pub(crate) fn resource(kind: Kind, apis: Apis) -> ApiResource {
    let (group, version, plural) = kind.resource(apis);
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind.name()), plural)
}

/// Which optional APIs the API server has.
async fn apis(context: &ClusterContext) -> Result<Apis, Error> {
    let mut known = context.apis.lock().await;
    if let Some((at, apis)) = known.as_ref()
        && at.elapsed() < APIS
    {
        return Ok(*apis);
    }
    let client = &context.operator.client;
    let has = |version: &'static str, plural: &'static str| async move {
        match client.list_api_group_resources(version).await {
            Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == plural)),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(Error::api(format!("look up the API {version}"), error)),
        }
    };
    let (v1, v1beta1, pod_monitor) = tokio::try_join!(
        has("policy/v1", "poddisruptionbudgets"),
        has("policy/v1beta1", "poddisruptionbudgets"),
        has("monitoring.coreos.com/v1", "podmonitors"),
    )?;
    let disruption_budget = match (v1, v1beta1) {
        (true, _) => Some(BudgetApi::V1),
        (false, true) => Some(BudgetApi::V1Beta1),
        (false, false) => None,
    };
    let apis = Apis { disruption_budget, pod_monitor };
    *known = Some((Instant::now(), apis));
    Ok(apis)
}
