//! Fields from CloudNativePG that Holdfast does not support yet, each with what to expect.
//!
//! Most of them are ignored with a warning. A field stops the cluster if the cluster would be a different one without
//! it: if a copy was requested, an empty database is worse than no database. A field that changes what the cluster
//! promises, such as the logins of an application, stops it too, unless the manifest accepts to run without it
//! ([`super::contract`]).

use serde_json::Value;

/// One unsupported field.
#[derive(Debug, Clone, Copy)]
pub(super) struct NotYet {
    /// The kind of the resource.
    kind: &'static str,
    /// The path; `[]` stands for any element of a list.
    pub(super) path: &'static str,
    /// What happens instead, or what to do.
    pub(super) hint: &'static str,
    /// What becomes of the resource.
    pub(super) effect: Effect,
}

/// What becomes of a resource with an unsupported field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It is used; the field is ignored with a warning.
    Ignored,
    /// It is refused.
    Stops,
    /// It is refused if the field asks for something, unless the manifest accepts to run without it.
    Promise,
}

impl NotYet {
    /// Whether a resource with this value in the field is refused.
    pub(super) fn stops(&self, value: &Value) -> bool {
        match self.effect {
            Effect::Ignored => false,
            Effect::Stops => true,
            Effect::Promise => asks_for_something(value),
        }
    }

    pub(super) fn message(&self, field: &str, value: &Value) -> String {
        let consequence = if self.stops(value) { "" } else { "; it has no effect" };
        format!("`{field}` is not supported yet{consequence}")
    }
}

const fn passed(kind: &'static str, path: &'static str, hint: &'static str) -> NotYet {
    NotYet { kind, path, hint, effect: Effect::Ignored }
}

const fn stops(kind: &'static str, path: &'static str, hint: &'static str) -> NotYet {
    NotYet { kind, path, hint, effect: Effect::Stops }
}

const fn promise(path: &'static str, hint: &'static str) -> NotYet {
    NotYet { kind: "Cluster", path, hint, effect: Effect::Promise }
}

const SNAPSHOT_HINT: &str = "a hot snapshot begins with an immediate checkpoint and waits for its WAL";
const PLUGIN_HINT: &str = "archive and backups are built in: write `spec.backup.barmanObjectStore` of the cluster";

