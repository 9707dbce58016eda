//! The answers of the configured repositories to one question.
//!
//! If one repository cannot be read, the answers of the others are still printed. The command then fails with the first
//! failure.
//!
//! `verify` and `expire` have their own loops: for `verify` damage counts more than an earlier failure, and `expire`
//! changes the repositories.

use super::Context;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use holdfast_contract::report::{PerRepository, UnreadableRepository};
use std::fmt::Write;

/// The answer of one repository: its text, its part of the report, and the failure of the command despite the answer.
pub(super) type Answer<R> = Result<(String, R, Option<Failure>), Failure>;

/// The answers of all repositories, in their order.
#[derive(Debug)]
pub(super) struct Answers<R> {
    text: String,
    repositories: Vec<PerRepository<R>>,
    failed: Option<Failure>,
}

impl<R> Answers<R> {
    /// No answers yet.
    pub(super) const fn new() -> Self {
        Self { text: String::new(), repositories: Vec::new(), failed: None }
    }

    /// Adds the answer of the repository at `url`. If it cannot be read, `whose` is printed before its URL.
    pub(super) fn add(&mut self, whose: &str, url: String, answer: Answer<R>) {
        let failure = match answer {
            Ok((lines, report, failure)) => {
                self.text.push_str(&lines);
                self.repositories.push(PerRepository::Read(report));
                failure
            }
            Err(failure) => {
                let _ = writeln!(self.text, "{whose}{url}: cannot be read: {failure}");
                self.repositories.push(unreadable(url, &failure));
                Some(failure)
            }
        };
        self.failed = self.failed.take().or(failure);
    }

    /// Prints the answers, and returns the result of the command.
    pub(super) fn print<T: serde::Serialize>(
        self,
        context: &Context,
        report: impl FnOnce(Vec<PerRepository<R>>) -> T,
    ) -> Result<ExitCode, Failure> {
        let Self { text, repositories, failed } = self;
        context.print(|| text, &report(repositories))?;
        failed.map_or(Ok(ExitCode::Ok), Err)
    }
}

/// The report's entry for a repository that cannot be read.
pub(super) fn unreadable<R>(url: String, failure: &Failure) -> PerRepository<R> {
    PerRepository::Unreadable(UnreadableRepository { repository: url, error: failure.brief() })
}
