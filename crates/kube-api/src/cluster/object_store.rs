//! `spec.backup`: where WAL and backups are stored.

use k8s_openapi::api::core::v1::SecretKeySelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where WAL is archived and backups go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupConfiguration {
    /// An S3-compatible object store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub barman_object_store: Option<BarmanObjectStore>,
    /// How volume snapshots are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot: Option<VolumeSnapshotConfiguration>,
    /// Which instance is backed up, `prefer-standby` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<BackupTarget>,
    /// How far back a restore must be possible, such as `30d`. Kept for a later release: nothing is deleted yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<String>,
}

/// Which instance is backed up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BackupTarget {
    /// Always the primary, even if there is a standby.
    Primary,
    /// The most advanced standby, or the primary if there is none.
    #[default]
    PreferStandby,
}

/// An S3-compatible object store. The name is CloudNativePG's; the format of the archive is Holdfast's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BarmanObjectStore {
    /// Bucket and path, as `s3://bucket/prefix`.
    pub destination_path: String,
    /// The address of an S3-compatible server; AWS by default.
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Key of a Secret with certificates to trust, in PEM.
    #[serde(rename = "endpointCA", skip_serializing_if = "Option::is_none")]
    pub endpoint_ca: Option<SecretKeySelector>,
    /// Name of the archive below the path; the cluster's name by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// How requests to the store are signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3_credentials: Option<S3Credentials>,
    /// Archiving of WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalOptions>,
    /// Backups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<DataOptions>,
    /// The store's tags for every object that is written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Tags of history files. They are not used: all objects get `tags`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub history_tags: BTreeMap<String, String>,
    /// Encryption before anything leaves the pod. Without it, Holdfast encrypts nothing. Holdfast's own field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionOptions>,
}

/// Credentials of an object store: keys of Secrets, or the role of the service account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Credentials {
    /// The key of a Secret that holds the id of the access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<SecretKeySelector>,
    /// The key of a Secret that holds the secret part of the access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<SecretKeySelector>,
    /// The key of a Secret that holds the session token of temporary credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token: Option<SecretKeySelector>,
    /// The region of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<SecretKeySelector>,
    /// Use the role that the service account or the node has.
    #[serde(rename = "inheritFromIAMRole", skip_serializing_if = "Option::is_none")]
    pub inherit_from_iam_role: Option<bool>,
}

/// Archiving of WAL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalOptions {
    /// The compression: `zstd` (the default), `lz4`, `gzip`, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Encryption by the store: `AES256` or `aws:kms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// How many segments are stored or fetched at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel: Option<i32>,
}

/// Backups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataOptions {
    /// The compression: `zstd` (the default), `lz4`, `gzip`, or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Encryption by the store: `AES256` or `aws:kms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Number of threads that compress.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub jobs: Option<i32>,
    /// Whether the backup begins with an immediate checkpoint, true by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immediate_checkpoint: Option<bool>,
}

/// Encryption by Holdfast, before anything leaves the pod: exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EncryptionOptions {
    /// Key of a Secret that holds a passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<SecretKeySelector>,
    /// Key of a Secret that holds 32 bytes, raw or as 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<SecretKeySelector>,
}

/// How volume snapshots are taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshotConfiguration {
    /// `VolumeSnapshotClass` of the data volume; by default, the default class of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// `VolumeSnapshotClass` of the WAL volume, `className` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_class_name: Option<String>,
    /// Whether the server keeps running while the snapshot is taken (the default), or is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Labels of each `VolumeSnapshot`, in addition to those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of each `VolumeSnapshot`, in addition to those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The owner of the snapshots: `none` (the default), `backup` or `cluster`. When the owner is deleted, they are
    /// deleted, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_owner_reference: Option<SnapshotOwner>,
    /// Seconds until the snapshots must be ready, 600 by default. Holdfast's own field.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub deadline_seconds: Option<i32>,
}

/// The owner of snapshots. When the owner is deleted, they are deleted, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotOwner {
    /// No owner: the snapshots stay.
    #[default]
    None,
    /// The snapshots are deleted with their `Backup`.
    Backup,
    /// The snapshots are deleted with their `Cluster`.
    Cluster,
}
