//! Claims and volumes: provisioning, growing and removing them.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::objects::{Kind, annotation, bytes, is_going, name, namespace, text};
use super::{FAIL, Step, Vendor};
use crate::error::Result;
use crate::kube::disk::Disk;
use crate::kube::manifests::{DRIVER, LOCAL_STORAGE_CLASS};

/// The annotation with which the volume controller records who made a volume.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// The source of a new volume's files.
enum Source {
    Nothing,
    /// The snapshot with this handle, of a volume of this size.
    Snapshot(String, String),
    /// The volume with this name.
    Volume(String),
    /// It does not exist, or not yet; with the reason.
    Missing(String),
}

impl Vendor {
    /// A claim that asks for one of our volumes, or for a larger one.
    pub(super) async fn claim(&self, claim: &DynamicObject) -> Result<Step> {
        if is_going(claim) {
            return Ok(Step::Done);
        }
        if text(claim, "/spec/volumeName").is_empty() {
            // The volume controller writes this when it is our turn, perhaps only after a pod has got its node.
            let asked = ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
            if asked.iter().any(|key| annotation(claim, key) == Some(DRIVER)) {
                return self.provision(claim).await;
            }
            return Ok(Step::Done);
        }
        self.grow(claim).await
    }

    async fn provision(&self, claim: &DynamicObject) -> Result<Step> {
        let refuse = async |reason: String| {
            let message = format!(
                "failed to provision volume with StorageClass {:?}: {reason}",
                text(claim, "/spec/storageClassName")
            );
            self.tell(claim, "PersistentVolumeClaim", "ProvisioningFailed", &message).await?;
            Ok(Step::Waiting)
        };
        if let Some(reason) = annotation(claim, FAIL) {
            return refuse(reason.to_owned()).await;
        }
        let volume = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        if self.kinds.get(Kind::Volume, "", &volume).is_some() {
            // It is provisioned, and not yet bound.
            return Ok(Step::Done);
        }
        let wanted = text(claim, "/spec/resources/requests/storage");
        let target = self.disk.volume(&volume);
        match self.source(claim) {
            _ if target.exists() => {}
            Source::Nothing => Disk::create(&target)?,
            Source::Volume(other) => Disk::copy(&self.disk.volume(&other), &target)?,
            Source::Snapshot(_, size) if bytes(wanted) < bytes(&size) => {
                let reason = format!("requested volume size {wanted} is less than the size {size} of the snapshot");
                return refuse(reason).await;
            }
            Source::Snapshot(handle, _) => Disk::copy(&self.disk.snapshot(&handle), &target)?,
            Source::Missing(reason) => return refuse(reason).await,
        }
        let class = text(claim, "/spec/storageClassName");
        let node = annotation(claim, "volume.kubernetes.io/selected-node").filter(|_| class == LOCAL_STORAGE_CLASS);
        let place = match node {
            Some(node) => json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}),
            None => json!({"key": "kubernetes.io/hostname", "operator": "Exists"}),
        };
        let policy = self.kinds.get(Kind::StorageClass, "", class);
        let policy = policy.as_deref().map(|class| text(class, "/reclaimPolicy")).filter(|policy| !policy.is_empty());
        let object = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume, "annotations": {PROVISIONED_BY: DRIVER}},
            "spec": {
                "capacity": {"storage": wanted},
                "accessModes": claim.data.pointer("/spec/accessModes").cloned().unwrap_or(Value::Null),
                "persistentVolumeReclaimPolicy": policy.unwrap_or("Delete"),
                "storageClassName": class,
                "volumeMode": "Filesystem",
                // A local volume, because the kubelet gives it to the pod's `fsGroup` as it does with a CSI volume.
                "local": {"path": target},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
                "claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "name": name(claim), "namespace": namespace(claim), "uid": claim.metadata.uid,
                },
            },
        });
        self.kinds.create(Kind::Volume, object).await?;
        Ok(Step::Done)
    }

    /// The content that the claim asks for.
    fn source(&self, claim: &DynamicObject) -> Source {
        let wanted = text(claim, "/spec/dataSource/name");
        let space = namespace(claim);
        match text(claim, "/spec/dataSource/kind") {
            "" => Source::Nothing,
            "PersistentVolumeClaim" => match self.kinds.get(Kind::Claim, space, wanted) {
                Some(other) if !text(&other, "/spec/volumeName").is_empty() => {
                    Source::Volume(text(&other, "/spec/volumeName").to_owned())
                }
                _ => Source::Missing(format!("claim {wanted} is not bound")),
            },
            "VolumeSnapshot" => {
                let Some(snapshot) = self.kinds.get(Kind::Snapshot, space, wanted) else {
                    return Source::Missing(format!("error getting snapshot {wanted} from api server: not found"));
                };
                let is_ready = snapshot.data.pointer("/status/readyToUse") == Some(&Value::Bool(true));
                let content = text(&snapshot, "/status/boundVolumeSnapshotContentName");
                let content = self.kinds.get(Kind::Content, "", content);
                let handle = content.as_deref().map(|content| text(content, "/status/snapshotHandle"));
                match handle {
                    Some(handle) if is_ready && self.disk.snapshot(handle).exists() => {
                        Source::Snapshot(handle.to_owned(), text(&snapshot, "/status/restoreSize").to_owned())
                    }
                    _ => Source::Missing(format!("snapshot {wanted} is not Ready")),
                }
            }
            kind => Source::Missing(format!("{kind} is not a data source")),
        }
    }

    /// States the larger size first on the volume, then on the claim, as a driver's resizer does.
    async fn grow(&self, claim: &DynamicObject) -> Result<Step> {
        let Some(volume) = self.kinds.get(Kind::Volume, "", text(claim, "/spec/volumeName")) else {
            return Ok(Step::Done);
        };
        let is_bound = text(claim, "/status/phase") == "Bound";
        if annotation(&volume, PROVISIONED_BY) != Some(DRIVER) || !is_bound {
            return Ok(Step::Done);
        }
        let wanted = text(claim, "/spec/resources/requests/storage");
        if bytes(wanted) > bytes(text(&volume, "/spec/capacity/storage")) {
            self.kinds.merge(Kind::Volume, &volume, json!({"spec": {"capacity": {"storage": wanted}}})).await?;
        }
        if bytes(wanted) > bytes(text(claim, "/status/capacity/storage")) {
            let status = json!({"capacity": {"storage": wanted}, "conditions": null});
            self.kinds.merge_status(Kind::Claim, claim, status).await?;
        }
        Ok(Step::Done)
    }

    /// One of our volumes that no claim uses any more.
    pub(super) async fn volume(&self, volume: &DynamicObject) -> Result<Step> {
        let is_ours = annotation(volume, PROVISIONED_BY) == Some(DRIVER);
        let is_released = matches!(text(volume, "/status/phase"), "Released" | "Failed");
        let goes = text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete";
        if is_ours && is_released && goes {
            Disk::remove(&self.disk.volume(name(volume)))?;
            self.kinds.delete(Kind::Volume, volume).await?;
        }
        Ok(Step::Done)
    }
}
