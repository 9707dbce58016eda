//! `spec.postgresql.parameters`: settings that Holdfast manages, settings unknown to PostgreSQL, and invalid values.
//!
//! PostgreSQL does not start with an unknown setting, and logs that only in a pod that keeps restarting. Here it is
//! reported before. The settings of each version are in `settings.tsv`, which `scripts/settings-table` reads from its
//! servers. Settings with a dot belong to extensions and are not checked.

use super::finding::{Findings, Reason};
use super::similar::nearest;
use crate::cluster::ClusterSpec;
use crate::quantity;
use holdfast_pgtypes::PgVersion;
use std::sync::LazyLock;

/// The major versions of PostgreSQL that Holdfast supports.
pub const SUPPORTED_MAJORS: std::ops::RangeInclusive<u16> = PgVersion::OLDEST.major()..=PgVersion::NEWEST.major();

/// Settings that the instance manager makes itself. A spec may contain one only with a value that it would have anyway.
pub const MANAGED_SETTINGS: &[&str] = &[
    "allow_system_table_mods",
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "bonjour",
    "bonjour_name",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "full_page_writes",
    "hba_file",
    "hosts_file",
    "hot_standby",
    "ident_file",
    "lc_messages",
    "listen_addresses",
    "log_destination",
    "log_line_prefix",
    "logging_collector",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "restore_command",
    "shared_preload_libraries",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_key_file",
    "synchronous_standby_names",
    "syslog_facility",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_level",
    "wal_log_hints",
];

/// Whether a setting is one of [`MANAGED_SETTINGS`], in any case of letters.
pub fn is_managed(name: &str) -> bool {
    MANAGED_SETTINGS.iter().any(|managed| managed.eq_ignore_ascii_case(name))
}

/// Managed settings, with the values that they have in any case and that a spec may therefore contain.
const SO_ANYWAY: &[(&str, &[&str])] = &[
    ("archive_mode", &["on", "always"]),
    ("full_page_writes", &["on"]),
    ("hot_standby", &["on"]),
    ("listen_addresses", &["*"]),
    ("logging_collector", &["off"]),
    ("port", &["5432"]),
    ("recovery_target_timeline", &["latest"]),
    ("ssl", &["on"]),
    ("synchronous_standby_names", &[""]),
    ("wal_level", &["replica", "logical"]),
    ("wal_log_hints", &["on"]),
];

/// WAL senders in addition to those of the standbys: a base backup of a joining standby with its WAL.
const OTHER_SENDERS: i64 = 2;

