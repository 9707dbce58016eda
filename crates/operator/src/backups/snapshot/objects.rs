//! `VolumeSnapshot` objects: made from a plan, and read back with the fields that decisions need.
//!
//! The API is a CRD that may be absent, so no generated types are used.

use crate::backups::clock::chrono_time;
use chrono::{DateTime, Utc};
use holdfast_kube_api::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Label with the uid of the `Backup`: it finds the snapshots again.
pub(crate) const BACKUP_UID: &str = "holdfast.dev/backupUid";
/// Label with the number of the attempt: snapshots of an earlier attempt do not count for this one.
pub(crate) const ATTEMPT: &str = "holdfast.dev/backupAttempt";
/// Label with the number of the try for the volume within the attempt, from 1.
pub(crate) const TRY: &str = "holdfast.dev/snapshotTry";

/// The API resource `volumesnapshots`.
pub(crate) fn api_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("snapshot.storage.k8s.io", "v1", "VolumeSnapshot"),
        "volumesnapshots",
    )
}

/// A snapshot to be created.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SnapshotPlan {
    /// `metadata.name`.
    pub name: String,
    /// The PersistentVolumeClaim to snapshot.
    pub claim: String,
    /// `PG_DATA` or `PG_WAL`.
    pub kind: String,
    /// The `VolumeSnapshotClass`; `None` for the driver's default class.
    pub class: Option<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The owner reference: the snapshot is deleted with this object.
    pub owner: Option<Owner>,
}

/// The object with which a snapshot is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `Backup` or `Cluster`.
    pub kind: &'static str,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// The owner reference for the metadata.
    pub(crate) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: format!("{}/{}", holdfast_kube_api::GROUP, holdfast_kube_api::VERSION),
            kind: self.kind.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            ..OwnerReference::default()
        }
    }
}

/// The `VolumeSnapshot` of a plan.
pub(crate) fn manifest(plan: &SnapshotPlan) -> DynamicObject {
    let mut spec = json!({ "source": { "persistentVolumeClaimName": plan.claim } });
    if let Some(class) = &plan.class {
        spec["volumeSnapshotClassName"] = Value::String(class.clone());
    }
    let mut object = DynamicObject::new(&plan.name, &api_resource()).data(json!({ "spec": spec }));
    object.metadata.labels = Some(plan.labels.clone());
    object.metadata.annotations = Some(plan.annotations.clone());
    object.metadata.owner_references = plan.owner.as_ref().map(|owner| vec![owner.reference()]);
    object
}

/// A snapshot that exists.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObservedSnapshot {
    /// `metadata.name`.
    pub name: String,
    /// The PersistentVolumeClaim of which it was taken.
    pub claim: String,
    /// `PG_DATA` or `PG_WAL`.
    pub kind: String,
    /// The number of the attempt that it belongs to.
    pub attempt: i32,
    /// The number of the try for its volume, from 1.
    pub number: i32,
    /// Whether its point in time is taken (`status.creationTime`, or it is ready).
    pub cut: bool,
    /// Whether a restore can use it (`status.readyToUse`).
    pub ready: bool,
    /// The driver's error message.
    pub error: Option<String>,
    /// When the driver reported the error, or else when the snapshot was created.
    pub error_at: Option<DateTime<Utc>>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// Reads a snapshot. A field that a driver leaves out, or writes in another form, counts as absent.
pub(crate) fn seen(object: &DynamicObject) -> ObservedSnapshot {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let number = |label: &str| labels.get(label).and_then(|text| text.parse().ok()).unwrap_or(0);
    let status = &object.data["status"];
    let ready = status["readyToUse"].as_bool().unwrap_or(false);
    let error = &status["error"];
    let message = error["message"].as_str().map(str::to_owned);
    let said = error["time"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    ObservedSnapshot {
        name: object.metadata.name.clone().unwrap_or_default(),
        claim: object.data["spec"]["source"]["persistentVolumeClaimName"].as_str().unwrap_or_default().to_owned(),
        kind: labels.get(names::VOLUME_LABEL).cloned().unwrap_or_default(),
        attempt: number(ATTEMPT),
        number: number(TRY),
        cut: ready || status["creationTime"].as_str().is_some(),
        ready,
        error_at: message.as_ref().and_then(|_| {
            said.map(|at| at.with_timezone(&Utc))
                .or_else(|| object.metadata.creation_timestamp.as_ref().map(chrono_time))
        }),
        // A driver may leave its old error in place after it tried again and succeeded.
        error: message
            .filter(|_| !ready)
            .or_else(|| (!ready && error.is_object()).then(|| "the storage driver reported no message".to_owned())),
        annotations: object.metadata.annotations.clone().unwrap_or_default(),
        deleting: object.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(status: Value) -> DynamicObject {
        let plan = SnapshotPlan {
            name: "nightly-0a1b2c3d".to_owned(),
            claim: "main-2".to_owned(),
            kind: names::PG_DATA.to_owned(),
            class: Some("fast".to_owned()),
            labels: BTreeMap::from([
                (names::VOLUME_LABEL.to_owned(), names::PG_DATA.to_owned()),
                (ATTEMPT.to_owned(), "2".to_owned()),
                (TRY.to_owned(), "1".to_owned()),
            ]),
            ..SnapshotPlan::default()
        };
        let mut object = manifest(&plan);
        object.data["status"] = status;
        object
    }

    #[test]
    fn a_snapshot_is_read_back_as_it_was_planned() {
        let read = seen(&object(json!({ "creationTime": "2026-11-22T12:00:00Z", "readyToUse": false })));
        assert_eq!((read.claim.as_str(), read.kind.as_str(), read.attempt, read.number), ("main-2", "PG_DATA", 2, 1));
        assert_eq!((read.cut, read.ready, read.error), (true, false, None));
        assert_eq!(object(Value::Null).data["spec"]["volumeSnapshotClassName"], "fast");
    }

    #[test]
    fn what_drivers_say_is_understood() {
        type Expected = (bool, bool, Option<&'static str>);
        let table: [(&str, Value, Expected); 6] = [
            ("nothing yet", Value::Null, (false, false, None)),
            ("not taken", json!({ "readyToUse": false }), (false, false, None)),
            ("ready without a time", json!({ "readyToUse": true }), (true, true, None)),
            (
                "an error",
                json!({ "error": { "message": "quota", "time": "2026-11-22T12:00:00Z" } }),
                (false, false, Some("quota")),
            ),
            (
                "an old error of one that is ready",
                json!({ "readyToUse": true, "error": { "message": "busy" } }),
                (true, true, None),
            ),
            (
                "an error without words",
                json!({ "error": {} }),
                (false, false, Some("the storage driver reported no message")),
            ),
        ];
        for (name, status, expected) in table {
            let read = seen(&object(status));
            assert_eq!((read.cut, read.ready, read.error.as_deref()), expected, "{name}");
        }
    }
}
