//! The simulated API server: objects in memory, with the rules that the operator relies on.
//!
//! Resource versions and preconditions, server-side apply, merge patches, the status subresource, generations, label
//! and field selectors, lists, watches with bookmarks and 410, graceful deletion, finalizers, and owner references.
//! Server-side apply knows one manager: what it applied before and no longer applies is removed. A write that changes
//! nothing makes no new version, as in the real one. [`World::edit`] writes directly, as other programs in a cluster
//! do.

mod patch;
mod request;
mod select;
mod watch;

pub(crate) use request::{Answer, Call, Verb, parse};
pub(crate) use select::Selector;

use crate::instances::Fleet;
use chrono::{DateTime, Utc};
use holdfast_operator::Clock;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use watch::Watcher;

/// The only namespace.
pub(crate) const NAMESPACE: &str = "shop";

/// A resource that is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    /// API group.
    pub(crate) group: &'static str,
    /// The plural, in lower case.
    pub(crate) plural: &'static str,
    /// The kind, as manifests spell it.
    pub(crate) kind: &'static str,
    /// Whether it has a status subresource.
    pub(crate) has_status: bool,
}

const fn resource(group: &'static str, plural: &'static str, kind: &'static str, has_status: bool) -> Resource {
    Resource { group, plural, kind, has_status }
}