/// One setting as some versions of PostgreSQL know it.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    name: &'static str,
    first_major: u16,
    last_major: u16,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Switch,
    Text,
    Choice(Vec<&'static str>),
    Number { whole: bool, unit: Option<&'static str>, least: f64, most: f64 },
}

static SETTINGS: LazyLock<Vec<Setting>> =
    LazyLock::new(|| include_str!("settings.tsv").lines().filter_map(setting_of_line).collect());

fn setting_of_line(line: &'static str) -> Option<Setting> {
    let columns: Vec<&'static str> = line.split('\t').collect();
    let [name, versions, kind, unit, least, most, values] = columns.as_slice() else { return None };
    let (oldest, newest) = versions.split_once('-')?;
    let kind = match *kind {
        "bool" => Kind::Switch,
        "string" => Kind::Text,
        "enum" => Kind::Choice(values.split('|').collect()),
        number => Kind::Number {
            whole: number == "integer",
            unit: (*unit != "-").then_some(*unit),
            least: least.parse().ok()?,
            most: most.parse().ok()?,
        },
    };
    Some(Setting { name, first_major: oldest.parse().ok()?, last_major: newest.parse().ok()?, kind })
}

impl Setting {
    fn is_known_to(&self, major: Option<u16>) -> bool {
        major.is_none_or(|major| (self.first_major..=self.last_major).contains(&major))
    }
}

/// Checks the settings, and corrects what is clear.
pub(super) fn check(spec: &mut ClusterSpec, major: Option<u16>, findings: &mut Findings) {
    let base = "spec.postgresql.parameters";
    if let Some(mode) = spec.postgresql.parameters.get_mut("io_method")
        && mode.eq_ignore_ascii_case("async")
    {
        findings.warn(
            format!("{base}.io_method"),
            Reason::ReadAsMeant,
            "`async` is not a value of `io_method`; `worker` is used, which reads asynchronously",
            "write `worker`, or `io_uring` where image and kernel have it",
        );
        "worker".clone_into(mode);
    }
    let instances = i64::from(spec.instances);
    for (name, value) in &spec.postgresql.parameters {
        let path = format!("{base}.{name}");
        let small = name.to_ascii_lowercase();
        if is_managed(&small) {
            managed(&small, value, &path, findings);
        } else if !name.contains('.') {
            known(&small, value, major, &path, findings);
        }
        // The least value of each setting that the standbys need.
        let needed = match small.as_str() {
            "max_wal_senders" => instances - 1 + OTHER_SENDERS,
            "max_replication_slots" => instances - 1,
            _ => continue,
        };
        if value.trim().parse::<i64>().is_ok_and(|number| number < needed) {
            findings.error(
                path,
                Reason::Conflict,
                format!("{value} is too few for {instances} instances"),
                format!("write {needed} or more, or leave it out to use 32"),
            );
        }
    }
    risky(spec, findings);
    memory(spec, findings);
}

fn managed(name: &str, value: &str, path: &str, findings: &mut Findings) {
    let so_anyway = SO_ANYWAY.iter().any(|(known, values)| {
        let on = values.contains(&"on") && switch(value) == Some(true);
        let off = values.contains(&"off") && switch(value) == Some(false);
        *known == name && (on || off || values.contains(&value.trim().to_ascii_lowercase().as_str()))
    });
    if so_anyway {
        findings.warn(
            path,
            Reason::NoEffect,
            format!("`{name}` is set by the instance manager, to a value that has the same effect"),
            "leave it out",
        );
        return;
    }
    let hint = match name {
        "shared_preload_libraries" => "write the libraries into `spec.postgresql.shared_preload_libraries`",
        "archive_command" | "archive_library" | "archive_mode" => "archiving is set by `spec.backup.barmanObjectStore`",
        "wal_level" => "standbys and the archive need `replica` or `logical`; leave it out to use `logical`",
        "synchronous_standby_names" => "replication is asynchronous; leave it out",
        "restore_command" => {
            "standbys and recoveries read the archive of `spec.backup.barmanObjectStore` or of the source"
        }
        name if name.starts_with("recovery_target") => {
            "recovery targets are written into `spec.bootstrap.recovery.recoveryTarget`"
        }
        name if name.starts_with("ssl") => {
            "the operator creates the certificates: Secrets `<cluster>-ca` and `<cluster>-server`"
        }
        "log_destination" | "logging_collector" | "log_line_prefix" | "syslog_facility" => {
            "the log goes to the pod's standard output as JSON; leave it out"
        }
        _ => "leave it out",
    };
    findings.error(
        path,
        Reason::ManagedSetting,
        format!("`{name}` is set by the instance manager and cannot be changed"),
        hint,
    );
}

fn known(name: &str, value: &str, major: Option<u16>, path: &str, findings: &mut Findings) {
    let of_that_name = || SETTINGS.iter().filter(|setting| setting.name.eq_ignore_ascii_case(name));
    let Some(setting) = of_that_name().rfind(|setting| setting.is_known_to(major)) else {
        let version = major.map_or_else(|| "PostgreSQL".to_owned(), |major| format!("PostgreSQL {major}"));
        let hint = match (
            of_that_name().map(|setting| setting.first_major).min(),
            of_that_name().map(|setting| setting.last_major).max(),
        ) {
            (Some(first), _) if major.is_some_and(|major| major < first) => {
                format!("it is available in PostgreSQL {first} and later")
            }
            (_, Some(last)) => format!("it was available until PostgreSQL {last}; leave it out"),
            _ => match nearest(
                name,
                SETTINGS.iter().filter(|setting| setting.is_known_to(major)).map(|setting| setting.name),
            ) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "settings of extensions have a dot in their name, such as `pg_stat_statements.max`".to_owned(),
            },
        };
        findings.error(path, Reason::InvalidSetting, format!("{version} has no setting `{name}`"), hint);
        return;
    };
    if let Err((problem, hint)) = fits(&setting.kind, value) {
        findings.error(path, Reason::InvalidSetting, format!("`{name}` cannot be `{value}`: {problem}"), hint);
    }
}

