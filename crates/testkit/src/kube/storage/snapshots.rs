//! VolumeSnapshots and their contents: taking, reporting and removing them.
//!
//! Steps for a snapshot of a claim: hold it by a finalizer; make its content; snapshot the subvolume and write handle,
//! time and size into the content's status; copy that into the snapshot's status. A snapshot that names an existing
//! content ("pre-provisioned") is bound to it. Deleting a snapshot deletes its content, and this removes the subvolume
//! if its policy says so.

use chrono::{DateTime, SecondsFormat, Utc};
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::objects::{Kind, annotation, bytes, is_going, is_held, name, namespace, text};
use super::{DELAY, FAIL, Step, Vendor};
use crate::error::Result;
use crate::kube::disk::Disk;
use crate::kube::manifests::DRIVER;

const HOLDS_SNAPSHOT: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
const HOLDS_CONTENT: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
const DEFAULT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";

impl Vendor {
    /// A snapshot that a user has requested or deleted.
    pub(super) async fn snapshot(&self, snapshot: &DynamicObject) -> Result<Step> {
        if is_going(snapshot) {
            return self.end_snapshot(snapshot).await;
        }
        if !text(snapshot, "/spec/source/volumeSnapshotContentName").is_empty() {
            return self.bind(snapshot).await;
        }
        let Some(class) = self.class(snapshot) else {
            return self
                .refuse(snapshot, "failed to get the volume snapshot class: none with this name".to_owned())
                .await;
        };
        if text(&class, "/driver") != DRIVER {
            return Ok(Step::Done);
        }
        if text(snapshot, "/spec/volumeSnapshotClassName").is_empty() {
            let fields = json!({"spec": {"volumeSnapshotClassName": name(&class)}});
            self.kinds.merge(Kind::Snapshot, snapshot, fields).await?;
            return Ok(Step::Waiting);
        }
        self.kinds.hold(Kind::Snapshot, snapshot, HOLDS_SNAPSHOT).await?;
        let content_name = format!("snapcontent-{}", snapshot.metadata.uid.as_deref().unwrap_or_default());
        let content = self.kinds.get(Kind::Content, "", &content_name);
        // A content without a status was left by a vendor that ended in the middle.
        if let Some(content) = content.filter(|content| !text(content, "/status/snapshotHandle").is_empty()) {
            return self.report(snapshot, &content, Some(&class)).await;
        }
        if let Some(message) = annotation(snapshot, FAIL).or_else(|| annotation(&class, FAIL)) {
            let message = format!("failed to take snapshot of the volume: {message}");
            return self.refuse(snapshot, message).await;
        }
        let claim_name = text(snapshot, "/spec/source/persistentVolumeClaimName");
        let Some(claim) = self.kinds.get(Kind::Claim, namespace(snapshot), claim_name) else {
            let message =
                format!("snapshot controller failed to update {}: the PVC {claim_name} is not found", name(snapshot));
            return self.refuse(snapshot, message).await;
        };
        let volume_name = text(&claim, "/spec/volumeName").to_owned();
        let volume =
            self.kinds.get(Kind::Volume, "", &volume_name).filter(|_| text(&claim, "/status/phase") == "Bound");
        let Some(volume) = volume else {
            let message = format!("the PVC {claim_name} is not yet bound to a PV, will not attempt to take a snapshot");
            return self.refuse(snapshot, message).await;
        };
        self.take(snapshot, &class, &volume, &content_name).await
    }

