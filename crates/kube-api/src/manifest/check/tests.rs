//! Manifests from users of CloudNativePG, with the findings in each.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;
use crate::manifest::write;
use serde_json::json;

/// `line level path Reason` for each finding, after a line with kind and verdict for each document.
fn brief(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for checked in check(text).unwrap() {
        lines.push(format!("{} {:?}", checked.kind.as_deref().unwrap_or("-"), checked.verdict));
        for Located { line, level, finding } in &checked.findings {
            lines.push(format!("{line} {level:?} {} {}", finding.path, finding.reason));
        }
    }
    lines
}

/// All correctable mistakes are gone after one correction, and a second correction changes nothing.
fn fixed(text: &str) -> Value {
    let checked = check(text).unwrap().remove(0);
    let written = write(&checked.fixed).unwrap();
    let again = check(&written).unwrap().remove(0);
    assert_eq!(again.fixed, checked.fixed);
    for Located { finding, .. } in &again.findings {
        let settled = matches!(finding.reason, Reason::DuplicateKey | Reason::OtherApiVersion | Reason::ReadAsMeant);
        assert!(!settled, "{finding}\n{written}");
        assert_ne!(finding.message, "no size is set; volumes of 1Gi are created");
    }
    checked.fixed
}

const FULL: &str = r#"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  imageName: ghcr.io/cloudnative-pg/postgresql:18
  storage:
    storageClass: fast
    size: 100Gi
  bootstrap:
    initdb:
      database: app
      owner: app
      secret:
        name: shop-app
  postgresql:
    parameters:
      shared_buffers: "2GB"
      max_connections: "200"
      wal_compression: "zstd"
      io_method: "async"
  resources:
    requests:
      memory: "4Gi"
      cpu: "2"
    limits:
      memory: "8Gi"
  monitoring:
    enablePodMonitor: true
"#;

#[test]
fn a_cluster_with_an_unknown_io_method() {
    assert_eq!(
        brief(FULL),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "22 Warning spec.postgresql.parameters.io_method ReadAsMeant",
        ]
    );
    let value = fixed(FULL);
    assert_eq!(value["apiVersion"], "holdfast.dev/v1");
    assert_eq!(value["spec"]["postgresql"]["parameters"]["io_method"], "worker");
}

const BACKUP_TWICE: &str = r#"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  storage:
    size: 100Gi
  backup:
    retentionPolicy: "30d"
    barmanObjectStore:
      destinationPath: s3://shop/backups/
      endpointURL: https://s3.example
      s3Credentials:
        accessKeyId:
          name: s3
          key: ID
        secretAccessKey:
          name: s3
          key: SECRET
      wal:
        compression: gzip
      data:
        encryption: AES256
  # and once more
  backup:
    volumeSnapshot:
      online: true
    target: primary
    method: barmanObjectStore
"#;

#[test]
fn a_cluster_with_two_backup_sections() {
    assert_eq!(
        brief(BACKUP_TWICE),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "10 Warning spec.backup.retentionPolicy NotSupportedYet",
            "26 Warning spec.backup DuplicateKey",
            "30 Warning spec.backup.method NoEffect",
        ]
    );
    let found = &check(BACKUP_TWICE).unwrap()[0].findings[2];
    assert_eq!(
        found.finding.to_string(),
        "spec.backup: it is written twice, in lines 9 and 26; both are used here, merged (merge them into one: kubectl refuses it, or keeps the second and drops the first)"
    );
    let backup = &fixed(BACKUP_TWICE)["spec"]["backup"];
    assert_eq!(backup["barmanObjectStore"]["destinationPath"], "s3://shop/backups/");
    assert_eq!(backup["volumeSnapshot"]["online"], true);
    assert_eq!(backup["target"], "primary");
    assert_eq!(backup.get("method"), None);
}

#[test]
fn backups_and_schedules() {
    let text = "apiVersion: postgresql.cnpg.io/v1\nkind: Backup\nmetadata:\n  name: now\nspec:\n  cluster:\n    name: shop\n  method: barmanObjectStore\n\
                ---\napiVersion: holdfast.dev/v1\nkind: ScheduledBackup\nmetadata:\n  name: daily\nspec:\n  schedule: \"0 2 * * *\"\n  suspend: false\n  cluster:\n    name: shop\n  method: barmanObjectStore\n";
    assert_eq!(brief(text), ["Backup Checked", "1 Warning apiVersion OtherApiVersion", "ScheduledBackup Checked"]);
}

const RECOVERY: &str = r#"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop-restored
spec:
  instances: 3
  bootstrap:
    recovery:
      source: shop
      recoveryTarget:
        targetTime: "2025-01-01 14:30:00.00000+00"
      backup:
        name: now
  externalClusters:
  - name: shop
    barmanObjectStore:
      destinationPath: s3://shop/backups/
      s3Credentials:
        accessKeyId:
          name: s3
          key: ID
        secretAccessKey:
          name: s3
          key: SECRET
"#;

#[test]
fn a_recovery_from_source_and_backup_without_a_size() {
    assert_eq!(
        brief(RECOVERY),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "5 Warning spec.storage.size DefaultUsed",
            "12 Warning spec.bootstrap.recovery.backup ReadAsMeant",
        ]
    );
    assert_eq!(check(RECOVERY).unwrap()[0].fixed["spec"]["storage"], json!({"size": "1Gi"}));
}

