//! `spec.storage` and `spec.walStorage`: the volumes of an instance.

use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A volume of each instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageConfiguration {
    /// Its size, such as `100Gi`. It can grow later.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::lenient::text")]
    #[schemars(schema_with = "crate::lenient::text_schema")]
    pub size: Option<String>,
    /// Its storage class; the cluster's default class when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Whether claims follow a larger size, true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_in_use_volumes: Option<bool>,
    /// A claim to start from; size and class above win.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pvc_template: Option<PersistentVolumeClaimSpec>,
}
