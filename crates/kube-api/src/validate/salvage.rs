//! The readable part of a spec whose shape is wrong, so that one run finds all its mistakes.
//!
//! A quoted number is read as the number, a field of another type is left out, and a missing field gets the least value
//! of its type. The result is only checked and then dropped: nothing is ever made from it. Findings about a field that
//! was corrected here are consequences, and are not reported.

use super::finding::Findings;
use crate::crds;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The spec, in which every field with an error in `findings` is corrected. Pure.
pub(super) fn spec(kind: &str, raw: &Value, findings: &Findings) -> Option<Value> {
    let schema = &crds::schema(kind)?["properties"]["spec"];
    let wrong = findings.wrong_fields();
    read(schema, raw.get("spec")?, "spec", &wrong)
}

/// Takes over the findings about fields that were not corrected.
pub(super) fn take_over(found: Findings, into: &mut Findings) {
    let wrong: BTreeSet<String> = into.wrong_fields().into_iter().map(str::to_owned).collect();
    let follows = |path: &str| {
        wrong.iter().any(|wrong| {
            wrong == path || path.strip_prefix(wrong.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        })
    };
    into.append_where(found, |path| !follows(path));
}

fn read(schema: &Value, value: &Value, path: &str, wrong: &BTreeSet<&str>) -> Option<Value> {
    if wrong.contains(path) {
        return coerced(schema, value);
    }
    match value {
        Value::Object(fields) => {
            let mut kept = Map::new();
            for (field, value) in fields {
                let below = match &schema["properties"][field] {
                    Value::Null => &schema["additionalProperties"],
                    below => below,
                };
                if let Some(value) = read(below, value, &format!("{path}.{field}"), wrong) {
                    kept.insert(field.clone(), value);
                }
            }
            for field in required(schema) {
                if !kept.contains_key(field) {
                    kept.insert(field.to_owned(), least(&schema["properties"][field]));
                }
            }
            Some(Value::Object(kept))
        }
        Value::Array(values) => {
            let kept = values.iter().enumerate();
            Some(
                kept.filter_map(|(at, value)| read(&schema["items"], value, &format!("{path}[{at}]"), wrong)).collect(),
            )
        }
        other => Some(other.clone()),
    }
}

/// The value that the user probably meant by a text or a number, if that is clear.
fn coerced(schema: &Value, value: &Value) -> Option<Value> {
    match (schema["type"].as_str(), value) {
        (Some("integer"), Value::String(text)) => text.parse::<i64>().ok().map(Value::from),
        (Some("number"), Value::String(text)) => text.parse::<f64>().ok().map(Value::from),
        (Some("boolean"), Value::String(text)) => text.parse::<bool>().ok().map(Value::from),
        (Some("string"), Value::Number(_) | Value::Bool(_)) if schema["enum"].is_null() => {
            Some(value.to_string().into())
        }
        _ => None,
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn least(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let fields = required(schema).map(|field| (field.to_owned(), least(&schema["properties"][field])));
            Value::Object(fields.collect())
        }
        Some("array") => json!([]),
        Some("boolean") => json!(false),
        Some("integer" | "number") if schema["minimum"].is_number() => schema["minimum"].clone(),
        Some("integer" | "number") => json!(0),
        _ => match &schema["enum"][0] {
            Value::Null => json!(""),
            first => first.clone(),
        },
    }
}

#[cfg(test)]
mod tests;
