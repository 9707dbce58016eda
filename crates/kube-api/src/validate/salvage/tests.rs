//! One run finds all mistakes, also after a field of the wrong type.

use crate::validate;
use serde_json::json;

fn found(outcome: &[validate::Finding]) -> Vec<&str> {
    let mut paths: Vec<&str> = outcome.iter().map(|finding| finding.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn a_wrong_type_does_not_hide_other_errors() {
    let outcome = validate::cluster(&json!({
        "kind": "Cluster",
        "metadata": {"name": "MyDB"},
        "spec": {
            "instances": "3",
            "storage": {"size": "10 Gb"},
            "bootstrap": {"initdb": {"database": "app", "owner": "app"}, "recovery": {"source": "x"}},
            "backup": {"barmanObjectStore": {"destinationPath": "s3://b/p", "wal": {"compression": "lz5"}}},
        },
    }));
    assert_eq!(outcome.value, None);
    let paths = found(&outcome.errors);
    for path in ["metadata.name", "spec.instances", "spec.storage.size", "spec.bootstrap"] {
        assert!(paths.contains(&path), "{path} is not among {:#?}", outcome.errors);
    }
    // Read as 3, which is valid, so there is no further finding about it.
    assert_eq!(paths.iter().filter(|path| **path == "spec.instances").count(), 1);
}

#[test]
fn consequences_of_a_wrong_type_are_not_reported() {
    // Nothing more is known about the schedule itself.
    let outcome = validate::scheduled_backup(&json!({
        "kind": "ScheduledBackup",
        "metadata": {"name": "nightly"},
        "spec": {"schedule": ["0 0 * * *"], "cluster": {"nam": "c"}, "timeZone": "Mars/Phobos"},
    }));
    assert_eq!(found(&outcome.errors), ["spec.cluster.name", "spec.schedule", "spec.timeZone"]);
    let outcome = validate::scheduled_backup(&json!({
        "kind": "ScheduledBackup",
        "metadata": {"name": "nightly"},
        "spec": {"schedule": "0 0 * * *", "cluster": {"name": 7}, "timeZone": "Mars/Phobos", "suspend": "maybe"},
    }));
    assert_eq!(found(&outcome.errors), ["spec.cluster.name", "spec.suspend", "spec.timeZone"]);
}

#[test]
fn a_resource_without_any_shape_has_its_errors_once() {
    for raw in [json!(null), json!([]), json!({}), json!({"spec": null}), json!({"spec": []}), json!({"spec": "x"})] {
        let outcome = validate::cluster(&raw);
        assert_eq!(outcome.value, None, "{raw}");
        assert_eq!(outcome.errors.iter().filter(|finding| finding.path.starts_with("spec")).count().max(1), 1, "{raw}");
        assert!(!outcome.errors.is_empty(), "{raw}");
    }
}
