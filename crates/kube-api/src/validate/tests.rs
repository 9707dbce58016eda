#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use serde_json::json;

/// A cluster that nothing is wrong with.
fn valid() -> Value {
    json!({
        "apiVersion": "holdfast.dev/v1",
        "kind": "Cluster",
        "metadata": {"name": "main", "namespace": "db"},
        "spec": {
            "instances": 3,
            "imageName": "postgres:18",
            "storage": {"size": "10Gi"},
            "postgresql": {"parameters": {"shared_buffers": "256MB", "work_mem": "64MB", "pg_stat_statements.max": "100"}},
            "resources": {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "2Gi"}},
            "backup": {"barmanObjectStore": {
                "destinationPath": "s3://bucket/prefix/",
                "endpointURL": "https://s3.example",
                "s3Credentials": {
                    "accessKeyId": {"name": "s3", "key": "id"},
                    "secretAccessKey": {"name": "s3", "key": "secret"}
                }
            }}
        }
    })
}

/// An archive to recover from, as an entry of `externalClusters`.
fn source() -> Value {
    json!({"name": "old", "barmanObjectStore": {"destinationPath": "s3://bucket/old", "s3Credentials": {"inheritFromIAMRole": true}}})
}

/// Lays `patch` over `value`, null taking a field away (as RFC 7396).
fn merge(value: &mut Value, patch: &Value) {
    match (value, patch) {
        (Value::Object(value), Value::Object(patch)) => {
            for (key, patch) in patch {
                if patch.is_null() {
                    value.remove(key);
                } else {
                    merge(value.entry(key.clone()).or_insert(json!({})), patch);
                }
            }
        }
        (value, patch) => *value = patch.clone(),
    }
}

fn changed(patch: &Value) -> Value {
    let mut value = valid();
    merge(&mut value, patch);
    value
}

/// `E path Reason` and `W path Reason`, in the order of a reader.
fn brief<T>(outcome: &Outcome<T>) -> Vec<String> {
    assert_eq!(outcome.value.is_none(), !outcome.errors.is_empty(), "a meaning exactly without errors");
    for finding in outcome.findings() {
        assert!(!finding.message.is_empty() && !finding.message.ends_with('.'), "{finding}");
        assert!(!finding.hint.ends_with('.'), "{finding}");
        assert!(finding.message.is_ascii(), "{finding}");
    }
    let line = |mark: &str, finding: &Finding| format!("{mark} {} {}", finding.path, finding.reason);
    let errors = outcome.errors.iter().map(|finding| line("E", finding));
    errors.chain(outcome.warnings.iter().map(|finding| line("W", finding))).collect()
}

#[test]
fn nothing_is_wrong_with_a_valid_cluster() {
    let outcome = cluster(&valid());
    assert_eq!(brief(&outcome), [""; 0]);
    let value = outcome.value.unwrap();
    assert_eq!((value.name.as_str(), value.namespace.as_str(), value.postgres_major), ("main", "db", Some(18)));
    let initdb = value.spec.bootstrap.unwrap().initdb.unwrap();
    assert_eq!((initdb.database.as_deref(), initdb.owner.as_deref()), (Some("app"), Some("app")));
}

