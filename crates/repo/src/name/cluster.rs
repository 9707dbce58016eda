//! The name under which a repository keeps a PostgreSQL cluster's backups and WAL.

use super::{NameError, REPOSITORY_OBJECT, is_name_part};
use std::fmt;
use std::str::FromStr;

/// Name of a cluster: 1 to 63 of `[A-Za-z0-9._-]`, not starting with a dot, and none of the names that the repository
/// itself uses at its top (`keys`, `features`, `holdfast.json`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if !is_name_part(text) {
            return Err(NameError::new(
                "cluster name",
                text,
                "1 to 63 letters, digits, dots, underscores and hyphens, not starting with a dot",
            ));
        }
        if text == "keys" || text == "features" || text == REPOSITORY_OBJECT {
            return Err(NameError::new("cluster name", text, "the repository uses this name itself"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for ClusterName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

super::serde_as_text!(ClusterName);
