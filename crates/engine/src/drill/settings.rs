//! Settings that keep the restored server from changing anything outside its directory. Pure.
//!
//! A copy of a production server has the same settings. It would archive, listen on the same addresses, connect to the
//! publishers of its subscriptions, run the jobs of preloaded libraries, and overwrite the same process id file. All
//! settings here are on the server's command line, which overrides every file and `ALTER SYSTEM`.

use std::path::Path;

use holdfast_pgtypes::{ControlFile, PgVersion};

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
    ("autovacuum", "off", 13, u16::MAX),
    ("restart_after_crash", "off", 13, u16::MAX),
    // The host may not have the memory of the original twice.
    ("huge_pages", "off", 13, u16::MAX),
    ("shared_buffers", "256MB", 13, u16::MAX),
    ("min_dynamic_shared_memory", "0", 14, u16::MAX),
    ("io_method", "worker", 18, u16::MAX),
    ("summarize_wal", "off", 17, u16::MAX),
    ("cluster_name", "holdfast drill", 13, u16::MAX),
];

/// Settings that nobody may change, because the proof of a drill depends on them. The first four can make PostgreSQL
/// overlook damage; the others keep its log where the drill reads it, in words that it knows.
const HONEST: [(&str, &str, u16, u16); 10] = [
    ("ignore_invalid_pages", "off", 13, u16::MAX),
    ("zero_damaged_pages", "off", 13, u16::MAX),
    ("ignore_checksum_failure", "off", 13, u16::MAX),
    ("ignore_system_indexes", "off", 13, u16::MAX),
    ("logging_collector", "off", 13, u16::MAX),
    ("log_destination", "stderr", 13, u16::MAX),
    ("log_min_messages", "warning", 13, u16::MAX),
    ("log_error_verbosity", "default", 13, u16::MAX),
    ("log_line_prefix", "%m [%p] ", 13, u16::MAX),
    ("lc_messages", "C", 13, u16::MAX),
];

/// Settings that name a path or port of the drill.
const PLACES: [&str; 7] =
    ["data_directory", "config_file", "hba_file", "ident_file", "unix_socket_directories", "port", "restore_command"];

/// What the settings depend on.
#[derive(Debug)]
pub(super) struct Original<'a> {
    pub(super) version: PgVersion,
    /// The directory of the drill.
    pub(super) directory: &'a Path,
    pub(super) pgdata: &'a Path,
    pub(super) has_configuration: bool,
    /// The restored control file and configuration; `None` before the restore.
    pub(super) restored: Option<Restored>,
}

/// What the restored files say about the settings of the original.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) control: ControlFile,
    /// The text of its `postgresql.conf` and `postgresql.auto.conf`.
    pub(super) written: String,
    /// The limit for the temporary files of one session, in kB.
    pub(super) temporary_kilobytes: u64,
}

