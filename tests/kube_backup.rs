//! Backups on a real Kubernetes: object store, an idle database, one at a time, interruptions, schedules.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a failed set-up fails the test")]

mod kube_stage;

use holdfast_testkit::kube::{Bed, Resident};
use kube_stage::Stage;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(3);

/// The backup of a standby completes although nobody writes; the archive's state is in the status; a second backup waits its turn.
#[test]
fn an_idle_cluster_is_backed_up_from_its_standby() {
    let stage = Stage::new("backup");
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    for name in ["first", "second"] {
        stage.apply(&format!(
            "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: {name}\nspec:\n  cluster:\n    name: main\n"
        ));
    }
    let first = stage.wait_completed("first", LIMIT);
    let second = stage.wait_completed("second", LIMIT);
    assert_eq!(first["status"]["instance"], "main-2", "a standby is preferred");
    assert!(
        first["status"]["stoppedAt"].as_str().unwrap() <= second["status"]["startedAt"].as_str().unwrap(),
        "one at a time"
    );
    for field in ["backupId", "beginWal", "endWal", "beginLSN", "endLSN", "startedAt", "storedBytes", "dataBytes"] {
        assert!(!first["status"][field].is_null(), "{field} is missing in {}", first["status"]);
    }
    let cluster = stage.wait("clusters.holdfast.dev", "main", "recoverability", LIMIT, |object| {
        let found = &object["status"]["recoverability"];
        (found["lastBackup"]["id"] == second["status"]["backupId"] && found["latest"].is_string())
            .then(|| object.clone())
    });
    // Nothing was committed since the first backup: no time is a target, and all there is comes back without one.
    let recoverability = &cluster["status"]["recoverability"];
    assert!(recoverability["from"].is_string(), "{recoverability}");
    assert!(recoverability["latest"].as_str() > recoverability["from"].as_str(), "{recoverability}");
    assert!(recoverability["to"].as_str() < recoverability["latest"].as_str(), "{recoverability}");
    let archiving = cluster["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|condition| condition["type"] == "ContinuousArchiving")
        .expect("the condition");
    assert_eq!(archiving["status"], "True");
}

/// The pod that is backed up is killed, the operator is restarted: the backup completes all the same, and can be restored.
#[test]
fn a_backup_survives_its_pod_and_the_operator() {
    let stage = Stage::new("interrupted");
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    stage.sql("main", "CREATE TABLE bulk AS SELECT i, md5(i::text) AS text FROM generate_series(1, 1500000) i");
    stage.apply("apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: interrupted\nspec:\n  cluster:\n    name: main\n");
    let instance = stage.wait("backups.holdfast.dev", "interrupted", "its beginning", LIMIT, |object| {
        (object["status"]["phase"] == "running").then(|| object["status"]["instance"].as_str().unwrap().to_owned())
    });
    stage.kubectl(&["delete", "pod", &instance, "--grace-period=0", "--force"]);
    stage.kubectl(&[
        "-n",
        "holdfast-system",
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=holdfast-operator",
        "--wait=false",
    ]);
    let backup = stage.wait_completed("interrupted", LIMIT);
    assert!(backup["status"]["attempts"].as_i64().unwrap() >= 2, "{}", backup["status"]);
}

/// The object store is away until this is dropped, also when the test fails: others need it.
struct StoreAway<'a>(&'a Bed);

impl<'a> StoreAway<'a> {
    fn begin(bed: &'a Bed) -> Self {
        bed.stop_resident(Resident::S3).expect("stop the store");
        Self(bed)
    }
}

impl Drop for StoreAway<'_> {
    fn drop(&mut self) {
        self.0.start_resident(Resident::S3).expect("start the store");
    }
}

/// The store is away: archiving says so and why, a backup fails or waits in so many words, and all of it recovers.
#[test]
fn alone_a_store_that_is_away_is_seen_and_survived() {
    let stage = Stage::new("away");
    if !stage.bed.is_own() {
        eprintln!("skipped: the object store of the cluster in KUBECONFIG is not ours to stop");
        return;
    }
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    let store = StoreAway::begin(&stage.bed);
    // A database at rest has nothing to archive, and so nothing to alarm about.
    stage.sql("main", "CREATE TABLE waiting AS SELECT generate_series(1, 1000) AS n");
    stage.psql("main-1", "SELECT pg_switch_wal()");
    let condition = |object: &serde_json::Value, status: &str| {
        object["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "ContinuousArchiving" && condition["status"] == status)
        })
    };
    stage.wait("clusters.holdfast.dev", "main", "the alarm", LIMIT, |object| condition(object, "False").then_some(()));
    // The primary goes away meanwhile: what it had not archived is pushed by its successor.
    stage.kubectl(&["delete", "pod", "main-1", "--grace-period=0", "--force"]);
    stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
        (object["status"]["currentPrimary"] == "main-2").then_some(())
    });
    drop(store);
    stage.wait("clusters.holdfast.dev", "main", "the end of the alarm", LIMIT, |object| {
        condition(object, "True").then_some(())
    });
    stage.wait_ready("main", 2, LIMIT);
    stage.back_up("main", "after", "");
    let cluster = stage.get("clusters.holdfast.dev", "main");
    let gaps = cluster["status"]["recoverability"]["gaps"].as_array().map_or(0, Vec::len);
    assert_eq!(gaps, 0, "{}", cluster["status"]["recoverability"]);
    assert_eq!(stage.value("main", "SELECT count(*) FROM waiting"), "1000");
}

/// A schedule fires at its second, keeps its limits, and says what comes next.
#[test]
fn a_schedule_fires_in_time() {
    let stage = Stage::new("schedule");
    stage.apply(&stage.archived_cluster("main", 1, ""));
    stage.wait_ready("main", 1, LIMIT);
    stage.apply(
        "apiVersion: holdfast.dev/v1\nkind: ScheduledBackup\nmetadata:\n  name: often\nspec:\n  schedule: '*/20 * * * * *'\n  cluster:\n    \
         name: main\n  backupOwnerReference: self\n  successfulBackupsHistoryLimit: 2\n",
    );
    let schedule = stage.wait("scheduledbackups.holdfast.dev", "often", "a second backup", LIMIT, |object| {
        let made = object["status"]["lastBackup"].as_str()?;
        let completed = stage.find("backups.holdfast.dev", made)?["status"]["phase"] == "completed";
        (completed && stage.list("backups.holdfast.dev").len() >= 2).then(|| object.clone())
    });
    let next = schedule["status"]["nextScheduleTimes"].as_array().unwrap();
    assert_eq!(next.len(), 3);
    for backup in stage.list("backups.holdfast.dev") {
        let created =
            backup["metadata"]["creationTimestamp"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        let late = created.timestamp().rem_euclid(20);
        assert!(late <= 2, "{} was made {late} s late", backup["metadata"]["name"]);
    }
    stage.kubectl(&[
        "patch",
        "scheduledbackups.holdfast.dev",
        "often",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":true}}"#,
    ]);
}
