//! An operator that is killed during long operations: the next one continues them, and nothing is done twice.

use crate::stage::Stage;
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(4);
const ROWS: &str = "600000";

/// Snapshots that are ready some time after they were taken.
const SLOW_SNAPSHOTS: &str =
    "    volumeSnapshot:\n      className: holdfast-test\n      annotations:\n        holdfast.test/delay: 15s\n";

/// A cluster that is recovered from this `Backup`.
fn recovered(stage: &Stage, name: &str, backup: &str) -> String {
    let recovery = format!(
        "  bootstrap:\n    recovery:\n      database: app\n      owner: app\n      backup:\n        name: {backup}\n"
    );
    stage.archived_cluster(name, 1, &recovery)
}

/// Kills the operator's pod. Another pod must become the operator.
fn kill_operator(stage: &Stage) {
    let operator = ["-n", "holdfast-system", "delete", "pods", "-l", "app.kubernetes.io/name=holdfast-operator"];
    stage.kubectl(&[&operator as &[&str], &["--grace-period=0", "--force", "--wait=false"]].concat());
}

/// Killed while it waits for snapshots, while it makes volumes and pods of a recovery, and while files are restored.
#[test]
fn alone_snapshots_and_recoveries_survive_their_operator() {
    let stage = Stage::new("midway");
    if !stage.bed.is_own() {
        eprintln!("skipped: the operator of the cluster in KUBECONFIG is not ours to kill");
        return;
    }
    stage.apply(&stage.archived_cluster("main", 2, SLOW_SNAPSHOTS));
    stage.wait_ready("main", 2, LIMIT);
    stage.sql(
        "main",
        &format!("CREATE TABLE bulk AS SELECT i, md5(i::text) AS text FROM generate_series(1, {ROWS}) AS i"),
    );

    stage.apply(
        "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: snapshot\nspec:\n  method: volumeSnapshot\n  cluster:\n    name: main\n",
    );
    let taken = stage.until("snapshots that are taken and not ready", LIMIT, || {
        let taken = stage.list("volumesnapshots.snapshot.storage.k8s.io");
        (!taken.is_empty()).then_some(taken)
    });
    kill_operator(&stage);
    let uids = |objects: &[Value]| -> Vec<Value> {
        let mut uids: Vec<_> = objects.iter().map(|object| object["metadata"]["uid"].clone()).collect();
        uids.sort_by_key(Value::to_string);
        uids
    };
    stage.wait_completed("snapshot", LIMIT);
    let found = stage.list("volumesnapshots.snapshot.storage.k8s.io");
    assert_eq!(uids(&found), uids(&taken), "each volume has one snapshot, made once");
    stage.back_up("main", "base", "");

    for (backup, moment) in [("snapshot", "its volume"), ("base", "its pod")] {
        let name = format!("from-{backup}");
        let instance = format!("{name}-1");
        stage.apply(&recovered(&stage, &name, backup));
        let claim = stage.wait("pvc", &instance, "its volume", LIMIT, |object| {
            object["metadata"]["uid"].as_str().map(str::to_owned)
        });
        if moment == "its pod" {
            stage.wait("pods", &instance, moment, LIMIT, |object| {
                (object["status"]["phase"] == "Running").then_some(())
            });
        }
        kill_operator(&stage);
        stage.wait_ready(&name, 1, LIMIT);
        assert_eq!(stage.value(&name, "SELECT count(*) FROM bulk"), ROWS);
        assert_eq!(stage.get("pvc", &instance)["metadata"]["uid"], claim.as_str(), "the volume was made once");
        assert_eq!(stage.list("pods").len(), 3, "one pod for each instance");
        stage.kubectl(&["delete", "clusters.holdfast.dev", &name]);
        stage.until("the end of its pod", LIMIT, || stage.find("pods", &instance).is_none().then_some(()));
    }
}
