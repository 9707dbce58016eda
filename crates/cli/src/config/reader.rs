//! Reading one value: the parsed value, or an error with its key, its text and its place.

use super::error::ConfigError;
use super::origin::Origins;
use std::path::PathBuf;

/// Parses values; its errors name key, value and place.
pub(super) struct Reader<'o> {
    pub(super) origins: &'o Origins,
}

impl<'o> Reader<'o> {
    /// A reader that knows the places of the values.
    pub(super) fn new(origins: &'o Origins) -> Self {
        Self { origins }
    }

    /// An error about a value.
    pub(super) fn invalid(&self, key: &str, value: Option<&str>, reason: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            key: key.to_owned(),
            value: value.map(str::to_owned),
            origin: self.origins.get(key).cloned(),
            reason: reason.into(),
        }
    }

    /// The parsed value of a text, if it is set.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        value: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = value else { return Ok(None) };
        parse(&text).map(Some).map_err(|reason| self.invalid(key, Some(&text), reason))
    }

    /// An absolute path, if it is set.
    pub(super) fn path(&self, key: &str, value: Option<String>) -> Result<Option<PathBuf>, ConfigError> {
        self.parsed(key, value, absolute)
    }
}

/// A path that does not depend on the current directory: PostgreSQL runs `archive_command` in its data directory.
pub fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err("must be an absolute path".to_owned());
    }
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("must not contain \"..\"".to_owned());
    }
    Ok(path)
}
