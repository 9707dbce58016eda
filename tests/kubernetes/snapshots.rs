//! Volume snapshots on a real Kubernetes: hot, cold, recovery from them to a later time, and faults of the driver.

use crate::stage::Stage;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

const SNAPSHOTS: &str = "    volumeSnapshot:\n      className: holdfast-test\n";

/// Encrypts an archive. Written below `barmanObjectStore`.
const ENCRYPTION: &str =
    "      encryption:\n        passphrase:\n          name: archive-key\n          key: passphrase\n";

/// Waits until a cluster waits for something whose description ends with these words.
fn wait_blocked(stage: &Stage, cluster: &str, words: &str) {
    stage.wait("clusters.holdfast.dev", cluster, &format!("{words:?}"), LIMIT, |object| {
        object["status"]["blockedBy"]["what"].as_str().filter(|what| what.ends_with(words)).map(drop)
    });
}

/// During writes, with a separate WAL volume and an encrypted archive: the name of the `Backup` is enough to recover to
/// a time after its hot snapshots.
#[test]
fn hot_snapshots_and_the_archive_give_any_later_moment() {
    let stage = Stage::new("hot");
    stage.apply("apiVersion: v1\nkind: Secret\nmetadata:\n  name: archive-key\nstringData:\n  passphrase: correct horse battery staple\n");
    let more = format!("{ENCRYPTION}{SNAPSHOTS}  walStorage:\n    size: 1Gi\n");
    stage.apply(&stage.archived_cluster("main", 2, &more));
    stage.wait_ready("main", 2, LIMIT);
    let writer = stage.write_rows("main");
    writer.next(LIMIT);
    let backup = stage.back_up("main", "snapshot", "  method: volumeSnapshot\n");
    let elements = backup["status"]["snapshotBackupStatus"]["elements"].as_array().unwrap().clone();
    assert_eq!(elements.len(), 2, "data and WAL");
    writer.next(LIMIT);
    let written = writer.stop();
    let moment = stage.value("main", "SELECT clock_timestamp()");
    stage.sql("main", "INSERT INTO numbers (n) VALUES (1000000000)");
    stage.archive_wal("main", LIMIT);

    let recovery = format!(
        "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      backup:\n        name: snapshot\n      recoveryTarget:\n        \
         targetTime: \"{moment}\"\n"
    );
    // The volumes must be those of the backup. Before that is so, nothing is made.
    stage.apply(&stage.archived_cluster("copy", 1, &format!("{ENCRYPTION}{recovery}")));
    wait_blocked(&stage, "copy", "but spec.walStorage is not set");
    assert!(stage.find("pvc", "copy-1").is_none(), "no volume is made");
    stage.apply(&stage.archived_cluster("copy", 1, &format!("{ENCRYPTION}  walStorage:\n    size: 1Gi\n{recovery}")));
    stage.wait_ready("copy", 1, LIMIT);
    let found = stage.numbers("copy");
    written.assert_kept(&found);
    assert!(!found.contains(&1_000_000_000), "later rows are not there");

    // These snapshots are the only backup, so the recovery window begins with them, and closes when they are gone.
    let recoverable = |what: &str, wanted: bool| {
        stage.wait("clusters.holdfast.dev", "main", what, LIMIT, |object| {
            let found = &object["status"]["recoverability"];
            let begins = found["from"].is_string() && found["lastBackup"]["id"] == backup["status"]["backupId"];
            (found["checkedAt"].is_string() && begins == wanted).then_some(())
        });
    };
    recoverable("the snapshots as what recovery begins with", true);
    stage.kubectl(&["delete", "volumesnapshots.snapshot.storage.k8s.io", "--all"]);
    recoverable("nothing to begin a recovery with", false);
    stage.apply(&stage.archived_cluster("late", 1, &format!("{ENCRYPTION}  walStorage:\n    size: 1Gi\n{recovery}")));
    wait_blocked(&stage, "late", "is gone: this backup cannot be restored");
}

/// A cold snapshot stops one standby only while it is taken, and can be recovered from with the WAL after it.
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

/// The status contains the storage driver's message, and the instance does not stay in backup mode.
#[test]
fn the_drivers_own_error_is_shown() {
    let stage = Stage::new("driver");
    if !stage.bed.is_own() {
        eprintln!("skipped: the storage driver of the cluster in KUBECONFIG has no faults on demand");
        return;
    }
    let faulty = format!(
        "{SNAPSHOTS}      deadlineSeconds: 60\n      annotations:\n        holdfast.test/fail: quota of the array exceeded\n"
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
    stage.until("an end of unfinished snapshots", LIMIT, || {
        stage.list("volumesnapshots.snapshot.storage.k8s.io").is_empty().then_some(())
    });
    // The next snapshot is not delayed.
    stage.back_up("main", "next", "");
}
