//! The objects that every bed has: storage classes, and the types of volume snapshots.
//!
//! The types are those of `snapshot.storage.k8s.io/v1`, with the fields, the printed columns and the status
//! subresources of its published API, because an operator finds them on any cluster with a CSI driver.

use serde_json::{Value, json};

/// The provisioner's and the snapshot driver's name.
pub(crate) const DRIVER: &str = "holdfast.test/storage";
/// The default storage class: volumes that every node reaches, bound at once.
pub const STORAGE_CLASS: &str = "holdfast-test";
/// A storage class of volumes that stay on the node of their first pod.
pub const LOCAL_STORAGE_CLASS: &str = "holdfast-test-local";
/// The volume snapshot class.
pub const SNAPSHOT_CLASS: &str = "holdfast-test";

/// All objects as one list for `kubectl apply`.
pub(crate) fn base() -> String {
    let items = vec![
        definition("VolumeSnapshot", "volumesnapshots", &["vs"], true, &snapshot_schema(), &snapshot_columns()),
        definition(
            "VolumeSnapshotContent",
            "volumesnapshotcontents",
            &["vsc", "vscs"],
            true,
            &content_schema(),
            &content_columns(),
        ),
        definition(
            "VolumeSnapshotClass",
            "volumesnapshotclasses",
            &["vsclass", "vsclasses"],
            false,
            &class_schema(),
            &class_columns(),
        ),
        storage_class(STORAGE_CLASS, "Immediate", true),
        storage_class(LOCAL_STORAGE_CLASS, "WaitForFirstConsumer", false),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// The snapshot class. Apply it once the API server knows its type.
pub(crate) fn snapshot_class() -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {
            "name": SNAPSHOT_CLASS,
            "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
        },
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    })
}

fn storage_class(name: &str, binding: &str, is_default: bool) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": name,
            "annotations": {"storageclass.kubernetes.io/is-default-class": is_default.to_string()},
        },
        "provisioner": DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": binding,
        "allowVolumeExpansion": true,
    })
}

fn definition(kind: &str, plural: &str, short: &[&str], has_status: bool, schema: &Value, columns: &Value) -> Value {
    let scope = if kind == "VolumeSnapshot" { "Namespaced" } else { "Cluster" };
    let mut version = json!({
        "name": "v1",
        "served": true,
        "storage": true,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    });
    if has_status {
        version["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.snapshot.storage.k8s.io"),
            // Names of the group `k8s.io` are protected; this annotation confirms that we know it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test bed's rendering of the published API"},
        },
        "spec": {
            "group": "snapshot.storage.k8s.io",
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": short,
            },
            "versions": [version],
        },
    })
}

fn text() -> Value {
    json!({"type": "string"})
}

fn error_schema() -> Value {
    json!({"type": "object", "properties": {
        "message": text(),
        "time": {"type": "string", "format": "date-time"},
    }})
}

fn snapshot_schema() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["source"],
                "properties": {
                    "source": {
                        "type": "object",
                        "properties": {"persistentVolumeClaimName": text(), "volumeSnapshotContentName": text()},
                        "oneOf": [
                            {"required": ["persistentVolumeClaimName"]},
                            {"required": ["volumeSnapshotContentName"]},
                        ],
                    },
                    "volumeSnapshotClassName": text(),
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "boundVolumeSnapshotContentName": text(),
                    "creationTime": {"type": "string", "format": "date-time"},
                    "error": error_schema(),
                    "readyToUse": {"type": "boolean"},
                    "restoreSize": quantity(),
                    "volumeGroupSnapshotName": text(),
                },
            },
        },
    })
}

fn quantity() -> Value {
    json!({
        "type": "string",
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    })
}

fn content_schema() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
                "properties": {
                    "deletionPolicy": {"type": "string", "enum": ["Delete", "Retain"]},
                    "driver": text(),
                    "source": {
                        "type": "object",
                        "properties": {"snapshotHandle": text(), "volumeHandle": text()},
                        "oneOf": [{"required": ["snapshotHandle"]}, {"required": ["volumeHandle"]}],
                    },
                    "sourceVolumeMode": text(),
                    "volumeSnapshotClassName": text(),
                    "volumeSnapshotRef": {
                        "type": "object",
                        "properties": {
                            "apiVersion": text(), "fieldPath": text(), "kind": text(), "name": text(),
                            "namespace": text(), "resourceVersion": text(), "uid": text(),
                        },
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "creationTime": {"type": "integer", "format": "int64"},
                    "error": error_schema(),
                    "readyToUse": {"type": "boolean"},
                    "restoreSize": {"type": "integer", "format": "int64", "minimum": 0},
                    "snapshotHandle": text(),
                    "volumeGroupSnapshotHandle": text(),
                },
            },
        },
    })
}

fn class_schema() -> Value {
    json!({
        "type": "object",
        "required": ["deletionPolicy", "driver"],
        "properties": {
            "apiVersion": text(), "kind": text(), "metadata": {"type": "object"},
            "deletionPolicy": {"type": "string", "enum": ["Delete", "Retain"]},
            "driver": text(),
            "parameters": {"type": "object", "additionalProperties": text()},
        },
    })
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

fn snapshot_columns() -> Value {
    json!([
        column("ReadyToUse", "boolean", ".status.readyToUse"),
        column("SourcePVC", "string", ".spec.source.persistentVolumeClaimName"),
        column("SourceSnapshotContent", "string", ".spec.source.volumeSnapshotContentName"),
        column("RestoreSize", "string", ".status.restoreSize"),
        column("SnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        column("SnapshotContent", "string", ".status.boundVolumeSnapshotContentName"),
        column("CreationTime", "date", ".status.creationTime"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ])
}

fn content_columns() -> Value {
    json!([
        column("ReadyToUse", "boolean", ".status.readyToUse"),
        column("RestoreSize", "integer", ".status.restoreSize"),
        column("DeletionPolicy", "string", ".spec.deletionPolicy"),
        column("Driver", "string", ".spec.driver"),
        column("VolumeSnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        column("VolumeSnapshot", "string", ".spec.volumeSnapshotRef.name"),
        column("VolumeSnapshotNamespace", "string", ".spec.volumeSnapshotRef.namespace"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ])
}

fn class_columns() -> Value {
    json!([
        column("Driver", "string", ".driver"),
        column("DeletionPolicy", "string", ".deletionPolicy"),
        column("Age", "date", ".metadata.creationTimestamp"),
    ])
}
