//! The manifests that new users bring, one by one on a real Kubernetes: each is accepted and works as it is meant. Its
//! mistakes are reported where people look: by `kubectl apply`, in the condition, and as an Event.

use crate::stage::Stage;
use holdfast_testkit::scratch::built_program;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(5);

/// Each manifest, with the fields that cause warnings.
const ALL: [(&str, &[&str]); 10] = [
    ("everything.yaml", &["spec.postgresql.parameters.io_method"]),
    ("backup-twice.yaml", &["spec.backup.retentionPolicy"]),
    ("recovery.yaml", &["spec.storage.size", "spec.bootstrap.recovery.backup"]),
    (
        "synchronous.yaml",
        &["spec.storage.size", "spec.postgresql.synchronous", "spec.minSyncReplicas", "spec.maxSyncReplicas"],
    ),
    ("queries.yaml", &["spec.storage.size", "spec.monitoring.customQueries"]),
    ("pod-anti-affinity.yaml", &["spec.storage.size", "spec.affinity.podAntiAffinity"]),
    ("scheduling.yaml", &["spec.storage.size", "spec.tolerations"]),
    ("small.yaml", &["spec.storage.size"]),
    ("backup.yaml", &[]),
    ("scheduled-backup.yaml", &[]),
];

fn warnings(file: &str) -> &'static [&'static str] {
    ALL.iter().find(|(name, _)| *name == file).expect("it is in the table").1
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests").join(file)
}

/// A manifest whose placeholders are replaced by values of the test bed. There are two ways to adapt a manifest.
/// `--fix` does more than changing the `apiVersion`: it is for manifests that `kubectl` could not read.
fn manifest(stage: &Stage, file: &str, fixed: bool) -> String {
    let text = if fixed {
        let program = built_program("holdfast").expect("find the built program");
        let output =
            Command::new(program).args(["manifest", "check", "--fix"]).arg(path(file)).output().expect("run it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a manifest")
    } else {
        let text = std::fs::read_to_string(path(file)).expect("read the manifest");
        text.replace("postgresql.cnpg.io/v1", "holdfast.dev/v1")
    };
    let store = stage.store();
    text.replace("s3://example.bucket", &format!("s3://{}/{}", store.bucket, stage.namespace))
        .replace("http://example.endpoint", &store.endpoint)
        .replace("example.class", &storage_class(stage))
        // PostgreSQL 18 of the test bed is built without it.
        .replace("wal_compression: \"zstd\"", "wal_compression: \"pglz\"")
        .replace("wal_compression: zstd", "wal_compression: pglz")
        .replace("example.priority", &stage.namespace)
}

