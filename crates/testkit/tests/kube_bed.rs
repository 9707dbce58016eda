//! The Kubernetes of the tests is a real one: the features that an operator uses work, and its faults are real faults.
//!
//! Tests whose names begin with `alone` break parts that others need; the test runner runs them alone on the machine.

use std::time::{Duration, Instant};

use holdfast_testkit::kube::{
    Bed, HOLDFAST, LOCAL_STORAGE_CLASS, Namespace, POSTGRESQL_15, POSTGRESQL_18, Resident, STORAGE_CLASS,
};
use holdfast_testkit::{KitError, Result};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_mins(3);

/// The machine's own bed: these tests are not about a foreign cluster.
fn own_bed() -> Option<Bed> {
    Bed::or_skip().filter(Bed::is_own)
}

/// A pod of PostgreSQL's user that runs a shell script, with these claims mounted at `/<claim>`.
fn pod(name: &str, image: &str, script: &str, claims: &[&str]) -> Value {
    let mounts: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "mountPath": format!("/{claim}")})).collect();
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 26, "runAsGroup": 26, "fsGroup": 26},
            "containers": [{"name": "main", "image": image, "command": ["bash", "-c", script], "volumeMounts": mounts}],
            "volumes": volumes,
        },
    })
}

fn claim(name: &str, class: &str, source: Option<(&str, &str)>) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": class,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    if let Some((kind, source)) = source {
        let group = if kind == "VolumeSnapshot" { json!("snapshot.storage.k8s.io") } else { Value::Null };
        claim["spec"]["dataSource"] = json!({"kind": kind, "name": source, "apiGroup": group});
    }
    claim
}

fn snapshot(name: &str, claim: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"source": {"persistentVolumeClaimName": claim}},
    })
}

fn apply(namespace: &Namespace, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    namespace.apply(&list.to_string()).map(drop)
}

/// Runs a pod's script to its end and returns what it printed.
fn run(namespace: &Namespace, pod: &Value) -> Result<String> {
    apply(namespace, std::slice::from_ref(pod))?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let phase = namespace
        .wait_for(&["pod", name], "{.status.phase}", LIMIT, |phase| matches!(phase, "Succeeded" | "Failed"))?;
    let log = namespace.kubectl(&["logs", name])?;
    assert_eq!(phase, "Succeeded", "{log}");
    Ok(log)
}

/// Asks repeatedly until the answer is there: a container's process starts after the container. Returns the last
/// answer.
fn ask_until(namespace: &Namespace, arguments: &[&str], is_there: impl Fn(&str) -> bool) -> Result<String> {
    let start = Instant::now();
    loop {
        let answer = namespace.kubectl(arguments);
        if answer.as_deref().is_ok_and(&is_there) || start.elapsed() > LIMIT {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn wait_running(namespace: &Namespace, pod: &str) -> Result<()> {
    namespace.wait_for(&["pod", pod], "{.status.phase}", LIMIT, |phase| phase == "Running").map(drop)
}

fn on_node(mut pod: Value, node: &str) -> Value {
    pod["spec"]["nodeName"] = json!(node);
    pod
}

const SERVER: &str = "export PGDATA=/tmp/data; initdb -A trust >/dev/null && \
    echo 'host all all all trust' >>$PGDATA/pg_hba.conf && exec postgres -c listen_addresses='*' -k /tmp";

#[test]
fn pods_on_both_nodes_reach_each_other_by_names_and_services() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("names")?;
    let mut server = on_node(pod("server", POSTGRESQL_18, SERVER, &[]), "node-1");
    server["spec"]["hostname"] = json!("first");
    server["spec"]["subdomain"] = json!("members");
    server["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["pg_isready", "-h", "/tmp"]}, "periodSeconds": 1});
    let service = |name: &str, headless: bool| {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 5432}]},
        });
        if headless {
            service["spec"]["clusterIP"] = json!("None");
        }
        service
    };
    apply(&namespace, &[server, service("members", true), service("balanced", false)])?;
    let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
    namespace.wait_for(&["pod", "server"], ready, LIMIT, |status| status == "True")?;
    let own = namespace.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"])?;

    let full = format!("first.members.{}.svc.cluster.local", namespace.name());
    let script = format!(
        "for name in members balanced balanced.{}.svc {full}; do \
           until psql -h $name -U postgres -Atc 'SELECT inet_server_addr()'; do sleep 0.2; done; \
         done",
        namespace.name()
    );
    let other_node = on_node(pod("client", POSTGRESQL_15, &script, &[]), "node-2");
    let answers = run(&namespace, &other_node)?;
    let addresses: Vec<&str> = answers.lines().filter(|line| line.starts_with("10.")).collect();
    assert_eq!(addresses, [own.as_str(); 4], "{answers}");

    // A service also reaches the pod that asks.
    let self_ask = "psql -h balanced -U postgres -Atc 'SELECT 1'";
    assert_eq!(namespace.kubectl(&["exec", "server", "--", "bash", "-c", self_ask])?, "1\n");
    // A name that does not exist is refused at once.
    let start = Instant::now();
    let missing = namespace.kubectl(&["exec", "server", "--", "getent", "hosts", "nobody.example.org"]);
    assert!(missing.is_err(), "{missing:?}");
    // Without an answer each of the tried domains would take twice five seconds.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    Ok(())
}