    /// Takes the snapshot, then makes its content and records what is known of it.
    async fn take(
        &self,
        snapshot: &DynamicObject,
        class: &DynamicObject,
        volume: &DynamicObject,
        content_name: &str,
    ) -> Result<Step> {
        let handle = format!("snapshot-{}", snapshot.metadata.uid.as_deref().unwrap_or_default());
        let target = self.disk.snapshot(&handle);
        // The moment before: later writes may or may not be in the snapshot.
        let taken = Utc::now();
        if !target.exists() {
            Disk::copy(&self.disk.volume(name(volume)), &target)?;
        }
        let content = json!({
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshotContent",
            "metadata": {"name": content_name, "finalizers": [HOLDS_CONTENT]},
            "spec": {
                "deletionPolicy": text(class, "/deletionPolicy"),
                "driver": DRIVER,
                "source": {"volumeHandle": name(volume)},
                "sourceVolumeMode": "Filesystem",
                "volumeSnapshotClassName": name(class),
                "volumeSnapshotRef": reference(snapshot),
            },
        });
        self.kinds.create(Kind::Content, content.clone()).await?;
        let status = json!({
            "snapshotHandle": handle,
            "creationTime": taken.timestamp_nanos_opt(),
            "restoreSize": bytes(text(volume, "/spec/capacity/storage")).unwrap_or(0),
            "readyToUse": false,
        });
        let made: DynamicObject = serde_json::from_value(content)
            .map_err(|error| crate::KitError::Unsupported(format!("make a content: {error}")))?;
        self.kinds.merge_status(Kind::Content, &made, status).await?;
        // The change of the content triggers the next pass, which reports it.
        Ok(Step::Waiting)
    }

    /// Binds a snapshot to a content that names a snapshot of the driver.
    async fn bind(&self, snapshot: &DynamicObject) -> Result<Step> {
        let content_name = text(snapshot, "/spec/source/volumeSnapshotContentName");
        let Some(content) = self.kinds.get(Kind::Content, "", content_name) else {
            return self.refuse(snapshot, "VolumeSnapshotContent is missing".to_owned()).await;
        };
        if text(&content, "/spec/driver") != DRIVER {
            return Ok(Step::Done);
        }
        let wanted = "/spec/volumeSnapshotRef";
        let is_meant = text(&content, &format!("{wanted}/name")) == name(snapshot)
            && text(&content, &format!("{wanted}/namespace")) == namespace(snapshot);
        let uid = text(&content, &format!("{wanted}/uid"));
        if !is_meant || !(uid.is_empty() || Some(uid) == snapshot.metadata.uid.as_deref()) {
            let message = "VolumeSnapshotContent is bound to a different snapshot".to_owned();
            return self.refuse(snapshot, message).await;
        }
        self.kinds.hold(Kind::Snapshot, snapshot, HOLDS_SNAPSHOT).await?;
        if uid.is_empty() {
            let fields = json!({"spec": {"volumeSnapshotRef": {"uid": snapshot.metadata.uid}}});
            self.kinds.merge(Kind::Content, &content, fields).await?;
            return Ok(Step::Waiting);
        }
        let class = self.class(snapshot);
        self.report(snapshot, &content, class.as_deref()).await
    }

