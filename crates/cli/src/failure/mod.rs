//! The error report of a command: what happened, what it was doing, what to do.
//!
//! Libraries return their own error enums; here each becomes a [`Failure`]: an [`ExitCode`], a message (with its
//! causes), the current step and a hint. There is a file for each source of errors, so the wording of one crate's
//! errors is in one place. [`present`] prints a failure as text or JSON. `main` prints it, once.

mod engine;
pub mod present;
mod store;
mod usage;

pub use engine::of_doubt;
pub use usage::of_command_line;

use crate::exit_code::ExitCode;
use holdfast_contract::problem::{BriefError, Problem};
use std::error::Error;
use std::fmt;

/// A failed command, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: ExitCode,
    /// What happened: lower case, no full stop.
    pub message: String,
    /// What caused it, outermost first; printed after the message, each after a colon.
    pub causes: Vec<String>,
    /// What was being done.
    pub doing: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with only its message.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), causes: Vec::new(), doing: None, hint: None }
    }

    /// Sets what was being done, unless a nearer step has set it.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Self {
        self.doing.get_or_insert_with(|| doing.into());
        self
    }

    /// Sets what to do, unless it is already set.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Adds the chain of causes that led to `error`. A cause whose text is part of the previous one is left out.
    #[must_use]
    pub fn caused_by(mut self, error: Option<&(dyn Error + 'static)>) -> Self {
        let mut next = error;
        while let Some(cause) = next {
            let text = cause.to_string();
            let before = self.causes.last().unwrap_or(&self.message);
            if !text.is_empty() && !before.contains(&text) {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Message and causes in one line.
    pub fn what(&self) -> String {
        let mut what = self.message.clone();
        for cause in &self.causes {
            what.push_str(": ");
            what.push_str(cause);
        }
        what
    }

    /// The failure in its three parts, with causes.
    pub fn problem(&self) -> Problem {
        Problem { message: self.what(), doing: self.doing.clone(), hint: self.hint.clone() }
    }

    /// The short form, for reports that also contain what could be read.
    pub fn brief(&self) -> BriefError {
        BriefError::new(self.code, self.what())
    }

    /// A fault in Holdfast itself, such as a panic of a task.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Internal, message)
            .hint("this is a fault in holdfast: please report it with the command line and the output of the same command with `-vv`")
    }

    /// The failure of a run that a signal cancelled.
    pub fn cancelled() -> Self {
        Self::new(ExitCode::Cancelled, "cancelled by a signal")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what())
    }
}

impl Error for Failure {}

/// Turns a library's error into a [`Failure`].
pub trait Explain {
    /// The failure with code, message and hint. The caller adds what was being done if the error does not know it.
    fn explain(&self) -> Failure;
}

impl<E: Explain> From<E> for Failure {
    fn from(error: E) -> Self {
        error.explain()
    }
}
