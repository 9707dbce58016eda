//! `spec.postgresql`: settings of PostgreSQL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings of PostgreSQL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PostgresConfiguration {
    /// Lines of `postgresql.conf`. Settings that the instance manager makes itself are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::lenient::texts")]
    #[schemars(schema_with = "crate::lenient::texts_schema")]
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf`, placed before the default line at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pg_ident: Vec<String>,
    /// Libraries that the server loads when it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_preload_libraries: Vec<String>,
    /// Synchronous replication. It is not supported yet: replication is asynchronous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synchronous: Option<Synchronous>,
}

/// Synchronous replication.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Synchronous {
    /// The method, `any` or `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Number of standbys that must confirm a commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
}
