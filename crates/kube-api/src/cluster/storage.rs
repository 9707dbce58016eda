//! `spec.storage` and `spec.walStorage`: the volumes of an instance.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume of each instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageConfiguration {
    /// Size of the volume, such as `100Gi`. It can grow later.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::lenient::text")]
    #[schemars(schema_with = "crate::lenient::text_schema")]
    pub size: Option<String>,
    /// Storage class of the volume; by default, the default class of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Whether claims grow if the size becomes larger, true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_in_use_volumes: Option<bool>,
    /// A template of the claim. `size` and `storageClass` replace what it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_template: Option<PersistentVolumeClaimSpec>,
}
