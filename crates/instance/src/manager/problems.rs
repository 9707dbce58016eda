//! What could not be kept up to date on a server that runs: the last error of each task, until the task succeeds.
//!
//! None of these errors stops the server or makes it a failed one. Another instance would meet the same Secret, the
//! same setting and the same archive.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// A task of housekeeping, the most urgent first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// PostgreSQL's settings and access rules, and certificates.
    Files,
    /// The password of this role.
    Password(String),
    /// Free space of the volumes.
    Space,
    /// The configuration of the archive.
    Archive,
    /// Replication slots.
    Slots,
}

/// The last error of each task.
#[derive(Debug, Default)]
pub(crate) struct Problems(BTreeMap<Task, Error>);

impl Problems {
    /// A success removes the task's error.
    pub(super) fn record(&mut self, task: Task, result: Result<()>) {
        match result {
            Ok(()) => drop(self.0.remove(&task)),
            Err(error) => drop(self.0.insert(task, error)),
        }
    }

    /// Forgets passwords of roles that this instance does not set, and of all roles on a standby.
    pub(super) fn keep_passwords_of(&mut self, roles: &[&str]) {
        self.0.retain(|task, _| match task {
            Task::Password(role) => roles.contains(&role.as_str()),
            _ => true,
        });
    }

    /// The most urgent one.
    pub(super) fn first(&self) -> Option<&Error> {
        self.0.values().next()
    }

    /// What an instance does, with the most urgent problem if there is one.
    pub(super) fn beside(&self, doing: &str) -> String {
        match self.first() {
            Some(Error { what, doing: Some(task), .. }) => format!("{doing}; {task} failed: {what}"),
            Some(Error { what, .. }) => format!("{doing}; {what}"),
            None => doing.to_owned(),
        }
    }
}
