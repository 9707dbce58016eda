//! The stage of the tests on a real Kubernetes: the test bed, the operator deployed from `deploy/`, a namespace with
//! the credentials of the object store, and the tools of a user: `kubectl` and SQL.
//!
//! Everything is done as a user would do it. These tests know about the operator only what `kubectl get` shows.

pub(crate) mod processes;
pub(crate) mod sql;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use holdfast_kube_api::names::CLUSTER_LABEL;
use holdfast_testkit::kube::{Bed, ObjectStore};
use holdfast_testkit::scratch::built_program;
use serde_json::Value;

/// The replicas of `deploy/operator.yaml`.
pub(crate) const OPERATORS: usize = 2;
/// How `kubectl` reports that a request was not completed: the API server or its store was too busy.
const UNREACHED: [&str; 3] = ["was refused - did you specify", "TLS handshake timeout", "etcdserver: "];

/// A namespace on the test bed, where the operator works.
pub(crate) struct Stage {
    pub(crate) bed: Bed,
    pub(crate) namespace: String,
}

impl Stage {
    /// Starts or finds the test bed, deploys the operator once, and creates a namespace with the store's credentials.
    pub(crate) fn new(prefix: &str) -> Self {
        let stage = Self::bare(prefix);
        stage.apply(&stage.store_secret());
        stage
    }

    /// The same with an empty namespace.
    pub(crate) fn bare(prefix: &str) -> Self {
        let bed = Bed::shared().expect("start the Kubernetes test bed");
        if bed.is_own() {
            bed.load_holdfast(&built_program("holdfast").expect("find the built program")).expect("load its image");
        }
        let stage = Self { namespace: format!("{prefix}-{}", std::process::id()), bed };
        {
            // On an empty test bed, two first deployments at the same time disturb each other.
            let path = std::env::temp_dir().join("holdfast-kube-deploy.lock");
            let one_at_a_time = std::fs::File::create(path).expect("make the lock's file");
            one_at_a_time.lock().expect("wait for the other tests");
            stage.deploy_operator();
        }
        stage.kubectl(&["create", "namespace", &stage.namespace]);
        stage.wait_for_webhook();
        stage
    }

