//! Volume snapshots on a real Kubernetes: hot, cold, recovery from them to a moment after them, and the driver's faults.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod kube_stage;

use kube_stage::Stage;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(3);

const SNAPSHOTS: &str = "    volumeSnapshot:\n      className: holdfast-test\n";

/// Under writes, with a WAL volume of its own: hot snapshots are enough to come back to a moment after them.
#[test]
fn hot_snapshots_and_the_archive_give_any_later_moment() {
    let stage = Stage::new("hot");
    let more = format!("{SNAPSHOTS}  walStorage:\n    size: 1Gi\n");
    stage.apply(&stage.archived_cluster("main", 2, &more));
    stage.wait_ready("main", 2, LIMIT);
    let writer = stage.write_rows("main");
    writer.next(Duration::from_mins(1));
    let backup = stage.back_up("main", "snapshot", "  method: volumeSnapshot\n");
    let elements = backup["status"]["snapshotBackupStatus"]["elements"].as_array().unwrap().clone();
    assert_eq!(elements.len(), 2, "data and WAL");
    writer.next(Duration::from_mins(1));
    let written = writer.stop();
    let moment = stage.value("main", "SELECT clock_timestamp()");
    stage.sql("main", "INSERT INTO numbers (n) VALUES (1000000000)");
    let primary = stage.primary("main");
    stage.psql(&primary, "SELECT pg_switch_wal()");

    let name = |kind: &str| {
        elements.iter().find(|element| element["type"] == kind).unwrap()["name"].as_str().unwrap().to_owned()
    };
    stage.apply(&stage.archived_cluster(
        "copy",
        1,
        &format!(
            "  walStorage:\n    size: 1Gi\n  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      source: main\n      recoveryTarget:\n        targetTime: \
             \"{moment}\"\n      volumeSnapshots:\n        storage:\n          name: {}\n          kind: VolumeSnapshot\n          apiGroup: \
             snapshot.storage.k8s.io\n        walStorage:\n          name: {}\n          kind: VolumeSnapshot\n          apiGroup: \
             snapshot.storage.k8s.io\n  externalClusters:\n  - name: main\n    barmanObjectStore:\n{}",
            name("PG_DATA"),
            name("PG_WAL"),
            stage.object_store(6)
        ),
    ));
    stage.wait_ready("copy", 1, LIMIT);
    let found = stage.numbers("copy");
    written.assert_kept(&found);
    assert!(!found.contains(&1_000_000_000), "what came after the moment is not there");
}

/// A cold snapshot stops one standby for its time only, and is recovered from with the WAL after it.
#[test]
fn a_cold_snapshot_is_taken_from_a_stopped_standby() {
    let stage = Stage::new("cold");
    stage.apply(&stage.archived_cluster("main", 2, &format!("{SNAPSHOTS}      online: false\n")));
    stage.wait_ready("main", 2, LIMIT);
    stage.sql("main", "CREATE TABLE numbers (n bigint); INSERT INTO numbers SELECT generate_series(1, 1000)");
    let backup = stage.back_up("main", "cold", "  method: volumeSnapshot\n");
    assert_eq!(backup["status"]["online"], false);
    assert_eq!(backup["status"]["instance"], "main-2");
    stage.wait_ready("main", 2, LIMIT);
    let snapshot = backup["status"]["snapshotBackupStatus"]["elements"][0]["name"].as_str().unwrap();
    stage.apply(&stage.archived_cluster(
        "copy",
        1,
        &format!(
            "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      source: main\n      volumeSnapshots:\n        storage:\n          name: {snapshot}\n          \
             kind: VolumeSnapshot\n          apiGroup: snapshot.storage.k8s.io\n  externalClusters:\n  - name: main\n    \
             barmanObjectStore:\n{}",
            stage.object_store(6)
        ),
    ));
    stage.wait_ready("copy", 1, LIMIT);
    assert_eq!(stage.numbers("copy").len(), 1000);
}

/// What the storage driver says is what the status says, and the instance is not left in backup mode.
#[test]
fn the_drivers_own_error_is_shown() {
    let stage = Stage::new("driver");
    if !stage.bed.is_own() {
        eprintln!("skipped: the storage driver of the cluster in KUBECONFIG has no faults on demand");
        return;
    }
    let faulty = format!(
        "{SNAPSHOTS}      deadlineSeconds: 20\n      annotations:\n        holdfast.test/fail: quota of the array exceeded\n"
    );
    stage.apply(&stage.archived_cluster("main", 1, &faulty));
    stage.wait_ready("main", 1, LIMIT);
    stage.apply(
        "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: failing\nspec:\n  method: volumeSnapshot\n  cluster:\n    name: main\n",
    );
    let backup = stage.wait("backups.holdfast.dev", "failing", "its failure", LIMIT, |object| {
        (object["status"]["phase"] == "failed").then(|| object.clone())
    });
    let error = backup["status"]["error"].as_str().unwrap();
    assert!(error.contains("quota of the array exceeded"), "{error}");
    assert!(stage.list("volumesnapshots.snapshot.storage.k8s.io").is_empty(), "nothing half-done is left");
    // The next one is not held up.
    stage.back_up("main", "next", "");
}