const SYNCHRONOUS: &str = r"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  postgresql:
    synchronous:
      number: 1
      method: any
  minSyncReplicas: 1
  maxSyncReplicas: 2
";

#[test]
fn a_cluster_with_two_generations_of_synchronous_replication() {
    assert_eq!(
        brief(SYNCHRONOUS),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "5 Warning spec.storage.size DefaultUsed",
            "8 Error spec.postgresql.synchronous NotSupportedYet",
            "11 Error spec.minSyncReplicas NotSupportedYet",
            "12 Error spec.maxSyncReplicas NotSupportedYet",
        ]
    );
    fixed(SYNCHRONOUS);
}

const QUERIES: &str = r#"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  monitoring:
    enablePodMonitor: true
    customQueries:
    - name: "sessions"
      query: |
        SELECT count(*) FROM pg_stat_activity
"#;

#[test]
fn a_cluster_with_custom_queries() {
    assert_eq!(
        brief(QUERIES),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "5 Warning spec.storage.size DefaultUsed",
            "9 Warning spec.monitoring.customQueries NotSupportedYet",
        ]
    );
    fixed(QUERIES);
}

const AFFINITY: &str = r"apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  tolerations:
  - key: workload
    operator: Equal
    value: database
    effect: NoSchedule
  affinity:
    podAntiAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
      - labelSelector:
          matchLabels:
            cnpg.io/cluster: shop
        topologyKey: kubernetes.io/hostname
";

#[test]
fn a_cluster_with_the_affinity_of_a_pod() {
    assert_eq!(
        brief(AFFINITY),
        [
            "Cluster Checked",
            "1 Warning apiVersion OtherApiVersion",
            "5 Warning spec.storage.size DefaultUsed",
            "7 Warning spec.tolerations ReadAsMeant",
            "13 Warning spec.affinity.podAntiAffinity ReadAsMeant",
        ]
    );
    let spec = &fixed(AFFINITY)["spec"];
    assert_eq!(spec.get("tolerations"), None);
    assert_eq!(spec["affinity"]["tolerations"][0]["key"], "workload");
    assert_eq!(
        spec["affinity"]["additionalPodAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["topologyKey"],
        "kubernetes.io/hostname"
    );
}

#[test]
fn documents_of_others_are_named_and_left_alone() {
    for (text, expected) in [
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n", vec!["Secret NotOurs"]),
        ("apiVersion: acid.zalan.do/v1\nkind: postgresql\nspec: {}\n", vec!["postgresql NotOurs"]),
        ("apiVersion: v1\nkind: A\nx: 1\nx: 2\n", vec!["A NotOurs", "4 Warning x DuplicateKey"]),
        ("spec:\n  tolerations: []\n", vec!["- Fragment"]),
        ("kind: Pod\nspec: {}\n", vec!["Pod Fragment"]),
        ("env:\n- name: A\n  value: b\n", vec!["- Fragment"]),
        ("- a\n- b\n", vec!["- Fragment"]),
        ("apiVersion: postgresql.cnpg.io/v1\nkind: Pooler\n", vec!["Pooler Checked", "2 Error kind OtherApiVersion"]),
        (
            "apiVersion: holdfast.dev/v2\nkind: Backup\nmetadata: {name: a}\nspec:\n  cluster:\n    name: shop\n",
            vec!["Backup Checked", "1 Error apiVersion OtherApiVersion"],
        ),
        ("", vec![]),
    ] {
        assert_eq!(brief(text), expected, "{text}");
    }
}

#[test]
fn settings_without_quotes_are_quoted() {
    let text = "apiVersion: holdfast.dev/v1\nkind: Cluster\nmetadata: {name: a}\nspec:\n  storage: {size: 1Gi}\n  postgresql:\n    parameters:\n      max_connections: 200\n      jit: off\n";
    assert_eq!(brief(text), ["Cluster Checked"]);
    assert_eq!(fixed(text)["spec"]["postgresql"]["parameters"], json!({"jit": "off", "max_connections": "200"}));
}

#[test]
fn a_missing_api_version_is_an_error_and_is_corrected() {
    let text = "kind: Backup\nmetadata: {name: b}\nspec: {cluster: {name: c}}\n";
    assert_eq!(brief(text), ["Backup Checked", "1 Error apiVersion MissingField"]);
    assert_eq!(fixed(text)["apiVersion"], "holdfast.dev/v1");
    // A kind that is not Holdfast's is not checked.
    assert_eq!(brief("kind: Pooler\n"), ["Pooler Fragment"]);
}

/// The API server drops the status of a new object, so no finding says that a field is no longer used.
#[test]
fn a_manifest_that_was_exported_with_its_status_is_that_of_a_new_cluster() {
    let text = "apiVersion: holdfast.dev/v1\nkind: Cluster\nmetadata: {name: a}\nspec:\n  storage: {size: 1Gi}\n  bootstrap:\n    initdb:\n      options: ['--waldir=/w']\n";
    let exported = format!("{text}status:\n  systemID: \"7000000000000000001\"\n");
    let findings = brief(text);
    assert!(findings.iter().any(|line| line.contains("Error spec.bootstrap.initdb.options")), "{findings:?}");
    assert_eq!(brief(&exported), findings);
}
