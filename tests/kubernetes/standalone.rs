//! `deploy/standalone`: a StatefulSet without the operator is set up, is backed up by the CronJob's job, loses its
//! volume, and is restored to the time before an accident.

use crate::stage::Stage;
use holdfast_kube_api::manifest;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

/// A file of the folder, with the store of the test bed and an archive of this test's own.
fn manifest_of(stage: &Stage, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/standalone").join(file);
    let store = stage.store();
    std::fs::read_to_string(path)
        .expect("read the manifest")
        .replace("s3://holdfast/standalone", &format!("s3://{}/{}", store.bucket, stage.namespace))
        .replace("http://10.244.0.1:9000", &store.endpoint)
        .replace("testkit-secret", &store.credentials.secret_key)
        .replace("AWS_ACCESS_KEY_ID: testkit\n", &format!("AWS_ACCESS_KEY_ID: {}\n", store.credentials.access_key))
}

fn psql(stage: &Stage, statement: &str) -> String {
    stage.psql_in("postgres-0", "/var/run/postgresql", "postgres", statement)
}

fn wait_ready(stage: &Stage) {
    stage.wait("statefulset", "postgres", "a ready server", LIMIT, |object| {
        let status = &object["status"];
        let seen = status["observedGeneration"] == object["metadata"]["generation"];
        let updated = status["updateRevision"] == status["currentRevision"];
        (seen && updated && status["readyReplicas"] == 1).then_some(())
    });
}

fn scale(stage: &Stage, replicas: &str) {
    stage.kubectl(&["scale", "statefulset", "postgres", &format!("--replicas={replicas}")]);
}

#[test]
fn a_statefulset_comes_back_to_the_moment_before() {
    let stage = Stage::bare("standalone");
    let server = manifest_of(&stage, "postgres.yaml");
    stage.apply(&server);
    wait_ready(&stage);

    // What the CronJob would run at night. Old servers have it under another API version.
    let cron = manifest_of(&stage, "backup.yaml");
    let cron = manifest::read(&cron).expect("read the CronJob").remove(0).value;
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "first-backup"},
        "spec": cron["spec"]["jobTemplate"]["spec"],
    });
    stage.apply(&job.to_string());
    stage.wait("job", "first-backup", "its end", LIMIT, |object: &Value| {
        assert_ne!(object["status"]["failed"], 3, "{}", object["status"]);
        (object["status"]["succeeded"] == 1).then_some(())
    });

    psql(&stage, "CREATE TABLE orders AS SELECT i FROM generate_series(1, 1000) i");
    std::thread::sleep(Duration::from_millis(1100));
    let moment = psql(&stage, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    std::thread::sleep(Duration::from_millis(1100));
    psql(&stage, "DROP TABLE orders");

    // The accident destroys the volume too. A fast shutdown archives what is left.
    scale(&stage, "0");
    stage.wait("statefulset", "postgres", "its pod to end", LIMIT, |object| {
        object["status"]["replicas"].as_i64().is_none_or(|replicas| replicas == 0).then_some(())
    });
    stage.kubectl(&["delete", "job", "first-backup"]);
    stage.kubectl(&["delete", "pvc", "data-postgres-0", "--timeout=180s"]);

    let words = format!("value: \"--target-time={moment} --target-action=promote\"");
    assert!(server.contains("value: \"\""), "the manifest has a place for RESTORE");
    stage.apply(&server.replace("value: \"\"", &words));
    wait_ready(&stage);
    stage.wait("pod", "postgres-0", "the end of the recovery", LIMIT, |_| {
        (psql(&stage, "SELECT pg_is_in_recovery()") == "f").then_some(())
    });
    assert_eq!(psql(&stage, "SELECT count(*), sum(i) FROM orders"), "1000|500500");
}
