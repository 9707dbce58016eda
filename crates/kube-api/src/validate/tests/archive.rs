//! The object store.

use super::*;

#[test]
fn the_object_store() {
    let spec = |patch: Value| json!({ "spec": patch });
    let store = |patch: Value| json!({"spec": {"backup": {"barmanObjectStore": patch}}});
    let none: &[&str] = &[];
    holds([
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
    ]);
}