/// Whether PostgreSQL accepts a value; if not, the reason, and what to write.
fn fits(kind: &Kind, value: &str) -> Result<(), (String, String)> {
    let value = value.trim();
    match kind {
        Kind::Text => Ok(()),
        Kind::Switch if switch(value).is_some() => Ok(()),
        Kind::Switch => Err(("it is a boolean".to_owned(), "write `on` or `off`".to_owned())),
        Kind::Choice(values) => {
            // A choice that includes `on` accepts all words of a switch, and a choice of message levels accepts
            // `debug`.
            let is_choice = values.iter().any(|choice| choice.eq_ignore_ascii_case(value));
            let is_switch = values.contains(&"on") && switch(value).is_some();
            let is_level = values.contains(&"debug1") && value.eq_ignore_ascii_case("debug");
            if is_choice || is_switch || is_level {
                return Ok(());
            }
            let hint = nearest(value, values.iter().copied()).map_or_else(
                || format!("write one of `{}`", values.join("`, `")),
                |near| format!("did you mean `{near}`?"),
            );
            Err(("it is not one of its values".to_owned(), hint))
        }
        Kind::Number { whole, unit, least, most } => number(value, *whole, *unit, *least, *most),
    }
}

fn number(value: &str, whole: bool, unit: Option<&str>, least: f64, most: f64) -> Result<(), (String, String)> {
    let end = value.find(|character: char| character.is_ascii_alphabetic() && character != 'e' && character != 'E');
    let (number, written_unit) = value.split_at(end.unwrap_or(value.len()));
    let written_unit = written_unit.trim();
    let units = unit.map_or("", units_of);
    let parsed = match number.trim().strip_prefix("0x") {
        Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16).ok().map(f64::from),
        None => number.trim().parse::<f64>().ok().filter(|number| number.is_finite()),
    };
    let Some(parsed) = parsed else {
        let hint =
            if units.is_empty() { "write a number".to_owned() } else { format!("write a number with one of {units}") };
        return Err(("it is a number".to_owned(), hint));
    };
    let factor = match (unit, written_unit) {
        (_, "") => 1.0,
        (None, _) => return Err(("it has no unit".to_owned(), format!("write {}", number.trim()))),
        (Some(unit), written) => match (scale(unit), scale(written)) {
            (Some((family, base)), Some((written_family, factor))) if family == written_family => factor / base,
            _ => {
                let near = units.split(", ").find(|known| {
                    known.eq_ignore_ascii_case(written)
                        || known.eq_ignore_ascii_case(written.trim_end_matches(['i', 'I']))
                        || known.trim_end_matches('B').eq_ignore_ascii_case(written.trim_end_matches(['i', 'I']))
                });
                let hint = near.map_or_else(
                    || format!("units are {units}; capital letters matter"),
                    |near| format!("did you mean `{}{near}`? units are {units}", number.trim()),
                );
                return Err((format!("`{written}` is not one of its units"), hint));
            }
        },
    };
    let scaled = parsed * factor;
    let compared = if whole { scaled.round() } else { scaled };
    if compared < least || compared > most {
        let unit = unit.map_or_else(String::new, |unit| format!(" in units of {unit}"));
        return Err(("it is out of range".to_owned(), format!("the range is {least} to {most}{unit}")));
    }
    Ok(())
}

/// The units that a setting with this base unit accepts.
fn units_of(base: &str) -> &'static str {
    match scale(base) {
        Some((Family::Bytes, _)) => "B, kB, MB, GB, TB",
        Some((Family::Time, _)) => "us, ms, s, min, h, d",
        None => "",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Bytes,
    Time,
}