#[test]
fn exec_logs_and_exit_codes_come_back() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("exec")?;
    apply(&namespace, &[pod("shell", POSTGRESQL_18, "id -u; exec sleep 1000", &[])])?;
    wait_running(&namespace, "shell")?;
    assert_eq!(ask_until(&namespace, &["logs", "shell"], |log| !log.is_empty())?, "26\n");
    let version = namespace.kubectl(&["exec", "shell", "--", "postgres", "--version"])?;
    assert!(version.starts_with("postgres (PostgreSQL) 18."), "{version}");
    let failed = namespace.kubectl(&["exec", "shell", "--", "bash", "-c", "exit 7"]);
    assert!(matches!(&failed, Err(KitError::Command { status, .. }) if status.contains('7')), "{failed:?}");
    Ok(())
}

#[test]
fn a_claim_keeps_its_data_and_grows() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("claim")?;
    apply(&namespace, &[claim("data", STORAGE_CLASS, None), claim("near", LOCAL_STORAGE_CLASS, None)])?;
    let write = "echo kept >/data/file && echo kept >/near/file && stat -c %g:%A /data";
    let log = run(&namespace, &pod("writer", POSTGRESQL_18, write, &["data", "near"]))?;
    // Like any volume of a driver: it belongs to root, and the pod's group may write.
    assert_eq!(log, "26:drwxrwsr-x\n");
    let node = namespace.kubectl(&["get", "pod", "writer", "-o", "jsonpath={.spec.nodeName}"])?;
    let volume = namespace.kubectl(&["get", "pvc", "near", "-o", "jsonpath={.spec.volumeName}"])?;
    let path = "jsonpath={.spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]}";
    assert_eq!(bed.kubectl(&["get", "pv", &volume, "-o", path])?, node, "a local volume stays on its node");

    let other = if node == "node-1" { "node-2" } else { "node-1" };
    let read = on_node(pod("reader", POSTGRESQL_15, "cat /data/file", &["data"]), other);
    assert_eq!(run(&namespace, &read)?, "kept\n");

    let larger = r#"{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}"#;
    namespace.kubectl(&["patch", "pvc", "data", "-p", larger])?;
    namespace.wait_for(&["pvc", "data"], "{.status.capacity.storage}", LIMIT, |size| size == "3Gi")?;

    let folder = bed.volume_folder(&volume)?;
    assert!(folder.exists());
    namespace.kubectl(&["delete", "pod", "writer"])?;
    namespace.kubectl(&["delete", "pvc", "near"])?;
    bed.wait_for(&["pv"], "{.items[*].metadata.name}", LIMIT, |names| !names.contains(&volume))?;
    assert!(!folder.exists(), "a deleted claim leaves nothing");
    Ok(())
}

