//! The vendor's objects as JSON: followed, read by path, and written.

use std::sync::Arc;

use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::error::{KitError, Result};
use crate::kube::client::follow;
use crate::kube::manifests::DRIVER;

/// The types that the vendor handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// PersistentVolumeClaim.
    Claim,
    /// PersistentVolume.
    Volume,
    /// StorageClass.
    StorageClass,
    /// VolumeSnapshot.
    Snapshot,
    /// VolumeSnapshotContent.
    Content,
    /// VolumeSnapshotClass.
    SnapshotClass,
}

const KINDS: [(Kind, &str, &str, &str); 6] = [
    (Kind::Claim, "", "PersistentVolumeClaim", "persistentvolumeclaims"),
    (Kind::Volume, "", "PersistentVolume", "persistentvolumes"),
    (Kind::StorageClass, "storage.k8s.io", "StorageClass", "storageclasses"),
    (Kind::Snapshot, "snapshot.storage.k8s.io", "VolumeSnapshot", "volumesnapshots"),
    (Kind::Content, "snapshot.storage.k8s.io", "VolumeSnapshotContent", "volumesnapshotcontents"),
    (Kind::SnapshotClass, "snapshot.storage.k8s.io", "VolumeSnapshotClass", "volumesnapshotclasses"),
];

/// The present objects of these types.
pub(super) struct Kinds {
    client: kube::Client,
    stores: Vec<(Kind, ApiResource, Store<DynamicObject>)>,
}

impl Kinds {
    /// Follows all types. Each change rings the bell.
    pub(super) fn watch(client: &kube::Client, bell: &Arc<Notify>, tasks: &mut JoinSet<()>) -> Self {
        let stores = KINDS
            .iter()
            .map(|(kind, group, name, plural)| {
                let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", name), plural);
                let writer = Writer::new(resource.clone());
                let store = writer.as_reader();
                follow(Api::all_with(client.clone(), &resource), writer, Arc::clone(bell), tasks);
                (*kind, resource, store)
            })
            .collect();
        Self { client: client.clone(), stores }
    }

    fn entry(&self, kind: Kind) -> Result<&(Kind, ApiResource, Store<DynamicObject>)> {
        let found = self.stores.iter().find(|(candidate, ..)| *candidate == kind);
        found.ok_or_else(|| KitError::Unsupported(format!("{kind:?} is not followed")))
    }

    /// All objects of a type.
    pub(super) fn all(&self, kind: Kind) -> Vec<Arc<DynamicObject>> {
        self.entry(kind).map(|(_, _, store)| store.state()).unwrap_or_default()
    }

