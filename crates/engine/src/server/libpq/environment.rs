//! What the process of the caller gives to libpq.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What the caller's process provides for libpq: the engine never reads its environment by itself.
#[derive(Clone, Default)]
pub struct Environment {
    /// Variables that begin with `PG`.
    pub variables: BTreeMap<String, String>,
    /// The home directory, for `~/.pgpass` and the like.
    pub home: Option<PathBuf>,
    /// The name of the user who runs the process.
    pub user: Option<String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be passwords.
        f.debug_struct("Environment").field("variables", &self.variables.keys()).finish_non_exhaustive()
    }
}

impl Environment {
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A file below the home directory.
    pub(super) fn at_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}
