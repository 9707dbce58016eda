//! `spec.bootstrap`: where the first instance gets its data.

use k8s_openapi::api::core::v1::{
    ConfigMapKeySelector, LocalObjectReference, SecretKeySelector, TypedLocalObjectReference,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the first instance gets its data: exactly one of the methods; `initdb` by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bootstrap {
    /// A new, empty cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initdb: Option<InitDb>,
    /// A cluster from a backup, recovered up to a recovery target.
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
    /// The owner of the database; by default a role with the name of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Secret (`kubernetes.io/basic-auth`) with the owner's name and password; if none is named, the operator makes
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<LocalObjectReference>,
    /// More options of `initdb`, as on its command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether pages have checksums; the default is that of PostgreSQL's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_checksums: Option<bool>,
    /// Encoding of the databases, `UTF8` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The locale of the databases: `--locale` of `initdb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The sort order of the databases: `--lc-collate` of `initdb`, `C` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale_collate: Option<String>,
    /// The character classes of the databases: `--lc-ctype` of `initdb`, `C` by default.
    #[serde(rename = "localeCType", skip_serializing_if = "Option::is_none")]
    pub locale_ctype: Option<String>,
    /// The locale provider: `--locale-provider` of `initdb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale_provider: Option<String>,
    /// The ICU locale: `--icu-locale` of `initdb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icu_locale: Option<String>,
    /// Size of a WAL segment in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_segment_size: Option<i32>,
    /// SQL statements that run once in the database `postgres`, as superuser.
    #[serde(rename = "postInitSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_sql: Vec<String>,
    /// SQL statements that run once in the application's database, as superuser.
    #[serde(rename = "postInitApplicationSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_application_sql: Vec<String>,
    /// SQL statements that run once in `template1`, as superuser.
    #[serde(rename = "postInitTemplateSQL", default, skip_serializing_if = "Vec::is_empty")]
    pub post_init_template_sql: Vec<String>,
    /// Keys of Secrets and ConfigMaps with SQL statements for the application's database.
    #[serde(rename = "postInitApplicationSQLRefs", skip_serializing_if = "Option::is_none")]
    pub post_init_application_sql_refs: Option<SqlReferences>,
    /// Keys of Secrets and ConfigMaps with SQL statements for the database `postgres`.
    #[serde(rename = "postInitSQLRefs", skip_serializing_if = "Option::is_none")]
    pub post_init_sql_refs: Option<SqlReferences>,
}

/// Keys of Secrets and ConfigMaps that contain SQL. The Secrets run first, each list in its order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SqlReferences {
    /// Secrets in the namespace of the cluster, each with the key that holds SQL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_refs: Vec<SecretKeySelector>,
    /// ConfigMaps in the namespace of the cluster, each with the key that holds SQL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config_map_refs: Vec<ConfigMapKeySelector>,
}

/// A cluster from a backup, recovered up to a recovery target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// A `Backup` in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<RecoveryBackup>,
    /// The name of an entry of `externalClusters`; recovery reads its archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Volume snapshots from which the volumes are made; WAL comes from `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshots: Option<VolumeSnapshots>,
    /// Where recovery stops; by default at the end of the archived WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery_target: Option<RecoveryTarget>,
    /// The application's database in the backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The owner of the database.
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
    /// The `metadata.name` of a `Backup` in the same namespace.
    pub name: String,
    /// Certificate authority of the object store, if it is not that of the backup.
    #[serde(rename = "endpointCA", skip_serializing_if = "Option::is_none")]
    pub endpoint_ca: Option<SecretKeySelector>,
}

/// Volume snapshots from which the volumes are made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSnapshots {
    /// Snapshot of the volume of the data directory.
    pub storage: VolumeSnapshotSource,
    /// Snapshot of the volume of `pg_wal`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_storage: Option<VolumeSnapshotSource>,
}

/// The source of a volume: a `VolumeSnapshot`, or a `PersistentVolumeClaim` to clone.
pub type VolumeSnapshotSource = TypedLocalObjectReference;

/// Where recovery stops. At most one of time, LSN, XID, name and immediate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryTarget {
    /// Id of the backup to begin with; by default the newest before the target.
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
    /// The id of a transaction, such as `1234567`.
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
    /// An LSN, such as `16/B374D848`.
    #[serde(rename = "targetLSN", skip_serializing_if = "Option::is_none")]
    pub target_lsn: Option<String>,
    /// A time, in RFC 3339 or as PostgreSQL writes it; UTC if no zone is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_time: Option<String>,
    /// Stop as soon as the backup is consistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_immediate: Option<bool>,
    /// Stop just before the target instead of just after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<bool>,
}