    /// Copies the content's status into the snapshot, and makes both ready when it is time.
    async fn report(
        &self,
        snapshot: &DynamicObject,
        content: &DynamicObject,
        class: Option<&DynamicObject>,
    ) -> Result<Step> {
        let Some(nanoseconds) = content.data.pointer("/status/creationTime").and_then(Value::as_i64) else {
            return Ok(Step::Waiting);
        };
        let taken = DateTime::from_timestamp_nanos(nanoseconds);
        let delay = annotation(snapshot, DELAY).or_else(|| class.and_then(|class| annotation(class, DELAY)));
        let delay = delay.and_then(|text| text.trim_end_matches('s').parse::<i64>().ok()).unwrap_or(0);
        let is_ready = Utc::now().signed_duration_since(taken).num_seconds() >= delay;
        if content.data.pointer("/status/readyToUse") != Some(&Value::Bool(is_ready)) {
            self.kinds.merge_status(Kind::Content, content, json!({"readyToUse": is_ready})).await?;
        }
        let size = content.data.pointer("/status/restoreSize").and_then(Value::as_i64).unwrap_or(0);
        let status = json!({
            "boundVolumeSnapshotContentName": name(content),
            "creationTime": taken.to_rfc3339_opts(SecondsFormat::Secs, true),
            "readyToUse": is_ready,
            "restoreSize": quantity(size),
            "error": null,
        });
        let is_reported =
            status.as_object().into_iter().flatten().all(|(field, value)| {
                snapshot.data.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null) == value
            });
        if !is_reported {
            self.kinds.merge_status(Kind::Snapshot, snapshot, status).await?;
        }
        Ok(if is_ready { Step::Done } else { Step::Waiting })
    }

    /// Writes an error into the snapshot's status, once for each message.
    async fn refuse(&self, snapshot: &DynamicObject, message: String) -> Result<Step> {
        if text(snapshot, "/status/error/message") != message {
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
            let status = json!({"readyToUse": false, "error": {"message": message, "time": now}});
            self.kinds.merge_status(Kind::Snapshot, snapshot, status).await?;
            self.tell(snapshot, "VolumeSnapshot", "SnapshotCreationFailed", &message).await?;
        }
        Ok(Step::Waiting)
    }

    async fn end_snapshot(&self, snapshot: &DynamicObject) -> Result<Step> {
        if !is_held(snapshot, HOLDS_SNAPSHOT) {
            return Ok(Step::Done);
        }
        let bound = text(snapshot, "/status/boundVolumeSnapshotContentName");
        if let Some(content) = self.kinds.get(Kind::Content, "", bound)
            && text(&content, "/spec/deletionPolicy") == "Delete"
            && !is_going(&content)
        {
            self.kinds.delete(Kind::Content, &content).await?;
        }
        self.kinds.release(Kind::Snapshot, snapshot, HOLDS_SNAPSHOT).await?;
        Ok(Step::Done)
    }

    /// A content that a person made ready, or that is being deleted.
    pub(super) async fn content(&self, content: &DynamicObject) -> Result<Step> {
        if text(content, "/spec/driver") != DRIVER {
            return Ok(Step::Done);
        }
        let handle = text(content, "/spec/source/snapshotHandle");
        if is_going(content) {
            if !is_held(content, HOLDS_CONTENT) {
                return Ok(Step::Done);
            }
            let handle = if handle.is_empty() { text(content, "/status/snapshotHandle") } else { handle };
            if text(content, "/spec/deletionPolicy") == "Delete" && !handle.is_empty() {
                Disk::remove(&self.disk.snapshot(handle))?;
            }
            self.kinds.release(Kind::Content, content, HOLDS_CONTENT).await?;
            return Ok(Step::Done);
        }
        if handle.is_empty() || !text(content, "/status/snapshotHandle").is_empty() {
            return Ok(Step::Done);
        }
        self.kinds.hold(Kind::Content, content, HOLDS_CONTENT).await?;
        let status = if self.disk.snapshot(handle).exists() {
            // Its source is not on record. The size 0 makes every claim large enough.
            json!({
                "snapshotHandle": handle, "readyToUse": true, "restoreSize": 0,
                "creationTime": Utc::now().timestamp_nanos_opt(), "error": null,
            })
        } else {
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
            let message = format!("snapshot {handle} is not known to the storage");
            if text(content, "/status/error/message") == message {
                return Ok(Step::Waiting);
            }
            json!({"readyToUse": false, "error": {"message": message, "time": now}})
        };
        self.kinds.merge_status(Kind::Content, content, status).await?;
        Ok(Step::Done)
    }

    /// The class a snapshot names, or the default one of our driver.
    fn class(&self, snapshot: &DynamicObject) -> Option<std::sync::Arc<DynamicObject>> {
        let wanted = text(snapshot, "/spec/volumeSnapshotClassName");
        if !wanted.is_empty() {
            return self.kinds.get(Kind::SnapshotClass, "", wanted);
        }
        let all = self.kinds.all(Kind::SnapshotClass);
        all.into_iter()
            .find(|class| text(class, "/driver") == DRIVER && annotation(class, DEFAULT_CLASS) == Some("true"))
    }
}

fn reference(snapshot: &DynamicObject) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "name": name(snapshot),
        "namespace": namespace(snapshot),
        "uid": snapshot.metadata.uid,
        "resourceVersion": snapshot.metadata.resource_version,
    })
}

/// Bytes as the API server writes them: in the largest binary unit without a remainder.
fn quantity(size_bytes: i64) -> String {
    let mut number = size_bytes;
    for unit in ["", "Ki", "Mi", "Gi", "Ti"] {
        if number == 0 || number % 1024 != 0 || unit == "Ti" {
            return format!("{number}{unit}");
        }
        number /= 1024;
    }
    number.to_string()
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn sizes_are_written_in_the_largest_unit() {
        let texts = [0, 1000, 1024, 3 << 20, 1 << 30, 2 << 40].map(quantity);
        assert_eq!(texts, ["0", "1000", "1Ki", "3Mi", "1Gi", "2Ti"]);
    }
}
