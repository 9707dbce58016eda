//! Text fields whose values people write as numbers and switches.
//!
//! A YAML reader turns `max_connections: 200` into a number and `fsync: on` into `true` before the schema sees them.
//! The meaning is clear, so the schema accepts them, and they are read as the text that was meant. A list or an object
//! in such a place is kept as JSON text, because reading one resource must never fail the watch over all of them.
//! Validation then refuses it with a message of its own.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The text that the value means; `None` for null.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(true) => Some("on".to_owned()),
        Value::Bool(false) => Some("off".to_owned()),
        other => Some(other.to_string()),
    }
}

/// Reads an optional text.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Value>::deserialize(deserializer)?.as_ref().and_then(text_of))
}

/// Reads a map of texts. A null value is an empty text, as in `postgresql.conf`.
pub(crate) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(values.into_iter().map(|(key, value)| (key, text_of(&value).unwrap_or_default())).collect())
}

/// The schema of a text or a whole number.
pub(crate) fn text_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "nullable": true })
}

/// The schema of a map with values of any type.
pub(crate) fn texts_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "nullable": true,
        "additionalProperties": { "x-kubernetes-preserve-unknown-fields": true }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use crate::cluster::{PostgresConfiguration, RecoveryTarget};
    use serde_json::json;

    #[test]
    fn settings_are_read_as_they_were_meant() {
        let read: PostgresConfiguration = serde_json::from_value(json!({
            "parameters": {"max_connections": 200, "fsync": true, "random_page_cost": 1.1, "log_statement": "all", "a": null}
        }))
        .unwrap();
        let settings: Vec<(&str, &str)> =
            read.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            settings,
            [
                ("a", ""),
                ("fsync", "on"),
                ("log_statement", "all"),
                ("max_connections", "200"),
                ("random_page_cost", "1.1")
            ]
        );
        let none: PostgresConfiguration = serde_json::from_value(json!({ "parameters": null })).unwrap();
        assert!(none.parameters.is_empty());
    }

    #[test]
    fn a_timeline_may_be_a_number() {
        let target: RecoveryTarget = serde_json::from_value(json!({ "targetTLI": 3, "targetXID": "1234" })).unwrap();
        assert_eq!((target.target_tli.as_deref(), target.target_xid.as_deref()), (Some("3"), Some("1234")));
    }
}
