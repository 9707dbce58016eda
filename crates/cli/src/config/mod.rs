//! Configuration, in two steps.
//!
//! 1. **What was written** ([`written`]): the TOML file ([`file`](mod@file)), overridden by the environment
//!    ([`environment`]), overridden by flags. Only the form is checked: keys are known, numbers are numbers. The origin
//!    of each value is kept ([`origin`]), so that every error names the file and line, the variable or the flag.
//! 2. **What it means** ([`validated`]): validated types, built by destructuring the written ones completely, so that
//!    no new key can be forgotten. Still no I/O: paths are absolute, but nothing was opened.
//!
//! If any value is wrong, the whole configuration is refused before a command does anything. Only connection strings
//! are parsed where they are used ([`libpq`]): an error in one must not stop the archiver, which does not connect.
//! `docs/configuration.md` describes the keys, and a test compares it with the types.

pub mod environment;
mod error;
pub mod file;
pub mod libpq;
pub mod origin;
pub mod reader;
pub mod repository;
pub mod units;
pub mod validated;
pub mod written;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use validated::Config;

use origin::Origins;
use std::path::{Path, PathBuf};
use written::Written;

/// The path of the file, if neither `--config` nor `HOLDFAST_CONFIG` names one.
pub const DEFAULT_FILE: &str = "/etc/holdfast/holdfast.toml";

/// The variable with the path of the file.
pub const FILE_VARIABLE: &str = "HOLDFAST_CONFIG";

/// A configuration and the path of its file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// The path of the file, absolute; `None` without a file.
    pub file: Option<PathBuf>,
}

/// Reads file and environment, overrides them with `flags` (values with the flags' names), and validates.
///
/// A file that is named must exist. The default file may be missing, since the environment can set everything.
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: Vec<(Written, &'static str, &'static str)>,
) -> Result<Loaded, ConfigError> {
    let named = file.map(Path::to_path_buf).or_else(|| {
        environment
            .iter()
            .find(|(name, value)| name == FILE_VARIABLE && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value))
    });
    let (path, text) = match named {
        Some(path) => {
            let text = read(&path)?;
            (path, Some(text))
        }
        None => match read(Path::new(DEFAULT_FILE)) {
            Ok(text) => (PathBuf::from(DEFAULT_FILE), Some(text)),
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                (PathBuf::from(DEFAULT_FILE), None)
            }
            Err(error) => return Err(error),
        },
    };
    let config = from_text(&path, text.as_deref().unwrap_or_default(), environment, flags)?;
    // PostgreSQL calls from its own directory, so the path must be absolute.
    let file = text.map(|_| std::path::absolute(&path).unwrap_or(path));
    Ok(Loaded { config, file })
}

/// Whether this configuration file itself has a secret in it: a secret key, or a password in a connection string.
pub fn holds_secret(path: &Path) -> bool {
    let Ok(text) = read(path) else { return false };
    file::parse(path, &text, &mut Origins::new(path)).is_ok_and(|written| written.holds_secret())
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| {
        let (valid, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let origin = file::place(path, &String::from_utf8_lossy(bytes.get(..valid).unwrap_or_default()), valid);
        ConfigError::NotUtf8 { origin, byte: bytes.get(valid).copied().unwrap_or_default() }
    })
}

/// [`load`] with the text of the file.
pub fn from_text(
    path: &Path,
    text: &str,
    environment: &[(String, String)],
    flags: Vec<(Written, &'static str, &'static str)>,
) -> Result<Config, ConfigError> {
    let mut origins = Origins::new(path);
    let mut written = file::parse(path, text, &mut origins)?;
    environment::overlay(&mut written, environment, &mut origins)?;
    for (values, key, flag) in flags {
        origins.set(key, origin::Origin::Flag(flag.to_owned()));
        written.overlay(values);
    }
    validated::validate(written, &origins)
}