#[test]
fn one_change_at_a_time() {
    let spec = |patch: Value| json!({ "spec": patch });
    let parameter = |name: &str, value: Value| json!({"spec": {"postgresql": {"parameters": {name: value}}}});
    let store = |patch: Value| json!({"spec": {"backup": {"barmanObjectStore": patch}}});
    let recovery = |patch: Value| json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": patch}}});
    let target = |patch: Value| json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": {"source": "old", "recoveryTarget": patch}}}});
    let none: &[&str] = &[];
    for (name, patch, expected) in [
        // names
        ("no name", json!({"metadata": {"name": null}}), &["E metadata.name MissingField"][..]),
        ("a name in capitals", json!({"metadata": {"name": "Main"}}), &["E metadata.name InvalidValue"]),
        ("a name with a digit first", json!({"metadata": {"name": "1main"}}), &["E metadata.name InvalidValue"]),
        ("a name with a dot", json!({"metadata": {"name": "a.b"}}), &["E metadata.name InvalidValue"]),
        ("a name of 51", json!({"metadata": {"name": "a".repeat(51)}}), &["E metadata.name InvalidValue"]),
        ("a name of 50", json!({"metadata": {"name": "a".repeat(50)}}), none),
        // shape
        ("a slip", spec(json!({"storge": {"size": "1Gi"}})), &["W spec.storge UnknownField"]),
        (
            "an unknown field deep down",
            spec(json!({"resources": {"request": {"cpu": 1}}})),
            &["W spec.resources.request UnknownField"],
        ),
        ("an unknown field at the top", json!({"instances": 2}), &["W instances UnknownField"]),
        ("a text for a number", spec(json!({"instances": "3"})), &["E spec.instances WrongType"]),
        ("a number for a text", spec(json!({"imageName": 18})), &["E spec.imageName WrongType"]),
        (
            "an object for a list",
            spec(json!({"imagePullSecrets": {"name": "a"}})),
            &["E spec.imagePullSecrets WrongType"],
        ),
        ("no instances", spec(json!({"instances": 0})), &["E spec.instances InvalidValue"]),
        ("too many instances", spec(json!({"instances": 100})), &["E spec.instances InvalidValue"]),
        (
            "a value that is none",
            spec(json!({"affinity": {"podAntiAffinityType": "Required"}})),
            &["E spec.affinity.podAntiAffinityType InvalidValue"],
        ),
        (
            "a required field",
            spec(json!({"externalClusters": [{}]})),
            &["E spec.externalClusters[0].name MissingField"],
        ),
        ("a negative delay", spec(json!({"failoverDelay": -1})), &["E spec.failoverDelay InvalidValue"]),
        ("no spec", json!({"spec": null}), &["E spec MissingField"]),
        // not supported yet
        ("replica cluster", spec(json!({"replica": {"enabled": true}})), &["E spec.replica NotSupportedYet"]),
        (
            "pg_basebackup",
            spec(json!({"bootstrap": {"pg_basebackup": {"source": "x"}}})),
            &["E spec.bootstrap.pg_basebackup NotSupportedYet"],
        ),
        (
            "import",
            spec(json!({"bootstrap": {"initdb": {"import": {}}}})),
            &["E spec.bootstrap.initdb.import NotSupportedYet"],
        ),
        ("managed roles", spec(json!({"managed": {"roles": []}})), &["W spec.managed NotSupportedYet"]),
        (
            "custom queries",
            spec(json!({"monitoring": {"customQueries": []}})),
            &["W spec.monitoring.customQueries NotSupportedYet"],
        ),
        (
            "both generations of synchronous replication",
            spec(
                json!({"minSyncReplicas": 1, "maxSyncReplicas": 2, "postgresql": {"synchronous": {"method": "any", "number": 1, "dataDurability": "required"}}}),
            ),
            &[
                "W spec.maxSyncReplicas NotSupportedYet",
                "W spec.minSyncReplicas NotSupportedYet",
                "W spec.postgresql.synchronous.dataDurability NotSupportedYet",
                "W spec.postgresql.synchronous NotSupportedYet",
            ],
        ),
        // image
        ("an old version", spec(json!({"imageName": "postgres:12"})), &["E spec.imageName InvalidValue"]),
        ("a version to come", spec(json!({"imageName": "postgres:19beta1"})), &["E spec.imageName InvalidValue"]),
        ("no version", spec(json!({"imageName": "postgres:latest"})), &["W spec.imageName DefaultUsed"]),
        ("no image", spec(json!({"imageName": null})), none),
        ("an empty image", spec(json!({"imageName": ""})), &["E spec.imageName InvalidValue"]),
        (
            "a policy in small letters",
            spec(json!({"imagePullPolicy": "always"})),
            &["E spec.imagePullPolicy InvalidValue"],
        ),
        ("root", spec(json!({"postgresUID": 0})), &["E spec.postgresUID InvalidValue"]),
        // storage
        ("no storage", spec(json!({"storage": null})), &["W spec.storage.size DefaultUsed"]),
        (
            "no size",
            spec(json!({"storage": {"size": null, "storageClass": "fast"}})),
            &["W spec.storage.size DefaultUsed"],
        ),
        (
            "a size of the template",
            spec(json!({"storage": {"size": null, "pvcTemplate": {"resources": {"requests": {"storage": "5Gi"}}}}})),
            none,
        ),
        ("a size in GB", spec(json!({"storage": {"size": "100GB"}})), &["E spec.storage.size InvalidValue"]),
        ("a size without a unit", spec(json!({"storage": {"size": 100}})), &["E spec.storage.size InvalidValue"]),
        ("a WAL volume", spec(json!({"walStorage": {"size": "2Gi"}})), none),
        ("a WAL volume without a size", spec(json!({"walStorage": {}})), &["W spec.walStorage.size DefaultUsed"]),
        // scheduling
        (
            "root tolerations",
            spec(json!({"tolerations": [{"key": "a", "operator": "Exists"}]})),
            &["W spec.tolerations ReadAsMeant"],
        ),
        (
            "podAntiAffinity",
            spec(json!({"affinity": {"podAntiAffinity": {}}})),
            &["W spec.affinity.podAntiAffinity ReadAsMeant"],
        ),
        ("podAffinity", spec(json!({"affinity": {"podAffinity": {}}})), &["W spec.affinity.podAffinity ReadAsMeant"]),
        (
            "request above limit",
            spec(json!({"resources": {"requests": {"memory": "4Gi"}}})),
            &["E spec.resources.requests.memory Conflict"],
        ),
        (
            "memory in GB",
            spec(json!({"resources": {"limits": {"memory": "4GB"}}})),
            &["E spec.resources.limits.memory InvalidValue"],
        ),
        (
            "a variable of ours",
            spec(json!({"env": [{"name": "PGDATA", "value": "/x"}]})),
            &["E spec.env[0].name ManagedSetting"],
        ),
        ("a variable", spec(json!({"env": [{"name": "TZ", "value": "UTC"}]})), none),
        (
            "no time left to stop",
            spec(json!({"smartShutdownTimeout": 60, "stopDelay": 60})),
            &["E spec.smartShutdownTimeout Conflict"],
        ),
        // settings
        (
            "a managed setting",
            parameter("archive_command", json!("true")),
            &["E spec.postgresql.parameters.archive_command ManagedSetting"],
        ),
        (
            "a managed setting in capitals",
            parameter("Archive_Command", json!("true")),
            &["E spec.postgresql.parameters.Archive_Command ManagedSetting"],
        ),
        (
            "a managed setting as it is",
            parameter("hot_standby", json!(true)),
            &["W spec.postgresql.parameters.hot_standby NoEffect"],
        ),
        (
            "archive mode on",
            parameter("archive_mode", json!("on")),
            &["W spec.postgresql.parameters.archive_mode NoEffect"],
        ),
        (
            "wal_level replica",
            parameter("wal_level", json!("replica")),
            &["W spec.postgresql.parameters.wal_level NoEffect"],
        ),
        (
            "wal_level minimal",
            parameter("wal_level", json!("minimal")),
            &["E spec.postgresql.parameters.wal_level ManagedSetting"],
        ),
        (
            "preload libraries",
            parameter("shared_preload_libraries", json!("pg_stat_statements")),
            &["E spec.postgresql.parameters.shared_preload_libraries ManagedSetting"],
        ),
        (
            "a slip in a setting",
            parameter("work_memm", json!("1MB")),
            &["E spec.postgresql.parameters.work_memm InvalidSetting"],
        ),
        ("a number unquoted", parameter("max_connections", json!(200)), none),
        ("a switch unquoted", parameter("jit", json!(false)), none),
        (
            "a switch that is none",
            parameter("jit", json!("maybe")),
            &["E spec.postgresql.parameters.jit InvalidSetting"],
        ),
        (
            "memory in Gi",
            parameter("shared_buffers", json!("1Gi")),
            &["E spec.postgresql.parameters.shared_buffers InvalidSetting"],
        ),
        (
            "memory in small letters",
            parameter("work_mem", json!("64mb")),
            &["E spec.postgresql.parameters.work_mem InvalidSetting"],
        ),
        ("memory with a fraction", parameter("work_mem", json!("1.5 MB")), none),
        (
            "memory out of range",
            parameter("work_mem", json!("1kB")),
            &["E spec.postgresql.parameters.work_mem InvalidSetting"],
        ),
        ("a time", parameter("checkpoint_timeout", json!("15min")), none),
        (
            "a time in minutes",
            parameter("checkpoint_timeout", json!("15m")),
            &["E spec.postgresql.parameters.checkpoint_timeout InvalidSetting"],
        ),
        (
            "a unit where there is none",
            parameter("max_connections", json!("200MB")),
            &["E spec.postgresql.parameters.max_connections InvalidSetting"],
        ),
        ("a real number", parameter("random_page_cost", json!(1.1)), none),
        ("a choice", parameter("wal_compression", json!("zstd")), none),
        ("a choice by switch", parameter("wal_compression", json!(true)), none),
        (
            "a choice that is none",
            parameter("wal_compression", json!("zstdd")),
            &["E spec.postgresql.parameters.wal_compression InvalidSetting"],
        ),
        ("hidden words of a choice", parameter("synchronous_commit", json!("no")), none),
        ("a list", parameter("work_mem", json!(["64MB"])), &["E spec.postgresql.parameters.work_mem InvalidSetting"]),
        (
            "io_method async",
            parameter("io_method", json!("async")),
            &["W spec.postgresql.parameters.io_method ReadAsMeant"],
        ),
        (
            "a setting of a later version",
            json!({"spec": {"imageName": "postgres:17", "postgresql": {"parameters": {"io_method": "worker"}}}}),
            &["E spec.postgresql.parameters.io_method InvalidSetting"],
        ),
        (
            "a setting of an earlier version",
            json!({"spec": {"postgresql": {"parameters": {"old_snapshot_threshold": "-1"}}}}),
            &["E spec.postgresql.parameters.old_snapshot_threshold InvalidSetting"],
        ),
        (
            "too few senders",
            parameter("max_wal_senders", json!(3)),
            &["E spec.postgresql.parameters.max_wal_senders Conflict"],
        ),
        ("just enough senders", parameter("max_wal_senders", json!(4)), none),
        (
            "too few slots",
            parameter("max_replication_slots", json!(1)),
            &["E spec.postgresql.parameters.max_replication_slots Conflict"],
        ),
        ("fsync off", parameter("fsync", json!("off")), &["W spec.postgresql.parameters.fsync InvalidSetting"]),
        (
            "archive_timeout 0",
            parameter("archive_timeout", json!(0)),
            &["W spec.postgresql.parameters.archive_timeout InvalidSetting"],
        ),
        (
            "all memory for buffers",
            parameter("shared_buffers", json!("2GB")),
            &["W spec.postgresql.parameters.shared_buffers Conflict"],
        ),
        (
            "a line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["hostssl app app 10.0.0.0/8 scram-sha-256", "# none"]}})),
            none,
        ),
        (
            "a short line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["host all all"]}})),
            &["E spec.postgresql.pg_hba[0] InvalidSetting"],
        ),
        (
            "no line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["allow everything from all hosts"]}})),
            &["E spec.postgresql.pg_hba[0] InvalidSetting"],
        ),
        // archive
        (
            "the method of a cluster's backups",
            spec(json!({"backup": {"method": "barmanObjectStore"}})),
            &["W spec.backup.method NoEffect"],
        ),
        (
            "no bucket",
            store(json!({"destinationPath": "s3://"})),
            &["E spec.backup.barmanObjectStore.destinationPath InvalidValue"],
        ),
        (
            "a bucket in capitals",
            store(json!({"destinationPath": "s3://Bucket/x"})),
            &["E spec.backup.barmanObjectStore.destinationPath InvalidValue"],
        ),
        (
            "another store",
            store(json!({"destinationPath": "gs://bucket/x"})),
            &["E spec.backup.barmanObjectStore.destinationPath InvalidValue"],
        ),
        (
            "an address without a scheme",
            store(json!({"endpointURL": "minio:9000"})),
            &["E spec.backup.barmanObjectStore.endpointURL InvalidValue"],
        ),
        (
            "an address with a password",
            store(json!({"endpointURL": "https://a:b@minio:9000"})),
            &["E spec.backup.barmanObjectStore.endpointURL InvalidValue"],
        ),
        (
            "no credentials",
            store(json!({"s3Credentials": null})),
            &["E spec.backup.barmanObjectStore.s3Credentials MissingField"],
        ),
        (
            "empty credentials",
            store(json!({"s3Credentials": {"accessKeyId": null, "secretAccessKey": null}})),
            &["E spec.backup.barmanObjectStore.s3Credentials MissingField"],
        ),
        (
            "half of the credentials",
            store(json!({"s3Credentials": {"secretAccessKey": null}})),
            &["E spec.backup.barmanObjectStore.s3Credentials.secretAccessKey MissingField"],
        ),
        (
            "a role",
            store(json!({"s3Credentials": {"accessKeyId": null, "secretAccessKey": null, "inheritFromIAMRole": true}})),
            none,
        ),
        (
            "a role and keys",
            store(json!({"s3Credentials": {"inheritFromIAMRole": true}})),
            &["W spec.backup.barmanObjectStore.s3Credentials.inheritFromIAMRole Conflict"],
        ),
        (
            "an empty name of a Secret",
            store(json!({"s3Credentials": {"accessKeyId": {"name": ""}}})),
            &["E spec.backup.barmanObjectStore.s3Credentials.accessKeyId.name MissingField"],
        ),
        (
            "a codec of Barman",
            store(json!({"wal": {"compression": "snappy"}, "data": {"compression": "bzip2"}})),
            &[
                "W spec.backup.barmanObjectStore.wal.compression ReadAsMeant",
                "W spec.backup.barmanObjectStore.data.compression ReadAsMeant",
            ],
        ),
        (
            "no codec",
            store(json!({"wal": {"compression": "fast"}})),
            &["E spec.backup.barmanObjectStore.wal.compression InvalidValue"],
        ),
        ("an encryption", store(json!({"data": {"encryption": "AES256"}})), none),
        (
            "no encryption",
            store(json!({"data": {"encryption": "aes"}})),
            &["E spec.backup.barmanObjectStore.data.encryption InvalidValue"],
        ),
        (
            "two encryptions",
            store(json!({"data": {"encryption": "AES256"}, "wal": {"encryption": "aws:kms"}})),
            &["W spec.backup.barmanObjectStore.wal.encryption Conflict"],
        ),
        ("a key of ours", store(json!({"encryption": {"passphrase": {"name": "a", "key": "b"}}})), none),
        (
            "no key of ours",
            store(json!({"encryption": {}})),
            &["E spec.backup.barmanObjectStore.encryption MissingField"],
        ),
        (
            "two keys of ours",
            store(json!({"encryption": {"passphrase": {"name": "a", "key": "b"}, "key": {"name": "a", "key": "b"}}})),
            &["E spec.backup.barmanObjectStore.encryption Conflict"],
        ),
        (
            "a name of an archive with a slash",
            store(json!({"serverName": "a/b"})),
            &["E spec.backup.barmanObjectStore.serverName InvalidValue"],
        ),
        (
            "azure",
            store(json!({"azureCredentials": {}})),
            &["E spec.backup.barmanObjectStore.azureCredentials NotSupportedYet"],
        ),
        (
            "a retention",
            spec(json!({"backup": {"retentionPolicy": "30d"}})),
            &["W spec.backup.retentionPolicy NotSupportedYet"],
        ),
        (
            "no retention",
            spec(json!({"backup": {"retentionPolicy": "30 days"}})),
            &["E spec.backup.retentionPolicy InvalidValue"],
        ),
        // bootstrap
        (
            "two methods",
            json!({"spec": {"externalClusters": [source()], "bootstrap": {"initdb": {}, "recovery": {"source": "old"}}}}),
            &["E spec.bootstrap Conflict"],
        ),
        ("no method", spec(json!({"bootstrap": {}})), none),
        (
            "a database of PostgreSQL",
            spec(json!({"bootstrap": {"initdb": {"database": "postgres"}}})),
            &["E spec.bootstrap.initdb.database InvalidValue"],
        ),
        (
            "a superuser as owner",
            spec(json!({"bootstrap": {"initdb": {"owner": "postgres"}}})),
            &["E spec.bootstrap.initdb.owner InvalidValue"],
        ),
        (
            "an option of ours",
            spec(json!({"bootstrap": {"initdb": {"options": ["--pgdata=/x"]}}})),
            &["E spec.bootstrap.initdb.options ManagedSetting"],
        ),
        ("a segment size", spec(json!({"bootstrap": {"initdb": {"walSegmentSize": 64}}})), none),
        (
            "no segment size",
            spec(json!({"bootstrap": {"initdb": {"walSegmentSize": 48}}})),
            &["E spec.bootstrap.initdb.walSegmentSize InvalidValue"],
        ),
        ("a provider", spec(json!({"bootstrap": {"initdb": {"localeProvider": "icu", "icuLocale": "fr"}}})), none),
        (
            "no provider",
            spec(json!({"bootstrap": {"initdb": {"icuLocale": "fr"}}})),
            &["E spec.bootstrap.initdb.icuLocale Conflict"],
        ),
        (
            "a later provider",
            json!({"spec": {"imageName": "postgres:16", "bootstrap": {"initdb": {"localeProvider": "builtin"}}}}),
            &["E spec.bootstrap.initdb.localeProvider InvalidValue"],
        ),
        ("recovery", recovery(json!({"source": "old"})), none),
        ("recovery from a backup", recovery(json!({"backup": {"name": "b"}})), none),
        ("recovery from nothing", recovery(json!({})), &["E spec.bootstrap.recovery MissingField"]),
        ("an unknown source", recovery(json!({"source": "odl"})), &["E spec.bootstrap.recovery.source InvalidValue"]),
        (
            "source and backup",
            recovery(json!({"source": "old", "backup": {"name": "b"}})),
            &["W spec.bootstrap.recovery.backup ReadAsMeant"],
        ),
        (
            "a backup of another namespace",
            recovery(json!({"backup": {"name": "other/b"}})),
            &["E spec.bootstrap.recovery.backup.name InvalidValue"],
        ),
        (
            "snapshots",
            recovery(
                json!({"source": "old", "volumeSnapshots": {"storage": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}}}),
            ),
            none,
        ),
        (
            "snapshots without WAL",
            recovery(
                json!({"volumeSnapshots": {"storage": {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}}}),
            ),
            &["W spec.bootstrap.recovery.volumeSnapshots DefaultUsed"],
        ),
        (
            "snapshots without a group",
            recovery(json!({"source": "old", "volumeSnapshots": {"storage": {"kind": "VolumeSnapshot", "name": "s"}}})),
            &["E spec.bootstrap.recovery.volumeSnapshots.storage.apiGroup InvalidValue"],
        ),
        (
            "snapshots of pods",
            recovery(json!({"source": "old", "volumeSnapshots": {"storage": {"kind": "Pod", "name": "s"}}})),
            &["E spec.bootstrap.recovery.volumeSnapshots.storage.kind InvalidValue"],
        ),
        (
            "snapshots and a backup",
            recovery(
                json!({"backup": {"name": "b"}, "volumeSnapshots": {"storage": {"kind": "PersistentVolumeClaim", "name": "s"}}}),
            ),
            &["E spec.bootstrap.recovery.backup Conflict"],
        ),
        (
            "a target behind snapshots",
            recovery(
                json!({"volumeSnapshots": {"storage": {"kind": "PersistentVolumeClaim", "name": "s"}}, "recoveryTarget": {"targetLSN": "0/1"}}),
            ),
            &[
                "E spec.bootstrap.recovery.recoveryTarget.targetLSN Conflict",
                "W spec.bootstrap.recovery.volumeSnapshots DefaultUsed",
            ],
        ),
        (
            "the archive of the source",
            json!({"spec": {"externalClusters": [{"name": "main", "barmanObjectStore": valid()["spec"]["backup"]["barmanObjectStore"]}], "bootstrap": {"recovery": {"source": "main"}}}}),
            &["E spec.backup.barmanObjectStore Conflict"],
        ),
        (
            "a source without an archive",
            json!({"spec": {"externalClusters": [{"name": "old"}], "bootstrap": {"recovery": {"source": "old"}}}}),
            &["E spec.bootstrap.recovery.source MissingField"],
        ),
        (
            "a source by connection",
            json!({"spec": {"externalClusters": [{"name": "old", "connectionParameters": {"host": "x"}}]}}),
            &["W spec.externalClusters[0].connectionParameters NotSupportedYet"],
        ),
        (
            "two sources of a name",
            json!({"spec": {"externalClusters": [source(), source()]}}),
            &["E spec.externalClusters[1].name Conflict"],
        ),
        // targets
        ("a time", target(json!({"targetTime": "2025-01-01 14:30:00.00000+00"})), none),
        (
            "a time without a zone",
            target(json!({"targetTime": "2025-01-01 14:30:00"})),
            &["W spec.bootstrap.recovery.recoveryTarget.targetTime DefaultUsed"],
        ),
        (
            "no time",
            target(json!({"targetTime": "noon"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetTime InvalidValue"],
        ),
        ("an LSN", target(json!({"targetLSN": "16/B374D848", "exclusive": true})), none),
        (
            "no LSN",
            target(json!({"targetLSN": "B374D848"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetLSN InvalidValue"],
        ),
        ("a transaction", target(json!({"targetXID": 1234})), none),
        (
            "no transaction",
            target(json!({"targetXID": "x"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetXID InvalidValue"],
        ),
        (
            "two targets",
            target(json!({"targetLSN": "0/1", "targetName": "a"})),
            &["E spec.bootstrap.recovery.recoveryTarget Conflict"],
        ),
        ("immediate false is no target", target(json!({"targetLSN": "0/1", "targetImmediate": false})), none),
        (
            "exclusive without a target",
            target(json!({"exclusive": true})),
            &["W spec.bootstrap.recovery.recoveryTarget.exclusive NoEffect"],
        ),
        ("a timeline", target(json!({"targetTLI": 3})), none),
        (
            "no timeline",
            target(json!({"targetTLI": "last"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetTLI InvalidValue"],
        ),
        (
            "superuser's password without access",
            spec(json!({"superuserSecret": {"name": "s"}})),
            &["W spec.superuserSecret NoEffect"],
        ),
    ] {
        let outcome = cluster(&changed(&patch));
        assert_eq!(brief(&outcome), expected, "{name}: {outcome:#?}");
    }
}

#[test]
fn the_words_of_findings() {
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
            "spec.size: `spec` has no field `size`; it has no effect (it is a field of another place: `spec.storage.size`, `spec.walStorage.size`)",
        ),
        (
            json!({"instances": 2}),
            "instances: a Cluster has no field `instances` (move it below `spec`: `spec.instances`)",
        ),
        (
            json!({"spec": {"instances": "3"}}),
            "spec.instances: the text \"3\" is written, but it must be a whole number (leave the quotes out: 3)",
        ),
        (
            json!({"spec": {"imageName": 18}}),
            "spec.imageName: the number 18 is written, but it must be a text (put it in quotes: \"18\")",
        ),
        (
            json!({"spec": {"instances": 0}}),
            "spec.instances: it is 0, but must be at least 1 (number of instances, the primary included)",
        ),
        (
            json!({"spec": {"storage": {"size": "100GB"}}}),
            "spec.storage.size: `100GB` is no size of a volume (did you mean `100Gi`?)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"shared_buffers": "2Gi"}}}}),
            "spec.postgresql.parameters.shared_buffers: `shared_buffers` cannot be `2Gi`: `Gi` is no unit of it (did you mean `2GB`? units are B, kB, MB, GB, TB)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"work_mem": "64mb"}}}}),
            "spec.postgresql.parameters.work_mem: `work_mem` cannot be `64mb`: `mb` is no unit of it (did you mean `64MB`? units are B, kB, MB, GB, TB)",
        ),
        (
            json!({"spec": {"postgresql": {"parameters": {"max_conections": "1"}}}}),
            "spec.postgresql.parameters.max_conections: PostgreSQL 18 knows no setting `max_conections` (did you mean `max_connections`?)",
        ),
        (
            json!({"spec": {"managed": {}}}),
            "spec.managed: `managed` is not supported yet; it has no effect (make roles and services yourself, with SQL and manifests)",
        ),
        (
            json!({"spec": {"backup": {"method": "x"}}}),
            "spec.backup.method: a cluster has no method of its backups: each Backup and ScheduledBackup says its own (write `method` into their `spec`; `barmanObjectStore` is the default there)",
        ),
        (
            json!({"spec": {"storage": null}}),
            "spec.storage.size: no size is written; volumes of 1Gi are made (write the size, such as `100Gi`: it can grow later where the storage class allows it)",
        ),
    ] {
        assert_eq!(of(patch), expected);
    }
}

#[test]
fn everything_is_at_its_place_afterwards() {
    let term = json!({"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "kubernetes.io/hostname"});
    let outcome = cluster(&changed(&json!({"spec": {
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

#[test]
fn changes_that_cannot_be() {
    let before = |patch: Value| {
        let mut value = changed(&patch);
        value["status"]["systemID"] = json!("7000000000000000001");
        value
    };
    for (name, old, new, expected) in [
        ("nothing", json!({}), json!({}), &[][..]),
        ("larger", json!({}), json!({"spec": {"storage": {"size": "20Gi"}}}), &[]),
        ("smaller", json!({}), json!({"spec": {"storage": {"size": "5Gi"}}}), &["E spec.storage.size Immutable"]),
        ("the same in other words", json!({}), json!({"spec": {"storage": {"size": "10240Mi"}}}), &[]),
        (
            "another class",
            json!({}),
            json!({"spec": {"storage": {"storageClass": "fast"}}}),
            &["W spec.storage.storageClass NoEffect"],
        ),
        ("a WAL volume", json!({}), json!({"spec": {"walStorage": {"size": "1Gi"}}}), &["E spec.walStorage Immutable"]),
        (
            "no WAL volume",
            json!({"spec": {"walStorage": {"size": "1Gi"}}}),
            json!({}),
            &["E spec.walStorage Immutable"],
        ),
        ("a minor version", json!({}), json!({"spec": {"imageName": "postgres:18.2"}}), &[]),
        ("a major version", json!({"spec": {"imageName": "postgres:17"}}), json!({}), &["E spec.imageName Immutable"]),
        ("another user", json!({}), json!({"spec": {"postgresUID": 999}}), &["E spec.postgresUID Immutable"]),
        ("the default user in words", json!({}), json!({"spec": {"postgresUID": 26}}), &[]),
        (
            "another bootstrap",
            json!({}),
            json!({"spec": {"bootstrap": {"initdb": {"database": "x"}}}}),
            &["W spec.bootstrap NoEffect"],
        ),
        (
            "the default bootstrap in words",
            json!({}),
            json!({"spec": {"bootstrap": {"initdb": {"database": "app"}}}}),
            &[],
        ),
        (
            "another archive",
            json!({}),
            json!({"spec": {"backup": {"barmanObjectStore": {"destinationPath": "s3://bucket/new"}}}}),
            &["W spec.backup.barmanObjectStore Conflict"],
        ),
        ("more instances", json!({}), json!({"spec": {"instances": 5}}), &[]),
    ] {
        assert_eq!(brief(&cluster_update(&before(old), &changed(&new))), expected, "{name}");
    }
    // Before there is data, how it comes about may change.
    let young = changed(&json!({"spec": {"walStorage": {"size": "1Gi"}, "imageName": "postgres:17"}}));
    assert_eq!(brief(&cluster_update(&young, &valid())), [""; 0]);
}

#[test]
fn backups() {
    let backup_of = |spec: Value| backup(&json!({"metadata": {"name": "b", "namespace": "db"}, "spec": spec}));
    for (spec, expected) in [
        (json!({"cluster": {"name": "main"}}), &[][..]),
        (json!({"cluster": {"name": "main"}, "method": "volumeSnapshot", "online": false, "target": "primary"}), &[]),
        (
            json!({"cluster": {"name": "main"}, "method": "plugin", "pluginConfiguration": {}}),
            &["E spec.method InvalidValue", "W spec.pluginConfiguration NotSupportedYet"],
        ),
        (json!({"cluster": {"name": "main"}, "online": true}), &["W spec.online NoEffect"]),
        (json!({"cluster": {"name": ""}}), &["E spec.cluster.name MissingField"]),
        (json!({"cluster": {}}), &["E spec.cluster.name MissingField"]),
        (json!({"method": "barmanObjectStore"}), &["E spec.cluster MissingField"]),
        (json!({"cluster": {"name": "main"}, "metod": "volumeSnapshot"}), &["W spec.metod UnknownField"]),
        (json!({"cluster": "main"}), &["E spec.cluster WrongType"]),
    ] {
        assert_eq!(brief(&backup_of(spec.clone())), expected, "{spec}");
    }
    let value = backup_of(json!({"cluster": {"name": "main"}})).value.unwrap();
    assert_eq!(
        (value.name.as_str(), value.cluster.as_str(), value.method),
        ("b", "main", BackupMethod::BarmanObjectStore)
    );
}

#[test]
fn scheduled_backups() {
    let of = |spec: Value| scheduled_backup(&json!({"metadata": {"name": "nightly"}, "spec": spec}));
    for (spec, expected) in [
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "suspend": false, "method": "barmanObjectStore"}),
            &[][..],
        ),
        (json!({"cluster": {"name": "main"}, "schedule": "0 0 2 * * *", "timeZone": "Europe/Paris"}), &[]),
        (json!({"cluster": {"name": "main"}, "schedule": "0 2 * *"}), &["E spec.schedule InvalidValue"]),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "timeZone": "Paris"}),
            &["E spec.timeZone InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "concurrencyPolicy": "forbid"}),
            &["E spec.concurrencyPolicy InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "startingDeadlineSeconds": -1}),
            &["E spec.startingDeadlineSeconds InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "timezone": "UTC"}),
            &["W spec.timezone UnknownField"],
        ),
        (json!({"cluster": {"name": "main"}}), &["E spec.schedule MissingField"]),
    ] {
        assert_eq!(brief(&of(spec.clone())), expected, "{spec}");
    }
}

#[test]
fn what_the_api_server_lets_in_can_be_read() {
    // Types and closed sets are the schema's; all else is read, whatever it says.
    for patch in [
        json!({"spec": {"postgresql": {"parameters": {"a": {"b": []}, "c": null}}}}),
        json!({"spec": {"storage": {"size": 5}}}),
        json!({"spec": {"resources": {"limits": {"cpu": 1, "memory": 1.5}}}}),
        json!({"spec": {"unknown": {"deep": [1, {"x": null}]}}}),
    ] {
        let spec = changed(&patch)["spec"].clone();
        assert!(serde_json::from_value::<ClusterSpec>(spec).is_ok(), "{patch}");
    }
}

#[test]
fn reading_never_panics() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"x": null}),
    ];
    let mut pointers = Vec::new();
    paths(
        &changed(
            &json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": {"source": "old", "recoveryTarget": {"targetTime": "x"}}}}}),
        ),
        "",
        &mut pointers,
    );
    assert!(pointers.len() > 30);
    for pointer in pointers {
        for value in &values {
            let mut resource = valid();
            if let Some(place) = resource.pointer_mut(&pointer) {
                *place = value.clone();
            }
            let _ = (
                cluster(&resource),
                backup(&resource),
                scheduled_backup(&resource),
                cluster_update(&valid(), &resource),
            );
        }
    }
    for value in &values {
        let _ = (cluster(value), backup(value), scheduled_backup(value));
    }
}

fn paths(value: &Value, path: &str, into: &mut Vec<String>) {
    into.push(path.to_owned());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}/{key}"), into)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| paths(value, &format!("{path}/{index}"), into));
        }
        _ => {}
    }
}
