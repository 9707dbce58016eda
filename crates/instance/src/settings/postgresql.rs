//! `postgresql.conf`. Pure.
//!
//! The text is the same for a primary and a standby: only `standby.signal` decides, so a promotion and a demotion
//! change no file. Settings that high availability and archiving need come last and cannot be overridden.

use super::wire::Wire;
use super::{connection_value, quoted};
use crate::identity::Paths;
use holdfast_kube_api::cluster::ClusterSpec;
use holdfast_kube_api::names;
use holdfast_kube_api::quantity::bytes_or_number;
use holdfast_kube_api::validate::is_managed;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The size of a volume for which the Cluster names none.
const DEFAULT_VOLUME_BYTES: u64 = 1 << 30;

/// `log_line_prefix`: fields between characters that no name contains. See [`crate::logs`].
pub const LOG_LINE_PREFIX: &str = "\u{1e}%m\u{1f}%p\u{1f}%e\u{1f}%b\u{1f}%u\u{1f}%d\u{1f}%a\u{1f}";

/// Our settings that a Cluster may change.
const DEFAULTS: &[(&str, &str)] = &[
    ("archive_timeout", "5min"),
    ("dynamic_shared_memory_type", "posix"),
    ("log_checkpoints", "on"),
    ("max_parallel_workers", "32"),
    ("max_replication_slots", "32"),
    ("max_wal_senders", "32"),
    ("max_worker_processes", "32"),
    ("shared_memory_type", "mmap"),
    ("wal_keep_size", "512MB"),
    ("wal_receiver_timeout", "5s"),
    // How often a standby looks for its primary: after a failover it follows again within this time.
    ("wal_retrieve_retry_interval", "1s"),
    ("wal_sender_timeout", "5s"),
];

/// The text of `postgresql.conf`.
pub fn text(spec: &ClusterSpec, instance: &str, paths: &Paths, wire: &Wire) -> String {
    let mut settings: BTreeMap<&str, String> =
        DEFAULTS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if *wire == Wire::Tls {
        settings
            .extend(["ssl_max_protocol_version", "ssl_min_protocol_version"].map(|name| (name, "TLSv1.3".to_owned())));
    }
    if let Some(kept) = slot_keeps_mib(spec) {
        settings.insert("max_slot_wal_keep_size", format!("{kept}MB"));
    }
    let users = spec.postgresql.parameters.iter().map(|(name, value)| (name.as_str(), value.clone()));
    settings.extend(users.filter(|(name, _)| !is_owned(name)));
    if !spec.postgresql.shared_preload_libraries.is_empty() {
        settings.insert("shared_preload_libraries", spec.postgresql.shared_preload_libraries.join(","));
    }
    let mut text = String::from(
        "# Written by Holdfast's instance manager, again at every change of the Cluster: edit spec.postgresql there.\n",
    );
    for (name, value) in &settings {
        let _ = writeln!(text, "{name} = {}", quoted(value));
    }
    text.push_str("\n# What replication, failover and archiving rest on.\n");
    for (name, value) in owned(instance, paths, wire) {
        let _ = writeln!(text, "{name} = {}", quoted(&value));
    }
    text
}

/// How much WAL a replication slot may keep, in MiB: half of the volume of `pg_wal`, and a quarter of one that has the
/// data as well. Without an archive there is no limit, since a standby that is cut off would have to be copied again.
fn slot_keeps_mib(spec: &ClusterSpec) -> Option<u64> {
    spec.backup.as_ref()?.barman_object_store.as_ref()?;
    let (storage, part) = match &spec.wal_storage {
        Some(storage) => (Some(storage), 2),
        None => (spec.storage.as_ref(), 4),
    };
    let size = match storage {
        Some(storage) if storage.size.is_none() && storage.pvc_template.is_some() => return None,
        Some(storage) => storage.size.as_deref().and_then(bytes_or_number),
        None => None,
    };
    let bytes = size.unwrap_or(DEFAULT_VOLUME_BYTES);
    Some((bytes / part) >> 20).filter(|mebibytes| *mebibytes > 0)
}

/// Whether only the manager may set it: the Cluster's value is not used, and `postgresql.auto.conf` may not contain it
/// either. Only the manager writes the libraries here; a user may add some with `ALTER SYSTEM`.
pub fn is_owned(name: &str) -> bool {
    is_managed(name) && !name.eq_ignore_ascii_case("shared_preload_libraries")
}

fn owned(instance: &str, paths: &Paths, wire: &Wire) -> Vec<(&'static str, String)> {
    let program = paths.program.display();
    let tls = paths.tls();
    let file = |name: &str| tls.join(name).display().to_string();
    let mut settings = vec![
        ("archive_command", format!("{program} instance archive %p")),
        // A standby keeps a segment until it is in the archive: a segment that only the standby has is archived after a
        // failover.
        ("archive_mode", "always".to_owned()),
        ("cluster_name", instance.to_owned()),
        ("full_page_writes", "on".to_owned()),
        ("hot_standby", "on".to_owned()),
        ("lc_messages", "C".to_owned()),
        ("listen_addresses", "*".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", LOG_LINE_PREFIX.to_owned()),
        ("logging_collector", "off".to_owned()),
        ("port", paths.port.to_string()),
        ("primary_conninfo", primary_conninfo(instance, paths, wire)),
        ("primary_slot_name", names::replication_slot(instance)),
        ("recovery_target_timeline", "latest".to_owned()),
        // The manager starts it again, or another instance takes over.
        ("restart_after_crash", "off".to_owned()),
        ("restore_command", format!("{program} instance restore-wal %f %p")),
        ("unix_socket_directories", paths.sockets.display().to_string()),
        ("unix_socket_permissions", "0770".to_owned()),
        ("wal_level", "logical".to_owned()),
        // For `pg_rewind` of a cluster without data checksums.
        ("wal_log_hints", "on".to_owned()),
    ];
    if *wire == Wire::Tls {
        settings.extend([
            ("ssl", "on".to_owned()),
            ("ssl_ca_file", file("ca.crt")),
            ("ssl_cert_file", file("server.crt")),
            ("ssl_key_file", file("server.key")),
        ]);
    }
    settings
}

/// How an instance connects to the primary, as a libpq connection string. `application_name` is the instance.
pub fn primary_conninfo(instance: &str, paths: &Paths, wire: &Wire) -> String {
    format!("{} application_name={}", replication_connection(paths, wire), connection_value(instance))
}

/// The connection string without `application_name`, for programs that set their own.
pub fn replication_connection(paths: &Paths, wire: &Wire) -> String {
    let tls = paths.tls();
    let file = |name: &str| connection_value(&tls.join(name).display().to_string());
    let authentication = match wire {
        Wire::Tls => format!(
            "sslmode=verify-ca sslrootcert={} sslcert={} sslkey={}",
            file("ca.crt"),
            file("replication.crt"),
            file("replication.key")
        ),
        Wire::Password(password) => format!("password={}", connection_value(password.expose())),
    };
    format!(
        "host={} port={} user={} dbname=postgres {authentication} \
         connect_timeout=5 tcp_user_timeout=5000 keepalives_idle=5 keepalives_interval=2 keepalives_count=2",
        connection_value(&paths.primary_host),
        paths.port,
        names::REPLICATION_USER,
    )
}

#[cfg(test)]
mod tests;
