//! Where a cluster gets its data.

use super::*;

#[test]
fn ways_to_get_the_data() {
    let spec = |patch: Value| json!({ "spec": patch });
    let recovery = |patch: Value| json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": patch}}});
    let none: &[&str] = &[];
    holds([
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
            "a wrong segment size",
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
            "a target after snapshots",
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
    ]);
}

#[test]
fn targets() {
    let spec = |patch: Value| json!({ "spec": patch });
    let target = |patch: Value| json!({"spec": {"externalClusters": [source()], "bootstrap": {"recovery": {"source": "old", "recoveryTarget": patch}}}});
    let none: &[&str] = &[];
    holds([
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
        (
            "a time that PostgreSQL would round",
            target(json!({"targetTime": "2025-01-01T14:30:00.123456789Z"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetTime InvalidValue"],
        ),
        ("nanoseconds that are zeros", target(json!({"targetTime": "2025-01-01T14:30:00.123456000Z"})), none),
        ("a date with a zone", target(json!({"targetTime": "2025-01-01Z"})), none),
        (
            "a date",
            target(json!({"targetTime": "2025-01-01"})),
            &["W spec.bootstrap.recovery.recoveryTarget.targetTime DefaultUsed"],
        ),
        ("a timeline in hexadecimal", target(json!({"targetTLI": "0x1F"})), none),
        (
            "no timeline",
            target(json!({"targetTLI": "0"})),
            &["E spec.bootstrap.recovery.recoveryTarget.targetTLI InvalidValue"],
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
        ("immediate false is not a target", target(json!({"targetLSN": "0/1", "targetImmediate": false})), none),
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
    ]);
}
