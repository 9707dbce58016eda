#![expect(clippy::unwrap_used, reason = "a test that fails here has found what it looks for")]
use super::*;
use holdfast_contract::report::PerRepository;
use serde_json::{Value, json};

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
            format!("--target-time 2026-11-22 10:15:00.000000+00 {backup} --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22T10:15:00Z", "exclusive": true}),
            format!("--target-time 2026-11-22 10:15:00.000000+00 {backup} --target-exclusive --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22 10:15:00-03:30"}),
            format!("--target-time 2026-11-22 13:45:00.000000+00 {backup} --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22 10:15:00.25 UTC"}),
            format!("--target-time 2026-11-22 10:15:00.250000+00 {backup} --target-action promote"),
        ),
        (
            json!({"targetTime": "2026-11-22"}),
            format!("--target-time 2026-11-22 00:00:00.000000+00 {backup} --target-action promote"),
        ),
        (json!({"targetTime": "noon"}), format!("--target-time noon {backup} --target-action promote")),
        (json!({"targetTLI": "0x1F"}), format!("--target-timeline 0x1F {backup}")),
        (json!({"targetTLI": 3}), format!("--target-timeline 3 {backup}")),
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

fn backup(status: &Value) -> Backup {
    serde_json::from_value(json!({
        "apiVersion": "holdfast.dev/v1", "kind": "Backup", "metadata": {"name": "b"},
        "spec": {"cluster": {"name": "main"}}, "status": status
    }))
    .unwrap()
}

/// The source to read, as `name serverName id`, or the error.
fn read(recovery: &Value, backup: Option<&Backup>) -> String {
    match source(&cluster(recovery), backup) {
        Ok(Some(found)) => {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            format!("{} {} {}", found.name, or_none(found.store.server_name), or_none(found.backup_id))
        }
        Ok(None) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
#[expect(clippy::large_stack_arrays, reason = "a table")]
fn sources() {
    let done = |more: Value| {
        let mut status = json!({"phase": "completed", "backupId": "20261122T101500Z"});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        backup(&status)
    };
    let stored = done(json!({"barmanObjectStore": {"destinationPath": "s3://b/p"}}));
    let named = json!({"backup": {"name": "b"}});
    let both = json!({"backup": {"name": "b"}, "source": "old"});
    let with_id = |id: &str| json!({"backup": {"name": "b"}, "source": "old", "recoveryTarget": {"backupID": id}});
    let not_there = "\nwhile: looking for the backup to recover from\nhint:  ";
    for (name, recovery, backup, expected) in [
        ("a source", json!({"source": "old"}), None, "old old-2 -".to_owned()),
        (
            "an unknown source",
            json!({"source": "x"}),
            None,
            "error: externalClusters has no entry x with a barmanObjectStore\n\
             while: looking for the archive to recover from\n\
             hint:  bootstrap.recovery.source must name an entry of externalClusters"
                .to_owned(),
        ),
        ("a backup", named.clone(), Some(stored.clone()), "main - 20261122T101500Z".to_owned()),
        (
            "a backup in the archive of a source",
            both.clone(),
            Some(stored.clone()),
            "old old-2 20261122T101500Z".to_owned(),
        ),
        ("and its id", with_id("20261122T101500Z"), Some(stored.clone()), "old old-2 20261122T101500Z".to_owned()),
        (
            "and another id",
            with_id("20261122T111500Z"),
            Some(stored.clone()),
            format!(
                "error: Backup b has the id 20261122T101500Z in the archive, but recoveryTarget.backupID is \
                20261122T111500Z{not_there}\
                 leave out bootstrap.recovery.backup or recoveryTarget.backupID"
            ),
        ),
        (
            "one that is running",
            both.clone(),
            Some(backup(&json!({"phase": "finalizing", "backupId": "20261122T101500Z"}))),
            format!(
                "error: Backup b is not completed yet{not_there}the recovery continues by itself when the Backup is \
                 completed"
            ),
        ),
        (
            "one that failed",
            named.clone(),
            Some(backup(&json!({"phase": "failed"}))),
            format!("error: Backup b has failed{not_there}name a Backup that is completed"),
        ),
        (
            "one without an archive",
            named.clone(),
            Some(done(json!({}))),
            "error: Backup b does not say where its archive is\nwhile: looking for the archive to recover from\n\
             hint:  name the archive in bootstrap.recovery.source"
                .to_owned(),
        ),
        ("snapshots without an archive", named, Some(done(json!({"method": "volumeSnapshot"}))), "nothing".to_owned()),
        (
            "snapshots in the archive of a source",
            both,
            Some(done(json!({"method": "volumeSnapshot"}))),
            "old old-2 20261122T101500Z".to_owned(),
        ),
        ("neither", json!({}), None, "nothing".to_owned()),
    ] {
        assert_eq!(read(&recovery, backup.as_ref()), expected, "{name}");
    }
    let authority = json!({"backup": {"name": "b", "endpointCA": {"name": "ca", "key": "crt"}}});
    let found = source(&cluster(&authority), Some(&stored)).unwrap().unwrap();
    assert_eq!(found.store.endpoint_ca.unwrap().name, "ca");
}

#[test]
fn what_a_volume_was_made_from() {
    let snapshots = backup(&json!({"snapshotBackupStatus": {"elements": [
        {"name": "b-1-wal", "type": "PG_WAL"}, {"name": "b-1", "type": "PG_DATA"}
    ]}}));
    let name = |recovery: &Value, backup| snapshot_name(&of(&cluster(recovery)).unwrap(), backup);
    let written = json!({"volumeSnapshots": {"storage": {"kind": "VolumeSnapshot", "name": "s"}}});
    assert_eq!(name(&written, None), "s");
    assert_eq!(name(&json!({"backup": {"name": "b"}}), Some(&snapshots)), "b-1");
}

#[test]
fn a_snapshot_is_found_by_its_name() {
    let sample = include_str!("../../../../contract/tests/samples/snapshot-list.json");
    let mut listed: SnapshotListReport = serde_json::from_str(sample).unwrap();
    let PerRepository::Read(repository) = &mut listed.repositories[0] else { unreachable!("the first one is read") };
    let [first, second] = repository.snapshots.as_mut_slice() else { unreachable!("the sample has two records") };
    first.snapshots[0].name = "x".to_owned();
    first.snapshots.truncate(1);
    first.annotations = [("backup_uid".to_owned(), "x-uid".to_owned())].into();
    second.snapshots[0].name = "y-data".to_owned();
    let (first, second) = (first.snapshot_id.to_string(), second.snapshot_id.to_string());
    for (name, expected) in [("x", Some(&first)), ("x-uid", Some(&first)), ("y-data", Some(&second)), ("z", None)] {
        assert_eq!(snapshot_id(&listed, name).as_ref(), expected, "{name}");
    }
}
