//! Acting: the status first, then the actions, each by itself. One that fails stops only those that need it
//! ([`super::order`]); it is tried again after a while ([`super::refusals`]).
//!
//! Everything can be repeated: objects are applied by server-side apply; an object that is created once counts as done
//! if it exists; an object is deleted only if it is still the one that was read. Keys and passwords are made here, so
//! that a decision never contains one.

use super::context::ClusterContext;
use super::decide::{owner, server_names};
use super::decision::{Action, SecretKind};
use super::desired::Desired;
use super::objects::resource;
use super::observed::Kind;
use super::order::{in_order, needs};
use super::read::{Read, annotation};
use super::refusals::Refusals;
use crate::certificates::{self, Pair, Purpose};
use crate::deadline::{API_TIMEOUT, within};
use crate::environment::FIELD_MANAGER;
use crate::error::{Error, is_conflict, is_not_found};
use chrono::{DateTime, Utc};
use holdfast_kube_api::cluster::ClusterStatus;
use holdfast_kube_api::names;
use holdfast_secret::Secret;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{self as k8s, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// What is needed to carry out actions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor<'a> {
    /// The client of the API server, and what is remembered.
    pub(crate) context: &'a ClusterContext,
    /// The cluster.
    pub desired: &'a Desired,
    pub read: &'a Read,
    /// The current time, for certificates.
    pub now: DateTime<Utc>,
}

/// Writes the status, only if the cluster is unchanged since it was read.
pub async fn write_status(
    api: &Api<DynamicObject>,
    name: &str,
    resource_version: &str,
    before: &ClusterStatus,
    status: &ClusterStatus,
) -> Result<(), Error> {
    if before == status {
        return Ok(());
    }
    let encode = |status: &ClusterStatus| {
        serde_json::to_value(status).map_err(|source| Error::Malformed { what: "the status".to_owned(), source })
    };
    let mut patch = encode(status)?;
    // A merge patch removes a field that it sets to null: this is for fields that are no longer in the status.
    if let (Some(patch), Value::Object(before)) = (patch.as_object_mut(), encode(before)?) {
        for (key, old) in before {
            match patch.get_mut(&key) {
                None => {
                    patch.insert(key, Value::Null);
                }
                Some(new) => clear_dropped(&old, new),
            }
        }
    }
    let patch = json!({"metadata": {"resourceVersion": resource_version}, "status": patch});
    match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => Err(Error::Changed { what: format!("cluster {name}") }),
        Err(error) => Err(Error::api("write the status", error)),
    }
}

/// Sets the fields to null that a nested object no longer has.
fn clear_dropped(old: &Value, new: &mut Value) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        for (key, old) in old {
            match new.get_mut(key) {
                None => {
                    new.insert(key.clone(), Value::Null);
                }
                Some(new) => clear_dropped(old, new),
            }
        }
    }
}

