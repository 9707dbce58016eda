//! [`ConfigError`]: why a piece of configuration is not valid.

/// Why a piece of configuration is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what}: {reason}")]
pub struct ConfigError {
    /// The setting, with its value unless that is secret.
    pub what: String,
    /// What is wrong with the setting, as text for people.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into() }
    }
}
