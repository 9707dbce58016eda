//! The shape of a resource against its schema: fields that do not exist, types, bounds and closed sets of values.
//!
//! The API server checks types and bounds too, but its messages say less, and it has not seen a manifest that is
//! checked before it is applied. Only this check finds fields that do not exist: the schema keeps them for it.

use super::finding::{Findings, Reason};
use super::not_yet;
use super::similar::nearest;
use crate::crds;
use serde_json::Value;

/// Checks a whole resource of a kind.
pub(super) fn check(kind: &str, raw: &Value, findings: &mut Findings) {
    let Some(schema) = crds::schema(kind) else { return };
    let Value::Object(resource) = raw else {
        findings.error("", Reason::WrongType, format!("a {kind} is an object with kind, metadata and spec"), "");
        return;
    };
    for field in resource.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            let elsewhere = schema["properties"]["spec"]["properties"].get(field).is_some();
            let hint = if elsewhere { format!("move it below `spec`: `spec.{field}`") } else { "remove it".to_owned() };
            findings.warn(field.as_str(), Reason::UnknownField, format!("a {kind} has no field `{field}`"), hint);
        }
    }
    match raw.get("spec") {
        Some(spec) => Walk { kind, schema, findings }.value(&schema["properties"]["spec"], spec, "spec"),
        None => findings.error("spec", Reason::MissingField, "`spec` is missing", "write the fields of the resource"),
    }
}