#[test]
fn a_snapshot_is_one_moment_of_a_running_database() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("snapshot")?;
    let script = "export PGDATA=/data/pg; initdb -A trust >/dev/null && (pg_ctl -w start -o '-k /tmp' >/tmp/log) && \
        psql -h /tmp -Xqc 'CREATE TABLE t (n int PRIMARY KEY, twin int)' postgres && touch /tmp/ready; \
        n=0; while true; do n=$((n+1)); psql -h /tmp -Xqc \"INSERT INTO t VALUES ($n, $n)\" postgres; done";
    let mut server = pod("server", POSTGRESQL_18, script, &["data"]);
    server["spec"]["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1});
    apply(&namespace, &[claim("data", STORAGE_CLASS, None), server])?;
    let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
    namespace.wait_for(&["pod", "server"], ready, LIMIT, |status| status == "True")?;

    let count = || -> Result<u64> {
        let sql = "psql -h /tmp -XAtc 'SELECT count(*) FROM t' postgres";
        let text = namespace.kubectl(&["exec", "server", "--", "bash", "-c", sql])?;
        text.trim().parse().map_err(|_| KitError::Unexpected { what: "count rows".to_owned(), answer: text })
    };
    let before = count()?;
    apply(&namespace, &[snapshot("moment", "data", &json!({}))])?;
    namespace.wait_for(&["volumesnapshot", "moment"], "{.status.readyToUse}", LIMIT, |ready| ready == "true")?;
    let after = count()?;

    apply(&namespace, &[claim("copy", STORAGE_CLASS, Some(("VolumeSnapshot", "moment")))])?;
    let script = "export PGDATA=/copy/pg; chmod 0700 $PGDATA; rm -f $PGDATA/postmaster.pid; \
        pg_ctl -w start -o '-k /tmp' >/tmp/log || { cat /tmp/log; exit 1; }; \
        psql -h /tmp -XAtc 'SELECT count(*), max(n), sum(twin - n) FROM t' postgres";
    let log = run(&namespace, &pod("copied", POSTGRESQL_18, script, &["copy"]))?;
    let fields: Vec<u64> = log.trim().split('|').filter_map(|field| field.parse().ok()).collect();
    let [rows, last, difference] = fields[..] else { return Err(KitError::Unsupported(log)) };
    assert!((before..=after).contains(&rows), "{before} <= {rows} <= {after}");
    assert_eq!((rows, difference), (last, 0), "no row of the snapshot is missing");

    // Two volumes of one snapshot are equal, bit by bit, and so is the copy of a claim.
    apply(
        &namespace,
        &[
            claim("one", STORAGE_CLASS, Some(("VolumeSnapshot", "moment"))),
            claim("two", STORAGE_CLASS, Some(("PersistentVolumeClaim", "one"))),
        ],
    )?;
    let compare = "cd /one && find . -type f -print0 | sort -z | xargs -0 sha256sum >/tmp/one; \
        cd /two && sha256sum --quiet -c /tmp/one && wc -l </tmp/one";
    let files = run(&namespace, &pod("compare", POSTGRESQL_18, compare, &["one", "two"]))?;
    assert!(files.trim().parse::<u32>().is_ok_and(|files| files > 900), "{files}");
    Ok(())
}

#[test]
fn a_snapshot_fails_waits_and_is_deleted_as_requested() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("faults")?;
    apply(
        &namespace,
        &[
            claim("data", STORAGE_CLASS, None),
            snapshot("refused", "data", &json!({"holdfast.test/fail": "the array is on fire"})),
            snapshot("orphan", "nothing", &json!({})),
        ],
    )?;
    let error = "{.status.error.message}";
    namespace.wait_for(&["volumesnapshot", "refused"], error, LIMIT, |message| {
        message == "failed to take snapshot of the volume: the array is on fire"
    })?;
    namespace.wait_for(&["volumesnapshot", "orphan"], error, LIMIT, |message| message.contains("is not found"))?;
    let ready = "{.status.readyToUse}";
    let start = Instant::now();
    apply(&namespace, &[snapshot("slow", "data", &json!({"holdfast.test/delay": "15s"}))])?;
    namespace.wait_for(&["volumesnapshot", "slow"], ready, LIMIT, |ready| ready == "false")?;
    namespace.wait_for(&["volumesnapshot", "slow"], ready, LIMIT, |ready| ready == "true")?;
    // Times in an object are whole seconds.
    assert!(start.elapsed() >= Duration::from_secs(13), "{:?}", start.elapsed());

    namespace.kubectl(&["annotate", "volumesnapshot", "refused", "holdfast.test/fail-"])?;
    namespace.wait_for(&["volumesnapshot", "refused"], ready, LIMIT, |ready| ready == "true")?;
    let left = namespace.kubectl(&["get", "volumesnapshot", "refused", "-o", "jsonpath={.status.error}"])?;
    assert_eq!(left, "", "an error that has ended is removed");

    let content = "{.status.boundVolumeSnapshotContentName}";
    let content = namespace.wait_for(&["volumesnapshot", "slow"], content, LIMIT, |name| !name.is_empty())?;
    namespace.kubectl(&["delete", "volumesnapshot", "slow"])?;
    bed.wait_for(&["volumesnapshotcontent"], "{.items[*].metadata.name}", LIMIT, |names| !names.contains(&content))?;
    Ok(())
}

