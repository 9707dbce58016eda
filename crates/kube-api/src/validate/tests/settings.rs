//! PostgreSQL's settings and access rules.

use super::*;

#[test]
fn settings() {
    let spec = |patch: Value| json!({ "spec": patch });
    let parameter = |name: &str, value: Value| json!({"spec": {"postgresql": {"parameters": {name: value}}}});
    let none: &[&str] = &[];
    holds([
        (
            "a managed setting",
            parameter("archive_command", json!("true")),
            &["E spec.postgresql.parameters.archive_command ManagedSetting"],
        ),
        (
            "a managed setting in capitals",
            parameter("Archive_Command", json!("true")),
            &["E spec.postgresql.parameters.Archive_Command ManagedSetting"],
        ),
        (
            "a managed setting as it is",
            parameter("hot_standby", json!(true)),
            &["W spec.postgresql.parameters.hot_standby NoEffect"],
        ),
        (
            "archive mode on",
            parameter("archive_mode", json!("on")),
            &["W spec.postgresql.parameters.archive_mode NoEffect"],
        ),
        (
            "wal_level replica",
            parameter("wal_level", json!("replica")),
            &["W spec.postgresql.parameters.wal_level NoEffect"],
        ),
        (
            "wal_level minimal",
            parameter("wal_level", json!("minimal")),
            &["E spec.postgresql.parameters.wal_level ManagedSetting"],
        ),
        (
            "preload libraries",
            parameter("shared_preload_libraries", json!("pg_stat_statements")),
            &["E spec.postgresql.parameters.shared_preload_libraries ManagedSetting"],
        ),
        (
            "a slip in a setting",
            parameter("work_memm", json!("1MB")),
            &["E spec.postgresql.parameters.work_memm InvalidSetting"],
        ),
        ("a number unquoted", parameter("max_connections", json!(200)), none),
        ("a switch unquoted", parameter("jit", json!(false)), none),
        ("a wrong switch", parameter("jit", json!("maybe")), &["E spec.postgresql.parameters.jit InvalidSetting"]),
        (
            "memory in Gi",
            parameter("shared_buffers", json!("1Gi")),
            &["E spec.postgresql.parameters.shared_buffers InvalidSetting"],
        ),
        (
            "memory in small letters",
            parameter("work_mem", json!("64mb")),
            &["E spec.postgresql.parameters.work_mem InvalidSetting"],
        ),
        ("memory with a fraction", parameter("work_mem", json!("1.5 MB")), none),
        (
            "memory out of range",
            parameter("work_mem", json!("1kB")),
            &["E spec.postgresql.parameters.work_mem InvalidSetting"],
        ),
        ("a time", parameter("checkpoint_timeout", json!("15min")), none),
        (
            "a time in minutes",
            parameter("checkpoint_timeout", json!("15m")),
            &["E spec.postgresql.parameters.checkpoint_timeout InvalidSetting"],
        ),
        (
            "a unit for a setting without one",
            parameter("max_connections", json!("200MB")),
            &["E spec.postgresql.parameters.max_connections InvalidSetting"],
        ),
        ("a real number", parameter("random_page_cost", json!(1.1)), none),
        ("a choice", parameter("wal_compression", json!("zstd")), none),
        ("a choice by switch", parameter("wal_compression", json!(true)), none),
        (
            "a wrong choice",
            parameter("wal_compression", json!("zstdd")),
            &["E spec.postgresql.parameters.wal_compression InvalidSetting"],
        ),
        ("hidden words of a choice", parameter("synchronous_commit", json!("no")), none),
        ("a list", parameter("work_mem", json!(["64MB"])), &["E spec.postgresql.parameters.work_mem InvalidSetting"]),
        (
            "io_method async",
            parameter("io_method", json!("async")),
            &["W spec.postgresql.parameters.io_method ReadAsMeant"],
        ),
        (
            "a setting of a later version",
            json!({"spec": {"imageName": "postgres:17", "postgresql": {"parameters": {"io_method": "worker"}}}}),
            &["E spec.postgresql.parameters.io_method InvalidSetting"],
        ),
        (
            "a setting of an earlier version",
            json!({"spec": {"postgresql": {"parameters": {"old_snapshot_threshold": "-1"}}}}),
            &["E spec.postgresql.parameters.old_snapshot_threshold InvalidSetting"],
        ),
        (
            "too few senders",
            parameter("max_wal_senders", json!(3)),
            &["E spec.postgresql.parameters.max_wal_senders Conflict"],
        ),
        ("just enough senders", parameter("max_wal_senders", json!(4)), none),
        (
            "too few slots",
            parameter("max_replication_slots", json!(1)),
            &["E spec.postgresql.parameters.max_replication_slots Conflict"],
        ),
        ("fsync off", parameter("fsync", json!("off")), &["W spec.postgresql.parameters.fsync InvalidSetting"]),
        (
            "archive_timeout 0",
            parameter("archive_timeout", json!(0)),
            &["W spec.postgresql.parameters.archive_timeout InvalidSetting"],
        ),
        (
            "all memory for buffers",
            parameter("shared_buffers", json!("2GB")),
            &["W spec.postgresql.parameters.shared_buffers Conflict"],
        ),
        (
            "a line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["hostssl app app 10.0.0.0/8 scram-sha-256", "# none"]}})),
            none,
        ),
        (
            "a short line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["host all all"]}})),
            &["E spec.postgresql.pg_hba[0] InvalidSetting"],
        ),
        (
            "a wrong line of pg_hba",
            spec(json!({"postgresql": {"pg_hba": ["allow everything from all hosts"]}})),
            &["E spec.postgresql.pg_hba[0] InvalidSetting"],
        ),
    ]);
}
