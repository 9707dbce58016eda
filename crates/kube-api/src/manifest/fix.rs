//! Corrects the clear mistakes of a manifest: it writes the readings of [`validate`](crate::validate) into the
//! document.
//!
//! Fields that have no effect yet stay, so that nothing a person wrote is lost.

use crate::lenient::text_of;
use crate::validate::DEFAULT_STORAGE;
use crate::{GROUP, VERSION};
use serde_json::{Map, Value, json};

/// Corrects a document of one of Holdfast's kinds.
pub(super) fn fix(kind: &str, document: &mut Value) {
    document["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
    if kind == "Cluster"
        && let Some(Value::Object(spec)) = document.get_mut("spec")
    {
        fix_cluster(spec);
    }
}

fn fix_cluster(spec: &mut Map<String, Value>) {
    tolerations(spec);
    if let Some(Value::Object(affinity)) = spec.get_mut("affinity") {
        rename(affinity, "podAntiAffinity", "additionalPodAntiAffinity");
        rename(affinity, "podAffinity", "additionalPodAffinity");
    }
    for volume in ["storage", "walStorage"] {
        size(spec, volume);
    }
    if let Some(Value::Object(parameters)) = spec.get_mut("postgresql").and_then(|of| of.get_mut("parameters")) {
        for (name, value) in parameters.iter_mut() {
            if let Some(text) = text_of(value) {
                let is_async = name == "io_method" && text.eq_ignore_ascii_case("async");
                *value = json!(if is_async { "worker".to_owned() } else { text });
            }
        }
    }
    if let Some(Value::Object(backup)) = spec.get_mut("backup") {
        backup.remove("method");
        if let Some(store) = backup.get_mut("barmanObjectStore") {
            codecs(store);
        }
    }
    for external in spec.get_mut("externalClusters").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(store) = external.get_mut("barmanObjectStore") {
            codecs(store);
        }
    }
}

fn tolerations(spec: &mut Map<String, Value>) {
    let Some(Value::Array(moved)) = spec.get("tolerations").cloned() else { return };
    let affinity = spec.entry("affinity").or_insert_with(|| json!({}));
    let Value::Object(affinity) = affinity else { return };
    let Value::Array(present) = affinity.entry("tolerations").or_insert_with(|| json!([])) else { return };
    for toleration in moved {
        if !present.contains(&toleration) {
            present.push(toleration);
        }
    }
    spec.remove("tolerations");
}

/// Renames a field that contains rules, and merges them with those already under the new name.
fn rename(affinity: &mut Map<String, Value>, from: &str, to: &str) {
    let Some(Value::Object(moved)) = affinity.get(from).cloned() else { return };
    let Value::Object(into) = affinity.entry(to).or_insert_with(|| json!({})) else { return };
    for (rule, terms) in moved {
        match (into.get_mut(&rule), terms) {
            (Some(Value::Array(present)), Value::Array(terms)) => present.extend(terms),
            (_, terms) => {
                into.insert(rule, terms);
            }
        }
    }
    affinity.remove(from);
}

fn size(spec: &mut Map<String, Value>, volume: &str) {
    if volume == "storage" {
        spec.entry(volume).or_insert_with(|| json!({}));
    }
    let Some(Value::Object(storage)) = spec.get_mut(volume) else { return };
    let of_template = storage.get("pvcTemplate").and_then(|template| template.pointer("/resources/requests/storage"));
    if storage.get("size").is_none_or(Value::is_null) && of_template.is_none() {
        storage.insert("size".to_owned(), json!(DEFAULT_STORAGE));
    }
}

/// Removes codecs that only Barman has, so that the default is used.
fn codecs(store: &mut Value) {
    for part in ["wal", "data"] {
        if let Some(Value::Object(options)) = store.get_mut(part)
            && options
                .get("compression")
                .and_then(Value::as_str)
                .is_some_and(|codec| matches!(codec, "bzip2" | "snappy" | "xz"))
        {
            options.remove("compression");
        }
    }
}
