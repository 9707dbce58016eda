//! Names that operator and instance manager share: owned objects, labels, annotations, ports, users and paths.

/// Label with the name of the cluster, on every object that belongs to a cluster.
pub const CLUSTER_LABEL: &str = "holdfast.dev/cluster";
/// Label with the name of the instance, on pods and claims.
pub const INSTANCE_LABEL: &str = "holdfast.dev/instanceName";
/// Label on pods: [`PRIMARY`] or [`REPLICA`]. Services select by it. The operator sets it once the instance has
/// reported its role.
pub const ROLE_LABEL: &str = "holdfast.dev/instanceRole";
/// Label on claims: [`PG_DATA`] or [`PG_WAL`].
pub const VOLUME_LABEL: &str = "holdfast.dev/pvcRole";
/// CloudNativePG's label with the name of the cluster, so that users' existing selectors keep working.
pub const CNPG_CLUSTER_LABEL: &str = "cnpg.io/cluster";
/// CloudNativePG's label with the role of an instance.
pub const CNPG_ROLE_LABEL: &str = "cnpg.io/instanceRole";
/// CloudNativePG's older label with the role of an instance.
pub const OLD_ROLE_LABEL: &str = "role";
/// Label on `Backup`s made by a `ScheduledBackup`, with its name.
pub const SCHEDULE_LABEL: &str = "holdfast.dev/scheduledBackup";
/// Annotation on pods: hash of the pod template from which the operator made the pod.
pub const TEMPLATE_HASH: &str = "holdfast.dev/templateHash";
/// Annotation on claims: when their instance was removed, as RFC 3339.
pub const REMOVED_AT: &str = "holdfast.dev/removedAt";
/// Annotation on a `Cluster`: any change of it restarts its pods, one after the other. `kubectl rollout restart` writes
/// the same one on its objects.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Annotation on a `Cluster`: fields that are not supported yet and without which it may run, separated by commas, such
/// as `synchronous,managed`.
pub const WITHOUT: &str = "holdfast.dev/without";
/// Annotation on volume snapshots: the `Backup` they belong to.
pub const SNAPSHOT_BACKUP: &str = "holdfast.dev/backup";
/// Annotation on volume snapshots: `backup_label` of a hot backup, base64.
pub const SNAPSHOT_BACKUP_LABEL: &str = "holdfast.dev/backupLabel";
/// Annotation on volume snapshots: `tablespace_map` of a hot backup, base64.
pub const SNAPSHOT_TABLESPACE_MAP: &str = "holdfast.dev/tablespaceMap";
/// Annotation on volume snapshots: id of the snapshot's record in the archive.
pub const SNAPSHOT_ID: &str = "holdfast.dev/snapshotId";

/// Value of [`ROLE_LABEL`]: the instance takes writes.
pub const PRIMARY: &str = "primary";
/// Value of [`ROLE_LABEL`]: the instance follows the primary.
pub const REPLICA: &str = "replica";
/// Value of [`VOLUME_LABEL`]: the volume of the data directory.
pub const PG_DATA: &str = "PG_DATA";
/// Value of [`VOLUME_LABEL`]: the volume of `pg_wal`.
pub const PG_WAL: &str = "PG_WAL";

/// Annotation on the Lease of the primary: uid of the pod that wrote the holder. A new pod has the name of its
/// predecessor, and must not take its Lease for its own.
pub const HOLDER_POD: &str = "holdfast.dev/holderPod";

/// Name of the PostgreSQL container of an instance's pod.
pub const CONTAINER: &str = "postgres";
/// PostgreSQL's port.
pub const POSTGRES_PORT: u16 = 5432;
/// The instance manager's status port, mutual TLS.
pub const STATUS_PORT: u16 = 8000;
/// Prometheus metrics of an instance, plain HTTP.
pub const METRICS_PORT: u16 = 9187;