/// The default class.
fn storage_class(stage: &Stage) -> String {
    let classes = stage.list("storageclasses");
    let is_default = |class: &&Value| {
        class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"].as_str() == Some("true")
    };
    let class = classes.iter().find(is_default).expect("a default storage class");
    class["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Applies a manifest as it is, and checks the warnings that `kubectl` prints.
fn apply(stage: &Stage, file: &str, fixed: bool) {
    let manifest = manifest(stage, file, fixed);
    let said = asked(stage, &manifest, !warnings(file).is_empty());
    for field in warnings(file) {
        let line = said.lines().find(|line| line.contains(&format!("{field}:")));
        assert!(line.is_some_and(|line| line.starts_with("Warning:")), "{file}: {field} is not in:\n{said}");
    }
    stage.apply(&manifest);
}

/// The output for a manifest that is accepted. If a warning is expected and there is none, the webhook did not answer
/// in time.
fn asked(stage: &Stage, manifest: &str, has_warnings: bool) -> String {
    stage.until("the webhook's answer", LIMIT, || {
        let said = stage.try_dry(manifest).unwrap_or_else(|said| panic!("{said}\n{manifest}"));
        (!has_warnings || said.contains("Warning: ")).then_some(said)
    })
}

/// The warnings are in the condition and in Events, and nothing else is.
fn says(stage: &Stage, cluster: &str, file: &str) {
    let object = stage.get("clusters.holdfast.dev", cluster);
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    let accepted = conditions.iter().find(|condition| condition["type"] == "SpecAccepted").expect("SpecAccepted");
    assert_eq!(accepted["status"], "True", "{file}: {accepted}");
    let message = accepted["message"].as_str().unwrap();
    let said = message.matches("spec.").count();
    let expected = warnings(file);
    for field in expected {
        assert!(message.contains(&format!("{field}: ")), "{file}: {field} is not in: {message}");
        stage.wait("clusters.holdfast.dev", cluster, &format!("an Event about {field}"), LIMIT, |_| {
            let reported = stage.list("events").iter().any(|event| {
                event["involvedObject"]["name"] == cluster
                    && event["reason"] == "SpecWarning"
                    && event["type"] == "Warning"
                    && event["message"].as_str().is_some_and(|text| text.starts_with(&format!("{field}: ")))
            });
            reported.then_some(())
        });
    }
    // Hints name fields too, in backquotes.
    assert!(said >= expected.len(), "{file}: {message}");
}

/// `manifest check` reports the same about each manifest as the API server and the operator.
#[test]
fn every_manifest_is_accepted_by_the_api_server() {
    let stage = Stage::new("seeds");
    let program = built_program("holdfast").expect("find the built program");
    for (file, fields) in ALL {
        let checked = Command::new(&program).args(["manifest", "check"]).arg(path(file)).output().expect("run it");
        let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
        for fixed in [false, true] {
            if file == "backup-twice.yaml" && !fixed {
                // A key that occurs twice: depending on its version, kubectl refuses it or drops the first.
                assert!(checked.contains("warning: spec.backup: it is written twice"), "{checked}");
                continue;
            }
            let said = asked(&stage, &manifest(&stage, file, fixed), !fixed && !fields.is_empty());
            for field in fields {
                assert!(checked.contains(&format!("warning: {field}: ")), "{file}: {field} is not in: {checked}");
                // After `--fix` has corrected something, there is no warning about it any more.
                let gone = fixed && !said.contains(&format!("Warning: {field}: "));
                assert!(gone || said.contains(&format!("Warning: {field}: ")), "{file}: {field} is not in: {said}");
            }
            assert!(said.matches("Warning: ").count() <= fields.len(), "{file}: {said}");
        }
    }
}

/// `io_method: async` becomes `worker`, and everything else in a large manifest stays as written.
#[test]
fn a_manifest_with_everything() {
    let stage = Stage::new("everything");
    stage.apply(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: seller-password\ntype: kubernetes.io/basic-auth\nstringData:\n  username: seller\n  \
         password: under the counter\n",
    );
    apply(&stage, "everything.yaml", false);
    stage.wait_ready("everything", 3, LIMIT);
    says(&stage, "everything", "everything.yaml");
    for (setting, expected) in [
        ("io_method", "worker"),
        ("shared_buffers", "64MB"),
        ("max_connections", "60"),
        ("wal_compression", "pglz"),
        ("maintenance_work_mem", "32MB"),
    ] {
        for pod in ["everything-1", "everything-2", "everything-3"] {
            assert_eq!(stage.psql(pod, &format!("SHOW {setting}")), expected, "{setting} of {pod}");
        }
    }
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'";
    assert_eq!(stage.psql("everything-1", owner), "seller");
    let pod = stage.get("pod", "everything-2");
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi", "{container}");
    assert_eq!(container["image"], "ghcr.io/cloudnative-pg/postgresql:18");
}

/// Both `backup` sections count: the archive of one, the target of the other. Then a manual backup, a nightly one, and
/// a recovery that names both source and backup.
#[test]
fn two_backup_sections_a_backup_a_schedule_and_a_recovery() {
    let stage = Stage::new("twice");
    apply(&stage, "backup-twice.yaml", true);
    stage.wait_ready("twice", 2, LIMIT);
    says(&stage, "twice", "backup-twice.yaml");
    let cluster = stage.get("clusters.holdfast.dev", "twice");
    assert_eq!(cluster["spec"]["backup"]["target"], "primary", "{}", cluster["spec"]["backup"]);
    assert_eq!(cluster["spec"]["backup"]["volumeSnapshot"]["online"], true);

    stage.sql("twice", "CREATE TABLE ledger (n int)");
    stage.sql("twice", "INSERT INTO ledger SELECT generate_series(1, 100)");
    apply(&stage, "backup.yaml", false);
    apply(&stage, "scheduled-backup.yaml", false);
    let backup = stage.wait_completed("by-hand", LIMIT);
    assert_eq!(backup["status"]["method"], "barmanObjectStore");
    assert_eq!(backup["status"]["instance"], stage.primary("twice").as_str(), "the second section's target");
    let next = stage.wait("scheduledbackups.holdfast.dev", "nightly", "its next runs", LIMIT, |object| {
        let times = object["status"]["nextScheduleTimes"].as_array()?.clone();
        (times.len() == 3).then_some(times)
    });
    for time in &next {
        assert!(time.as_str().is_some_and(|time| time.contains("T02:00:00")), "{next:?}");
    }

    stage.sql("twice", "INSERT INTO ledger SELECT generate_series(101, 200)");
    let moment =
        stage.value("twice", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')");
    std::thread::sleep(Duration::from_secs(1));
    stage.sql("twice", "INSERT INTO ledger SELECT generate_series(201, 300)");
    stage.archive_wal("twice", LIMIT);
    let manifest = manifest(&stage, "recovery.yaml", false).replace("2025-01-01 14:30:00.00000", &moment);
    let said = asked(&stage, &manifest, true);
    assert!(said.contains("Warning: spec.bootstrap.recovery.backup"), "{said}");
    stage.apply(&manifest);
    stage.wait_ready("restored", 1, LIMIT);
    says(&stage, "restored", "recovery.yaml");
    assert_eq!(stage.psql_in("restored-1", "/controller/run", "app", "SELECT count(*), max(n) FROM ledger"), "200|200");
}

/// Neither the older nor the newer fields of synchronous replication are supported yet. That is reported, and the
/// cluster runs.
#[test]
fn two_generations_of_synchronous_replication() {
    let stage = Stage::new("synchronous");
    apply(&stage, "synchronous.yaml", false);
    stage.wait_ready("synchronous", 3, LIMIT);
    says(&stage, "synchronous", "synchronous.yaml");
    stage.sql("synchronous", "CREATE TABLE numbers AS SELECT generate_series(1, 10) AS n");
    let start = Instant::now();
    while stage.sql_through("synchronous", "synchronous-ro", "SELECT to_regclass('numbers')::text")[0][0] != "numbers" {
        assert!(start.elapsed() < LIMIT, "the table does not reach the standbys");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(stage.psql(&stage.primary("synchronous"), "SHOW synchronous_standby_names"), "");
}

/// A pod's own anti-affinity with CloudNativePG's label keeps the instances apart.
#[test]
fn instances_apart_as_pods_say_it() {
    let stage = Stage::new("apart");
    apply(&stage, "pod-anti-affinity.yaml", false);
    stage.wait_ready("apart", 2, LIMIT);
    says(&stage, "apart", "pod-anti-affinity.yaml");
    let pods = stage.list("pods");
    let nodes: std::collections::BTreeSet<_> =
        pods.iter().map(|pod| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!((pods.len(), nodes.len()), (2, 2), "{nodes:?}");
}

/// Where instances run, written at the root and in `affinity`; a priority and a variable; custom queries; nothing at
/// all.
#[test]
fn small_ones_with_tolerations_queries_and_nothing() {
    let stage = Stage::new("small");
    let class = PriorityClass::new(&stage);
    for (file, cluster) in [("scheduling.yaml", "scheduling"), ("queries.yaml", "queries"), ("small.yaml", "small")] {
        apply(&stage, file, false);
        stage.wait_ready(cluster, 1, LIMIT);
        says(&stage, cluster, file);
        assert_eq!(stage.value(cluster, "SELECT 1::text"), "1");
        assert_eq!(stage.get("pvc", &format!("{cluster}-1"))["spec"]["resources"]["requests"]["storage"], "1Gi");
    }
    let pod = &stage.get("pod", "scheduling-1")["spec"];
    let tolerations = pod["tolerations"].as_array().unwrap();
    assert!(tolerations.iter().any(|one| one["key"] == "workload" && one["value"] == "database"), "{tolerations:?}");
    assert_eq!(pod["priorityClassName"], class.name.as_str());
    let terms = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["key"], "kubernetes.io/os", "{terms}");
    let colour = stage.kubectl(&["exec", "scheduling-1", "-c", "postgres", "--", "printenv", "COLOUR"]);
    assert_eq!(colour.trim(), "green");
}

/// A priority class, which is not deleted with any namespace.
struct PriorityClass<'stage> {
    stage: &'stage Stage,
    name: String,
}

impl<'stage> PriorityClass<'stage> {
    fn new(stage: &'stage Stage) -> Self {
        let name = stage.namespace.clone();
        stage.apply(&format!(
            "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata:\n  name: {name}\nvalue: 1000\n"
        ));
        Self { stage, name }
    }
}

impl Drop for PriorityClass<'_> {
    fn drop(&mut self) {
        let _ = self.stage.try_kubectl(&["delete", "priorityclass", &self.name, "--ignore-not-found"]);
    }
}
