//! The origin of a configured value, for messages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The place where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File {
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => {
                write!(formatter, "in {}, line {line}, column {column}", path.display())
            }
            Self::Variable(name) => write!(formatter, "in the environment variable {name}"),
            Self::Flag(flag) => write!(formatter, "on the command line ({flag})"),
        }
    }
}

/// The origin of each value, by its key: `backup.jobs`, `repo.url` for the first repository and `repo.2.url` for the
/// next.
#[derive(Clone, Debug)]
pub struct Origins {
    file: PathBuf,
    by_key: BTreeMap<String, Origin>,
}

impl Origins {
    /// Without values; `file` is the file that is read.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), by_key: BTreeMap::new() }
    }

    /// The configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Records where `key` was last written.
    pub fn set(&mut self, key: impl Into<String>, origin: Origin) {
        self.by_key.insert(key.into(), origin);
    }

    /// Where `key`, or the table that contains it, was written.
    pub fn get(&self, key: &str) -> Option<&Origin> {
        self.by_key.get(key).or_else(|| self.get(key.rsplit_once('.')?.0))
    }
}

/// The full name of a key of the repository with this index (from 0). For the first repository it has no number, as in
/// its environment variables.
pub fn repository_key(index: usize, key: &str) -> String {
    match index {
        0 => format!("repo.{key}"),
        _ => format!("repo.{}.{key}", index + 1),
    }
}
