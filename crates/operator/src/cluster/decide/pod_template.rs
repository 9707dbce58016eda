//! The pod of an instance, from the manifest alone.
//!
//! The pod carries a hash of its template, so that a changed manifest is noticed. The hash leaves out defaults of the
//! API server and what admission adds. It also leaves out the image of the manager: otherwise a new operator would
//! replace all pods of all clusters at once. A pod gets the new manager when it is created again for another reason, or
//! when somebody asks for it with the annotation `kubectl.kubernetes.io/restartedAt` of the `Cluster`.

use super::plan::Plan;
use super::secrets::short_hash;
use holdfast_kube_api::cluster::AntiAffinityType;
use holdfast_kube_api::names;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// The init container that copies the manager.
const MANAGER: &str = "manager";
/// The default of the start limit in seconds; recovery and joining are not part of it.
const START_DELAY: i32 = 3600;
/// The default of the shutdown limit in seconds.
const STOP_DELAY: i32 = 1800;

/// The pod of an instance. The error names the part of the manifest that Kubernetes' types do not accept.
pub(super) fn pod(plan: &Plan<'_>, instance: &str, wal_volume: bool) -> Result<Pod, serde_json::Error> {
    let spec = template(plan, instance, wal_volume);
    let mut metadata = plan.metadata(instance, &[(names::INSTANCE_LABEL, instance)]);
    metadata["annotations"][names::TEMPLATE_HASH] = json!(hash(plan, &spec));
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// The hash of the pod template that the manifest gives now.
pub(super) fn template_hash(plan: &Plan<'_>, instance: &str, wal_volume: bool) -> String {
    hash(plan, &template(plan, instance, wal_volume))
}

fn hash(plan: &Plan<'_>, spec: &Value) -> String {
    let mut spec = spec.clone();
    if let Some(manager) = spec.pointer_mut("/initContainers/0") {
        manager["image"] = Value::Null;
    }
    let mut text = spec.to_string();
    text.push_str(plan.desired.restarted_at.as_deref().unwrap_or_default());
    short_hash(text.as_bytes())
}

fn template(plan: &Plan<'_>, instance: &str, wal_volume: bool) -> Value {
    let desired = plan.desired;
    let spec = &desired.spec;
    let cluster = &desired.name;
    let policy = spec.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
    let affinity = &spec.affinity;
    let mut tolerations = affinity.tolerations.clone();
    tolerations.extend(spec.tolerations.iter().cloned());
    let user = spec.postgres_uid.unwrap_or(26);
    let group = spec.postgres_gid.unwrap_or(26);
    let mut pod = json!({
        "hostname": instance,
        "subdomain": names::headless_service(cluster),
        "serviceAccountName": names::service_account(cluster),
        "terminationGracePeriodSeconds": spec.stop_delay.unwrap_or(STOP_DELAY),
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": user, "runAsGroup": group, "fsGroup": group,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [{
            "name": MANAGER,
            "image": desired.images.operator,
            "imagePullPolicy": policy,
            "command": ["holdfast", "instance", "copy", names::PROGRAM],
            "securityContext": container_security(),
            "resources": spec.resources,
            "volumeMounts": [{"name": "controller", "mountPath": names::CONTROLLER_MOUNT}],
        }],
        "containers": [container(plan, policy, wal_volume)],
        "volumes": volumes(cluster, instance, wal_volume),
        "tolerations": tolerations,
        "nodeSelector": affinity.node_selector,
        "affinity": spread(plan),
        "topologySpreadConstraints": spec.topology_spread_constraints,
        "imagePullSecrets": spec.image_pull_secrets,
    });
    if let Some(class) = &spec.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    if let Some(scheduler) = &spec.scheduler_name {
        pod["schedulerName"] = json!(scheduler);
    }
    without_nulls(pod)
}

