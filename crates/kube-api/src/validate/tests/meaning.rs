//! What a manifest contains, and what it means.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

#[test]
fn the_texts_of_findings() {
    let of = |patch: Value| {
        let outcome = cluster(&changed(&patch));
        outcome.findings().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (patch, expected) in [
        (
            json!({"spec": {"storge": {}}}),
            "spec.storge: `spec` has no field `storge`; it has no effect (did you mean `storage`?)",
        ),
        (
            json!({"spec": {"size": "1Gi"}}),
            "spec.size: `spec` has no field `size`; it has no effect (it belongs in another place: `spec.storage.size`, `spec.walStorage.size`)",
        ),
        (
            json!({"instances": 2}),
            "instances: a Cluster has no field `instances` (move it below `spec`: `spec.instances`)",
        ),
        (
            json!({"spec": {"instances": "3"}}),
            "spec.instances: the string \"3\" is written, but it must be a whole number (leave the quotes out: 3)",
        ),
        (
            json!({"spec": {"imageName": 18}}),
            "spec.imageName: the number 18 is written, but it must be a string (put it in quotes: \"18\")",
        ),
        (
            json!({"spec": {"instances": 0}}),
            "spec.instances: it is 0, but must be at least 1 (number of instances, the primary included)",
        ),
        (
            json!({"spec": {"storage": {"size": "100GB"}}}),
            "spec.storage.size: `100GB` is not a volume size (did you mean `100Gi`?)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"shared_buffers": "2Gi"}}}}),
            "spec.postgresql.parameters.shared_buffers: `shared_buffers` cannot be `2Gi`: `Gi` is not one of its units (did you mean `2GB`? units are B, kB, MB, GB, TB)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"work_mem": "64mb"}}}}),
            "spec.postgresql.parameters.work_mem: `work_mem` cannot be `64mb`: `mb` is not one of its units (did you mean `64MB`? units are B, kB, MB, GB, TB)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"max_conections": "1"}}}}),
            "spec.postgresql.parameters.max_conections: PostgreSQL 18 has no setting `max_conections` (did you mean `max_connections`?)",
        ),
        (
            json!({"spec": {"managed": {}}}),
            "spec.managed: `managed` is not supported yet; it has no effect (create roles and services yourself, \
             with SQL and manifests)",
        ),
        (
            json!({"spec": {"managed": {"roles": [{"name": "app"}]}}}),
            "spec.managed: `managed` is not supported yet (create roles and services yourself, with SQL and manifests; \
             to run without it, annotate the Cluster with `holdfast.dev/without: managed`)",
        ),
        (
            json!({"spec": {"backup": {"method": "x"}}}),
            "spec.backup.method: a cluster has no backup method: each Backup and ScheduledBackup has its own (write `method` into their `spec`; `barmanObjectStore` is the default there)",
        ),
        (
            json!({"spec": {"storage": null}}),
            "spec.storage.size: no size is set; volumes of 1Gi are created (write the size, such as `100Gi`: it can \
             grow later where the storage class allows it)",
        ),
    ] {
        assert_eq!(of(patch), expected);
    }
}

#[test]
fn every_field_is_in_its_place_afterwards() {
    let term = json!({"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "kubernetes.io/hostname"});
    let accepted = json!({"annotations": {"holdfast.dev/without": "synchronous"}});
    let outcome = cluster(&changed(&json!({"metadata": accepted, "spec": {
        "storage": null,
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "affinity": {
            "tolerations": [{"key": "b", "operator": "Exists"}],
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]},
            "additionalPodAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        },
        "postgresql": {"parameters": {"io_method": "async"}, "synchronous": {"number": 1}},
        "backup": {"barmanObjectStore": {"wal": {"compression": "snappy"}}},
        "externalClusters": [source()],
        "bootstrap": {"recovery": {"source": "old", "recoveryTarget": {"targetTime": "2025-01-01 14:30:00.00000+02"}}}
    }})));
    let spec = outcome.value.unwrap().spec;
    assert_eq!(spec.storage.unwrap().size.as_deref(), Some("1Gi"));
    assert!(spec.tolerations.is_empty());
    let keys: Vec<_> = spec.affinity.tolerations.iter().filter_map(|toleration| toleration.key.as_deref()).collect();
    assert_eq!(keys, ["b", "a"]);
    assert_eq!(spec.affinity.pod_anti_affinity, None);
    let terms = spec.affinity.additional_pod_anti_affinity.unwrap().required_during_scheduling_ignored_during_execution;
    assert_eq!(terms.unwrap().len(), 2);
    assert_eq!(spec.postgresql.parameters["io_method"], "worker");
    assert_eq!(spec.postgresql.synchronous, None);
    assert_eq!(spec.backup.unwrap().barman_object_store.unwrap().wal.unwrap().compression, None);
    let target = spec.bootstrap.unwrap().recovery.unwrap().recovery_target.unwrap();
    assert_eq!(target.target_time.as_deref(), Some("2025-01-01T12:30:00Z"));
}
