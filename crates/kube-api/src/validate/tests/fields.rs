//! Names, shape, unsupported fields, image, volumes, and where instances run.

use super::*;

#[test]
fn names_and_shape() {
    let spec = |patch: Value| json!({ "spec": patch });
    let none: &[&str] = &[];
    holds([
        ("no name", json!({"metadata": {"name": null}}), &["E metadata.name MissingField"]),
        ("a name in capitals", json!({"metadata": {"name": "Main"}}), &["E metadata.name InvalidValue"]),
        ("a name with a digit first", json!({"metadata": {"name": "1main"}}), &["E metadata.name InvalidValue"]),
        ("a name with a dot", json!({"metadata": {"name": "a.b"}}), &["E metadata.name InvalidValue"]),
        ("a name of 51", json!({"metadata": {"name": "a".repeat(51)}}), &["E metadata.name InvalidValue"]),
        ("a name of 50", json!({"metadata": {"name": "a".repeat(50)}}), none),
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
            "an unknown value",
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
    ]);
}

#[test]
fn fields_that_are_not_supported_yet() {
    let spec = |patch: Value| json!({ "spec": patch });
    holds([
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
        ("no managed roles", spec(json!({"managed": {"roles": []}})), &["W spec.managed NotSupportedYet"]),
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
                "E spec.maxSyncReplicas NotSupportedYet",
                "E spec.minSyncReplicas NotSupportedYet",
                "E spec.postgresql.synchronous NotSupportedYet",
                "W spec.postgresql.synchronous.dataDurability NotSupportedYet",
            ],
        ),
        (
            "no synchronous replica is asked for",
            spec(json!({"minSyncReplicas": 0})),
            &["W spec.minSyncReplicas NotSupportedYet"],
        ),
    ]);
}

/// A field that changes what the cluster promises is refused, unless a person has accepted to run without it.
#[test]
fn promises_that_cannot_be_kept() {
    let with = |without: &str, patch: Value| {
        let annotations = json!({"holdfast.dev/without": without});
        json!({"metadata": {"annotations": annotations}, "spec": patch})
    };
    let roles = json!({"managed": {"roles": [{"name": "app"}]}});
    let plugins = |archives: bool| json!([{"name": "barman-cloud.cloudnative-pg.io", "isWALArchiver": archives}]);
    let annotated = |name: &str, value: &str| json!({"metadata": {"annotations": {name: value}}});
    let none: &[&str] = &[];
    holds([
        ("roles", with("", roles.clone()), &["E spec.managed NotSupportedYet"]),
        ("roles, accepted", with("managed", roles.clone()), &["W spec.managed NotSupportedYet"]),
        ("roles, something else accepted", with("plugins", roles), &["E spec.managed NotSupportedYet"]),
        (
            "certificates",
            with("", json!({"certificates": {"serverTLSSecret": "tls"}})),
            &["E spec.certificates NotSupportedYet"],
        ),
        (
            "synchronous, accepted among others",
            with("managed, synchronous", json!({"minSyncReplicas": 1, "postgresql": {"synchronous": {"number": 1}}})),
            &["W spec.minSyncReplicas NotSupportedYet", "W spec.postgresql.synchronous NotSupportedYet"],
        ),
        (
            "a copy is not something to run without",
            with("replica", json!({"replica": {"enabled": true}})),
            &["E spec.replica NotSupportedYet", "W metadata.annotations.holdfast.dev/without InvalidValue"],
        ),
        (
            "an archive by a plugin alone",
            with("", json!({"backup": null, "plugins": plugins(true)})),
            &["E spec.plugins NotSupportedYet", "W spec.plugins NotSupportedYet"],
        ),
        (
            "an archive by a plugin beside our own",
            with("", json!({"plugins": plugins(true)})),
            &["W spec.plugins NotSupportedYet"],
        ),
        (
            "a plugin that archives nothing",
            with("", json!({"backup": null, "plugins": plugins(false)})),
            &["W spec.plugins NotSupportedYet"],
        ),
        (
            "hibernation",
            annotated("cnpg.io/hibernation", "on"),
            &["W metadata.annotations.cnpg.io/hibernation NotSupportedYet"],
        ),
        ("no hibernation", annotated("cnpg.io/hibernation", "off"), none),
        (
            "fenced instances",
            annotated("cnpg.io/fencedInstances", "[\"*\"]"),
            &["W metadata.annotations.cnpg.io/fencedInstances NotSupportedYet"],
        ),
    ]);
}

#[test]
fn image_and_volumes() {
    let spec = |patch: Value| json!({ "spec": patch });
    let none: &[&str] = &[];
    holds([
        ("an old version", spec(json!({"imageName": "postgres:12"})), &["E spec.imageName InvalidValue"]),
        ("a future version", spec(json!({"imageName": "postgres:20beta1"})), &["E spec.imageName InvalidValue"]),
        ("no version", spec(json!({"imageName": "postgres:latest"})), &["W spec.imageName DefaultUsed"]),
        ("no image", spec(json!({"imageName": null})), none),
        ("an empty image", spec(json!({"imageName": ""})), &["E spec.imageName InvalidValue"]),
        (
            "a policy in small letters",
            spec(json!({"imagePullPolicy": "always"})),
            &["E spec.imagePullPolicy InvalidValue"],
        ),
        ("root", spec(json!({"postgresUID": 0})), &["E spec.postgresUID InvalidValue"]),
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
    ]);
}

#[test]
fn where_instances_run() {
    let spec = |patch: Value| json!({ "spec": patch });
    let none: &[&str] = &[];
    holds([
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
    ]);
}