const FIELDS: &[NotYet] = &[
    stops(
        "Cluster",
        "spec.bootstrap.pg_basebackup",
        "recover from the archive of the other cluster: `spec.bootstrap.recovery`",
    ),
    stops(
        "Cluster",
        "spec.bootstrap.initdb.import",
        "leave it out and load a dump with pg_restore once the cluster runs",
    ),
    stops("Cluster", "spec.replica", "here a replica cluster would become a primary"),
    stops("Cluster", "spec.tablespaces", "keep the data in the data directory's own volume"),
    stops("Cluster", "spec.imageCatalogRef", "write the image into `spec.imageName`"),
    stops("Cluster", "spec.backup.barmanObjectStore.azureCredentials", "use an S3-compatible object store"),
    stops("Cluster", "spec.backup.barmanObjectStore.googleCredentials", "use an S3-compatible object store"),
    stops("Cluster", "spec.externalClusters[].barmanObjectStore.azureCredentials", "use an S3-compatible object store"),
    stops(
        "Cluster",
        "spec.externalClusters[].barmanObjectStore.googleCredentials",
        "use an S3-compatible object store",
    ),
    promise("spec.minSyncReplicas", "replication is asynchronous: a failover can lose the last commits"),
    promise("spec.maxSyncReplicas", "replication is asynchronous: a failover can lose the last commits"),
    passed("Cluster", "spec.postgresql.syncReplicaElectionConstraint", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.synchronous.maxStandbyNamesFromCluster", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.synchronous.standbyNamesPre", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.synchronous.standbyNamesPost", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.synchronous.dataDurability", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.synchronous.failoverQuorum", "replication is asynchronous"),
    passed("Cluster", "spec.postgresql.promotionTimeout", "the operator waits for a promotion without a limit"),
    passed("Cluster", "spec.postgresql.ldap", "write lines with `ldap` into `spec.postgresql.pg_hba`"),
    passed("Cluster", "spec.postgresql.enableAlterSystem", "write settings into `spec.postgresql.parameters`"),
    passed("Cluster", "spec.postgresql.extensions", "use an image that has the extensions"),
    passed(
        "Cluster",
        "spec.replicationSlots",
        "standbys have their physical slots; slots of users are not copied to standbys",
    ),
    promise(
        "spec.certificates",
        "bring your authority in the Secret `<cluster>-ca` (`ca.crt`, `ca.key`), or let the operator create one",
    ),
    promise("spec.managed", "create roles and services yourself, with SQL and manifests"),
    passed("Cluster", "spec.plugins", PLUGIN_HINT),
    passed("Cluster", "spec.probes", "the probes are fixed; `startDelay` sets how long a start may take"),
    passed("Cluster", "spec.livenessProbeTimeout", "the probes are fixed"),
    passed("Cluster", "spec.projectedVolumeTemplate", "no more volumes can be mounted"),
    passed("Cluster", "spec.ephemeralVolumeSource", "temporary files are on an emptyDir"),
    passed("Cluster", "spec.ephemeralVolumesSizeLimit", "temporary files are on an emptyDir without a limit"),
    passed("Cluster", "spec.seccompProfile", "pods run with RuntimeDefault"),
    passed("Cluster", "spec.podSecurityContext", "pods run as `postgresUID` and `postgresGID` without privileges"),
    passed("Cluster", "spec.securityContext", "containers run without privileges"),
    passed("Cluster", "spec.primaryUpdateStrategy", "the primary is restarted last, without asking"),
    passed("Cluster", "spec.primaryUpdateMethod", "the primary is restarted last, without asking"),
    passed("Cluster", "spec.switchoverDelay", "`stopDelay` sets how long a shutdown may take"),
    passed("Cluster", "spec.nodeMaintenanceWindow", "drain nodes one at a time"),
    passed("Cluster", "spec.enablePDB", "two or more instances always get one, which lets one instance go at a time"),
    passed("Cluster", "spec.logLevel", "the operator and `log_min_messages` set what is logged"),
    passed("Cluster", "spec.bootstrap.initdb.builtinLocale", "pass it as one of `options`: `--builtin-locale=...`"),
    passed("Cluster", "spec.bootstrap.initdb.icuRules", "pass it as one of `options`: `--icu-rules=...`"),
    passed("Cluster", "spec.externalClusters[].connectionParameters", "only the archive of another cluster is read"),
    passed("Cluster", "spec.externalClusters[].password", "only the archive of another cluster is read"),
    passed("Cluster", "spec.externalClusters[].sslCert", "only the archive of another cluster is read"),
    passed("Cluster", "spec.externalClusters[].sslKey", "only the archive of another cluster is read"),
    passed("Cluster", "spec.externalClusters[].sslRootCert", "only the archive of another cluster is read"),
    passed("Cluster", "spec.externalClusters[].plugin", "write the archive into `barmanObjectStore` beside it"),
    passed(
        "Cluster",
        "spec.backup.barmanObjectStore.wal.archiveAdditionalCommandArgs",
        "they are for Barman's commands, which are not used here",
    ),
    passed(
        "Cluster",
        "spec.backup.barmanObjectStore.wal.restoreAdditionalCommandArgs",
        "they are for Barman's commands, which are not used here",
    ),
    passed(
        "Cluster",
        "spec.backup.barmanObjectStore.data.additionalCommandArgs",
        "they are for Barman's commands, which are not used here",
    ),
    passed(
        "Cluster",
        "spec.externalClusters[].barmanObjectStore.wal.restoreAdditionalCommandArgs",
        "they are for Barman's commands, which are not used here",
    ),
    passed("Cluster", "spec.backup.volumeSnapshot.onlineConfiguration", SNAPSHOT_HINT),
    passed("Cluster", "spec.backup.volumeSnapshot.tablespaceClassName", "tablespaces cannot have their own volumes"),
    passed(
        "Cluster",
        "spec.bootstrap.recovery.volumeSnapshots.tablespaceStorage",
        "tablespaces cannot have their own volumes",
    ),
    passed(
        "Cluster",
        "spec.monitoring.customQueries",
        "the metrics are fixed; for your own queries run an exporter next to the cluster",
    ),
    passed(
        "Cluster",
        "spec.monitoring.customQueriesConfigMap",
        "the metrics are fixed; for your own queries run an exporter next to the cluster",
    ),
    passed(
        "Cluster",
        "spec.monitoring.customQueriesSecret",
        "the metrics are fixed; for your own queries run an exporter next to the cluster",
    ),
    passed("Cluster", "spec.monitoring.disableDefaultQueries", "the metrics are fixed"),
    passed("Cluster", "spec.monitoring.metricsQueriesTTL", "the metrics are fixed"),
    passed("Cluster", "spec.monitoring.podMonitorMetricRelabelings", "create your own PodMonitor"),
    passed("Cluster", "spec.monitoring.podMonitorRelabelings", "create your own PodMonitor"),
    passed("Cluster", "spec.monitoring.tls", "metrics are served without TLS"),
    passed("Backup", "spec.onlineConfiguration", SNAPSHOT_HINT),
    passed("Backup", "spec.pluginConfiguration", PLUGIN_HINT),
    passed("ScheduledBackup", "spec.onlineConfiguration", SNAPSHOT_HINT),
    passed("ScheduledBackup", "spec.pluginConfiguration", PLUGIN_HINT),
];

/// Whether a value asks for anything: not 0, not false, not empty.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => values.iter().any(asks_for_something),
        Value::Object(fields) => fields.values().any(asks_for_something),
    }
}

/// The entry of a path such as `spec.externalClusters[0].password`.
pub(super) fn find(kind: &str, path: &str) -> Option<&'static NotYet> {
    let mut general = String::with_capacity(path.len());
    let mut in_brackets = false;
    for character in path.chars() {
        match character {
            '[' => (in_brackets, general) = (true, general + "["),
            ']' => (in_brackets, general) = (false, general + "]"),
            other if !in_brackets => general.push(other),
            _ => {}
        }
    }
    FIELDS.iter().find(|field| field.kind == kind && field.path == general)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crds;

    #[test]
    fn no_field_of_the_table_is_supported() {
        for field in FIELDS {
            let mut schema = &crds::schema(field.kind).unwrap_or(&serde_json::Value::Null)["properties"];
            let mut parts = field.path.split('.').peekable();
            while let Some(part) = parts.next() {
                let below = &schema[part.trim_end_matches("[]")];
                if parts.peek().is_none() {
                    assert!(below.is_null(), "{} is supported", field.path);
                } else {
                    assert!(below.is_object(), "{}: no field is called {part}", field.path);
                    let below = if part.ends_with("[]") { &below["items"] } else { below };
                    schema = &below["properties"];
                }
            }
        }
    }

    #[test]
    fn elements_of_lists_are_found() {
        assert_eq!(
            find("Cluster", "spec.externalClusters[12].password").map(|field| field.effect),
            Some(Effect::Ignored)
        );
        assert!(find("Cluster", "spec.externalClusters.password").is_none());
        assert!(find("Backup", "spec.plugins").is_none());
    }
}
