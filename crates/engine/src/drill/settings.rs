//! Settings that keep the restored server from changing anything outside its directory. Pure.
//!
//! A copy of a production server has the same settings. It would archive, listen on the same addresses, connect to the
//! publishers of its subscriptions, run the jobs of preloaded libraries, and overwrite the same process id file. All
//! settings here are on the server's command line, which overrides every file and `ALTER SYSTEM`.

use std::path::Path;

use holdfast_pgtypes::PgVersion;

use super::directory::PORT;
use crate::error::{Cause, Error};

/// Settings that isolate the copy and that nobody may change, with the first and the last major version that has them.
const ISOLATING: [(&str, &str, u16, u16); 22] = [
    ("listen_addresses", "", 13, u16::MAX),
    ("unix_socket_permissions", "0700", 13, u16::MAX),
    ("unix_socket_group", "", 13, u16::MAX),
    ("bonjour", "off", 13, u16::MAX),
    ("ssl", "off", 13, u16::MAX),
    ("archive_mode", "off", 13, u16::MAX),
    ("archive_command", "", 13, u16::MAX),
    ("archive_library", "", 15, u16::MAX),
    // Commands for the archive of the original server, and its replay delay.
    ("archive_cleanup_command", "", 13, u16::MAX),
    ("recovery_end_command", "", 13, u16::MAX),
    ("recovery_min_apply_delay", "0", 13, u16::MAX),
    ("primary_conninfo", "", 13, u16::MAX),
    ("primary_slot_name", "", 13, u16::MAX),
    // Otherwise a commit would wait for a standby that never connects.
    ("synchronous_standby_names", "", 13, u16::MAX),
    // Subscriptions: without the launcher, no worker connects to a publisher.
    ("max_logical_replication_workers", "0", 13, u16::MAX),
    ("sync_replication_slots", "off", 17, u16::MAX),
    // Login triggers could act in every session.
    ("event_triggers", "off", 17, u16::MAX),
    // The process id file of the production server.
    ("external_pid_file", "", 13, u16::MAX),
    // A directory of the production server: Debian's packages set it to /var/run/postgresql.
    ("stats_temp_directory", "pg_stat_tmp", 13, 14),
    // Without hot standby, no setting must be as large as on the primary, and no session sees the copy before its
    // target.
    ("hot_standby", "off", 13, u16::MAX),
    ("session_preload_libraries", "", 13, u16::MAX),
    ("local_preload_libraries", "", 13, u16::MAX),
];

/// Settings that also isolate the copy, but that the user may need to change.
const USUAL: [(&str, &str, u16, u16); 9] = [
    // Libraries can start background workers: schedulers such as pg_cron, collectors, and so on. If WAL replay or a
    // table needs a library, the user must set it.
    ("shared_preload_libraries", "", 13, u16::MAX),
    ("logging_collector", "off", 13, u16::MAX),
    ("log_destination", "stderr", 13, u16::MAX),
    ("autovacuum", "off", 13, u16::MAX),
    ("restart_after_crash", "off", 13, u16::MAX),
    ("huge_pages", "try", 13, u16::MAX),
    ("summarize_wal", "off", 17, u16::MAX),
    ("cluster_name", "holdfast drill", 13, u16::MAX),
    ("lc_messages", "C", 13, u16::MAX),
];

/// Settings that name a path or port of the drill.
const PLACES: [&str; 7] =
    ["data_directory", "config_file", "hba_file", "ident_file", "unix_socket_directories", "port", "restore_command"];