struct Walk<'walk> {
    kind: &'walk str,
    schema: &'walk Value,
    findings: &'walk mut Findings,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Value, value: &Value, path: &str) {
        if value.is_null() {
            if schema["nullable"] != true && schema["type"].is_string() {
                let expected = type_in_words(schema);
                self.findings.error(
                    path,
                    Reason::WrongType,
                    format!("nothing is written here, but it must be {expected}"),
                    "write a value, or leave the key out",
                );
            }
            return;
        }
        let fits = match schema["type"].as_str() {
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Some("number") => value.is_number(),
            _ if schema["x-kubernetes-int-or-string"] == true => value.is_string() || value.is_i64() || value.is_u64(),
            _ => true,
        };
        if !fits {
            self.wrong_type(schema, value, path);
            return;
        }
        self.bounds(schema, value, path);
        match value {
            Value::Object(fields) => {
                if let Some(known) = schema["properties"].as_object() {
                    for (field, value) in fields {
                        let below = format!("{path}.{field}");
                        match known.get(field) {
                            Some(schema) => self.value(schema, value, &below),
                            None => self.unknown((field, value), &below, path, known.keys().map(String::as_str)),
                        }
                    }
                } else if schema["additionalProperties"].is_object() {
                    for (field, value) in fields {
                        self.value(&schema["additionalProperties"], value, &format!("{path}.{field}"));
                    }
                }
                for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if !fields.contains_key(required) {
                        self.findings.error(
                            format!("{path}.{required}"),
                            Reason::MissingField,
                            format!("`{required}` is missing"),
                            schema["properties"][required]["description"].as_str().map_or_else(String::new, in_hint),
                        );
                    }
                }
            }
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.value(&schema["items"], value, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn unknown<'known>(
        &mut self,
        (field, value): (&str, &Value),
        path: &str,
        around: &str,
        known: impl Iterator<Item = &'known str> + Clone,
    ) {
        if let Some(entry) = not_yet::find(self.kind, path) {
            let message = entry.message(field, value);
            if entry.stops(value) {
                self.findings.error(path, Reason::NotSupportedYet, message, entry.hint);
            } else {
                self.findings.warn(path, Reason::NotSupportedYet, message, entry.hint);
            }
            return;
        }
        if self.kind == "Cluster" && path == "spec.backup.method" {
            self.findings.warn(
                path,
                Reason::NoEffect,
                "a cluster has no backup method: each Backup and ScheduledBackup has its own",
                "write `method` into their `spec`; `barmanObjectStore` is the default there",
            );
            return;
        }
        let message = format!("`{around}` has no field `{field}`; it has no effect");
        let hint = if let Some(near) = nearest(field, known) {
            format!("did you mean `{near}`?")
        } else {
            match self.places_of(field).as_slice() {
                [] => "remove it, or look up the right name with `kubectl explain`".to_owned(),
                places => format!("it belongs in another place: `{}`", places.join("`, `")),
            }
        };
        self.findings.warn(path, Reason::UnknownField, message, hint);
    }

    /// The other places that have a field of this name, those nearest to the top first. Common names give no hint.
    fn places_of(&self, field: &str) -> Vec<String> {
        let mut places = Vec::new();
        collect(&self.schema["properties"]["spec"], "spec", field, &mut places);
        places.sort_by_key(|place| place.matches(['.', '[']).count());
        if places.len() > 3 { Vec::new() } else { places }
    }

    fn wrong_type(&mut self, schema: &Value, value: &Value, path: &str) {
        let expected = type_in_words(schema);
        let hint = match (schema["type"].as_str(), value) {
            (Some("string") | None, Value::Number(_) | Value::Bool(_)) => format!("put it in quotes: \"{value}\""),
            (Some("integer" | "number" | "boolean"), Value::String(text)) if looks_like(schema, text) => {
                format!("leave the quotes out: {text}")
            }
            (Some("array"), Value::Object(_) | Value::String(_)) => "begin each element with `- `".to_owned(),
            _ => schema["description"].as_str().map_or_else(String::new, in_hint),
        };
        self.findings.error(
            path,
            Reason::WrongType,
            format!("{} is written, but it must be {expected}", in_words(value)),
            hint,
        );
    }

    fn bounds(&mut self, schema: &Value, value: &Value, path: &str) {
        if let Some(number) = value.as_f64() {
            for (bound, word, broken) in [
                ("minimum", "at least", schema["minimum"].as_f64().is_some_and(|least| number < least)),
                ("maximum", "at most", schema["maximum"].as_f64().is_some_and(|most| number > most)),
            ] {
                if broken {
                    self.findings.error(
                        path,
                        Reason::InvalidValue,
                        format!("it is {value}, but must be {word} {}", schema[bound]),
                        schema["description"].as_str().map_or_else(String::new, in_hint),
                    );
                }
            }
            if schema["format"] == "int32" && i32::try_from(number as i64).is_err() {
                self.findings.error(path, Reason::InvalidValue, format!("{value} is too large"), "");
            }
        }
        if let (Some(allowed), Some(text)) = (schema["enum"].as_array(), value.as_str()) {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                let hint = nearest(text, allowed.iter().copied()).map(|near| format!("did you mean `{near}`?"));
                self.findings.error(
                    path,
                    Reason::InvalidValue,
                    format!("`{text}` is not one of `{}`", allowed.join("`, `")),
                    hint.or_else(|| schema["description"].as_str().map(in_hint)).unwrap_or_default(),
                );
            }
        }
    }
}

/// A sentence of a description as a hint: lower case, no full stop.
fn in_hint(description: &str) -> String {
    let sentence = description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.');
    let mut characters = sentence.chars();
    match characters.next() {
        Some(first) if !characters.clone().next().is_some_and(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => sentence.to_owned(),
    }
}

fn looks_like(schema: &Value, text: &str) -> bool {
    match schema["type"].as_str() {
        Some("integer") => text.parse::<i64>().is_ok(),
        Some("number") => text.parse::<f64>().is_ok(),
        _ => matches!(text, "true" | "false"),
    }
}

fn collect(schema: &Value, path: &str, field: &str, places: &mut Vec<String>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if name == field {
            places.push(path.clone());
        }
        collect(below, &path, field, places);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{path}[]"), field, places);
    }
}

fn type_in_words(schema: &Value) -> &'static str {
    match schema["type"].as_str() {
        Some("object") => "an object with fields",
        Some("array") => "a list",
        Some("string") => "a string",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        _ => "a string or a whole number",
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string \"{text}\""),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}
