//! One valid cluster, one change at a time, and the findings: a file for each part of a manifest.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod archive;
mod backups;
mod bootstrap;
mod changes;
mod fields;
mod meaning;
mod reading;
mod settings;

use super::*;
use serde_json::json;

/// A cluster without findings.
fn valid() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "main", "namespace": "db"},
        "spec": {
            "instances": 3,
            "imageName": "postgres:18",
            "storage": {"size": "10Gi"},
            "postgresql": {"parameters": {"shared_buffers": "256MB", "work_mem": "64MB", "pg_stat_statements.max": "100"}},
            "resources": {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "2Gi"}},
            "backup": {"barmanObjectStore": {
                "destinationPath": "s3://bucket/prefix/",
                "endpointURL": "https://s3.example",
                "s3Credentials": {
                    "accessKeyId": {"name": "s3", "key": "id"},
                    "secretAccessKey": {"name": "s3", "key": "secret"}
                }
            }}
        }
    })
}

/// An archive to recover from, as an entry of `externalClusters`.
fn source() -> Value {
    json!({"name": "old", "barmanObjectStore": {"destinationPath": "s3://bucket/old", "s3Credentials": {"inheritFromIAMRole": true}}})
}

/// Merges `patch` into `value`; null removes a field (as in RFC 7396).
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(value), Value::Object(patch)) => {
            for (key, patch) in patch {
                if patch.is_null() {
                    value.remove(key);
                } else {
                    merge(value.entry(key.clone()).or_insert(json!({})), patch);
                }
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}

fn changed(patch: &Value) -> Value {
    let mut value = valid();
    merge(&mut value, patch);
    value
}

/// `E path Reason` and `W path Reason`, in the order of a reader.
fn brief<T>(outcome: &Outcome<T>) -> Vec<String> {
    assert_eq!(outcome.value.is_none(), !outcome.errors.is_empty(), "a meaning exactly without errors");
    for finding in outcome.findings() {
        assert!(!finding.message.is_empty() && !finding.message.ends_with('.'), "{finding}");
        assert!(!finding.hint.ends_with('.'), "{finding}");
        assert!(finding.message.is_ascii(), "{finding}");
    }
    let line = |mark: &str, finding: &Finding| format!("{mark} {} {}", finding.path, finding.reason);
    let errors = outcome.errors.iter().map(|finding| line("E", finding));
    errors.chain(outcome.warnings.iter().map(|finding| line("W", finding))).collect()
}

/// Each row: a name, the change to the valid cluster, and the findings.
fn holds<const ROWS: usize>(rows: [(&str, Value, &[&str]); ROWS]) {
    for (name, patch, expected) in rows {
        let outcome = cluster(&changed(&patch));
        assert_eq!(brief(&outcome), expected, "{name}: {outcome:#?}");
    }
}

#[test]
fn a_valid_cluster_has_no_findings() {
    let outcome = cluster(&valid());
    assert_eq!(brief(&outcome), [""; 0]);
    let value = outcome.value.unwrap();
    assert_eq!((value.name.as_str(), value.namespace.as_str(), value.postgres_major), ("main", "db", Some(18)));
    let initdb = value.spec.bootstrap.unwrap().initdb.unwrap();
    assert_eq!((initdb.database.as_deref(), initdb.owner.as_deref()), (Some("app"), Some("app")));
}
