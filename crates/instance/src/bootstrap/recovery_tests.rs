#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
use super::*;
use serde_json::json;

fn words(target: Value) -> String {
    let target: RecoveryTarget = serde_json::from_value(target).unwrap();
    target_words(&target, Some("20261122T101500Z")).join(" ")
}

#[test]
fn every_target_has_its_flags() {
    let backup = "--backup 20261122T101500Z";
    for (target, expected) in [
        (json!({}), backup.to_owned()),
        (
            json!({"targetTime": "2026-11-22 10:15:00"}),
            format!("--target-time 2026-11-22 10:15:00+00 {backup} --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22T10:15:00Z", "exclusive": true}),
            format!("--target-time 2026-11-22T10:15:00Z {backup} --target-exclusive --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22 10:15:00-03:30"}),
            format!("--target-time 2026-11-22 10:15:00-03:30 {backup} --target-action promote"),
        ),
        (json!({"targetLSN": "0/5000000"}), format!("--target-lsn 0/5000000 {backup} --target-action promote")),
        (json!({"targetXID": "777"}), format!("--target-xid 777 {backup} --target-action promote")),
        (
            json!({"targetName": "before", "exclusive": true}),
            format!("--target-name before {backup} --target-action promote"),
        ),
        (json!({"targetImmediate": true}), format!("{backup} --target-immediate --target-action promote")),
        (
            json!({"targetTLI": "latest", "backupID": "20261122T111500Z"}),
            "--target-timeline latest --backup 20261122T111500Z".to_owned(),
        ),
    ] {
        assert_eq!(words(target.clone()), expected, "{target}");
    }
}

fn cluster(recovery: &Value) -> Cluster {
    serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Cluster", "metadata": {"name": "new"},
        "spec": {"instances": 1, "bootstrap": {"recovery": recovery}, "externalClusters": [
            {"name": "old", "barmanObjectStore": {"destinationPath": "s3://b/p", "serverName": "old-2"}}
        ]}
    }))
    .unwrap()
}

#[test]
fn sources() {
    let found = source(&cluster(&json!({"source": "old"})), None).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.store.server_name.as_deref()), ("old", Some("old-2")));
    assert_eq!(
        source(&cluster(&json!({"source": "x"})), None).unwrap_err().to_string(),
        "error: externalClusters has no entry x with a barmanObjectStore\n\
         while: looking for the archive to recover from\n\
         hint:  bootstrap.recovery.source names an entry of externalClusters"
    );
    let backup: Backup = serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Backup", "metadata": {"name": "b"},
        "spec": {"cluster": {"name": "main"}},
        "status": {"backupId": "20261122T101500Z", "barmanObjectStore": {"destinationPath": "s3://b/p"}}
    }))
    .unwrap();
    let from_backup = cluster(&json!({"backup": {"name": "b", "endpointCA": {"name": "ca", "key": "crt"}}}));
    let found = source(&from_backup, Some(&backup)).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.backup_id.as_deref()), ("main", Some("20261122T101500Z")));
    assert_eq!(found.store.endpoint_ca.unwrap().name, "ca");
    assert_eq!(source(&cluster(&json!({})), None).unwrap(), None);
}

#[test]
fn a_snapshot_is_found_by_its_name() {
    let listed = json!({"snapshots": [
        {"snapshot_id": "a", "snapshots": [{"name": "x", "type": "PG_DATA"}], "annotations": {"backup_uid": "x-wal"}},
        {"snapshot_id": "b", "snapshots": [{"name": "y-data", "type": "PG_DATA"}]}
    ]});
    assert_eq!(snapshot_id(&listed, "x-wal").as_deref(), Some("a"));
    assert_eq!(snapshot_id(&listed, "y-data").as_deref(), Some("b"));
    assert_eq!(snapshot_id(&listed, "z"), None);
}