/// The settings for the command line, in order. If a name appears more than once, the last value is used.
pub(super) fn server(
    version: PgVersion,
    directory: &Path,
    pgdata: &Path,
    has_configuration: bool,
    own: &[(String, String)],
) -> Result<Vec<(String, String)>, Error> {
    let major = version.major();
    let of = |table: &[(&str, &str, u16, u16)]| {
        let known = table.iter().filter(|(_, _, from, to)| (*from..=*to).contains(&major));
        known.map(|(name, value, _, _)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let place = |name: &str, path: &Path| (name.to_owned(), path.to_string_lossy().into_owned());
    let mut settings = of(&USUAL);
    for (name, value) in own {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let is_fixed = PLACES.contains(&plain.as_str()) || ISOLATING.iter().any(|(fixed, ..)| *fixed == plain);
        if is_fixed || plain.starts_with("recovery_") {
            return Err(Cause::Refused(format!(
                "the setting {name} isolates the restored server from the production server, and cannot be changed"
            ))
            .into());
        }
        settings.push((plain, value.clone()));
    }
    settings.extend(of(&ISOLATING));
    // `data_directory` in the restored `postgresql.conf` would be that of the production server.
    settings.push(place("data_directory", pgdata));
    if !has_configuration {
        settings.push(place("config_file", &directory.join(CONFIGURATION)));
    }
    settings.push(place("hba_file", &directory.join(HBA)));
    settings.push(place("ident_file", &directory.join(IDENT)));
    settings.push(place("unix_socket_directories", directory));
    settings.push(("port".to_owned(), PORT.to_string()));
    Ok(settings)
}

/// Our `postgresql.conf`, used if the backup has none because the original server has it in another directory.
pub(super) const CONFIGURATION: &str = "postgresql.conf";

/// Our `pg_hba.conf`: the original one may require passwords, or may not be in the backup. The socket is in a directory
/// that only the server's own user can enter.
pub(super) const HBA: &str = "pg_hba.conf";

/// The content of our `pg_hba.conf`.
pub(super) const HBA_TEXT: &str = "local all all trust\n";

/// Our `pg_ident.conf`, empty.
pub(super) const IDENT: &str = "pg_ident.conf";

/// The settings of a session. They override those of `ALTER ROLE` and `ALTER DATABASE`.
pub(super) fn session(read_only: bool) -> String {
    let read_only = if read_only { "on" } else { "off" };
    format!(
        "-c session_preload_libraries= -c local_preload_libraries= -c default_transaction_read_only={read_only} \
         -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c datestyle=ISO"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn of(version: PgVersion, own: &[(&str, &str)]) -> Result<Vec<(String, String)>, Error> {
        let own: Vec<_> = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        server(version, Path::new("/d"), Path::new("/d/data"), true, &own)
    }

    fn last<'s>(settings: &'s [(String, String)], name: &str) -> Option<&'s str> {
        settings.iter().rfind(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_copy_is_isolated_on_every_version() {
        for version in PgVersion::ALL {
            let settings = of(version, &[]).unwrap();
            for (name, value) in [
                ("listen_addresses", ""),
                ("archive_mode", "off"),
                ("max_logical_replication_workers", "0"),
                ("shared_preload_libraries", ""),
                ("data_directory", "/d/data"),
                ("unix_socket_directories", "/d"),
                ("external_pid_file", ""),
                ("primary_conninfo", ""),
                ("synchronous_standby_names", ""),
            ] {
                assert_eq!(last(&settings, name), Some(value), "{name} on {version}");
            }
            assert_eq!(last(&settings, "archive_library").is_some(), version >= PgVersion::V15);
            assert_eq!(last(&settings, "event_triggers").is_some(), version >= PgVersion::V17);
            assert_eq!(last(&settings, "stats_temp_directory").is_some(), version < PgVersion::V15);
            assert_eq!(last(&settings, "config_file"), None);
        }
    }

    #[test]
    fn a_setting_that_isolates_cannot_be_changed() {
        for name in [
            "listen_addresses",
            "Archive-Mode",
            "archive_cleanup_command",
            "DATA_DIRECTORY",
            "restore_command",
            "recovery_target_action",
        ] {
            let error = of(PgVersion::V18, &[(name, "x")]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let settings = of(PgVersion::V18, &[("shared_preload_libraries", "timescaledb"), ("shared_buffers", "1GB")]);
        let settings = settings.unwrap();
        assert_eq!(last(&settings, "shared_preload_libraries"), Some("timescaledb"));
        assert_eq!(last(&settings, "shared_buffers"), Some("1GB"));
    }
}
