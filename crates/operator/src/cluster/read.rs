//! Reading: the cluster's objects, its Lease, and the status of its instances.
//!
//! Only what the cluster owns counts as its own ([`super::ownership`]). If something cannot be read without which a
//! failover can be decided, such as nodes or services, the rest is decided without it, and the status says so.
//!
//! Pods, claims, Secrets and the Lease are read from the API server each time, never from a cache: a failover must not
//! rest on an old state. Rarely changed objects are read when the generation has changed, after an action on them, and
//! once in a while. The Lease is read **before** the instances are asked. So a standby's answer is never older than the
//! moment when the Lease was seen free.

use super::context::ClusterContext;
use super::memory::Memory;
use super::objects::{Objects, apis, read_objects};
use super::observed::{Answer, Foreign, Observed, RecoverySource, SecretFacts};
use super::ownership::{foreign, is_owned, of_cluster};
use super::snapshots::{kept, recovery_source};
use crate::deadline::{API_TIMEOUT, within};
use crate::error::Error;
use crate::status_client::{LOST_NODE_TIMEOUT, STATUS_TIMEOUT, StatusClient};
use futures::future::{join_all, try_join_all};
use holdfast_kube_api::names;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Rarely changed objects are read this often.
const FULL_LOOK: Duration = Duration::from_mins(1);
/// What a person can do if something cannot be read.
const READ_HINT: &str = "check that the operator has the permissions of its own version's deploy/operator.yaml";
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
    /// What could not be read this time.
    pub unread: Vec<String>,
    /// Whether rarely changed objects are among it.
    pub incomplete: bool,
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
    /// Whether WAL has its own volumes.
    pub wal_storage: bool,
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
    let label = ListParams::default().labels(&format!("{}={}", names::CLUSTER_LABEL, subject.name));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let lease_name = names::primary_lease(subject.name);
    let instances = status.instance_names.clone();

    let (pods, claims, lease, apis) = within(
        API_TIMEOUT,
        "reading the cluster's pods",
        Box::pin(async {
            tokio::try_join!(
                pods(context, subject, &label, instances.clone()),
                claims(context, subject, &label, instances),
                lease(context, subject, &lease_name),
                apis(context),
            )
        }),
    )
    .await?;
    let secrets =
        within(API_TIMEOUT, "reading the cluster's secrets", read_secrets(&secrets, subject.name, &label)).await?;

    let now = Instant::now();
    let mut observed = Observed { status, apis, ..Observed::default() };
    let heard = context.heard_of_lease(namespace, &lease_name);
    let (lease, other_lease) = lease;
    observed.lease = lease.map(|lease| memory.look_at_lease(&lease, heard.as_ref(), now));
    (observed.pods, observed.foreign) = pods;
    let (claims, other_claims) = claims;
    observed.claims = claims;
    observed.foreign.extend(other_claims.into_iter().chain(other_lease));
    observed.secrets = secrets.iter().map(|(name, secret)| (name.clone(), facts(secret, subject.uid))).collect();

    let instances = status_client(context, subject, &secrets);
    let full = memory.full_look.is_none_or(|(at, generation)| {
        generation != subject.generation || now.saturating_duration_since(at) > FULL_LOOK
    });
    let rest = rest(context, subject, &label, instances.as_ref(), full, &observed, memory).await;
    let incomplete = rest.objects.as_ref().is_some_and(|objects| !objects.failures.is_empty());
    let mut failures = take(rest, &mut observed, memory)?;
    if full && observed.answers.values().flatten().any(|answer| !answer.snapshot_starts.is_empty()) {
        match within(API_TIMEOUT, "reading the cluster's volume snapshots", kept(context, namespace, &label)).await {
            Ok(snapshots) => memory.snapshots = snapshots,
            Err(error) => failures.push(("list the volume snapshots".to_owned(), error)),
        }
    }
    let mut unread = Vec::new();
    for (what, error) in failures {
        tracing::warn!(what, error = error.in_full(), "something could not be read; the rest is decided without it");
        memory.refusals.add(what.clone(), &error, READ_HINT, now);
        unread.push(what);
    }
    observed.snapshots.clone_from(&memory.snapshots);
    observed.foreign.extend(memory.foreign.iter().cloned());
    observed.refused = memory.refusals.to_report();
    memory.look_at_answers(&mut observed, now);
    Ok(Read { observed, secrets, instances, full, unread, incomplete })
}

type Owned<K> = (BTreeMap<String, K>, Vec<Foreign>);

async fn pods(
    context: &ClusterContext,
    subject: Subject<'_>,
    label: &ListParams,
    instances: Vec<String>,
) -> Result<Owned<Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(context.operator.client.clone(), subject.namespace);
    let mut others = Vec::new();
    let found = of_cluster(&api, "Pod", label, subject.uid, instances, &mut others).await?;
    Ok((found, others))
}

async fn claims(
    context: &ClusterContext,
    subject: Subject<'_>,
    label: &ListParams,
    instances: Vec<String>,
) -> Result<Owned<PersistentVolumeClaim>, Error> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.operator.client.clone(), subject.namespace);
    let of_wal: Vec<String> =
        instances.iter().filter(|_| subject.wal_storage).map(|name| names::wal_claim(name)).collect();
    let wanted = instances.into_iter().chain(of_wal);
    let mut others = Vec::new();
    let found = of_cluster(&api, "PersistentVolumeClaim", label, subject.uid, wanted, &mut others).await?;
    Ok((found, others))
}

