//! Objects without the values that differ from run to run: identities, versions, times, keys.

use crate::world::World;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The objects by kind and name.
pub(crate) type Normal = BTreeMap<String, Value>;

/// Fields with a time, an order, or a number that stands for an identity.
const FLEETING: [&str; 16] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "podIP",
    "renewTime",
    "acquireTime",
    "leaseTransitions",
    "lastTransitionTime",
    "currentPrimaryTimestamp",
    "targetPrimaryTimestamp",
    "startedAt",
    "stoppedAt",
    "holdfast.dev/holderPod",
    "holdfast.dev/certificateEnds",
    "holdfast.dev/authority",
];

/// All objects but Events and the operator's own Lease.
pub(crate) fn of(world: &World) -> Normal {
    let kept = world.objects().iter().filter(|(key, _)| key.1 != "events" && key.3 != "holdfast-operator");
    kept.map(|(key, object)| {
        let mut object = object.clone();
        if key.1 == "secrets" {
            let keys: Vec<&String> = object["data"].as_object().map(Map::keys).into_iter().flatten().collect();
            object["data"] = json!(keys);
        }
        (format!("{} {}", key.1, key.3), without(&object))
    })
    .collect()
}

fn without(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, _)| !FLEETING.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), without(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(without).collect()),
        Value::String(text) => json!(without_times(text)),
        other => other.clone(),
    }
}

/// Times inside a text vary like any others.
fn without_times(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let time = word.trim_end_matches([';', ',', ':', '.']);
        if chrono::DateTime::parse_from_rfc3339(time).is_ok() { "<time>" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The differences, one line each.
pub(crate) fn differences(expected: &Normal, found: &Normal) -> Vec<String> {
    let mut all = Vec::new();
    for (name, one) in expected {
        match found.get(name) {
            None => all.push(format!("{name} is missing")),
            Some(other) => compare(name, one, other, &mut all),
        }
    }
    all.extend(
        found.keys().filter(|name| !expected.contains_key(*name)).map(|name| format!("{name} is there as well")),
    );
    all
}

fn compare(path: &str, expected: &Value, found: &Value, all: &mut Vec<String>) {
    if let (Value::Object(expected), Value::Object(found)) = (expected, found) {
        for (name, one) in expected {
            compare(&format!("{path}/{name}"), one, found.get(name).unwrap_or(&Value::Null), all);
        }
        for (name, other) in found.iter().filter(|(name, _)| !expected.contains_key(*name)) {
            compare(&format!("{path}/{name}"), &Value::Null, other, all);
        }
    } else if expected != found {
        all.push(format!("{path}: expected {expected}, found {found}"));
    }
}