/// Where the volume of the data directory is mounted.
pub const DATA_MOUNT: &str = "/var/lib/postgresql/data";
/// The data directory.
pub const PGDATA: &str = "/var/lib/postgresql/data/pgdata";
/// Where the volume of `pg_wal` is mounted, if there is one.
pub const WAL_MOUNT: &str = "/var/lib/postgresql/wal";
/// The folder of `pg_wal` on its own volume.
pub const WAL_DIRECTORY: &str = "/var/lib/postgresql/wal/pg_wal";
/// An emptyDir for the program, sockets and generated settings. The instance manager makes its subfolders.
pub const CONTROLLER_MOUNT: &str = "/controller";
/// The program, copied in by the init container.
pub const PROGRAM: &str = "/controller/holdfast";
/// PostgreSQL's socket directory.
pub const SOCKET_DIRECTORY: &str = "/controller/run";
/// Holdfast's configuration for the cluster's own archive; absent if no archive is configured.
pub const ARCHIVE_CONFIG: &str = "/controller/holdfast.toml";
/// Holdfast's configuration for the archive that a recovery reads.
pub const SOURCE_CONFIG: &str = "/controller/source.toml";
/// Where the Secret [`server_secret`] is mounted: `tls.crt`, `tls.key`.
pub const SERVER_CERTIFICATES: &str = "/certificates/server";
/// Where the Secret [`replication_secret`] is mounted: `tls.crt`, `tls.key`.
pub const REPLICATION_CERTIFICATES: &str = "/certificates/replication";
/// Where `ca.crt` of the Secret [`ca_secret`] is mounted. Its key is never mounted.
pub const CA_CERTIFICATES: &str = "/certificates/ca";

/// The role with which standbys connect; the common name of their certificate is the same.
pub const REPLICATION_USER: &str = "streaming_replica";
/// Common name of the operator's certificate on the status port.
pub const OPERATOR_USER: &str = "holdfast-operator";

/// Instance number `serial` of a cluster, counted from 1: its pod, the claim of its data directory, its `cluster_name`
/// and `application_name`.
pub fn instance(cluster: &str, serial: i32) -> String {
    format!("{cluster}-{serial}")
}

/// The number of an instance, from its name.
pub fn serial(cluster: &str, instance: &str) -> Option<i32> {
    instance.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok().filter(|serial| *serial > 0)
}

/// The claim of an instance's `pg_wal`.
pub fn wal_claim(instance: &str) -> String {
    format!("{instance}-wal")
}

/// The physical replication slot of an instance. Slot names may have lower case letters, digits and underscores only.
pub fn replication_slot(instance: &str) -> String {
    format!("_holdfast_{}", instance.replace(['-', '.'], "_"))
}

/// Service of the primary.
pub fn read_write_service(cluster: &str) -> String {
    format!("{cluster}-rw")
}

/// Service of the standbys.
pub fn read_only_service(cluster: &str) -> String {
    format!("{cluster}-ro")
}

/// Service of all instances that are ready.
pub fn read_service(cluster: &str) -> String {
    format!("{cluster}-r")
}

/// Headless service that gives each pod a name, ready or not. An instance is `<instance>.<this>.<namespace>.svc`.
pub fn headless_service(cluster: &str) -> String {
    format!("{cluster}-pods")
}

/// Secret with the application's user, password and URI.
pub fn application_secret(cluster: &str) -> String {
    format!("{cluster}-app")
}

/// Secret with the superuser's password.
pub fn superuser_secret(cluster: &str) -> String {
    format!("{cluster}-superuser")
}

/// Secret with the cluster's certificate authority: `ca.crt`, `ca.key`.
pub fn ca_secret(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// Secret with the certificate of server and status port: `tls.crt`, `tls.key`.
pub fn server_secret(cluster: &str) -> String {
    format!("{cluster}-server")
}

/// Secret with the certificate of [`REPLICATION_USER`]; instances use it on each other's status port, too.
pub fn replication_secret(cluster: &str) -> String {
    format!("{cluster}-replication")
}

/// Secret with the certificate that the operator uses on the status port. It is never mounted into a pod.
pub fn operator_secret(cluster: &str) -> String {
    format!("{cluster}-operator")
}

/// Lease of the instance that may take writes.
pub fn primary_lease(cluster: &str) -> String {
    format!("{cluster}-primary")
}

/// Service account, role and role binding of the instances. Applications often have such objects under the bare name.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}-instance")
}

/// Seconds for which the Lease of the primary is valid without a renewal. The holder stops PostgreSQL before that time
/// is over. An instance that takes the Lease over waits that long after the last change that it saw itself.
pub const LEASE_SECONDS: i32 = 10;
/// Seconds after its last renewal at which a holder that cannot renew stops PostgreSQL, by its own monotonic clock.
pub const LEASE_STOP_SECONDS: i32 = 7;
/// Seconds between renewals.
pub const LEASE_RENEW_SECONDS: i32 = 2;
