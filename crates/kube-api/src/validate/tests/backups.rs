//! `Backup` and `ScheduledBackup`.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

#[test]
fn backups() {
    let backup_of = |spec: Value| backup(&json!({"metadata": {"name": "b", "namespace": "db"}, "spec": spec}));
    for (spec, expected) in [
        (json!({"cluster": {"name": "main"}}), &[][..]),
        (json!({"cluster": {"name": "main"}, "method": "volumeSnapshot", "online": false, "target": "primary"}), &[]),
        (
            json!({"cluster": {"name": "main"}, "method": "plugin", "pluginConfiguration": {}}),
            &["E spec.method InvalidValue", "W spec.pluginConfiguration NotSupportedYet"],
        ),
        (json!({"cluster": {"name": "main"}, "online": true}), &["W spec.online NoEffect"]),
        (json!({"cluster": {"name": ""}}), &["E spec.cluster.name MissingField"]),
        (json!({"cluster": {}}), &["E spec.cluster.name MissingField"]),
        (json!({"method": "barmanObjectStore"}), &["E spec.cluster MissingField"]),
        (json!({"cluster": {"name": "main"}, "metod": "volumeSnapshot"}), &["W spec.metod UnknownField"]),
        (json!({"cluster": "main"}), &["E spec.cluster WrongType"]),
    ] {
        assert_eq!(brief(&backup_of(spec.clone())), expected, "{spec}");
    }
    let value = backup_of(json!({"cluster": {"name": "main"}})).value.unwrap();
    assert_eq!(
        (value.name.as_str(), value.cluster.as_str(), value.method),
        ("b", "main", BackupMethod::BarmanObjectStore)
    );
}

#[test]
fn scheduled_backups() {
    let of = |spec: Value| scheduled_backup(&json!({"metadata": {"name": "nightly"}, "spec": spec}));
    for (spec, expected) in [
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "suspend": false, "method": "barmanObjectStore"}),
            &[][..],
        ),
        (json!({"cluster": {"name": "main"}, "schedule": "0 0 2 * * *", "timeZone": "Europe/Paris"}), &[]),
        (json!({"cluster": {"name": "main"}, "schedule": "0 2 * *"}), &["E spec.schedule InvalidValue"]),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "timeZone": "Paris"}),
            &["E spec.timeZone InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "concurrencyPolicy": "forbid"}),
            &["E spec.concurrencyPolicy InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "startingDeadlineSeconds": -1}),
            &["E spec.startingDeadlineSeconds InvalidValue"],
        ),
        (
            json!({"cluster": {"name": "main"}, "schedule": "0 2 * * *", "timezone": "UTC"}),
            &["W spec.timezone UnknownField"],
        ),
        (json!({"cluster": {"name": "main"}}), &["E spec.schedule MissingField"]),
    ] {
        assert_eq!(brief(&of(spec.clone())), expected, "{spec}");
    }
}