/// All resources; anything else gets 404.
pub(crate) const RESOURCES: [Resource; 17] = [
    resource("", "pods", "Pod", true),
    resource("", "services", "Service", true),
    resource("", "serviceaccounts", "ServiceAccount", false),
    resource("", "secrets", "Secret", false),
    resource("", "configmaps", "ConfigMap", false),
    resource("", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    resource("", "events", "Event", false),
    resource("", "nodes", "Node", true),
    resource("coordination.k8s.io", "leases", "Lease", false),
    resource("rbac.authorization.k8s.io", "roles", "Role", false),
    resource("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", false),
    resource("policy", "poddisruptionbudgets", "PodDisruptionBudget", true),
    resource("events.k8s.io", "events", "Event", false),
    resource("holdfast.dev", "clusters", "Cluster", true),
    resource("holdfast.dev", "backups", "Backup", true),
    resource("holdfast.dev", "scheduledbackups", "ScheduledBackup", true),
    resource("snapshot.storage.k8s.io", "volumesnapshots", "VolumeSnapshot", true),
];

/// Group, plural, namespace (empty for none) and name.
pub(crate) type Key = (&'static str, &'static str, String, String);

/// An error that the API server answers with.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    pub(crate) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}

/// All objects, and the history for watches.
pub(crate) struct World {
    pub(crate) clock: Clock,
    objects: BTreeMap<Key, Value>,
    /// The last object that each manager applied.
    applied: BTreeMap<(Key, String), Value>,
    version: u64,
    uids: u64,
    watchers: Vec<Watcher>,
    history: Vec<watch::Change>,
    /// A watch from before this version gets 410.
    compacted: u64,
    /// How often an object was created under each name.
    pub(crate) made: BTreeMap<Key, u32>,
    /// The number of the operator's writes, without Events and its own Lease.
    pub(crate) writes: u64,
    /// The simulated instances.
    pub(crate) fleet: Fleet,
}

impl std::fmt::Debug for World {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("World").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The key of an object in the namespace.
pub(crate) fn key(plural: &str, name: &str) -> Key {
    let found = RESOURCES.iter().find(|one| one.plural == plural && one.group != "events.k8s.io").expect("a resource");
    let namespace = if plural == "nodes" { "" } else { NAMESPACE };
    (found.group, found.plural, namespace.to_owned(), name.to_owned())
}

pub(crate) fn resource_of(key: &Key) -> &'static Resource {
    RESOURCES.iter().find(|one| (one.group, one.plural) == (key.0, key.1)).expect("a resource")
}

impl World {
    /// A world with two nodes and nothing else.
    pub(crate) fn new(clock: Clock) -> Self {
        let mut world = Self {
            clock,
            objects: BTreeMap::new(),
            applied: BTreeMap::new(),
            version: 100,
            uids: 0,
            watchers: Vec::new(),
            history: Vec::new(),
            compacted: 0,
            made: BTreeMap::new(),
            writes: 0,
            fleet: Fleet::default(),
        };
        for name in ["node-1", "node-2"] {
            let node = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            });
            world.create(&key("nodes", name), node).expect("a node");
        }
        world
    }

    /// The time, in the format of the API.
    pub(crate) fn time(&self) -> String {
        self.now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// An object.
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        self.objects.get(&key(plural, name))
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        self.objects.iter().filter(|(key, _)| key.1 == plural).map(|(_, object)| object.clone()).collect()
    }

    /// All objects.
    pub(crate) fn objects(&self) -> &BTreeMap<Key, Value> {
        &self.objects
    }

    /// Creates an object, as a person or another program does.
    pub(crate) fn put(&mut self, plural: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = json!(name);
        self.create(&key(plural, name), object).expect("an object that is new");
    }

    /// Changes an object as another program does; without the object, nothing happens.
    pub(crate) fn edit(&mut self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let key = key(plural, name);
        if let Some(before) = self.objects.get(&key).cloned() {
            let mut after = before.clone();
            change(&mut after);
            self.store(&key, Some(before), after);
        }
    }

    /// Deletes an object as a person does.
    pub(crate) fn delete(&mut self, plural: &str, name: &str) {
        let _ = self.remove(&key(plural, name), &json!({}));
    }

    pub(super) fn create(&mut self, key: &Key, mut object: Value) -> Result<Value, Refusal> {
        let resource = resource_of(key);
        let mut key = key.clone();
        if key.3.is_empty() {
            let prefix = object["metadata"]["generateName"].as_str().unwrap_or_default();
            key.3 = format!("{prefix}{:05}", self.uids);
            object["metadata"]["name"] = json!(key.3);
        }
        if self.objects.contains_key(&key) {
            return Err(Refusal::new(409, "AlreadyExists", format!("{} \"{}\" already exists", key.1, key.3)));
        }
        self.uids += 1;
        *self.made.entry(key.clone()).or_default() += 1;
        let uid = format!("00000000-0000-4000-8000-{:012}", self.uids);
        let time = self.time();
        let group = if resource.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", resource.group) };
        object["apiVersion"] = json!(group);
        object["kind"] = json!(resource.kind);
        let metadata = &mut object["metadata"];
        if !key.2.is_empty() {
            metadata["namespace"] = json!(key.2);
        }
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] = json!(time);
        metadata["generation"] = json!(1);
        if resource.has_status && !matches!(key.1, "nodes" | "pods") {
            object.as_object_mut().expect("an object").remove("status");
        }
        defaults(&key, &mut object);
        self.store(&key, None, object.clone());
        Ok(self.objects[&key].clone())
    }

    /// Stores an object if it has changed, and notifies the watches.
    pub(super) fn store(&mut self, key: &Key, before: Option<Value>, mut after: Value) {
        without_nulls(&mut after);
        if before.as_ref() == Some(&after) {
            return;
        }
        if let Some(before) = &before {
            let spec = |object: &Value| {
                let mut object = object.clone();
                if let Some(map) = object.as_object_mut() {
                    map.remove("status");
                    map.remove("metadata");
                }
                object
            };
            // A Lease has no generation.
            if key.1 != "leases" && spec(before) != spec(&after) {
                let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
                after["metadata"]["generation"] = json!(generation + 1);
            }
        }
        self.version += 1;
        after["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let finalizers = after["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if !after["metadata"]["deletionTimestamp"].is_null() && !finalizers && key.1 != "pods" {
            self.drop_object(key);
            return;
        }
        self.objects.insert(key.clone(), after.clone());
        self.tell(key, before, Some(after));
    }

    /// Removes an object.
    pub(crate) fn drop_object(&mut self, key: &Key) {
        if let Some(before) = self.objects.remove(key) {
            self.version += 1;
            self.applied.retain(|(of, _), _| of != key);
            self.tell(key, Some(before), None);
        }
    }

    /// `DELETE`.
    pub(super) fn remove(&mut self, key: &Key, options: &Value) -> Result<Value, Refusal> {
        let Some(object) = self.objects.get(key).cloned() else { return Err(not_found(key)) };
        let wanted = options["preconditions"]["uid"].as_str();
        if wanted.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err(Refusal::new(409, "Conflict", "the UID in the precondition does not match"));
        }
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return Ok(object);
        }
        let finalizers = object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        // A pod waits for its kubelet, unless it never had a node.
        let waits = finalizers || (key.1 == "pods" && object["spec"]["nodeName"].is_string());
        if !waits {
            self.drop_object(key);
            return Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}));
        }
        let mut after = object.clone();
        after["metadata"]["deletionTimestamp"] = json!(self.time());
        after["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        self.store(key, Some(object), after);
        Ok(self.objects[key].clone())
    }

    /// Removes objects whose owner no longer exists.
    pub(crate) fn collect_garbage(&mut self) {
        let uids: Vec<String> =
            self.objects.values().filter_map(|object| object["metadata"]["uid"].as_str().map(str::to_owned)).collect();
        let orphans: Vec<Key> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                object["metadata"]["ownerReferences"].as_array().is_some_and(|owners| {
                    !owners.is_empty() && owners.iter().all(|owner| !uids.iter().any(|uid| owner["uid"] == **uid))
                })
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            let _ = self.remove(&key, &json!({}));
        }
    }
}

pub(super) fn not_found(key: &Key) -> Refusal {
    Refusal::new(404, "NotFound", format!("{} \"{}\" not found", key.1, key.3))
}

/// The defaults that the API server sets.
fn defaults(key: &Key, object: &mut Value) {
    match key.1 {
        "secrets" => into_data(object),
        "services" => {
            let spec = &mut object["spec"];
            if spec["clusterIP"].is_null() {
                spec["clusterIP"] = json!("10.96.0.10");
            }
            spec["sessionAffinity"] = json!("None");
        }
        "persistentvolumeclaims" => {
            object["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            object["status"] = json!({"phase": "Pending"});
        }
        "pods" => object["status"] = json!({"phase": "Pending"}),
        _ => {}
    }
}

/// `stringData` becomes `data`.
pub(super) fn into_data(secret: &mut Value) {
    use base64::Engine as _;
    let Some(strings) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    for (name, text) in strings.as_object().into_iter().flatten() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
        secret["data"][name] = json!(encoded);
    }
}

/// Null fields are not stored.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> =
                std::mem::take(map).into_iter().filter(|(_, value)| !value.is_null()).collect();
            *map = kept;
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