    /// `deploy/crds` and `deploy/operator.yaml`, with the image of this build.
    fn deploy_operator(&self) {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let output = reached(|| {
            let mut apply = self.bed.kubectl_command();
            apply.args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(deploy.join("crds"));
            apply.arg("-f").arg(deploy.join("operator.yaml")).output().expect("run kubectl")
        });
        assert!(output.status.success(), "kubectl apply of deploy/ failed:\n{}", text(&output.stderr));
        // A new build under the same tag: the operator's pods are replaced, once.
        let program =
            std::fs::metadata(built_program("holdfast").expect("find the built program")).expect("look at it");
        let build = program
            .modified()
            .map_or(0, |time| time.duration_since(std::time::UNIX_EPOCH).map_or(0, |age| age.as_millis()));
        let patch = format!(
            r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"holdfast.test/build":"{build}"}}}}}}}}}}"#
        );
        self.kubectl(&["-n", "holdfast-system", "patch", "deployment/holdfast-operator", "-p", &patch]);
        self.kubectl(&["-n", "holdfast-system", "rollout", "status", "deployment/holdfast-operator", "--timeout=300s"]);
    }

    /// Waits until manifests are checked. As long as the Service leads to no operator, or to one that is going away,
    /// all manifests pass.
    fn wait_for_webhook(&self) {
        let wrong = Self::cluster("wrong", 1, "").replace("postgresql:18", "postgresql:9.6");
        let is_refused = || self.try_dry(&wrong).is_err_and(|said| said.contains("PostgreSQL 9 is not supported"));
        self.until("a webhook that refuses", Duration::from_mins(3), || {
            (self.operators() == OPERATORS && (0..3).all(|_| is_refused())).then_some(())
        });
    }

    /// How many pods of the operator run, including those that are going away.
    pub(crate) fn operators(&self) -> usize {
        let pods = ["get", "pods", "-l", "app.kubernetes.io/name=holdfast-operator", "-o", "name"];
        let running = ["-n", "holdfast-system", "--field-selector=status.phase=Running"];
        self.kubectl(&[&pods[..], &running[..]].concat()).lines().count()
    }

    /// The credentials of the test bed's object store, in a Secret as users keep them.
    fn store_secret(&self) -> String {
        let credentials = self.store().credentials;
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s3-credentials\nstringData:\n  ACCESS_KEY_ID: {:?}\n  \
             SECRET_ACCESS_KEY: {:?}\n",
            credentials.access_key, credentials.secret_key
        )
    }

    pub(crate) fn store(&self) -> ObjectStore {
        self.bed.s3().expect("an object store")
    }

    /// `spec.backup` or the body of an external cluster: the archive on the test bed, below a path of this namespace.
    /// Indented by `indent` spaces, without the key itself.
    pub(crate) fn object_store(&self, indent: usize) -> String {
        let store = self.store();
        let text = format!(
            "destinationPath: s3://{}/{}\nendpointURL: {}\ns3Credentials:\n  accessKeyId:\n    name: s3-credentials\n    \
             key: ACCESS_KEY_ID\n  secretAccessKey:\n    name: s3-credentials\n    key: SECRET_ACCESS_KEY\n",
            store.bucket, self.namespace, store.endpoint
        );
        let margin = " ".repeat(indent);
        text.lines().fold(String::new(), |all, line| all + &margin + line + "\n")
    }

    /// A cluster as most tests want it. `more` is written below `spec`, indented by two spaces.
    pub(crate) fn cluster(name: &str, instances: u32, more: &str) -> String {
        format!(
            "apiVersion: holdfast.dev/v1\nkind: Cluster\nmetadata:\n  name: {name}\nspec:\n  instances: {instances}\n  imageName: \
             holdfast.test/postgresql:18\n  imagePullPolicy: IfNotPresent\n  storage:\n    size: 1Gi\n{more}"
        )
    }

    /// The same with an archive.
    pub(crate) fn archived_cluster(&self, name: &str, instances: u32, more: &str) -> String {
        let archive = format!("  backup:\n    barmanObjectStore:\n{}", self.object_store(6));
        Self::cluster(name, instances, &format!("{archive}{more}"))
    }

    /// Runs `kubectl` in the namespace and returns its output. If it fails, the test fails.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(
            output.status.success(),
            "kubectl {arguments:?} failed:\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Runs `kubectl` in the namespace, and repeats it for a while if it does not reach the API server.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        reached(|| self.kubectl_once(arguments))
    }

    fn kubectl_once(&self, arguments: &[&str]) -> Output {
        self.kubectl_command().args(arguments).stdin(Stdio::null()).output().expect("run kubectl")
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.bed.kubectl_command();
        command.args(["--namespace", &self.namespace]);
        command
    }

    /// `kubectl apply -f -` in the namespace. Returns what kubectl printed, including warnings.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        let output = self.try_apply(manifest);
        assert!(output.status.success(), "kubectl apply failed:\n{}\n{manifest}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    /// `kubectl apply -f -` in the namespace.
    pub(crate) fn try_apply(&self, manifest: &str) -> Output {
        reached(|| feed(self.kubectl_command().args(["apply", "-f", "-"]), manifest))
    }

    /// What `kubectl apply` of a manifest would print on stderr, including warnings. Nothing is created, so the call
    /// can be repeated: if the webhook does not answer within its 5 s, the API server lets the manifest pass without a
    /// message.
    pub(crate) fn try_dry(&self, manifest: &str) -> Result<String, String> {
        let output = reached(|| feed(self.kubectl_command().args(["apply", "--dry-run=server", "-f", "-"]), manifest));
        let said = text(&output.stderr);
        if output.status.success() { Ok(said) } else { Err(said) }
    }

    /// An object, or `None` when it does not exist.
    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let output = self.try_kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]);
        assert!(output.status.success(), "kubectl get {kind} {name}: {}", text(&output.stderr));
        let json = text(&output.stdout);
        (!json.trim().is_empty()).then(|| serde_json::from_str(&json).expect("kubectl prints JSON"))
    }

    /// An object that exists.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        self.find(kind, name).unwrap_or_else(|| panic!("{kind} {name} does not exist"))
    }

    /// All objects of a kind.
    pub(crate) fn list(&self, kind: &str) -> Vec<Value> {
        let json = self.kubectl(&["get", kind, "-o", "json"]);
        let list: Value = serde_json::from_str(&json).expect("kubectl prints JSON");
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Reads an object twice a second until `done` returns something. If that fails, it prints the whole namespace.
    pub(crate) fn wait<T>(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let mut object = Value::Null;
        let found = self.look(limit, || {
            object = self.find(kind, name).unwrap_or(Value::Null);
            done(&object)
        });
        found.unwrap_or_else(|| panic!("{kind} {name}: {what} did not come within {limit:?}: {}", object["status"]))
    }

    /// The same for anything that can be read.
    pub(crate) fn until<T>(&self, what: &str, limit: Duration, done: impl FnMut() -> Option<T>) -> T {
        self.look(limit, done).unwrap_or_else(|| panic!("{what} did not come within {limit:?}"))
    }

    fn look<T>(&self, limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        loop {
            let found = done();
            if found.is_some() {
                return found;
            }
            if start.elapsed() > limit {
                self.show();
                return None;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits until a cluster has this many ready instances and a primary that takes writes. For a moment the status can
    /// be older than the pods, also after the loss of a pod. So both must agree.
    pub(crate) fn wait_ready(&self, cluster: &str, instances: i64, limit: Duration) -> Value {
        self.wait("clusters.holdfast.dev", cluster, "readiness", limit, |object| {
            let status = &object["status"];
            (status["readyInstances"] == instances
                && status["currentPrimary"].is_string()
                && status["currentPrimary"] == status["targetPrimary"]
                && self.ready_pods(cluster) == instances)
                .then(|| object.clone())
        })
    }

    /// How many pods of a cluster are ready and not being deleted.
    fn ready_pods(&self, cluster: &str) -> i64 {
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["labels"][CLUSTER_LABEL] == cluster
                && pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        i64::try_from(self.list("pods").iter().filter(is_ready).count()).unwrap()
    }

    /// Finishes a WAL segment, and waits until the archive has it and all earlier ones.
    pub(crate) fn archive_wal(&self, cluster: &str, limit: Duration) {
        let primary = self.primary(cluster);
        let segment = self.psql(&primary, "SELECT pg_walfile_name(pg_switch_wal())");
        self.until(&format!("{segment} in the archive"), limit, || {
            let archived = self.psql(&primary, "SELECT last_archived_wal FROM pg_stat_archiver");
            (archived.get(..24)? >= segment.as_str()).then_some(())
        });
    }

    /// Waits until a `Backup` has ended, and returns it. If the backup failed, the test fails.
    pub(crate) fn wait_completed(&self, backup: &str, limit: Duration) -> Value {
        let object = self.wait("backups.holdfast.dev", backup, "its end", limit, |object| {
            matches!(object["status"]["phase"].as_str(), Some("completed" | "failed")).then(|| object.clone())
        });
        if object["status"]["phase"] != "completed" {
            self.show();
        }
        assert_eq!(object["status"]["phase"], "completed", "{}", object["status"]);
        object
    }

    /// Requests a backup and waits for it.
    pub(crate) fn back_up(&self, cluster: &str, name: &str, more: &str) -> Value {
        self.apply(&format!(
            "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: {name}\nspec:\n  cluster:\n    name: {cluster}\n{more}"
        ));
        self.wait_completed(name, Duration::from_mins(5))
    }

    /// The instance that takes writes.
    pub(crate) fn primary(&self, cluster: &str) -> String {
        let object = self.get("clusters.holdfast.dev", cluster);
        object["status"]["currentPrimary"].as_str().expect("a current primary").to_owned()
    }

    /// Prints what a person would look at: objects, events, and the last lines of every log.
    pub(crate) fn show(&self) {
        for arguments in [
            &["get", "clusters,backups,scheduledbackups,pods,pvc,leases", "-o", "wide"] as &[&str],
            &["get", "clusters,backups,scheduledbackups", "-o", "yaml"],
            &["get", "events", "--sort-by=.lastTimestamp"],
            &["-n", "holdfast-system", "logs", "deployment/holdfast-operator", "--tail=60"],
        ] {
            let output = self.kubectl_once(&[&["--request-timeout=20s"], arguments].concat());
            eprintln!("--- kubectl {arguments:?}\n{}{}", text(&output.stdout), text(&output.stderr));
        }
        let pods =
            self.kubectl_once(&["--request-timeout=20s", "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]);
        for name in text(&pods.stdout).split_whitespace() {
            let output = self.kubectl_once(&["--request-timeout=20s", "logs", name, "--all-containers", "--tail=40"]);
            eprintln!("--- log of {name}\n{}{}", text(&output.stdout), text(&output.stderr));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HOLDFAST_KEEP").is_some() {
            eprintln!("namespace {} is kept", self.namespace);
            return;
        }
        let _ = self.try_kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Runs `kubectl` until it reaches the API server, which may have just started, or may have a slow disk.
fn reached(kubectl: impl Fn() -> Output) -> Output {
    let start = Instant::now();
    loop {
        let output = kubectl();
        let said = text(&output.stderr);
        let unreached = !output.status.success() && UNREACHED.iter().any(|words| said.contains(words));
        if !unreached || start.elapsed() > Duration::from_mins(1) {
            return output;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn feed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run kubectl");
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("write the manifest");
    child.wait_with_output().expect("run kubectl")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
