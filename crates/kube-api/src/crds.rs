//! The CRDs, generated from the types and their doc comments.
//!
//! The schemas from schemars are changed into a form that API servers from 1.20 accept and that helps people:
//!
//! - Below `spec` every object keeps fields that it does not know (`x-kubernetes-preserve-unknown-fields`). Otherwise
//!   an API server drops them, and a misspelt `walStorage` would vanish silently. This way the operator sees it and
//!   names it. Below `status` too: the operator's state is there, and Helm never updates CRDs, so that a field of a
//!   newer operator would be lost.
//! - Types and closed sets of values stay strict: everything that the API server accepts can be read, so one wrong
//!   resource never stops the watch over the others. All other checks are in [`validate`](crate::validate), whose
//!   messages say what to do.
//! - Descriptions of Kubernetes' own types end after their first sentences: with whole descriptions the CRD of
//!   `Cluster` would not fit into the annotation that `kubectl apply` writes.
//!
//! [`all`] is the content of `deploy/crds`; a test compares the two.

use crate::{Backup, Cluster, ScheduledBackup};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// A longer description is cut after the last sentence that ends before this many bytes.
const DESCRIPTION_BYTES: usize = 320;

/// One CRD, with its file name.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its file below `deploy/crds`.
    pub file: &'static str,
    /// The `CustomResourceDefinition`.
    pub value: Value,
}

impl Definition {
    /// The schema of the whole resource.
    pub fn schema(&self) -> &Value {
        self.value.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap_or(&Value::Null)
    }
}

static ALL: LazyLock<[Definition; 3]> = LazyLock::new(|| {
    [
        definition::<Cluster>("holdfast.dev_clusters.yaml"),
        definition::<Backup>("holdfast.dev_backups.yaml"),
        definition::<ScheduledBackup>("holdfast.dev_scheduledbackups.yaml"),
    ]
});

/// All CRDs: `Cluster`, `Backup`, `ScheduledBackup`.
pub fn all() -> &'static [Definition; 3] {
    &ALL
}

/// The schema of a kind.
pub fn schema(kind: &str) -> Option<&'static Value> {
    ALL.iter().find(|definition| definition.value["spec"]["names"]["kind"] == kind).map(Definition::schema)
}

fn definition<K: CustomResourceExt>(file: &'static str) -> Definition {
    // `to_value` fails only for a map with keys that are not text, and a CRD has none.
    let mut value = serde_json::to_value(K::crd()).unwrap_or_default();
    if let Some(schema) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        if let Some(description) = schema.pointer("/properties/spec/description").cloned() {
            schema["description"] = description;
        }
        put_into_shape(schema, Place::Resource);
    }
    Definition { file, value }
}

/// The part of a resource that a schema describes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The resource itself.
    Resource,
    /// `spec` or a part of it.
    Spec,
    /// `status` or a part of it.
    Status,
}

fn put_into_shape(schema: &mut Value, place: Place) {
    let Value::Object(schema) = schema else { return };
    // The name of the Rust type.
    schema.remove("title");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        shorten(description);
    }
    whole_numbers(schema);
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            let below = match (place, name.as_str()) {
                (Place::Resource, "spec") => Place::Spec,
                (Place::Resource, "status") => Place::Status,
                (place, _) => place,
            };
            put_into_shape(property, below);
            if below == Place::Status && name == "conditions" {
                property["x-kubernetes-list-type"] = json!("map");
                property["x-kubernetes-list-map-keys"] = json!(["type"]);
            }
        }
        if place != Place::Resource {
            schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
        }
    }
    for below in ["items", "additionalProperties"] {
        if let Some(below) = schema.get_mut(below) {
            put_into_shape(below, place);
        }
    }
}

/// Writes bounds without a fraction, and keeps only formats that OpenAPI knows.
fn whole_numbers(schema: &mut Map<String, Value>) {
    for bound in ["minimum", "maximum"] {
        if let Some(value) = schema.get_mut(bound)
            && let Some(number) = value.as_f64()
        {
            *value = json!(number as i64);
        }
    }
    if matches!(schema.get("format").and_then(Value::as_str), Some("uint16" | "uint32" | "uint64")) {
        schema.insert("format".to_owned(), json!("int64"));
    }
}

/// Cuts a long description at the end of a sentence.
fn shorten(description: &mut String) {
    if let Some((paragraph, _)) = description.split_once("\n\n") {
        description.truncate(paragraph.len());
    }
    *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    if description.len() > DESCRIPTION_BYTES {
        let end = description.char_indices().take_while(|(at, _)| *at < DESCRIPTION_BYTES).map(|(at, _)| at).last();
        let head = &description[..end.unwrap_or(0)];
        let sentence = head.rfind(". ").map_or(head.len(), |at| at + 1);
        description.truncate(sentence);
    }
}

/// The CRD as text, as in its file in `deploy/crds`.
pub fn yaml(definition: &Definition) -> Result<String, crate::manifest::WriteError> {
    let document = crate::yaml::write(&definition.value)?;
    Ok(format!("# Generated from the types in crates/kube-api by `make crds`.\n{document}"))
}

#[cfg(test)]
mod tests;
