//! `spec.bootstrap`: where the first instance gets its data.

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, LocalObjectReference, SecretKeySelector, TypedLocalObjectReference,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the first instance comes to its data: exactly one of the methods; `initdb` when none is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bootstrap {
    /// A new, empty cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initdb: Option<InitDb>,
    /// From a backup, up to a recovery target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// A new, empty cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitDb {
    /// The application's database, `app` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Its owner, named like the database by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Secret (`kubernetes.io/basic-auth`) with the owner's name and password; made when it is absent here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<LocalObjectReference>,
    /// More options of `initdb`, as they are written on its command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether pages carry checksums; the default of PostgreSQL's version when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
    /// Encoding of the databases, `UTF8` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// `--locale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// `--lc-collate`, `C` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale_collate: Option<String>,
    /// `--lc-ctype`, `C` by default.
    #[serde(rename = "localeCType", skip_serializing_if = "Option::is_none")]
    pub locale_ctype: Option<String>,
    /// `--locale-provider`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale_provider: Option<String>,
    /// `--icu-locale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icu_locale: Option<String>,
    /// Size of a WAL segment in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_segment_size: Option<i32>,
    /// Statements run once in the database `postgres`, as superuser.
    #[serde(rename = "postInitSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_sql: Vec<String>,
    /// Statements run once in the application's database, as superuser.
    #[serde(rename = "postInitApplicationSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_application_sql: Vec<String>,
    /// Statements run once in `template1`, as superuser.
    #[serde(rename = "postInitTemplateSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_template_sql: Vec<String>,
    /// Files with statements for the application's database.
    #[serde(rename = "postInitApplicationSQLRefs", skip_serializing_if = "Option::is_none")]
    pub post_init_application_sql_refs: Option<SqlReferences>,
    /// Files with statements for the database `postgres`.
    #[serde(rename = "postInitSQLRefs", skip_serializing_if = "Option::is_none")]
    pub post_init_sql_refs: Option<SqlReferences>,
}

/// Keys of ConfigMaps and Secrets that hold SQL; Secrets first, each list in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SqlReferences {
    /// Keys of Secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_refs: Vec<SecretKeySelector>,
    /// Keys of ConfigMaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_map_refs: Vec<ConfigMapKeySelector>,
}

/// From a backup, up to a recovery target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// A `Backup` in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<RecoveryBackup>,
    /// An entry of `externalClusters`, whose archive is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Volume snapshots that the volumes are made from; WAL comes from `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshots: Option<VolumeSnapshots>,
    /// Where recovery stops; the end of the archived WAL when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_target: Option<RecoveryTarget>,
    /// The application's database in the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Secret with the owner's name and password; the password is set after the recovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<LocalObjectReference>,
}

/// A `Backup` resource to recover from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryBackup {
    /// Its name.
    pub name: String,
    /// Certificate authority of the object store, where it is not the one of the backup.
    #[serde(rename = "endpointCA", skip_serializing_if = "Option::is_none")]
    pub endpoint_ca: Option<SecretKeySelector>,
}

/// Volume snapshots that the volumes are made from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshots {
    /// Snapshot of the volume of the data directory.
    pub storage: VolumeSnapshotSource,
    /// Snapshot of the volume of `pg_wal`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_storage: Option<VolumeSnapshotSource>,
}

/// What a volume is made from: a `VolumeSnapshot`, or a `PersistentVolumeClaim` to clone.
pub type VolumeSnapshotSource = TypedLocalObjectReference;

/// Where recovery stops. At most one of time, LSN, XID, name and immediate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryTarget {
    /// Id of the backup to begin with; the newest before the target when it is absent.
    #[serde(rename = "backupID", skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<String>,
    /// `latest` (the default), `current`, or the number of a timeline.
    #[serde(
        rename = "targetTLI",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::lenient::text"
    )]
    #[schemars(schema_with = "crate::lenient::text_schema")]
    pub target_tli: Option<String>,
    /// A transaction.
    #[serde(
        rename = "targetXID",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::lenient::text"
    )]
    #[schemars(schema_with = "crate::lenient::text_schema")]
    pub target_xid: Option<String>,
    /// A restore point made with `pg_create_restore_point()`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::lenient::text")]
    #[schemars(schema_with = "crate::lenient::text_schema")]
    pub target_name: Option<String>,
    /// A place in the WAL, such as `16/B374D848`.
    #[serde(rename = "targetLSN", skip_serializing_if = "Option::is_none")]
    pub target_lsn: Option<String>,
    /// A moment, in RFC 3339 or as PostgreSQL writes it; UTC when no zone is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_time: Option<String>,
    /// Only until the backup is consistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_immediate: Option<bool>,
    /// Stop just before the target instead of just after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
}
