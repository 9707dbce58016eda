//! What a change must not change.

use super::*;

#[test]
fn impossible_changes_are_refused() {
    let before = |patch: Value| {
        let mut value = changed(&patch);
        value["status"]["systemID"] = json!("7000000000000000001");
        value
    };
    for (name, old, new, expected) in [
        ("nothing", json!({}), json!({}), &[][..]),
        ("larger", json!({}), json!({"spec": {"storage": {"size": "20Gi"}}}), &[]),
        ("smaller", json!({}), json!({"spec": {"storage": {"size": "5Gi"}}}), &["E spec.storage.size Immutable"]),
        ("the same in other words", json!({}), json!({"spec": {"storage": {"size": "10240Mi"}}}), &[]),
        (
            "another class",
            json!({}),
            json!({"spec": {"storage": {"storageClass": "fast"}}}),
            &["W spec.storage.storageClass NoEffect"],
        ),
        ("a WAL volume", json!({}), json!({"spec": {"walStorage": {"size": "1Gi"}}}), &["E spec.walStorage Immutable"]),
        (
            "no WAL volume",
            json!({"spec": {"walStorage": {"size": "1Gi"}}}),
            json!({}),
            &["E spec.walStorage Immutable"],
        ),
        ("a minor version", json!({}), json!({"spec": {"imageName": "postgres:18.2"}}), &[]),
        ("a major version", json!({"spec": {"imageName": "postgres:17"}}), json!({}), &["E spec.imageName Immutable"]),
        ("another user", json!({}), json!({"spec": {"postgresUID": 999}}), &["E spec.postgresUID Immutable"]),
        ("the default user in words", json!({}), json!({"spec": {"postgresUID": 26}}), &[]),
        (
            "another bootstrap",
            json!({}),
            json!({"spec": {"bootstrap": {"initdb": {"database": "x"}}}}),
            &["W spec.bootstrap NoEffect"],
        ),
        (
            "the default bootstrap in words",
            json!({}),
            json!({"spec": {"bootstrap": {"initdb": {"database": "app"}}}}),
            &[],
        ),
        (
            "another archive",
            json!({}),
            json!({"spec": {"backup": {"barmanObjectStore": {"destinationPath": "s3://bucket/new"}}}}),
            &["W spec.backup.barmanObjectStore Conflict"],
        ),
        ("more instances", json!({}), json!({"spec": {"instances": 5}}), &[]),
    ] {
        assert_eq!(brief(&cluster_update(&before(old), &changed(&new))), expected, "{name}");
    }
    // A growth that no volume has got can be taken back, and no more than that.
    for (sizes, size, expected) in [
        ([("main-1", "10Gi"), ("main-2", "10Gi")], "10Gi", &[][..]),
        ([("main-1", "10Gi"), ("main-2", "20Gi")], "10Gi", &[]),
        ([("main-1", "20Gi"), ("main-2", "20Gi")], "10Gi", &["E spec.storage.size Immutable"]),
        ([("main-1", "10Gi"), ("main-2", "10Gi")], "9Gi", &["E spec.storage.size Immutable"]),
        ([("main-1", "20Gi"), ("main-9", "10Gi")], "10Gi", &["E spec.storage.size Immutable"]),
    ] {
        let mut old = before(json!({"spec": {"storage": {"size": "20Gi"}}}));
        old["status"]["instanceNames"] = json!(["main-1", "main-2"]);
        for (claim, requested) in sizes {
            old["status"]["volumes"][claim] = json!({"requested": requested});
        }
        let new = changed(&json!({"spec": {"storage": {"size": size}}}));
        assert_eq!(brief(&cluster_update(&old, &new)), expected, "{sizes:?} to {size}");
    }
    // As long as there is no data, its source may change.
    let young = changed(&json!({"spec": {"walStorage": {"size": "1Gi"}, "imageName": "postgres:17"}}));
    assert_eq!(brief(&cluster_update(&young, &valid())), [""; 0]);
}

/// A field that is used once must not stop a cluster that has its data, even if a later version checks it more
/// strictly.
#[test]
fn a_field_that_is_no_longer_used_stops_nothing() {
    let base = "spec.bootstrap.recovery.recoveryTarget";
    let recovery = |patch: Value| {
        let mut recovery = json!({"source": "old"});
        merge(&mut recovery, &patch);
        changed(&json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": recovery}}}))
    };
    let initdb = |patch: Value| changed(&json!({ "spec": { "bootstrap": { "initdb": patch } } }));
    for (name, mut manifest, before, after) in [
        (
            "a time",
            recovery(json!({"recoveryTarget": {"targetTime": "2025-01-01T14:30:00.123456789Z"}})),
            format!("E {base}.targetTime InvalidValue"),
            format!("W {base}.targetTime NoEffect"),
        ),
        (
            "two targets",
            recovery(json!({"recoveryTarget": {"targetLSN": "0/1", "targetName": "a"}})),
            format!("E {base} Conflict"),
            format!("W {base} NoEffect"),
        ),
        (
            "a source that is gone",
            recovery(json!({"source": "older"})),
            "E spec.bootstrap.recovery.source InvalidValue".to_owned(),
            "W spec.bootstrap.recovery.source NoEffect".to_owned(),
        ),
        (
            "an option of initdb",
            initdb(json!({"options": ["--waldir=/w"]})),
            "E spec.bootstrap.initdb.options ManagedSetting".to_owned(),
            "W spec.bootstrap.initdb.options NoEffect".to_owned(),
        ),
        (
            "the application's owner",
            initdb(json!({"owner": "postgres"})),
            "E spec.bootstrap.initdb.owner InvalidValue".to_owned(),
            "E spec.bootstrap.initdb.owner InvalidValue".to_owned(),
        ),
    ] {
        assert_eq!(brief(&cluster(&manifest)), [before], "{name}, without data");
        manifest["status"] = json!({"systemID": "7000000000000000001"});
        assert_eq!(brief(&cluster(&manifest)), std::slice::from_ref(&after), "{name}, with data");
        let mut grown = manifest.clone();
        grown["spec"]["instances"] = json!(5);
        assert_eq!(brief(&cluster_update(&manifest, &grown)), [after], "{name}, changed elsewhere");
    }
}
