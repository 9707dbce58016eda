use super::*;
use std::path::Path;

fn spec(parameters: &[(&str, &str)]) -> ClusterSpec {
    let mut spec = ClusterSpec::default();
    spec.postgresql.parameters =
        parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    spec
}

#[test]
fn the_whole_text() {
    let mut spec = spec(&[("shared_buffers", "256MB"), ("archive_timeout", "1min"), ("archive_mode", "off")]);
    spec.postgresql.shared_preload_libraries = vec!["pg_stat_statements".to_owned(), "auto_explain".to_owned()];
    let mut paths = Paths::of_pod("c");
    paths.wal_directory = None;
    let expected = r"# Written by Holdfast's instance manager, again at every change of the Cluster: edit spec.postgresql there.
archive_timeout = '1min'
dynamic_shared_memory_type = 'posix'
log_checkpoints = 'on'
max_parallel_workers = '32'
max_replication_slots = '32'
max_wal_senders = '32'
max_worker_processes = '32'
shared_buffers = '256MB'
shared_memory_type = 'mmap'
shared_preload_libraries = 'pg_stat_statements,auto_explain'
ssl_max_protocol_version = 'TLSv1.3'
ssl_min_protocol_version = 'TLSv1.3'
wal_keep_size = '512MB'
wal_receiver_timeout = '5s'
wal_retrieve_retry_interval = '1s'
wal_sender_timeout = '5s'

# What replication, failover and archiving rest on.
archive_command = '/controller/holdfast instance archive %p'
archive_mode = 'always'
cluster_name = 'c-2'
full_page_writes = 'on'
hot_standby = 'on'
lc_messages = 'C'
listen_addresses = '*'
log_destination = 'stderr'
log_line_prefix = 'RS%mUS%pUS%eUS%bUS%uUS%dUS%aUS'
logging_collector = 'off'
port = '5432'
primary_conninfo = 'host=''c-rw'' port=5432 user=streaming_replica dbname=postgres sslmode=verify-ca sslrootcert=''/controller/tls/ca.crt'' sslcert=''/controller/tls/replication.crt'' sslkey=''/controller/tls/replication.key'' connect_timeout=5 tcp_user_timeout=5000 keepalives_idle=5 keepalives_interval=2 keepalives_count=2 application_name=''c-2'''
primary_slot_name = '_holdfast_c_2'
recovery_target_timeline = 'latest'
restart_after_crash = 'off'
restore_command = '/controller/holdfast instance restore-wal %f %p'
unix_socket_directories = '/controller/run'
unix_socket_permissions = '0770'
wal_level = 'logical'
wal_log_hints = 'on'
ssl = 'on'
ssl_ca_file = '/controller/tls/ca.crt'
ssl_cert_file = '/controller/tls/server.crt'
ssl_key_file = '/controller/tls/server.key'
";
    let expected = expected.replace("RS", "\u{1e}").replace("US", "\u{1f}");
    assert_eq!(text(&spec, "c-2", &paths, &Wire::Tls), expected);
}

#[test]
fn values_are_quoted() {
    let text = text(&spec(&[("search_path", "\"$user\", it's\\x")]), "c-1", &Paths::of_pod("c"), &Wire::Tls);
    assert!(text.contains("search_path = '\"$user\", it''s\\\\x'\n"), "{text}");
}

#[test]
fn settings_that_we_own_are_refused_in_a_manifest() {
    for (name, _) in owned("c-1", &Paths::below(Path::new("/x"), Path::new("/y"), 1), &Wire::Tls) {
        assert!(is_owned(name), "{name}");
    }
    assert!(is_owned("Archive_Command"));
    for (name, _) in DEFAULTS {
        assert!(!is_managed(name), "{name}");
    }
    assert!(!is_owned("shared_preload_libraries"));
}

#[test]
fn a_server_without_tls_gets_no_tls_settings() {
    let wire = Wire::Password("p".into());
    let text = text(&spec(&[]), "c-1", &Paths::of_pod("c"), &wire);
    assert!(!text.contains("\nssl = "), "{text}");
    assert!(!text.contains("ssl_min_protocol_version"), "{text}");
    assert!(text.contains("password=''p'' connect_timeout=5"), "{text}");
}

#[test]
fn a_slot_may_not_fill_the_volume_if_the_archive_has_its_wal() {
    let kept = |yaml: serde_json::Value| {
        let spec: ClusterSpec = serde_json::from_value(yaml).expect("a spec");
        slot_keeps_mib(&spec)
    };
    let archive = serde_json::json!({"barmanObjectStore": {"destinationPath": "s3://b/a"}});
    let with = |storage: Option<&str>, wal: Option<&str>| {
        let mut spec = serde_json::json!({"instances": 1, "backup": archive});
        for (field, size) in [("storage", storage), ("walStorage", wal)] {
            if let Some(size) = size {
                spec[field] = serde_json::json!({"size": size});
            }
        }
        kept(spec)
    };
    assert_eq!(with(Some("10Gi"), None), Some(2560));
    assert_eq!(with(Some("10Gi"), Some("4Gi")), Some(2048));
    assert_eq!(with(None, None), Some(256));
    assert_eq!(kept(serde_json::json!({"instances": 1, "storage": {"size": "10Gi"}})), None, "no archive");
}