async fn lease(
    context: &ClusterContext,
    subject: Subject<'_>,
    name: &str,
) -> Result<(Option<Lease>, Option<Foreign>), Error> {
    let api: Api<Lease> = Api::namespaced(context.operator.client.clone(), subject.namespace);
    let found = api.get_opt(name).await.map_err(|error| Error::api("read the lease of the primary", error))?;
    Ok(match found {
        Some(lease) if is_owned(&lease, subject.uid) => (Some(lease), None),
        Some(lease) => (None, Some(foreign("Lease", &lease))),
        None => (None, None),
    })
}

/// What is read besides pods, claims, Secrets and the Lease.
struct Rest {
    answers: BTreeMap<String, Answer>,
    objects: Option<Objects>,
    nodes: Result<Nodes, Error>,
    troubles: Result<BTreeMap<String, String>, Error>,
    recovery: Result<RecoverySource, Error>,
}

async fn rest(
    context: &ClusterContext,
    subject: Subject<'_>,
    label: &ListParams,
    instances: Option<&StatusClient>,
    full: bool,
    observed: &Observed,
    memory: &Memory,
) -> Rest {
    let namespace = subject.namespace;
    let objects = async {
        if full {
            let of = (subject.name, subject.uid);
            Some(read_objects(context, namespace, of, label, observed.apis).await)
        } else {
            None
        }
    };
    let bootstrapped = observed.status.system_id.is_some();
    let recovery = recovery_source(context, namespace, subject.recovery_backup, bootstrapped);
    let (answers, objects, nodes, troubles, recovery) = tokio::join!(
        ask_all(instances, &observed.pods, &memory.nodes),
        objects,
        within(API_TIMEOUT, "reading the nodes", nodes(context, &observed.pods)),
        within(API_TIMEOUT, "reading the Events of pods", troubles(context, namespace, observed)),
        within(API_TIMEOUT, "reading the Backup to recover from", recovery),
    );
    Rest { answers, objects, nodes, troubles, recovery }
}

/// Takes over what was read. Returns what could not be read, each with its error.
fn take(rest: Rest, observed: &mut Observed, memory: &mut Memory) -> Result<Vec<(String, Error)>, Error> {
    let mut failures = Vec::new();
    observed.answers = rest.answers;
    match rest.nodes {
        Ok(nodes) => {
            memory.nodes.clone_from(&nodes.ready);
            (observed.nodes, observed.cordoned) = (nodes.ready, nodes.cordoned);
        }
        Err(error) => failures.push(("read the nodes".to_owned(), error)),
    }
    match rest.troubles {
        Ok(troubles) => observed.troubles = troubles,
        Err(error) => failures.push(("list the Events of pods".to_owned(), error)),
    }
    match (rest.recovery, &memory.recovery) {
        (Ok(recovery), _) => {
            memory.recovery = Some(recovery.clone());
            observed.recovery = recovery;
        }
        (Err(error), Some(before)) if observed.status.system_id.is_some() => {
            observed.recovery = before.clone();
            failures.push(("read the Backup of the recovery".to_owned(), error));
        }
        (Err(error), _) => return Err(error),
    }
    if let Some(objects) = rest.objects {
        (observed.objects, observed.kinds_read) = (objects.all, objects.kinds);
        memory.foreign = objects.foreign;
        failures.extend(objects.failures);
    }
    Ok(failures)
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

async fn ask_all(
    client: Option<&StatusClient>,
    pods: &BTreeMap<String, Pod>,
    nodes: &BTreeMap<String, bool>,
) -> BTreeMap<String, Answer> {
    let asked = pods.iter().map(|(name, pod)| async move {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        let lost = node.and_then(|node| nodes.get(node)).is_some_and(|ready| !ready);
        (name.clone(), ask(client, pod, if lost { LOST_NODE_TIMEOUT } else { STATUS_TIMEOUT }).await)
    });
    join_all(asked).await.into_iter().collect()
}

async fn ask(client: Option<&StatusClient>, pod: &Pod, limit: Duration) -> Answer {
    let client = client.ok_or_else(|| "the cluster has no certificates yet".to_owned())?;
    let status = pod.status.as_ref();
    let address =
        status.and_then(|status| status.pod_ip.as_ref()).ok_or_else(|| "its pod has no address yet".to_owned())?;
    let address = address.parse().map_err(|_| format!("its pod's address {address} is not an IP address"))?;
    if !container_runs(pod) {
        return Err("its container is not running".to_owned());
    }
    let answer = client.status_within(address, limit).await.map_err(|error| error.to_string())?;
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

/// The nodes of the cluster's pods.
struct Nodes {
    ready: BTreeMap<String, bool>,
    cordoned: BTreeSet<String>,
}

async fn nodes(context: &ClusterContext, pods: &BTreeMap<String, Pod>) -> Result<Nodes, Error> {
    let api: Api<Node> = Api::all(context.operator.client.clone());
    let mut wanted: Vec<String> = pods.values().filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = try_join_all(wanted.into_iter().map(|name| {
        let api = api.clone();
        async move {
            let node = api.get_opt(&name).await.map_err(|error| Error::api(format!("read node {name}"), error))?;
            Ok::<_, Error>((name, node))
        }
    }))
    .await?;
    let mut nodes = Nodes { ready: BTreeMap::new(), cordoned: BTreeSet::new() };
    for (name, node) in found {
        let conditions = node.as_ref().and_then(|node| node.status.as_ref()?.conditions.as_ref());
        let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
        if node.and_then(|node| node.spec).is_some_and(|spec| spec.unschedulable == Some(true)) {
            nodes.cordoned.insert(name.clone());
        }
        nodes.ready.insert(name, ready);
    }
    Ok(nodes)
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