impl Actor<'_> {
    /// Carries out the actions, as far as they are due. Returns whether one of them was carried out.
    pub(crate) async fn act(&self, actions: &[Action], refusals: &mut Refusals) -> bool {
        let (cluster, observed) = (self.desired.name.as_str(), &self.read.observed);
        let mut authority = None;
        let mut done = false;
        let mut left: Vec<&Action> = Vec::new();
        // A request of the same kind would only cost the same time again.
        let mut slow: BTreeSet<&'static str> = BTreeSet::new();
        for action in in_order(actions, observed, cluster) {
            let title = action.title(cluster);
            if left.iter().any(|other| needs(action, other, observed, cluster))
                || !refusals.is_due(&title, Instant::now())
                || slow.contains(group(action))
            {
                left.push(action);
                continue;
            }
            let one = self.one(action, &mut authority);
            let result = match action {
                // A request to an instance has its own time limit.
                Action::Restart { .. } => one.await,
                _ => within(API_TIMEOUT, "changing the objects of the cluster", one).await,
            };
            let Err(error) = result else {
                refusals.succeeded(&title);
                done = true;
                continue;
            };
            if matches!(action, Action::Secret(SecretKind::Authority)) {
                // What was made and not stored signs nothing.
                authority = None;
            }
            if matches!(error, Error::Slow { .. }) {
                slow.insert(group(action));
            }
            self.report(&title, &error);
            refusals.add(title, &error, action.hint(), Instant::now());
            left.push(action);
        }
        done
    }

    fn report(&self, action: &str, error: &Error) {
        let Desired { name, namespace, .. } = self.desired;
        self.context.operator.metrics.failed("Cluster", error.category());
        if let Error::Changed { what } = error {
            tracing::debug!(cluster = name, namespace, what, "the object was changed in the meantime");
        } else {
            let error = error.in_full();
            tracing::warn!(cluster = name, namespace, action, error, "an action failed; it is tried again later");
        }
    }

    async fn one(&self, action: &Action, authority: &mut Option<Pair>) -> Result<(), Error> {
        match action {
            Action::Apply { kind, name, object } => self.apply(*kind, name, object).await,
            Action::Remove { kind, name, uid } => {
                let api = self.dynamic(*kind);
                gone(api.delete(name, &this_one(uid)).await.map(drop), || format!("delete {} {name}", kind.name()))
            }
            Action::Secret(kind) => self.secret(*kind, authority).await,
            Action::CreateLease => self.create_lease().await,
            Action::ReleaseLease { holder, resource_version } => self.release_lease(holder, resource_version).await,
            Action::CreateClaim(claim) => {
                let api: Api<PersistentVolumeClaim> = self.api();
                new(api.create(&PostParams::default(), claim).await.map(drop), || action.title(&self.desired.name))
            }
            Action::GrowClaim { name, size } => {
                let api: Api<PersistentVolumeClaim> = self.api();
                let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map(drop)
                    .map_err(|error| Error::api(format!("expand PersistentVolumeClaim {name} to {size}"), error))
            }
            Action::RetireClaim { name, at } => {
                let api: Api<PersistentVolumeClaim> = self.api();
                let patch = json!({"metadata": {"annotations": {names::REMOVED_AT: at}}});
                gone(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop), || {
                    format!("mark PersistentVolumeClaim {name} as removed")
                })
            }
            Action::DeleteClaim { name, uid } => {
                let api: Api<PersistentVolumeClaim> = self.api();
                gone(api.delete(name, &this_one(uid)).await.map(drop), || {
                    format!("delete PersistentVolumeClaim {name}")
                })
            }
            Action::CreatePod(pod) => {
                let api: Api<Pod> = self.api();
                new(api.create(&PostParams::default(), pod).await.map(drop), || action.title(&self.desired.name))
            }
            Action::DeletePod { name, uid } => {
                let api: Api<Pod> = self.api();
                gone(api.delete(name, &this_one(uid)).await.map(drop), || format!("delete pod {name}"))
            }
            Action::LabelPod { name, labels } => {
                let api: Api<Pod> = self.api();
                let patch = json!({"metadata": {"labels": labels}});
                gone(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop), || {
                    format!("label pod {name}")
                })
            }
            Action::Restart { instance } => self.restart(instance).await,
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.context.operator.client.clone(), &self.desired.namespace)
    }

    fn dynamic(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = resource(kind, self.read.observed.apis);
        Api::namespaced_with(self.context.operator.client.clone(), &self.desired.namespace, &resource)
    }

    /// Forced only for an object that was read as the cluster's own: whatever others wrote into it goes. A new one is
    /// applied without force. So if somebody else creates one of this name at this moment, it stays theirs.
    async fn apply(&self, kind: Kind, name: &str, object: &Value) -> Result<(), Error> {
        let ours = self.read.observed.objects.contains_key(&(kind, name.to_owned()));
        let params = PatchParams::apply(FIELD_MANAGER);
        let params = if ours { params.force() } else { params };
        self.dynamic(kind)
            .patch(name, &params, &Patch::Apply(object))
            .await
            .map(drop)
            .map_err(|error| Error::api(format!("apply {} {name}", kind.name()), error))
    }

    async fn create_lease(&self) -> Result<(), Error> {
        let name = names::primary_lease(&self.desired.name);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": name, "namespace": self.desired.namespace, "ownerReferences": [owner(self.desired)],
                "labels": {names::CLUSTER_LABEL: self.desired.name},
            },
            "spec": {"leaseDurationSeconds": names::LEASE_SECONDS},
        });
        let lease: Lease = serde_json::from_value(lease)
            .map_err(|source| Error::Malformed { what: format!("lease {name}"), source })?;
        let api: Api<Lease> = self.api();
        there(api.create(&PostParams::default(), &lease).await.map(drop), || format!("create lease {name}"))
    }

    /// Compare and swap: a holder that renewed in the meantime keeps the Lease.
    async fn release_lease(&self, holder: &str, resource_version: &str) -> Result<(), Error> {
        let name = names::primary_lease(&self.desired.name);
        let api: Api<Lease> = self.api();
        let patch = json!({"metadata": {"resourceVersion": resource_version}, "spec": {"holderIdentity": ""}});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => {
                tracing::info!(lease = name, holder, "released the lease of an instance whose container has ended");
                Ok(())
            }
            Err(error) if is_conflict(&error) => Err(Error::Changed { what: format!("lease {name}") }),
            Err(error) => Err(Error::api(format!("release lease {name}"), error)),
        }
    }

    async fn restart(&self, instance: &str) -> Result<(), Error> {
        let refused = |why: String| Error::Instance { instance: instance.to_owned(), why };
        let client = self.read.instances.as_ref().ok_or_else(|| refused("no certificates yet".to_owned()))?;
        let pod = self.read.observed.pods.get(instance);
        let address = pod.and_then(|pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok());
        let address = address.ok_or_else(|| refused("its pod has no address".to_owned()))?;
        client.post::<Value>(address, "/restart").await.map(drop).map_err(|error| refused(error.to_string()))
    }

    async fn secret(&self, kind: SecretKind, authority: &mut Option<Pair>) -> Result<(), Error> {
        let cluster = &self.desired.name;
        let name = kind.name(cluster);
        let fault = |error: rcgen::Error| Error::Certificate { secret: name.clone(), why: error.to_string() };
        let mut annotations = BTreeMap::new();
        let data: BTreeMap<&str, Secret> = match kind {
            SecretKind::Authority => {
                let key = self.stored(&name, "ca.key").map(Secret::new);
                let pair = certificates::authority(&format!("{cluster} of Holdfast"), key.as_ref(), self.now)
                    .map_err(fault)?;
                annotations.insert(annotation::ENDS, pair.ends.to_rfc3339());
                annotations.insert(annotation::AUTHORITY, fingerprint(&pair));
                *authority = Some(pair.clone());
                BTreeMap::from([("ca.crt", Secret::new(pair.certificate)), ("ca.key", pair.key)])
            }
            SecretKind::Server | SecretKind::Replication | SecretKind::Operator => {
                let Some(authority) = authority.clone().or_else(|| self.stored_authority()) else {
                    let why = format!("{} has no `ca.crt` and `ca.key`", names::ca_secret(cluster));
                    return Err(Error::Certificate { secret: name, why });
                };
                let purpose = match kind {
                    SecretKind::Server => Purpose::Server(server_names(cluster, &self.desired.namespace)),
                    SecretKind::Replication => Purpose::Client(names::REPLICATION_USER.to_owned()),
                    _ => Purpose::Client(names::OPERATOR_USER.to_owned()),
                };
                if let Purpose::Server(names) = &purpose {
                    annotations.insert(annotation::NAMES, super::decide::hash_of_names(names));
                }
                let pair = certificates::signed(&authority, &purpose, self.now).map_err(fault)?;
                annotations.insert(annotation::ENDS, pair.ends.to_rfc3339());
                if let Some(known) = self.known_fingerprint(&authority) {
                    annotations.insert(annotation::AUTHORITY, known);
                }
                BTreeMap::from([
                    ("ca.crt", Secret::new(authority.certificate)),
                    ("tls.crt", Secret::new(pair.certificate)),
                    ("tls.key", pair.key),
                ])
            }
            SecretKind::Application => self.application().map_err(|_| no_randomness(&name))?,
            SecretKind::Superuser => self.login("postgres", "*").map_err(|_| no_randomness(&name))?,
        };
        let kubernetes_type = match kind {
            SecretKind::Authority => "Opaque",
            SecretKind::Server | SecretKind::Replication | SecretKind::Operator => "kubernetes.io/tls",
            SecretKind::Application | SecretKind::Superuser => "kubernetes.io/basic-auth",
        };
        self.write_secret(&name, kubernetes_type, &annotations, &data).await
    }

    async fn write_secret(
        &self,
        name: &str,
        kind: &str,
        annotations: &BTreeMap<&str, String>,
        data: &BTreeMap<&str, Secret>,
    ) -> Result<(), Error> {
        let data: BTreeMap<&str, &str> = data.iter().map(|(key, value)| (*key, value.expose().as_str())).collect();
        let inherited = self.desired.spec.inherited_metadata.clone().unwrap_or_default();
        let mut labels = inherited.labels;
        labels.insert(names::CLUSTER_LABEL.to_owned(), self.desired.name.clone());
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {
                "name": name, "namespace": self.desired.namespace, "ownerReferences": [owner(self.desired)],
                "labels": labels, "annotations": annotations,
            },
            "stringData": data,
        });
        let api: Api<k8s::Secret> = self.api();
        if self.read.secrets.contains_key(name) {
            // A renewal: content and annotations in one write.
            let patch = json!({"metadata": {"annotations": annotations}, "stringData": data});
            return api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
                .map_err(|error| Error::api(format!("renew secret {name}"), error));
        }
        let secret: k8s::Secret = serde_json::from_value(secret)
            .map_err(|source| Error::Malformed { what: format!("secret {name}"), source })?;
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(()),
            // Somebody else created it first: what was made for ours does not fit, so everything is read again.
            Err(error) if is_conflict(&error) => Err(Error::Changed { what: format!("secret {name}") }),
            Err(error) => Err(Error::api(format!("create secret {name}"), error)),
        }
    }

    fn stored(&self, secret: &str, key: &str) -> Option<String> {
        let bytes = self.read.secrets.get(secret)?.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    }

    fn stored_authority(&self) -> Option<Pair> {
        let name = names::ca_secret(&self.desired.name);
        let ends = self.read.observed.secrets.get(&name).and_then(|facts| facts.ends).unwrap_or(self.now);
        Some(Pair { certificate: self.stored(&name, "ca.crt")?, key: Secret::new(self.stored(&name, "ca.key")?), ends })
    }

    /// The fingerprint in the annotation of the authority's Secret; `None` for an authority that the user brought,
    /// since it has no annotation.
    fn known_fingerprint(&self, authority: &Pair) -> Option<String> {
        let name = names::ca_secret(&self.desired.name);
        match self.read.observed.secrets.get(&name) {
            Some(facts) if !facts.owned => facts.authority.clone(),
            _ => Some(fingerprint(authority)),
        }
    }

    fn application(&self) -> Result<BTreeMap<&'static str, Secret>, aws_lc_rs::error::Unspecified> {
        let bootstrap = self.desired.spec.bootstrap.clone().unwrap_or_default();
        let (database, owner) = match (bootstrap.recovery, bootstrap.initdb) {
            (Some(recovery), _) => (recovery.database, recovery.owner),
            (None, Some(initdb)) => (initdb.database, initdb.owner),
            (None, None) => (None, None),
        };
        let database = database.or_else(|| owner.clone()).unwrap_or_else(|| "app".to_owned());
        let owner = owner.unwrap_or_else(|| database.clone());
        self.login(&owner, &database)
    }

    fn login(
        &self,
        user: &str,
        database: &str,
    ) -> Result<BTreeMap<&'static str, Secret>, aws_lc_rs::error::Unspecified> {
        let service = names::read_write_service(&self.desired.name);
        let host = format!("{service}.{}", self.desired.namespace);
        let password = password()?;
        let exposed = password.expose();
        let port = names::POSTGRES_PORT;
        let (user_part, database_part) = (percent(user), percent(database));
        let path = if database == "*" { String::new() } else { database_part };
        let uri = format!("postgresql://{user_part}:{exposed}@{host}:{port}/{path}");
        let jdbc = format!("jdbc:postgresql://{host}:{port}/{path}?password={exposed}&user={user_part}");
        let line = format!("{service}:{port}:{}:{}:{exposed}\n", pgpass(database), pgpass(user));
        Ok(BTreeMap::from([
            ("username", user.into()),
            ("user", user.into()),
            ("password", password),
            ("dbname", database.into()),
            ("host", Secret::new(service)),
            ("port", Secret::new(port.to_string())),
            ("uri", Secret::new(uri)),
            ("jdbc-uri", Secret::new(jdbc)),
            ("pgpass", Secret::new(line)),
        ]))
    }
}

