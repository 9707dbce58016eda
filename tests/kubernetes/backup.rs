//! Backups on a real Kubernetes: object store, an idle database, one at a time, interruptions, schedules.

use crate::stage::Stage;
use chrono::{DateTime, NaiveDateTime, Utc};
use holdfast_testkit::kube::{Bed, Resident};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

/// The backup of a standby completes although nobody writes. The status shows the archive's state. A second backup
/// waits for its turn.
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
    let (stopped, started) = (time(&first["status"]["stoppedAt"]), time(&second["status"]["startedAt"]));
    assert!(stopped.unwrap() <= started.unwrap(), "one at a time");
    for field in ["backupId", "beginWal", "endWal", "beginLSN", "endLSN", "startedAt", "storedBytes", "dataBytes"] {
        assert!(!first["status"][field].is_null(), "{field} is missing in {}", first["status"]);
    }
    let cluster = stage.wait("clusters.holdfast.dev", "main", "recoverability", LIMIT, |object| {
        let found = &object["status"]["recoverability"];
        (found["lastBackup"]["id"] == second["status"]["backupId"]
            && found["latest"].is_string()
            && archiving_has_status(object, "True"))
        .then(|| object.clone())
    });
    // Nothing was committed since the first backup: no time can be a target, and a recovery without a target restores
    // everything.
    let recoverability = &cluster["status"]["recoverability"];
    assert!(recoverability["from"].is_string(), "{recoverability}");
    assert!(time(&recoverability["latest"]) > time(&recoverability["from"]), "{recoverability}");
    assert!(time(&recoverability["to"]) < time(&recoverability["latest"]), "{recoverability}");
}

/// A time that may be absent.
fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str().map(|text| text.parse().expect("a time"))
}

/// Whether the condition `ContinuousArchiving` has this status.
fn archiving_has_status(cluster: &Value, status: &str) -> bool {
    let conditions = cluster["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "ContinuousArchiving" && one["status"] == status)
}

/// The pod that is backed up is killed, and the operator is restarted. The backup completes nevertheless, and can be
/// restored.
#[test]
fn alone_a_backup_survives_its_pod_and_the_operator() {
    let stage = Stage::new("interrupted");
    stage.apply(&stage.archived_cluster("main", 2, ""));
    stage.wait_ready("main", 2, LIMIT);
    stage.sql("main", "CREATE TABLE bulk AS SELECT i, md5(i::text) AS text FROM generate_series(1, 1500000) i");
    // A backup that ended before its pod died shows nothing. In that case the next one is interrupted.
    let interrupted = (1..=5).any(|number| {
        let name = format!("interrupted-{number}");
        stage.apply(&format!(
            "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: {name}\nspec:\n  cluster:\n    name: main\n"
        ));
        let instance = stage.wait("backups.holdfast.dev", &name, "its beginning", LIMIT, |object| {
            let begun = matches!(object["status"]["phase"].as_str(), Some("running" | "finalizing" | "completed"));
            object["status"]["instance"].as_str().filter(|_| begun).map(str::to_owned)
        });
        stage.kubectl(&["delete", "pod", &instance, "--grace-period=0", "--force"]);
        let operator = "app.kubernetes.io/name=holdfast-operator";
        stage.kubectl(&["-n", "holdfast-system", "delete", "pod", "-l", operator, "--wait=false"]);
        let backup = stage.wait_completed(&name, LIMIT);
        stage.wait_ready("main", 2, LIMIT);
        backup["status"]["attempts"].as_i64().unwrap() >= 2
    });
    assert!(interrupted, "no backup had to be tried again");
}

/// The object store is unreachable until this is dropped, also if the test fails: other tests need it.
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

/// The store is unreachable: the status of archiving says so and why, a backup fails or waits with a clear reason, and
/// all of it recovers.
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
    // An idle database has nothing to archive, so there is no alarm.
    stage.sql("main", "CREATE TABLE waiting AS SELECT generate_series(1, 1000) AS n");
    stage.psql("main-1", "SELECT pg_switch_wal()");
    stage.wait("clusters.holdfast.dev", "main", "the alarm", LIMIT, |object| {
        archiving_has_status(object, "False").then_some(())
    });
    // Meanwhile the primary goes away. Its successor pushes the rest.
    stage.kubectl(&["delete", "pod", "main-1", "--grace-period=0", "--force"]);
    stage.wait("clusters.holdfast.dev", "main", "another primary", LIMIT, |object| {
        (object["status"]["currentPrimary"] == "main-2").then_some(())
    });
    drop(store);
    stage.wait("clusters.holdfast.dev", "main", "the end of the alarm", LIMIT, |object| {
        archiving_has_status(object, "True").then_some(())
    });
    stage.wait_ready("main", 2, LIMIT);
    let backup = stage.back_up("main", "after", "");
    stage.wait("clusters.holdfast.dev", "main", "an archive without gaps", LIMIT, |object| {
        let found = &object["status"]["recoverability"];
        let gaps = found["gaps"].as_array().map_or(0, Vec::len);
        (found["lastBackup"]["id"] == backup["status"]["backupId"] && gaps == 0).then_some(())
    });
    assert_eq!(stage.value("main", "SELECT count(*) FROM waiting"), "1000");
}

/// A schedule fires at its second, keeps its limits, and reports the next times.
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
        // Its name contains the due time for which it was made.
        let name = backup["metadata"]["name"].as_str().unwrap();
        let due = NaiveDateTime::parse_from_str(name, "often-%Y%m%d%H%M%S").unwrap().and_utc();
        assert_eq!(due.timestamp() % 20, 0, "{name} is not at a time of the schedule");
        let late = (time(&backup["metadata"]["creationTimestamp"]).unwrap() - due).num_seconds();
        println!("{name} was made {late} s late");
        // After the next due time, it would be made for that one.
        assert!((0..30).contains(&late), "{name} was made {late} s late");
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
