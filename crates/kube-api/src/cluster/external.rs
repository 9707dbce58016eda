//! `spec.externalClusters`: other clusters, named as sources of a recovery.

use super::BarmanObjectStore;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Another cluster, whose archive a recovery reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalCluster {
    /// The name for `bootstrap.recovery.source`. It is also the name of the archive, unless `serverName` is set.
    pub name: String,
    /// The archive of that cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barman_object_store: Option<BarmanObjectStore>,
}