/// The kind of a unit, and its size in bytes or microseconds. PostgreSQL's units of memory are powers of two, and the
/// case of their letters matters.
fn scale(unit: &str) -> Option<(Family, f64)> {
    let bytes = |bytes: f64| Some((Family::Bytes, bytes));
    let time = |microseconds: f64| Some((Family::Time, microseconds));
    match unit {
        "B" => bytes(1.0),
        "kB" => bytes(1024.0),
        "8kB" => bytes(8192.0),
        "MB" => bytes(1024.0 * 1024.0),
        "16MB" => bytes(16.0 * 1024.0 * 1024.0),
        "GB" => bytes(1024.0 * 1024.0 * 1024.0),
        "TB" => bytes(1024.0 * 1024.0 * 1024.0 * 1024.0),
        "us" => time(1.0),
        "ms" => time(1e3),
        "s" => time(1e6),
        "min" => time(60e6),
        "h" => time(3600e6),
        "d" => time(86400e6),
        _ => None,
    }
}

/// A switch, as `parse_bool` reads it: any unambiguous beginning of a word.
fn switch(value: &str) -> Option<bool> {
    let value = value.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if value == "1" || begins("true", 1) || begins("yes", 1) || value == "on" {
        Some(true)
    } else if value == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}

/// Settings that lose data if a user forgets about them.
fn risky(spec: &ClusterSpec, findings: &mut Findings) {
    for (name, value) in &spec.postgresql.parameters {
        let (bad, message, hint) = match name.to_ascii_lowercase().as_str() {
            "fsync" => (
                switch(value) == Some(false),
                "without fsync a crash of a node leaves a data directory that cannot be trusted",
                "leave it out",
            ),
            "archive_timeout" => (
                value.trim() == "0",
                "a cluster with few writes archives rarely: up to a whole segment of commits is not in the archive",
                "leave it out to use 5min",
            ),
            _ => continue,
        };
        if bad {
            findings.warn(format!("spec.postgresql.parameters.{name}"), Reason::InvalidSetting, message, hint);
        }
    }
}

/// Compares `shared_buffers` with the memory of the container.
#[expect(clippy::cast_precision_loss, reason = "exact for all memory that a machine has")]
fn memory(spec: &ClusterSpec, findings: &mut Findings) {
    let limit = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory"));
    let Some(limit_bytes) = limit.and_then(|limit| quantity::bytes_or_number(&limit.0)) else { return };
    let Some(value) = spec.postgresql.parameters.get("shared_buffers") else { return };
    let end = value.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    let factor = if unit.is_empty() { Some(8192.0) } else { scale(unit.trim()).map(|(_, factor)| factor) };
    if let (Ok(number), Some(factor)) = (number.trim().parse::<f64>(), factor)
        && number * factor >= limit_bytes as f64
    {
        findings.warn(
            "spec.postgresql.parameters.shared_buffers",
            Reason::Conflict,
            format!("{value} is all of the {} that the container may use", spec_memory(spec)),
            "a quarter of the memory is a usual value",
        );
    }
}

fn spec_memory(spec: &ClusterSpec) -> &str {
    spec.resources.as_ref().and_then(|resources| resources.limits.as_ref()?.get("memory")).map_or("", |limit| &limit.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_is_read() {
        let lines = include_str!("settings.tsv").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(SETTINGS.len(), lines);
        assert!(lines > 380, "{lines}");
        for major in SUPPORTED_MAJORS {
            for name in ["work_mem", "shared_buffers", "max_connections", "wal_level", "archive_timeout"] {
                assert!(
                    SETTINGS.iter().any(|setting| setting.name == name && setting.is_known_to(Some(major))),
                    "{name} {major}"
                );
            }
        }
    }

    #[test]
    fn managed_settings_exist() {
        for name in MANAGED_SETTINGS {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "{name}");
        }
        assert!(MANAGED_SETTINGS.is_sorted());
        for (name, _) in SO_ANYWAY {
            assert!(MANAGED_SETTINGS.contains(name), "{name}");
        }
    }

    #[test]
    fn switches_are_unambiguous_words() {
        for (word, expected) in [
            ("on", Some(true)),
            ("ON", Some(true)),
            ("t", Some(true)),
            ("y", Some(true)),
            ("1", Some(true)),
            ("of", Some(false)),
            ("off", Some(false)),
            ("n", Some(false)),
            ("o", None),
            ("", None),
            ("2", None),
            ("enabled", None),
        ] {
            assert_eq!(switch(word), expected, "{word}");
        }
    }
}