fn container(plan: &Plan<'_>, policy: &str, wal_volume: bool) -> Value {
    let spec = &plan.desired.spec;
    let from_field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut env = vec![
        from_field("POD_NAME", "metadata.name"),
        from_field("POD_UID", "metadata.uid"),
        from_field("NAMESPACE", "metadata.namespace"),
        json!({"name": "CLUSTER_NAME", "value": plan.desired.name}),
        json!({"name": "PGDATA", "value": names::PGDATA}),
        // `psql` in the pod finds the server without flags.
        json!({"name": "PGHOST", "value": names::SOCKET_DIRECTORY}),
        json!({"name": "PGPORT", "value": names::POSTGRES_PORT.to_string()}),
        json!({"name": "PGUSER", "value": "postgres"}),
    ];
    env.extend(spec.env.iter().map(|variable| json!(variable)));
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut mounts = vec![
        mount("pgdata", names::DATA_MOUNT),
        mount("controller", names::CONTROLLER_MOUNT),
        mount("shm", "/dev/shm"),
        mount("tmp", "/tmp"),
        mount("server", names::SERVER_CERTIFICATES),
        mount("replication", names::REPLICATION_CERTIFICATES),
        mount("ca", names::CA_CERTIFICATES),
    ];
    if wal_volume {
        mounts.push(mount("pgwal", names::WAL_MOUNT));
    }
    let port = |name: &str, number: u16| json!({"name": name, "containerPort": number, "protocol": "TCP"});
    let probe = |kind: &str| json!({"exec": {"command": [names::PROGRAM, "instance", "probe", kind]}});
    let timed = |kind: &str, period: i32, failures: i32| {
        let mut probe = probe(kind);
        probe["periodSeconds"] = json!(period);
        probe["timeoutSeconds"] = json!(5);
        probe["failureThreshold"] = json!(failures);
        probe
    };
    let start = spec.start_delay.unwrap_or(START_DELAY);
    json!({
        "name": names::CONTAINER,
        "image": plan.desired.image(),
        "imagePullPolicy": policy,
        "command": [names::PROGRAM, "instance", "run"],
        "env": env,
        "envFrom": spec.env_from,
        "resources": spec.resources,
        "ports": [
            port("postgres", names::POSTGRES_PORT), port("status", names::STATUS_PORT),
            port("metrics", names::METRICS_PORT),
        ],
        "volumeMounts": mounts,
        "securityContext": container_security(),
        "startupProbe": timed("startup", 2, start.max(2) / 2),
        "livenessProbe": timed("liveness", 10, 6),
        // Services depend on it: every 2 s, so that a new primary is reached soon. An instance that fails is left out
        // after ten seconds.
        "readinessProbe": timed("readiness", 2, 5),
    })
}

fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

fn volumes(cluster: &str, instance: &str, wal_volume: bool) -> Vec<Value> {
    // Readable by the group: PostgreSQL refuses a key that others can read, and accepts 0640 only for files of root.
    let secret =
        |name: &str, secret: String| json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}});
    let mut all = vec![
        json!({"name": "pgdata", "persistentVolumeClaim": {"claimName": instance}}),
        json!({"name": "controller", "emptyDir": {}}),
        json!({"name": "shm", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "tmp", "emptyDir": {}}),
        secret("server", names::server_secret(cluster)),
        secret("replication", names::replication_secret(cluster)),
        json!({"name": "ca", "secret": {
            "secretName": names::ca_secret(cluster), "defaultMode": 0o444,
            "items": [{"key": "ca.crt", "path": "ca.crt"}],
        }}),
    ];
    if wal_volume {
        all.push(json!({"name": "pgwal", "persistentVolumeClaim": {"claimName": names::wal_claim(instance)}}));
    }
    all
}

/// `spec.affinity` in the form of a pod.
fn spread(plan: &Plan<'_>) -> Value {
    let affinity = &plan.desired.spec.affinity;
    let mut anti = json!(affinity.additional_pod_anti_affinity.as_ref().or(affinity.pod_anti_affinity.as_ref()));
    if affinity.enable_pod_anti_affinity.unwrap_or(true) {
        let term = json!({
            "labelSelector": {"matchLabels": {names::CLUSTER_LABEL: plan.desired.name}},
            "topologyKey": affinity.topology_key.as_deref().unwrap_or("kubernetes.io/hostname"),
        });
        if anti.is_null() {
            anti = json!({});
        }
        let (list, entry) = match affinity.pod_anti_affinity_type.unwrap_or_default() {
            AntiAffinityType::Required => ("requiredDuringSchedulingIgnoredDuringExecution", term),
            AntiAffinityType::Preferred => {
                ("preferredDuringSchedulingIgnoredDuringExecution", json!({"weight": 100, "podAffinityTerm": term}))
            }
        };
        match anti.get_mut(list).and_then(Value::as_array_mut) {
            Some(entries) => entries.push(entry),
            None => anti[list] = json!([entry]),
        }
    }
    json!({
        "nodeAffinity": affinity.node_affinity,
        "podAffinity": affinity.additional_pod_affinity.as_ref().or(affinity.pod_affinity.as_ref()),
        "podAntiAffinity": anti,
    })
}

/// Drops unset fields: nobody wrote them.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
