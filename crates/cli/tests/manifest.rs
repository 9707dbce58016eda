//! `holdfast manifest` as a person sees it: text, JSON, the corrected manifest, exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Output, Stdio};

const MANIFEST: &str = "\
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata:
  name: shop
spec:
  instances: 3
  storage:
    size: 10Gi
  backup:
    retentionPolicy: 30d
  backup:
    method: barmanObjectStore
---
apiVersion: v1
kind: Secret
metadata:
  name: s3
---
tolerations: []
";

fn holdfast(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .env_clear()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const FINDINGS: &str = "\
standard input:1: Cluster shop:
standard input:1: warning: apiVersion: `postgresql.cnpg.io/v1` is CloudNativePG's; the Cluster is read as Holdfast's
  hint: write `holdfast.dev/v1`
standard input:10: warning: spec.backup.retentionPolicy: retention is not supported yet: nothing is deleted, the policy is only stored
  hint: watch the size of the bucket
standard input:11: warning: spec.backup: it is written twice, in lines 9 and 11; both are used here, merged
  hint: merge them into one: kubectl refuses it, or keeps the second and drops the first
standard input:12: warning: spec.backup.method: a cluster has no backup method: each Backup and ScheduledBackup has its own
  hint: write `method` into their `spec`; `barmanObjectStore` is the default there
standard input:14: Secret s3 of v1: Holdfast does not check this kind
standard input:19: a part of a manifest, without `apiVersion` or `kind`: not checked
no errors, 4 warnings
";

#[test]
fn warnings_are_listed_and_the_status_is_0() {
    let output = holdfast(&["manifest", "check", "-"], MANIFEST);
    assert_eq!((output.status.code(), text(&output.stdout), text(&output.stderr)), (Some(0), FINDINGS, ""));
}

#[test]
fn errors_are_listed_and_the_status_is_3() {
    let manifest = "apiVersion: holdfast.dev/v1\nkind: Backup\nmetadata:\n  name: now\nspec:\n  method: tape\n";
    let output = holdfast(&["manifest", "check", "-"], manifest);
    let expected = "\
standard input:1: Backup now:
standard input:5: error: spec.cluster: `cluster` is missing
  hint: the cluster, in the same namespace
standard input:6: error: spec.method: `tape` is not one of `barmanObjectStore`, `volumeSnapshot`
  hint: how a backup is stored
2 errors, no warnings
";
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), expected));
    let output = holdfast(&["manifest", "check", "-"], "a: 1\n b: 2\n");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).starts_with("standard input: error: not YAML: line 2, column "), "{output:?}");
}

#[test]
fn after_the_correction_only_missing_features_are_reported() {
    let fixed = holdfast(&["manifest", "check", "--fix", "-"], MANIFEST);
    assert_eq!((fixed.status.code(), text(&fixed.stderr)), (Some(0), FINDINGS));
    let expected = "\
apiVersion: holdfast.dev/v1
kind: Cluster
metadata:
  name: shop
spec:
  backup:
    retentionPolicy: 30d
  instances: 3
  storage:
    size: 10Gi
---
apiVersion: v1
kind: Secret
metadata:
  name: s3
---
tolerations: []
";
    assert_eq!(text(&fixed.stdout), expected);
    let again = holdfast(&["manifest", "check", "-"], text(&fixed.stdout));
    assert!(text(&again.stdout).ends_with("no errors, 1 warning\n"), "{}", text(&again.stdout));
}

#[test]
fn programs_get_json() {
    let output = holdfast(&["--output", "json", "manifest", "check", "--fix", "-"], MANIFEST);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((value["errors"].as_u64(), value["warnings"].as_u64()), (Some(0), Some(4)));
    let documents = value["files"][0]["documents"].as_array().unwrap();
    let verdicts: Vec<_> = documents.iter().map(|document| document["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["checked", "not-ours", "fragment"]);
    assert_eq!(
        documents[0]["findings"][2],
        serde_json::json!({
            "line": 11,
            "level": "warning",
            "path": "spec.backup",
            "reason": "DuplicateKey",
            "message": "it is written twice, in lines 9 and 11; both are used here, merged",
            "hint": "merge them into one: kubectl refuses it, or keeps the second and drops the first",
        })
    );
    assert!(value["fixed"].as_str().unwrap().starts_with("apiVersion: holdfast.dev/v1\n"));
}

#[test]
fn a_file_that_cannot_be_read_fails() {
    let output = holdfast(&["manifest", "check", "/nonexistent.yaml"], "");
    let expected = "\
error: cannot read the manifest /nonexistent.yaml: No such file or directory (os error 2)
while: checking manifests
hint:  name a YAML or JSON file that you may read, or - for standard input
";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(31), expected));
}

#[test]
fn the_definitions_can_be_printed_for_kubectl() {
    let output = holdfast(&["manifest", "crds"], "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).matches("\nkind: CustomResourceDefinition\n").count(), 3);
}
