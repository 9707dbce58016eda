//! An error in three parts: what happened, what was being done, and what to do.
//!
//! ```text
//! error: WAL segment 000000010000000A000000FF was not archived within 60s
//! while: waiting for the stop LSN A/FF0001C8 of backup 20260822T101500Z
//! hint:  check `archive_command` on the primary and the last failure in pg_stat_archiver
//! ```
//!
//! People get these lines, programs get [`ErrorLine`]. The texts are copied into logs and into the status of Kubernetes
//! objects: [`Problem::read`] splits them again.

use crate::exit_code::ExitCode;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};

/// Width of the labels in characters: the content of each line begins after it.
const INDENT: usize = 7;

/// The name of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// What happened.
    Error,
    /// What was being done.
    While,
    /// What to do.
    Hint,
}

impl Label {
    /// The label with its colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error:",
            Self::While => "while:",
            Self::Hint => "hint:",
        }
    }
}

/// An error in its three parts: lower case, no full stop. The fields have the order in which their keys are printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What to do.
    pub hint: Option<String>,
    /// What happened.
    pub message: String,
    /// What was being done.
    #[serde(rename = "while")]
    pub doing: Option<String>,
}

impl Problem {
    /// A problem with only what happened.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), doing: None, hint: None }
    }

    /// Adds what was being done.
    #[must_use]
    pub fn doing(mut self, doing: impl Into<String>) -> Self {
        self.doing = Some(doing.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The lines, each with its line end; `paint` may colour a label. Further lines of a part are indented under its
    /// first.
    pub fn text(&self, paint: impl Fn(Label) -> String) -> String {
        let parts = [
            (Label::Error, Some(&self.message)),
            (Label::While, self.doing.as_ref()),
            (Label::Hint, self.hint.as_ref()),
        ];
        let mut text = String::new();
        for (label, content) in parts.into_iter().filter_map(|(label, content)| Some((label, content?))) {
            let padding = INDENT - label.as_str().len();
            let lines: Vec<&str> = content.lines().map(str::trim_end).collect();
            let content = lines.join(&format!("\n{:INDENT$}", ""));
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{}{:padding$}{content}", paint(label), "");
        }
        text
    }

    /// Reads a text that [`Self::text`] wrote without colours. A text without labels becomes the part "what happened".
    pub fn read(text: &str) -> Self {
        let mut problem = Self::default();
        let mut part = Label::Error;
        for line in text.lines() {
            let labelled = [Label::Error, Label::While, Label::Hint]
                .into_iter()
                .find_map(|label| Some((label, line.strip_prefix(label.as_str())?)));
            let content = match labelled {
                Some((label, content)) => {
                    part = label;
                    content
                }
                None => line,
            };
            let content = content.trim();
            let text = match part {
                Label::Error => &mut problem.message,
                Label::While => problem.doing.get_or_insert_default(),
                Label::Hint => problem.hint.get_or_insert_default(),
            };
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(content);
        }
        problem
    }
}

impl fmt::Display for Problem {
    /// The lines without colours, and without the last line end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text(|label| label.as_str().to_owned()).trim_end_matches('\n'))
    }
}

/// The first line of a text in three parts, without its label: a short form for one line.
pub fn headline(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix(Label::Error.as_str()).unwrap_or(line).trim()
}

/// `{"error":{"code":52,"hint":"...","message":"...","name":"wal-not-archived","while":"..."}}`: the last line of
/// stderr of a failed command with `--output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorLine {
    /// What a program needs to know of it.
    pub error: ErrorReport,
}

/// An error with its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The number of the table in `docs/exit-codes.md`, even if the exit status differs (`wal get`).
    pub code: u8,
    /// The name of that code.
    pub name: String,
    /// The three parts; absent ones are null.
    #[serde(flatten)]
    pub problem: Problem,
}

/// The short form of an error beside what could be read: the report says what was being done, and one hint is printed
/// at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefError {
    /// The number of the table in `docs/exit-codes.md`.
    pub code: u8,
    /// The name of that code.
    pub name: String,
    /// What happened.
    pub message: String,
}

impl ErrorLine {
    /// The line of a problem.
    pub fn new(code: ExitCode, problem: Problem) -> Self {
        Self { error: ErrorReport::new(code, problem) }
    }
}

impl ErrorReport {
    /// The report of a problem.
    pub fn new(code: ExitCode, problem: Problem) -> Self {
        Self { code: code.number(), name: code.name().to_owned(), problem }
    }

    /// The code, if this release knows it.
    pub fn exit_code(&self) -> Option<ExitCode> {
        ExitCode::from_number(self.code)
    }
}

impl BriefError {
    /// This code, and what happened.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code: code.number(), name: code.name().to_owned(), message: message.into() }
    }
}

impl fmt::Display for ErrorLine {
    /// The line, without its line end; keys are sorted, as in all JSON of Holdfast.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_value(self).map_err(|_| fmt::Error)?.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        for (problem, expected) in [
            (Problem::new("no answer"), "error: no answer"),
            (
                Problem::new("no answer").doing("opening s3://b/p").hint("check the network"),
                "error: no answer\nwhile: opening s3://b/p\nhint:  check the network",
            ),
            (Problem::new("one\ntwo").hint("three\nfour"), "error: one\n       two\nhint:  three\n       four"),
            (Problem::new("no answer").doing("opening error: x"), "error: no answer\nwhile: opening error: x"),
        ] {
            assert_eq!(problem.to_string(), expected);
            assert_eq!(Problem::read(expected), problem, "{expected}");
            assert_eq!(Problem::read(&format!("{expected}\n")), problem, "{expected}");
        }
        assert_eq!(Problem::read("killed"), Problem::new("killed"));
        assert_eq!(Problem::read(""), Problem::new(""));
    }

    #[test]
    fn the_first_line_is_what_happened() {
        for (text, expected) in
            [("error: no space\nwhile: writing\nhint:  grow it", "no space"), ("killed", "killed"), ("", "")]
        {
            assert_eq!(headline(text), expected);
        }
    }

    #[test]
    fn json_has_the_same_parts() {
        let problem = Problem::new("no answer").doing("opening s3://b/p");
        let line = ErrorLine::new(ExitCode::Unreachable, problem);
        let text = "{\"error\":{\"code\":24,\"hint\":null,\"message\":\"no answer\",\"name\":\"unreachable\",\"while\":\"opening s3://b/p\"}}";
        assert_eq!(line.to_string(), text);
        assert_eq!(serde_json::from_str::<ErrorLine>(text).unwrap(), line);
    }

    #[test]
    fn a_code_of_a_later_release_is_read() {
        let text = "{\"error\":{\"code\":98,\"name\":\"new\",\"message\":\"x\",\"later\":[1]}}";
        let read: ErrorLine = serde_json::from_str(text).unwrap();
        assert_eq!((read.error.exit_code(), read.error.problem), (None, Problem::new("x")));
    }
}
