//! Errors in three parts: what happened, what was being done, and what to do.
//!
//! The manager does one of three things with an error, so there are three kinds. The error goes to the log, to the
//! status port and from there to the `Cluster`, always as the same three lines.

use holdfast_contract::exit_code::ExitCode;
use holdfast_contract::problem::{ErrorReport, Problem};
use std::fmt;

/// What the manager does with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Try again soon: a network, or a server that is not there yet.
    Retry,
    /// Report that somebody has to act, and check from time to time whether the cause is gone.
    Stuck,
    /// Do nothing: the manager was told to stop.
    Cancelled,
}

/// A failure in three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the manager does with it.
    pub kind: Kind,
    /// What happened.
    pub what: String,
    /// What was being done: the `while` line.
    pub doing: Option<String>,
    /// What to do: the `hint` line.
    pub hint: Option<String>,
}

/// The usual result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error after which the manager tries again.
    pub fn retry(what: impl Into<String>) -> Self {
        Self { kind: Kind::Retry, what: what.into(), doing: None, hint: None }
    }

    /// An error after which somebody has to act.
    pub fn stuck(what: impl Into<String>) -> Self {
        Self { kind: Kind::Stuck, what: what.into(), doing: None, hint: None }
    }

    /// The error of a manager that was told to stop.
    pub fn cancelled() -> Self {
        Self { kind: Kind::Cancelled, what: "the instance is shutting down".to_owned(), doing: None, hint: None }
    }

    /// The error with which a verb ended. An exit code of a later release counts as one that may pass by itself.
    pub fn of_verb(error: ErrorReport) -> Self {
        let stuck = error.exit_code().is_some_and(ExitCode::is_stuck);
        let Problem { message, doing, hint } = error.problem;
        Self { kind: if stuck { Kind::Stuck } else { Kind::Retry }, what: message, doing, hint }
    }

    /// An error about a file.
    pub fn file(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::retry(format!("cannot {action} {}: {error}", path.display()))
    }

    /// An error of a system call.
    pub fn system(action: &str, errno: rustix::io::Errno) -> Self {
        Self::retry(format!("cannot {action}: {}", std::io::Error::from(errno)))
    }

    /// Adds what was being done, unless it is already set.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Self {
        self.doing.get_or_insert(doing.into());
        self
    }

    /// Adds what to do, unless it is already set.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problem = Problem { message: self.what.clone(), doing: self.doing.clone(), hint: self.hint.clone() };
        problem.fmt(formatter)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_contract::problem::ErrorLine;

    #[test]
    fn a_verb_s_code_says_whether_somebody_has_to_act() {
        for code in ExitCode::ALL {
            let line = ErrorLine::new(*code, Problem::new("x").doing("y").hint("z"));
            let error = Error::of_verb(line.error);
            assert_eq!(error.kind == Kind::Stuck, code.is_stuck(), "{code}");
            assert_eq!(error.to_string(), "error: x\nwhile: y\nhint:  z");
        }
        let mut later = ErrorLine::new(ExitCode::Usage, Problem::new("x")).error;
        later.code = 98;
        assert_eq!(Error::of_verb(later).kind, Kind::Retry);
    }

    #[test]
    fn three_parts_and_the_first_words_win() {
        let error =
            Error::stuck("the volume holds another cluster").doing("looking at it").doing("starting").hint("empty it");
        assert_eq!(error.to_string(), "error: the volume holds another cluster\nwhile: looking at it\nhint:  empty it");
    }
}