/// 64 hexadecimal digits: 256 bits, and no character that a URI or a shell treats specially.
fn password() -> Result<Secret, aws_lc_rs::error::Unspecified> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(Secret::new(hex::encode(bytes)))
}

fn no_randomness(secret: &str) -> Error {
    Error::Certificate { secret: secret.to_owned(), why: "the operating system returned no random bytes".to_owned() }
}

/// The fingerprint of the key: a renewed certificate with the same key is the same authority.
fn fingerprint(authority: &Pair) -> String {
    super::decide::short_hash(authority.key.expose().as_bytes())
}

fn percent(text: &str) -> String {
    use std::fmt::Write as _;
    let mut all = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            all.push(char::from(byte));
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
    }
    all
}

fn pgpass(text: &str) -> String {
    if text == "*" { text.to_owned() } else { text.replace('\\', "\\\\").replace(':', "\\:") }
}

/// The kind of request: if one gets no answer in time, others of the same kind would not get one either.
fn group(action: &Action) -> &'static str {
    match action {
        Action::Apply { kind, .. } | Action::Remove { kind, .. } => kind.name(),
        Action::Secret(_) => "Secret",
        Action::CreateLease | Action::ReleaseLease { .. } => "Lease",
        Action::CreateClaim(_) | Action::GrowClaim { .. } => "PersistentVolumeClaim, larger",
        Action::RetireClaim { .. } | Action::DeleteClaim { .. } => "PersistentVolumeClaim, removed",
        Action::CreatePod(_) => "Pod, new",
        Action::DeletePod { .. } => "Pod, removed",
        Action::LabelPod { .. } => "Pod, labelled",
        Action::Restart { .. } => "restart",
    }
}

fn this_one(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}

/// "Already exists" counts as done.
fn there(result: kube::Result<()>, doing: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Err(error) if !is_conflict(&error) => Err(Error::api(doing(), error)),
        _ => Ok(()),
    }
}

/// "Already exists" means that it must be read first: it may belong to somebody else.
fn new(result: kube::Result<()>, doing: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if is_conflict(&error) => Err(Error::Changed { what: doing() }),
        Err(error) => Err(Error::api(doing(), error)),
    }
}

/// "Not found" and "not this object any more" count as done.
fn gone(result: kube::Result<()>, doing: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(Error::api(doing(), error)),
        _ => Ok(()),
    }
}
