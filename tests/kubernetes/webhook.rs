//! A real Kubernetes checks manifests when they are applied: every replica of the operator answers, also while
//! certificate and authority change. If no operator is there, the webhook blocks nothing.

use crate::stage::{OPERATORS, Stage};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(5);
const SYSTEM: &str = "holdfast-system";

fn refusal(stage: &Stage, manifest: &str) -> String {
    let output = stage.try_apply(manifest);
    assert!(!output.status.success(), "it was not refused:\n{manifest}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn patch(stage: &Stage, cluster: &str, patch: &str) -> Result<String, String> {
    let output = stage.try_kubectl(&["patch", "clusters.holdfast.dev", cluster, "--type=merge", "-p", patch]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// The message for a change that is not made, see [`Stage::try_dry`].
fn dry_patch(stage: &Stage, cluster: &str, patch: &str) -> Result<String, String> {
    let dry = ["patch", "--dry-run=server", "clusters.holdfast.dev", cluster, "--type=merge", "-p", patch];
    let output = stage.try_kubectl(&dry);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// The user who applies something wrong sees the mistakes: in a new resource, and in a change.
#[test]
fn errors_are_refused_and_warnings_are_shown_on_the_way_in() {
    let stage = Stage::new("webhook");
    // A resource that passed because the webhook did not answer in time is removed, and applied again.
    let refusal = |manifest: &str| {
        stage.until("a refusal", LIMIT, || {
            let output = stage.try_apply(manifest);
            if output.status.success() {
                stage.kubectl(&["delete", "clusters,backups,scheduledbackups", "--all"]);
                return None;
            }
            Some(String::from_utf8_lossy(&output.stderr).into_owned())
        })
    };
    let refused = |patch: &str| stage.until("a refusal", LIMIT, || dry_patch(&stage, "main", patch).err());
    let said = refusal(&Stage::cluster(
        "main",
        1,
        "  postgresql:\n    parameters:\n      work_mem: 4mb\n      port: '6000'\n",
    ));
    assert!(said.contains("The Cluster \"main\" is invalid"), "{said}");
    for part in [
        "spec.postgresql.parameters.port: `port` is set by the instance manager and cannot be changed",
        "spec.postgresql.parameters.work_mem: `work_mem` cannot be `4mb`",
        "did you mean `4MB`?",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(stage.find("clusters.holdfast.dev", "main").is_none());
    let head = "apiVersion: holdfast.dev/v1\nmetadata:\n  name: b\n";
    let said = refusal(&format!("{head}kind: Backup\nspec:\n  cluster:\n    name: ''\n"));
    assert!(said.contains("spec.cluster.name"), "{said}");
    let said =
        refusal(&format!("{head}kind: ScheduledBackup\nspec:\n  schedule: hourly\n  cluster:\n    name: main\n"));
    assert!(said.contains("spec.schedule"), "{said}");

    let warned = |said: &String| said.contains("Warning: ");
    let manifest = Stage::cluster("main", 1, "  instance: 2\n  bootstrap:\n    initdb:\n      database: shop\n");
    let said = stage.until("a warning", LIMIT, || stage.try_dry(&manifest).ok().filter(warned));
    assert!(said.contains("Warning: spec.instance: "), "{said}");
    stage.apply(&manifest);
    stage.wait_ready("main", 1, LIMIT);

    // A change is compared with the earlier object.
    let smaller = refused(r#"{"spec":{"storage":{"size":"500Mi"}}}"#);
    assert!(smaller.contains("spec.storage.size: a volume cannot become smaller: 1Gi to 500Mi"), "{smaller}");
    let version = refused(r#"{"spec":{"imageName":"holdfast.test/postgresql:15"}}"#);
    assert!(version.contains("cannot be read by PostgreSQL 15"), "{version}");
    let wal = refused(r#"{"spec":{"walStorage":{"size":"1Gi"}}}"#);
    assert!(wal.contains("spec.walStorage"), "{wal}");
    let change = r#"{"spec":{"bootstrap":{"initdb":{"database":"bazaar"}}}}"#;
    let bootstrap = stage.until("a warning", LIMIT, || dry_patch(&stage, "main", change).ok().filter(warned));
    patch(&stage, "main", change).expect("a change without effect passes");
    assert!(bootstrap.contains("Warning: spec.bootstrap: the cluster has its data"), "{bootstrap}");
    let larger = patch(&stage, "main", r#"{"spec":{"storage":{"size":"2Gi"}}}"#).expect("a volume may grow");
    assert!(!larger.contains("spec.storage"), "{larger}");
    // kubectl edit, labels and deletion work nevertheless.
    stage.kubectl(&["label", "clusters.holdfast.dev", "main", "colour=green"]);
}

/// Every replica answers, also while authority and certificate change. Without an operator nothing is blocked.
#[test]
fn alone_the_webhook_of_two_operators_and_of_none() {
    let stage = Stage::new("operators");
    if !stage.bed.is_own() {
        eprintln!("skipped: the operator of the cluster in KUBECONFIG is not ours to stop");
        return;
    }
    let operators = Operators(&stage);
    operators.scale(2);
    operators.wait_for_endpoints(2);
    let wrong = Stage::cluster("wrong", 1, "  imageName: postgres:9.6\n")
        .replace("  imageName: holdfast.test/postgresql:18\n", "");
    for _ in 0..20 {
        assert!(refusal(&stage, &wrong).contains("PostgreSQL 9 is not supported"));
    }

    // The Secret is lost. A new authority is made, and the API server never meets an authority that it does not know.
    let before = operators.bundle();
    stage.kubectl(&["-n", SYSTEM, "delete", "secret", "holdfast-webhook"]);
    let start = Instant::now();
    let changed = loop {
        assert!(refusal(&stage, &wrong).contains("PostgreSQL 9 is not supported"));
        assert!(start.elapsed() < LIMIT, "no other authority was made");
        let now = operators.bundle();
        if now != before {
            break now;
        }
        std::thread::sleep(Duration::from_millis(300));
    };
    assert!(changed.ends_with(&before) && changed.len() > before.len(), "the one before stays");
    // By then both replicas must have read it.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(75) {
        assert!(refusal(&stage, &wrong).contains("PostgreSQL 9 is not supported"));
        std::thread::sleep(Duration::from_millis(300));
    }

    // A newly created configuration has no authority at first. The reconciler refuses what passes meanwhile.
    stage.kubectl(&["delete", "validatingwebhookconfigurations", "holdfast"]);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/operator.yaml");
    let manifest = std::fs::read_to_string(manifest).expect("read deploy/operator.yaml");
    let configuration = manifest.split("\n---\n").find(|part| part.contains("kind: ValidatingWebhookConfiguration"));
    stage.apply(configuration.expect("the configuration"));
    let start = Instant::now();
    while stage.try_apply(&wrong.replace("name: wrong", "name: again")).status.success() {
        stage.kubectl(&["delete", "clusters.holdfast.dev", "again"]);
        assert!(start.elapsed() < LIMIT, "the new configuration has got no authority");
        std::thread::sleep(Duration::from_secs(2));
    }

    // Nobody answers: manifests can be applied and changed, and mistakes are reported afterwards.
    operators.scale(0);
    operators.wait_for_endpoints(0);
    stage.apply(&wrong);
    patch(&stage, "wrong", r#"{"spec":{"description":"changed while nobody looked"}}"#).expect("it can be changed");
    operators.scale(1);
    stage.wait("clusters.holdfast.dev", "wrong", "the refusal", LIMIT, |object| {
        let conditions = object["status"]["conditions"].as_array()?;
        let accepted = conditions.iter().find(|condition| condition["type"] == "SpecAccepted")?;
        (accepted["status"] == "False").then(|| {
            let message = accepted["message"].as_str().unwrap();
            assert!(message.contains("PostgreSQL 9 is not supported"), "{message}");
        })
    });
    // A resource that is already wrong can be corrected, but not changed otherwise. The reconciler works before the
    // Service leads to its webhook. Until then every change passes; after that, no wrong one does.
    operators.wait_for_endpoints(1);
    let start = Instant::now();
    let change = |instances: u64| patch(&stage, "wrong", &format!(r#"{{"spec":{{"instances":{instances}}}}}"#));
    let mut refused = 0;
    for attempt in 0.. {
        if let Err(said) = change(2 + attempt % 8) {
            assert!(said.contains("PostgreSQL 9 is not supported"), "{said}");
            refused += 1;
        } else {
            assert_eq!(refused, 0, "a change passed after one that was refused");
            assert!(start.elapsed() < LIMIT, "nothing is refused after the operator came back");
            std::thread::sleep(Duration::from_secs(1));
        }
        if refused == 10 {
            break;
        }
    }
    stage.kubectl(&["delete", "clusters.holdfast.dev", "wrong", "--timeout=180s"]);
}

/// The operators of the test bed. In the end there are as many as before.
struct Operators<'stage>(&'stage Stage);

impl Operators<'_> {
    /// Waits until no operator is left that is going away and might still answer.
    fn scale(&self, replicas: usize) {
        let number = format!("--replicas={replicas}");
        self.0.kubectl(&["-n", SYSTEM, "scale", "deployment/holdfast-operator", &number]);
        self.0.kubectl(&["-n", SYSTEM, "rollout", "status", "deployment/holdfast-operator", "--timeout=300s"]);
        self.0.until("the operators", LIMIT, || (self.0.operators() == replicas).then_some(()));
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.0.kubectl(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }

    fn endpoints(&self) -> usize {
        let endpoints = self.json(&["-n", SYSTEM, "get", "endpoints", "holdfast-webhook"]);
        endpoints["subsets"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|subset| subset["addresses"].as_array().map_or(0, Vec::len))
            .sum()
    }

    fn wait_for_endpoints(&self, number: usize) {
        let start = Instant::now();
        while self.endpoints() != number {
            assert!(start.elapsed() < LIMIT, "the Service does not get {number} endpoints");
            std::thread::sleep(Duration::from_millis(300));
        }
        // Waits until the proxy of every node knows.
        std::thread::sleep(Duration::from_secs(2));
    }

    /// The certificates that the API server trusts.
    fn bundle(&self) -> String {
        use base64::Engine as _;
        let configuration = self.json(&["get", "validatingwebhookconfigurations", "holdfast"]);
        let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().expect("a bundle");
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(bundle).expect("base64")).expect("PEM")
    }
}

impl Drop for Operators<'_> {
    fn drop(&mut self) {
        let number = format!("--replicas={OPERATORS}");
        let _ = self.0.try_kubectl(&["-n", SYSTEM, "scale", "deployment/holdfast-operator", &number]);
    }
}
