//! `claims/<n>.json`: the owner of a cluster's archive.

use super::{Closed, RecordBody, RecordKind};
use crate::codec::Codec;
use crate::name::{ClaimNumber, ClusterName};
use chrono::{DateTime, Utc};
use holdfast_pgtypes::{SystemIdentifier, WalSegmentSize};
use serde::{Deserialize, Serialize};

/// A claim: from `since`, WAL and backups under this number belong to one system identifier. `initdb` and `pg_upgrade`
/// make a new system identifier and so need a new claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The claim's number, as in its name.
    pub number: ClaimNumber,
    /// The cluster name, as in its name.
    pub cluster: ClusterName,
    /// PostgreSQL's system identifier, from `pg_control`.
    pub system_identifier: SystemIdentifier,
    /// PostgreSQL's major version, such as 18.
    pub pg_major: u16,
    /// `pg_control`'s own version.
    pub pg_control_version: u32,
    /// Catalog version, from `pg_control`.
    pub catalog_version: u32,
    /// WAL segment size in bytes, from `pg_control`.
    #[serde(rename = "wal_segment_size_bytes")]
    pub wal_segment_size: WalSegmentSize,
    /// The codec of all WAL objects under this claim.
    pub wal_codec: Codec,
    /// When the claim was made.
    pub since: DateTime<Utc>,
    /// Host that made the claim.
    pub host: String,
    /// Version of the software that made the claim.
    pub software_version: String,
    /// The owner for whom the archive was claimed, in the claimant's own words. A restored copy of a cluster has the
    /// system identifier of the original. If an owner is recorded, it distinguishes the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl RecordBody for ClaimRecord {
    const KIND: RecordKind = RecordKind::Claim;
    const CLOSED: &'static [Closed] = &[Closed { at: "/wal_codec", values: &["none", "zstd", "lz4", "gzip"] }];
}
