//! The files that PostgreSQL and Holdfast read, as texts. Pure: the content of Secrets and disk is a parameter.
//!
//! - [`postgresql`]: `postgresql.conf`, the same on primary and standbys, so that a promotion changes none of it
//! - [`access`]: `pg_hba.conf` and `pg_ident.conf`
//! - [`auto_conf`]: what may stay in `postgresql.auto.conf`
//! - [`floor`]: the minimum that a server in recovery needs, and what waits for a restart because of it
//! - [`wire`]: how instances connect to PostgreSQL on each other
//! - [`archive_toml`]: Holdfast's own configuration

pub mod access;
pub mod archive_toml;
pub mod auto_conf;
pub mod floor;
pub mod postgresql;
pub mod wire;

/// A value, quoted for `postgresql.conf` and its connection settings.
pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            c => text.push(c),
        }
    }
    text.push('\'');
    text
}

/// A value inside a libpq connection string.
pub(crate) fn connection_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