#[test]
fn the_image_of_this_build_runs() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let Ok(program) = holdfast_testkit::scratch::built_program("holdfast") else {
        holdfast_testkit::settings::skip("`holdfast` is not built");
        return Ok(());
    };
    bed.load_holdfast(&program)?;
    let namespace = bed.namespace("image")?;
    let version = run(&namespace, &pod("version", HOLDFAST, "holdfast --version", &[]))?;
    assert!(version.starts_with("holdfast "), "{version}");
    Ok(())
}

#[test]
fn alone_the_object_store_goes_and_comes_back() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("store")?;
    apply(&namespace, &[pod("client", POSTGRESQL_18, "exec sleep 1000", &[])])?;
    wait_running(&namespace, "client")?;
    let store = bed.s3()?;
    let (host, port) = store.endpoint.trim_start_matches("http://").split_once(':').unwrap_or_default();
    let connect = format!("exec 3<>/dev/tcp/{host}/{port} && echo there");
    let ask = || namespace.kubectl(&["exec", "client", "--", "bash", "-c", &connect]);
    assert_eq!(ask()?, "there\n");
    bed.stop_resident(Resident::S3)?;
    let refused = ask();
    assert!(matches!(&refused, Err(KitError::Command { output, .. }) if output.contains("refused")), "{refused:?}");
    bed.start_resident(Resident::S3)?;
    assert_eq!(ask()?, "there\n");
    assert!(bed.s3_root()?.join(store.bucket).is_dir());
    Ok(())
}

#[test]
fn alone_a_lost_node_is_noticed_and_comes_back() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("node")?;
    let mut lost = on_node(
        pod("lost", POSTGRESQL_18, "trap 'exit 0' TERM; echo up >>/data/starts; sleep 1000 & wait", &["data"]),
        "node-2",
    );
    lost["spec"]["restartPolicy"] = json!("Always");
    // It is not deleted, however long its node is away.
    lost["spec"]["tolerations"] = json!([{"operator": "Exists", "effect": "NoExecute"}]);
    apply(&namespace, &[claim("data", STORAGE_CLASS, None), lost])?;
    wait_running(&namespace, "lost")?;
    let node = bed.node(2)?;
    let start = Instant::now();
    node.stop()?;
    node.wait_ready(false)?;
    let noticed = start.elapsed();
    assert!(noticed < Duration::from_secs(90), "{noticed:?}");
    // The other node continues.
    let elsewhere = on_node(pod("elsewhere", POSTGRESQL_18, "cat /data/starts", &["data"]), "node-1");
    assert_eq!(run(&namespace, &elsewhere)?, "up\n");
    node.start()?;
    wait_running(&namespace, "lost")?;
    namespace.wait_for(&["pod", "lost"], "{.status.containerStatuses[0].restartCount}", LIMIT, |count| count == "1")?;
    let starts = ["exec", "lost", "--", "cat", "/data/starts"];
    assert_eq!(ask_until(&namespace, &starts, |starts| starts.lines().count() > 1)?, "up\nup\n");
    Ok(())
}

#[test]
fn alone_the_api_server_is_deaf_and_starts_again() -> Result<()> {
    let Some(bed) = own_bed() else { return Ok(()) };
    let namespace = bed.namespace("api")?;
    apply(&namespace, &[pod("steady", POSTGRESQL_18, "exec sleep 1000", &[])])?;
    wait_running(&namespace, "steady")?;
    bed.pause_apiserver()?;
    let deaf = bed.kubectl(&["--request-timeout=2s", "get", "nodes"]);
    bed.resume_apiserver()?;
    assert!(deaf.is_err(), "{deaf:?}");
    bed.restart_apiserver()?;
    let start =
        namespace.kubectl(&["get", "pod", "steady", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
    assert_eq!(start, "0", "pods do not mind");
    // The vendor and the names work again.
    apply(&namespace, &[claim("later", STORAGE_CLASS, None)])?;
    namespace.wait_for(&["pvc", "later"], "{.status.phase}", LIMIT, |phase| phase == "Bound")?;
    Ok(())
}