/// The settings for the command line, in order. If a name appears more than once, the last value is used.
pub(super) fn server(original: &Original<'_>, own: &[(String, String)]) -> Result<Vec<(String, String)>, Error> {
    let Original { version, directory, pgdata, has_configuration, ref restored } = *original;
    let major = version.major();
    let of = |table: &[(&str, &str, u16, u16)]| {
        let known = table.iter().filter(|(_, _, from, to)| (*from..=*to).contains(&major));
        known.map(|(name, value, _, _)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let place = |name: &str, path: &Path| (name.to_owned(), path.to_string_lossy().into_owned());
    let mut settings = of(&USUAL);
    settings.extend(restored.iter().flat_map(|restored| of_original(version, restored)));
    for (name, value) in own {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let is_in = |table: &[(&str, &str, u16, u16)]| table.iter().any(|(fixed, ..)| *fixed == plain);
        let why = if PLACES.contains(&plain.as_str()) || is_in(&ISOLATING) || plain.starts_with("recovery_") {
            "keeps the restored server apart from the living one"
        } else if is_in(&HONEST) {
            "belongs to what a drill proves"
        } else {
            settings.push((plain, value.clone()));
            continue;
        };
        return Err(Cause::Refused(format!("the setting {name} {why}, and cannot be changed")).into());
    }
    settings.extend(of(&ISOLATING));
    settings.extend(of(&HONEST));
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

/// Limits for prepared transactions (at least this many) and for replication origins in the WAL, if the configuration
/// does not name them.
const PREPARED: u32 = 100;
const ORIGINS: &str = "1000";

/// Settings that replay needs as large as they were on the original, unless the restored configuration names them. The
/// original's files may be elsewhere, as with Debian's packages, or its command line may have had them, as with
/// Patroni. The control file has most of them, from the time when the backup began.
fn of_original(version: PgVersion, restored: &Restored) -> Vec<(String, String)> {
    let Restored { control, written, temporary_kilobytes } = restored;
    let number = |value: u32| value.to_string();
    let mut known = vec![
        ("max_connections", number(control.max_connections)),
        ("max_worker_processes", number(control.max_worker_processes)),
        ("max_wal_senders", number(control.max_wal_senders)),
        ("max_locks_per_transaction", number(control.max_locks_per_transaction)),
        ("max_prepared_transactions", number(control.max_prepared_transactions.max(PREPARED))),
        ("track_commit_timestamp", if control.track_commit_timestamp { "on" } else { "off" }.to_owned()),
        ("wal_level", control.wal_level.to_string()),
        // The first one limits the origins of subscriptions; since 18 the second one does.
        ("max_replication_slots", ORIGINS.to_owned()),
    ];
    if version >= PgVersion::V18 {
        known.push(("max_active_replication_origins", ORIGINS.to_owned()));
    }
    let unnamed = known.into_iter().filter(|(name, _)| !names(written, name));
    let temporary = ("temp_file_limit", format!("{temporary_kilobytes}kB"));
    unnamed.chain([temporary]).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Whether a configuration names a setting, outside of comments.
fn names(written: &str, setting: &str) -> bool {
    let first = |line: &str| {
        let end = line.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(line.len());
        line.get(..end).is_some_and(|name| name.eq_ignore_ascii_case(setting))
    };
    written.lines().any(|line| first(line.trim_start()))
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

/// The options of each session. `ALTER ROLE` and `ALTER DATABASE` override the server's command line, but not these
/// options.
pub(super) fn session(version: PgVersion, read_only: bool) -> String {
    let read_only = if read_only { "on" } else { "off" };
    let mut words = format!(
        "-c session_preload_libraries= -c local_preload_libraries= -c default_transaction_read_only={read_only} \
         -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c datestyle=ISO \
         -c zero_damaged_pages=off -c ignore_checksum_failure=off -c ignore_system_indexes=off"
    );
    if version >= PgVersion::V14 {
        words.push_str(" -c idle_session_timeout=0");
    }
    if version >= PgVersion::V17 {
        words.push_str(" -c transaction_timeout=0 -c event_triggers=off");
    } else {
        // Event triggers cannot be switched off as a whole. In this role, those for normal sessions do not fire.
        words.push_str(" -c session_replication_role=replica");
    }
    words
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn original(version: PgVersion, restored: Option<Restored>) -> Original<'static> {
        let (directory, pgdata) = (Path::new("/d"), Path::new("/d/data"));
        Original { version, directory, pgdata, has_configuration: true, restored }
    }

    fn of(version: PgVersion, own: &[(&str, &str)]) -> Result<Vec<(String, String)>, Error> {
        let own: Vec<_> = own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        server(&original(version, None), &own)
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
            "Zero-Damaged-Pages",
            "ignore_invalid_pages",
            "log_min_messages",
        ] {
            let error = of(PgVersion::V18, &[(name, "x")]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let settings = of(PgVersion::V18, &[("shared_preload_libraries", "timescaledb"), ("shared_buffers", "1GB")]);
        let settings = settings.unwrap();
        assert_eq!(last(&settings, "shared_preload_libraries"), Some("timescaledb"));
        assert_eq!(last(&settings, "shared_buffers"), Some("1GB"));
    }

    #[test]
    fn damage_is_not_overlooked_on_any_version() {
        for version in PgVersion::ALL {
            let settings = of(version, &[]).unwrap();
            for name in
                ["ignore_invalid_pages", "zero_damaged_pages", "ignore_checksum_failure", "ignore_system_indexes"]
            {
                assert_eq!(last(&settings, name), Some("off"), "{name} on {version}");
            }
            let session = session(version, true);
            for (words, known) in [
                ("-c zero_damaged_pages=off", true),
                ("-c statement_timeout=0", true),
                ("-c idle_session_timeout=0", version >= PgVersion::V14),
                ("-c transaction_timeout=0", version >= PgVersion::V17),
                ("-c event_triggers=off", version >= PgVersion::V17),
                ("-c session_replication_role=replica", version < PgVersion::V17),
            ] {
                assert_eq!(session.contains(words), known, "{words} on {version}: {session}");
            }
        }
    }

    #[test]
    fn the_original_says_what_replay_needs() {
        let control = |version: PgVersion| {
            let name = format!("../pgtypes/tests/fixtures/pg_control.{}", version.major());
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            ControlFile::parse(&std::fs::read(path).unwrap()).unwrap()
        };
        let restored = |version, written: &str| {
            let mut control = control(version);
            control.max_prepared_transactions = 700;
            control.track_commit_timestamp = true;
            let restored = Restored { control, written: written.to_owned(), temporary_kilobytes: 4096 };
            server(&original(version, Some(restored)), &[("max_wal_senders".to_owned(), "3".to_owned())]).unwrap()
        };
        let settings = restored(PgVersion::V18, "# max_prepared_transactions = 0\nmax_connections = 300\n");
        for (name, value) in [
            ("max_prepared_transactions", Some("700")),
            ("track_commit_timestamp", Some("on")),
            ("wal_level", Some("replica")),
            ("max_replication_slots", Some("1000")),
            ("max_active_replication_origins", Some("1000")),
            // The first is in the restored configuration, and the user sets the second.
            ("max_connections", None),
            ("max_wal_senders", Some("3")),
            ("temp_file_limit", Some("4096kB")),
        ] {
            assert_eq!(last(&settings, name), value, "{name}");
        }
        let settings = restored(PgVersion::V15, " Max_Prepared_Transactions=5\n");
        assert_eq!(last(&settings, "max_prepared_transactions"), None);
        assert_eq!(last(&settings, "max_active_replication_origins"), None);
    }
}