    /// One object. Use an empty namespace for a type without namespaces.
    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let (_, resource, store) = self.entry(kind).ok()?;
        let mut key = ObjectRef::new_with(name, resource.clone());
        if !namespace.is_empty() {
            key = key.within(namespace);
        }
        store.get(&key)
    }

    fn api(&self, kind: Kind, namespace: &str) -> Result<Api<DynamicObject>> {
        let (_, resource, _) = self.entry(kind)?;
        Ok(if namespace.is_empty() {
            Api::all_with(self.client.clone(), resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, resource)
        })
    }

    /// Makes an object of the cluster. It is not an error if one of this name exists already.
    pub(super) async fn create(&self, kind: Kind, object: Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(object)
            .map_err(|error| KitError::Unsupported(format!("make a {kind:?}: {error}")))?;
        match self.api(kind, "")?.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 409) => Ok(()),
            Err(error) => Err(refused(format!("make a {kind:?}"), &error)),
        }
    }

    /// Merges fields into an object. It is not an error if the object is gone.
    pub(super) async fn merge(&self, kind: Kind, object: &DynamicObject, fields: Value) -> Result<()> {
        let result = self
            .api(kind, namespace(object))?
            .patch(name(object), &PatchParams::default(), &Patch::Merge(fields))
            .await
            .map(drop);
        unless_gone(result, kind)
    }

    /// Merges fields into the status of an object. It is not an error if the object is gone.
    pub(super) async fn merge_status(&self, kind: Kind, object: &DynamicObject, status: Value) -> Result<()> {
        let result = self
            .api(kind, namespace(object))?
            .patch_status(name(object), &PatchParams::default(), &Patch::Merge(json!({"status": status})))
            .await
            .map(drop);
        unless_gone(result, kind)
    }

    /// Deletes an object. It is not an error if the object is gone.
    pub(super) async fn delete(&self, kind: Kind, object: &DynamicObject) -> Result<()> {
        let result = self.api(kind, namespace(object))?.delete(name(object), &DeleteParams::default()).await.map(drop);
        unless_gone(result, kind)
    }

    /// Adds a finalizer, which keeps the object until [`Self::release`].
    pub(super) async fn hold(&self, kind: Kind, object: &DynamicObject, finalizer: &str) -> Result<()> {
        let mut all = object.metadata.finalizers.clone().unwrap_or_default();
        if all.iter().any(|held| held == finalizer) {
            return Ok(());
        }
        all.push(finalizer.to_owned());
        self.merge(kind, object, json!({"metadata": {"finalizers": all}})).await
    }

    /// Removes a finalizer.
    pub(super) async fn release(&self, kind: Kind, object: &DynamicObject, finalizer: &str) -> Result<()> {
        let mut all = object.metadata.finalizers.clone().unwrap_or_default();
        all.retain(|held| held != finalizer);
        self.merge(kind, object, json!({"metadata": {"finalizers": all}})).await
    }

    /// Publishes a warning about an object of a namespace, as an Event.
    pub(super) async fn event(&self, object: &DynamicObject, kind: &str, reason: &str, message: &str) -> Result<()> {
        let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Event"), "events");
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace(object), &resource);
        let event = DynamicObject::new("", &resource).within(namespace(object)).data(json!({
            "involvedObject": {
                "apiVersion": object.types.as_ref().map(|types| types.api_version.clone()),
                "kind": kind,
                "name": name(object),
                "namespace": namespace(object),
                "uid": object.metadata.uid,
            },
            "type": "Warning", "reason": reason, "message": message, "count": 1,
            "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": DRIVER},
        }));
        let mut event = event;
        event.metadata.name = None;
        event.metadata.generate_name = Some(format!("{}.", name(object)));
        api.create(&PostParams::default(), &event)
            .await
            .map(drop)
            .map_err(|error| refused("write an event".to_owned(), &error))
    }
}

/// The name of an object.
pub(super) fn name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

/// The namespace of an object; empty if it has none.
pub(super) fn namespace(object: &DynamicObject) -> &str {
    object.metadata.namespace.as_deref().unwrap_or_default()
}

/// The text at a path such as `/spec/volumeName`; empty if there is none.
pub(super) fn text<'o>(object: &'o DynamicObject, path: &str) -> &'o str {
    object.data.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The value of an annotation.
pub(super) fn annotation<'o>(object: &'o DynamicObject, name: &str) -> Option<&'o str> {
    object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether an object is being deleted.
pub(super) fn is_going(object: &DynamicObject) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// Whether a finalizer holds the object.
pub(super) fn is_held(object: &DynamicObject, finalizer: &str) -> bool {
    object.metadata.finalizers.iter().flatten().any(|held| held == finalizer)
}

/// The bytes of a quantity such as `1Gi` or `500M`, rounded down; `None` if the text is not a quantity.
pub(super) fn bytes(quantity: &str) -> Option<i64> {
    let digits = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(digits);
    let factor: i64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(factor)?.checked_add(factor.checked_mul(thousandths)? / 1000)
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn unless_gone(result: Result<(), kube::Error>, kind: Kind) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if is_status(&error, 404) => Ok(()),
        Err(error) => Err(refused(format!("write a {kind:?}"), &error)),
    }
}

fn refused(what: String, error: &kube::Error) -> KitError {
    KitError::Unexpected { what, answer: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn quantities_are_bytes() {
        for (text, expected) in [
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("500M", Some(500_000_000)),
            ("7", Some(7)),
            ("", None),
            ("Gi", None),
            ("1Zi", None),
            ("99999999999Ti", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
